"""A segmenter in rounds: its own masks of the training photos, kept to the photos' tags, are the next round's labels.

No mask is read. A photo's pixels can become background or a class it is tagged with, nothing else; that gate, which the
answer to a stranger's photo lacks, is what lets a network teach its successor.
"""

from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from tqdm import tqdm

from app.labels import BACKGROUND, IGNORE_INDEX, label_of
from app.postprocess import enlarged_strips
from app.predict import Model, segment_probabilities
from training.config import RunConfig
from training.data import TaggedPhotos, open_source
from training.pseudo_label import write_label_map
from training.segmenter import SEGMENTER, fit_segmenter, load_segmenter, segmenter_card
from training.served import ServedSegmenter, TorchModel

VIEWS = ((0.75, 1.0, 1.25), True)  # scales, mirroring


def fit_rounds(config: RunConfig, label_maps: Path) -> Path:
    """Train the segmenter `rounds` times, first on `label_maps`; write `segmenter/weights.pt`, the last one's weights."""
    photos = open_source(config.data)
    for number in range(1, config.segmenter.rounds):
        folder = f"{SEGMENTER}-{number}"
        if not (config.out / folder / "weights.pt").is_file():
            fit_segmenter(config, label_maps, config.out / folder)
        segmenter = load_segmenter(config, len(photos.classes), folder)
        device = Fabric(accelerator=config.segmenter.fit.accelerator, devices=1).device
        model = TorchModel(ServedSegmenter(segmenter), segmenter_card(config, photos.classes), device)
        label_maps = relabel(model, photos, config.out / f"pseudo_labels-{number + 1}", config.segmenter.unsure)
    return fit_segmenter(config, label_maps, config.out / SEGMENTER)


def relabel(model: Model, photos: TaggedPhotos, out: Path, unsure: float) -> Path:
    """Write the segmenter's label maps of `train`, kept to the tags, as `out`/NAME.png, where there are none yet."""
    out.mkdir(parents=True, exist_ok=True)
    for name in tqdm(photos.names("train"), desc=out.name, unit="photo", mininterval=5):
        path = out / f"{name}.png"
        if not path.is_file():
            write_label_map(path, tagged_mask(model, photos.image(name), photos.class_indices(name), unsure))
    return out


def tagged_mask(model: Model, image: np.ndarray, class_indices: tuple[int, ...], unsure: float) -> np.ndarray:
    """uint8 (H, W): the best of the background and the tagged classes; 255 where its share among them is below `unsure`."""
    labels = np.array([BACKGROUND, *map(label_of, class_indices)])
    probabilities = segment_probabilities(model, image, *VIEWS)[labels]
    probabilities /= probabilities.sum(axis=0)
    height, width = image.shape[:2]
    mask = np.empty((height, width), np.uint8)
    for rows, enlarged in enlarged_strips(probabilities, height, width):
        mask[rows] = np.where(enlarged.max(axis=0) < unsure, IGNORE_INDEX, labels[enlarged.argmax(axis=0)])
    return mask
