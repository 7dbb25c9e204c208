"""A segmenter in rounds: after each, its own masks of the training photos help to make the next round's labels.

No mask is read. A photo's pixels can become background or a class it is tagged with, nothing else; that gate, which the
answer to a stranger's photo lacks, is what lets a network teach its successor. The maps keep a share: what both see is
rather true than what either sees.
"""

from pathlib import Path

import numpy as np

from app.labels import label_of
from app.postprocess import resize_bilinear
from app.predict import Model
from app.segmentation import keep_classes, segment_probabilities
from training.config import RunConfig
from training.data import TaggedPhotos, open_source
from training.fit import make_fabric
from training.localize import final_maps, iterate_maps
from training.pseudo_label import blend_saliency, label_photo, saliency_of, write_label_map
from training.segmenter import SEGMENTER, fit_segmenter, load_segmenter, segmenter_card
from training.served import ServedSegmenter, TorchModel
from training.tables import FitConfig


def fit_rounds(config: RunConfig, label_maps: Path) -> Path:
    """Train the segmenter `rounds` times, first on `label_maps`; write `segmenter/weights.pt`, the last one's weights.

    Every round starts from the weights of the one before and sees other views. True masks stay what they are.
    """
    photos = open_source(config.data)
    fabric = make_fabric(config.segmenter.fit)
    start: Path | None = None
    for number in range(1, config.segmenter.rounds + 1):
        last = number == config.segmenter.rounds
        folder = config.out / (SEGMENTER if last else f"{SEGMENTER}-{number}")
        weights = folder / "weights.pt"
        if last or not fabric.broadcast(weights.is_file()):
            fit_segmenter(config, label_maps, folder, round_fit(config.segmenter.fit, number), start)
        if not last and not config.supervised:
            label_maps = config.out / f"pseudo_labels-{number + 1}"
            if fabric.is_global_zero:
                segmenter = load_segmenter(config, len(photos.classes), folder.name)
                card = segmenter_card(config, photos.classes)
                relabel(TorchModel(ServedSegmenter(segmenter), card, fabric.device), photos, config, label_maps)
            fabric.barrier()
        start = weights
    return config.out / SEGMENTER / "weights.pt"


def round_fit(fit: FitConfig, number: int) -> FitConfig:
    """A round's settings: a seed of its own."""
    return fit.model_copy(update={"seed": fit.seed + number - 1})


def relabel(model: Model, photos: TaggedPhotos, config: RunConfig, out: Path) -> None:
    """Write labels of `train`, from the segmenter and the run's maps, as `out`/NAME.png, where there are none yet."""
    out.mkdir(parents=True, exist_ok=True)
    rule = config.pseudo_label
    for name, stored in iterate_maps(final_maps(config), photos.names("train"), out.name):
        path = out / f"{name}.png"
        if not path.is_file():
            image, indices = photos.image(name), stored.class_indices
            maps = blend_saliency(stored.maps(), saliency_of(config, name, image.shape[:2]), rule.saliency_share)
            probabilities = segment_probabilities(model, image, (1.0,), flip=False)
            maps = blend_masks(maps, probabilities, indices, rule.background_threshold, config.segmenter.own_share)
            write_label_map(path, label_photo(image, maps, indices, rule))


def blend_masks(
    maps: np.ndarray, probabilities: np.ndarray, class_indices: tuple[int, ...], threshold: float, share: float
) -> np.ndarray:
    """(1 - share) M + share 2 t P, with maps M (K, h, w), the background's threshold t and the segmenter's probabilities.

    P (K, h, w) are those (C + 1, h, w) kept to the photo's classes; one half, where a pixel is as likely a thing as not, is
    put at t, which is that for maps.
    """
    kept = keep_classes(probabilities, class_indices, complete=True)[[label_of(index) for index in class_indices]]
    return (1 - share) * maps + share * 2 * threshold * resize_bilinear(kept, *maps.shape[1:])
