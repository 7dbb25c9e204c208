"""The verb `localize` writes maps of every photo's tagged classes, one small file each.

Plain inference keeps the raw maps of every scale at feature resolution (a few kilobytes), exactly: enlarging and
normalising them again gives what the network gave. The others keep their joined map at a quarter of the network input's
size, as the released code of AMR does.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from app.inference.arrays import resize_bilinear
from app.inference.errors import DataError
from app.inference.files.whole_file import whole_file
from app.inference.image.preprocess import Geometry
from app.inference.maps.localization import ScaleCams, conditional_cams, scale_cams
from training.config.map_tables import LocalizeConfig
from training.config.run_config import RunConfig
from training.data import TaggedPhotos
from training.export.served import TorchModel
from training.fit.device import own_device
from training.methods import Classifier
from training.refinement.advcam import MAP_STRIDE, advcam
from training.stages.classifier import load_classifier, torch_classifier
from training.stages.shard import WHOLE, Shard

# It gives the maps of these class indices of a photo.
Localizer = Callable[[np.ndarray, tuple[int, ...]], "StoredMaps"]


@dataclass(frozen=True)
class StoredMaps:
    """It holds the maps of the tagged classes of one photo; `views.cams` hold K channels, one per entry of `class_indices`.

    finished: there is one map in [0, 1] for each class already, and `maps` leaves its values as they are. The raw maps of plain
    inference are divided by their own maxima instead.
    """

    class_indices: tuple[int, ...]
    views: ScaleCams
    finished: bool = False

    def maps(self) -> np.ndarray:
        """Return (K, h, w) in [0, 1] at the size of the network input."""
        if not self.finished:
            return self.views.maps()
        return resize_bilinear(self.views.cams[0], self.views.geometry.input_height, self.views.geometry.input_width)


def localize_split(config: RunConfig, photos: TaggedPhotos, shard: Shard = WHOLE) -> Path:
    """Localize the run's photos (`TaggedPhotos.labelled_names`), or a shard of them, with its classifier; write
    `cams/NAME.npz`.
    """
    device = own_device(config.classifier.fit)
    classifier = load_classifier(config, len(photos.classes))
    model = torch_classifier(config, photos.classes, classifier, device)
    out = config.out / "cams"
    names = shard.of(photos.labelled_names())
    localize_photos(make_localizer(model, classifier, config.localize), photos, names, out)
    return out


def localize_photos(localize: Localizer, photos: TaggedPhotos, names: tuple[str, ...], out: Path) -> None:
    """Write the maps of these photos' tagged classes as `out`/NAME.npz, where there are none yet."""
    for name in tqdm(names, desc="localize", unit="photo", mininterval=5):
        path = out / f"{name}.npz"
        if not path.is_file():
            save_maps(path, localize(photos.image(name), photos.class_indices(name)))


def make_localizer(model: TorchModel, classifier: Classifier, config: LocalizeConfig) -> Localizer:
    """Return the configured way from a photo to the maps of given classes; `model` serves `classifier`."""

    def plain(image: np.ndarray, indices: tuple[int, ...]) -> StoredMaps:
        return StoredMaps(indices, scale_cams(model, image).select(indices))

    def conditional(image: np.ndarray, indices: tuple[int, ...]) -> StoredMaps:
        views = conditional_cams(model, image, indices, config.conditional)
        return StoredMaps(indices, quartered(views), finished=True)

    def climbed(image: np.ndarray, indices: tuple[int, ...]) -> StoredMaps:
        views = advcam(classifier, image, indices, config.preferred_size, config.climbing)
        return StoredMaps(indices, views, finished=True)

    return {"plain": plain, "class-conditional": conditional, "advcam": climbed}[config.inference]


def quartered(views: ScaleCams) -> ScaleCams:
    """Return the maps of the network input's size at a quarter of it."""
    sides = views.geometry.input_height, views.geometry.input_width
    size = [-(-side // MAP_STRIDE) for side in sides]
    return ScaleCams(views.scores, tuple(resize_bilinear(cam, *size) for cam in views.cams), views.geometry)


def save_maps(path: Path, stored: StoredMaps) -> None:
    """Write one photo's maps, whole or not at all."""
    with whole_file(path) as partial, partial.open("wb") as file:
        arrays: dict[str, Any] = {f"cam{i}": cam for i, cam in enumerate(stored.views.cams)}
        arrays |= {
            "class_indices": np.array(stored.class_indices, int),
            "scores": stored.views.scores,
            "geometry": np.array(list(asdict(stored.views.geometry).values())),
            "finished": np.array(stored.finished),
        }
        np.savez(file, **arrays)


def load_maps(path: Path) -> StoredMaps:
    """Read one photo's maps. Raises DataError where the file is missing."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; run `python -m training localize` first")
    with np.load(path) as stored:
        cams = tuple(stored[f"cam{i}"] for i in range(sum(key.startswith("cam") for key in stored.files)))
        views = ScaleCams(stored["scores"], cams, Geometry(*map(int, stored["geometry"])))
        return StoredMaps(
            tuple(map(int, stored["class_indices"])), views, "finished" in stored.files and bool(stored["finished"])
        )


def final_maps(config: RunConfig) -> Path:
    """Return the folder whose maps become labels: refined ones where the run refines."""
    return config.out / ("cams" if config.refine is None else "refined")


def iterate_maps(directory: Path, names: tuple[str, ...], doing: str) -> Iterator[tuple[str, StoredMaps]]:
    """Yield (name, maps) of photos localized before, with a bar of progress."""
    for name in tqdm(names, desc=doing, unit="photo", mininterval=5):
        yield name, load_maps(directory / f"{name}.npz")
