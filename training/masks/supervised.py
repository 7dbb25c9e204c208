"""The fully supervised upper bound is made here: nowhere else do masks of a training split become targets.

A run takes this road only where its file says `[segmenter] labels = "ground-truth"`, and its model card says so. The
simulation of corrections takes the masks of few photos from here, in the place of people.
"""

from pathlib import Path

import numpy as np

from app.inference.labels import label_of
from training.data import DataConfig, TaggedPhotos
from training.masks.ground_truth import GroundTruth
from training.stages.pseudo_label import write_label_map


def write_ground_truth(data: DataConfig, photos: TaggedPhotos, out: Path, names: tuple[str, ...] | None = None) -> None:
    """Write the masks of `names`, those of `train` where left out, as label maps `out`/NAME.png, where `pseudo_labels/`
    would stand otherwise.
    """
    out.mkdir(parents=True, exist_ok=True)
    truth = GroundTruth(data, photos)
    for name in photos.names("train") if names is None else names:
        write_label_map(out / f"{name}.png", truth.mask(name))


def whole_masks(data: DataConfig, photos: TaggedPhotos, names: list[str], count: int) -> tuple[str, ...]:
    """Return the first `count` of the photos whose masks show all classes that the photos are tagged with."""
    truth, found = GroundTruth(data, photos), []
    for name in names:
        labels = {label_of(index) for index in photos.class_indices(name)}
        if truth.has(name) and labels <= set(np.unique(truth.mask(name)).tolist()):
            found.append(name)
        if len(found) == count:
            break
    return tuple(found)
