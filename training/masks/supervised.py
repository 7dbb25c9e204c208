"""The fully supervised upper bound: the one place where masks of a training split become targets.

A run takes this road only where its file says `[segmenter] labels = "ground-truth"`, and its model card says so.
"""

from pathlib import Path

from training.data import DataConfig, TaggedPhotos
from training.masks.ground_truth import GroundTruth
from training.stages.pseudo_label import write_label_map


def write_ground_truth(data: DataConfig, photos: TaggedPhotos, out: Path) -> None:
    """Write the masks of `train` as label maps `out`/NAME.png, where `pseudo_labels/` would stand otherwise."""
    out.mkdir(parents=True, exist_ok=True)
    truth = GroundTruth(data, photos)
    for name in photos.names("train"):
        write_label_map(out / f"{name}.png", truth.mask(name))
