"""The verb `localize`: multi-scale activation maps of every photo, one small file each.

Kept are the raw maps of the tagged classes at feature resolution (a few kilobytes), exactly: enlarging and normalising
them again gives what the network gave.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from tqdm import tqdm

from app.errors import DataError
from app.predict import Model, ScaleCams, present_classes, scale_cams
from app.preprocess import Geometry
from training.classifier import load_classifier, torch_classifier
from training.config import RunConfig
from training.data import TaggedPhotos, open_source

SUMMARY = "localize.json"  # written last: the folder is whole


@dataclass(frozen=True)
class StoredCams:
    """Cams of the tagged classes of one photo; `views.cams` hold K channels, one per entry of `class_indices`."""

    class_indices: tuple[int, ...]
    views: ScaleCams


def localize_split(config: RunConfig) -> Path:
    """Localize every photo of `train` and `val` with the run's classifier; write `cams/NAME.npz`."""
    out = config.out / "cams"
    photos = open_source(config.data)
    device = Fabric(accelerator=config.classifier.fit.accelerator, devices=1).device
    model = torch_classifier(config, photos.classes, load_classifier(config, len(photos.classes)), device)
    count = 0
    for split in ("train", "val"):
        for name in tqdm(photos.names(split), desc=f"localize {split}", unit="photo", mininterval=5):
            path = out / f"{name}.npz"
            if not path.is_file():
                save_cams(path, localize_tagged(model, photos, name))
            count += 1
    (out / SUMMARY).write_text(json.dumps({"photos": count, "scales": config.localize.scales}))
    return out


def localize_tagged(model: Model, photos: TaggedPhotos, name: str) -> StoredCams:
    """Cams of the classes a photo is tagged with."""
    views = scale_cams(model, photos.image(name))
    class_indices = present_classes(model.card, views.scores, photos.tags(name))
    return StoredCams(class_indices, views.select(class_indices))


def save_cams(path: Path, stored: StoredCams) -> None:
    """Write one photo's cams, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(
            file,
            class_indices=np.array(stored.class_indices, int),
            scores=stored.views.scores,
            geometry=np.array(list(asdict(stored.views.geometry).values())),
            **{f"cam{i}": cam for i, cam in enumerate(stored.views.cams)},
        )
    partial.replace(path)


def load_cams(path: Path) -> StoredCams:
    """Read one photo's cams. Raises DataError where the file is missing."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; run `python -m training localize` first")
    with np.load(path) as stored:
        cams = tuple(stored[f"cam{i}"] for i in range(len(stored.files) - 3))
        views = ScaleCams(stored["scores"], cams, Geometry(*map(int, stored["geometry"])))
        return StoredCams(tuple(map(int, stored["class_indices"])), views)


def iterate_cams(directory: Path, names: tuple[str, ...]) -> Iterator[tuple[str, StoredCams]]:
    """(name, cams) of photos localized before."""
    for name in names:
        yield name, load_cams(directory / f"{name}.npz")
