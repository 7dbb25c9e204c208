"""A segmenter in rounds: after each, its own masks of the training photos help to make the next round's labels.

No mask is read. A photo's pixels can become background or a class it is tagged with, nothing else; that gate, which the
answer to a stranger's photo lacks, is what lets a network teach its successor. The maps keep a share: what both see is
rather true than what either sees.
"""

from pathlib import Path

import numpy as np

from app.inference.arrays import resize_bilinear
from app.inference.label_maps.segmentation import keep_classes, segment_probabilities
from app.inference.labels import label_of
from app.inference.maps.localization import Model
from training.config.run_config import RunConfig
from training.data import TaggedPhotos, open_source
from training.export.served import ServedSegmenter, TorchModel
from training.fit import make_fabric
from training.stages.localize import final_maps, iterate_maps
from training.stages.pseudo_label import blended_maps, label_photo, write_label_map
from training.stages.segmenter import SEGMENTER, fit_segmenter, load_segmenter, segmenter_card


def fit_rounds(config: RunConfig, label_maps: Path) -> Path:
    """Train the segmenter `rounds` times, first on `label_maps`; write `segmenter/weights.pt`, the last one's weights.

    Every round starts where the first did: labels are noisy, and what goes on from its own weights learns the noise. The
    seed of a round is its number on from the run's.
    """
    photos = open_source(config.data)
    fabric = make_fabric(config.segmenter.fit)
    for number in range(1, config.segmenter.rounds):
        folder, labels = f"{SEGMENTER}-{number}", config.out / f"pseudo_labels-{number + 1}"
        if not fabric.broadcast((config.out / folder / "weights.pt").is_file()):
            fit_segmenter(of_round(config, number), label_maps, config.out / folder)
        if fabric.is_global_zero:
            segmenter = load_segmenter(config, len(photos.classes), folder)
            card = segmenter_card(config, photos.classes)
            relabel(TorchModel(ServedSegmenter(segmenter), card, fabric.device), photos, config, labels)
        fabric.barrier()
        label_maps = labels
    return fit_segmenter(of_round(config, config.segmenter.rounds), label_maps, config.out / SEGMENTER)


def of_round(config: RunConfig, number: int) -> RunConfig:
    """The run with the seed of a round, from 1."""
    fit = config.segmenter.fit.model_copy(update={"seed": config.segmenter.seed_of_round(number)})
    return config.model_copy(update={"segmenter": config.segmenter.model_copy(update={"fit": fit})})


def relabel(model: Model, photos: TaggedPhotos, config: RunConfig, out: Path) -> None:
    """Write labels of `train`, from the segmenter and the run's maps, as `out`/NAME.png, where there are none yet."""
    out.mkdir(parents=True, exist_ok=True)
    rule = config.pseudo_label
    for name, stored in iterate_maps(final_maps(config), photos.names("train"), out.name):
        path = out / f"{name}.png"
        if not path.is_file():
            image, indices = photos.image(name), stored.class_indices
            maps = blended_maps(config, name, stored, image.shape[:2])
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
