"""A segmenter in rounds: its own masks of the training photos, kept to the photos' tags, are the next round's labels.

No mask is read. A photo's pixels can become background or a class it is tagged with, nothing else; that gate, which the
answer to a stranger's photo lacks, is what lets a network teach its successor.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from app.labels import IGNORE_INDEX
from app.predict import Model
from app.segmentation import TEST_SCALES, segment
from training.config import RunConfig
from training.data import TaggedPhotos, open_source
from training.fit import make_fabric
from training.pseudo_label import write_label_map
from training.segmenter import SEGMENTER, fit_segmenter, load_segmenter, segmenter_card
from training.served import ServedSegmenter, TorchModel


def fit_rounds(config: RunConfig, label_maps: Path) -> Path:
    """Train the segmenter `rounds` times, first on `label_maps`; write `segmenter/weights.pt`, the last one's weights."""
    photos = open_source(config.data)
    fabric = make_fabric(config.segmenter.fit)
    for number in range(1, config.segmenter.rounds):
        folder, labels = f"{SEGMENTER}-{number}", config.out / f"pseudo_labels-{number + 1}"
        if not fabric.broadcast((config.out / folder / "weights.pt").is_file()):
            fit_segmenter(config, label_maps, config.out / folder)
        if fabric.is_global_zero:
            segmenter = load_segmenter(config, len(photos.classes), folder)
            card = segmenter_card(config, photos.classes)
            relabel(
                TorchModel(ServedSegmenter(segmenter), card, fabric.device), photos, labels, config.segmenter.unsure
            )
        fabric.barrier()
        label_maps = labels
    return fit_segmenter(config, label_maps, config.out / SEGMENTER)


def relabel(model: Model, photos: TaggedPhotos, out: Path, unsure: float) -> None:
    """Write the segmenter's label maps of `train`, kept to the tags, as `out`/NAME.png, where there are none yet."""
    out.mkdir(parents=True, exist_ok=True)
    for name in tqdm(photos.names("train"), desc=out.name, unit="photo", mininterval=5):
        path = out / f"{name}.png"
        if not path.is_file():
            image, indices = photos.image(name), photos.class_indices(name)
            write_label_map(path, tagged_mask(model, image, indices, unsure))


def tagged_mask(model: Model, image: np.ndarray, class_indices: tuple[int, ...], unsure: float) -> np.ndarray:
    """uint8 (H, W): the best of the background and the tagged classes; 255 where its share among them is below `unsure`."""
    limits = {"threshold": unsure, "below": IGNORE_INDEX}
    return segment(model, image, scales=TEST_SCALES, flip=True, class_indices=class_indices, **limits).mask
