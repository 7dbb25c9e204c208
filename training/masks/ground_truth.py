"""True masks serve measuring and the fully supervised upper bound, and nothing else.

Nothing a weakly supervised run uses imports this file: `evaluate`, `report`, `sheet` and `supervised` do.
"""

import unicodedata
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pycocotools import mask as coco_mask

from app.inference.errors import DataError
from app.inference.image.decode import decode_labels
from app.inference.labels import BACKGROUND, IGNORE_INDEX, label_of
from training.config.data import DataConfig, ScenesConfig
from training.data import open_source
from training.data.coco import Instances, photo_name, read_splits
from training.data.folder import require_directory
from training.data.scenes import is_scene, render_mask
from training.data.source import TaggedPhotos, reading
from training.data.voc import voc_root

POLYGON_NUMBERS = 6  # A polygon has three points at least; pycocotools takes 4 numbers for a box.
NO_CROWD = (None, 0, "0", "")  # Exporters write these for a region that is one object.
MAX_COORDINATE = 1e5  # A coordinate may be this far from 0, in px: beyond the longest side that is decoded, and finite.
MASK_DIRECTORIES = ("SegmentationClass", "SegmentationClassAug")  # The first that has the mask is read.


class Masks(Protocol):
    """It reads the masks of one source."""

    def has(self, name: str) -> bool: ...

    def read(self, name: str, size: tuple[int, int]) -> np.ndarray:
        """Return the mask of a photo whose (height, width) is given."""
        ...


class GroundTruth:
    """It reads the masks of the photos of a configuration, checked against photo and classes.

    `photos` is the opened source where the caller has it already.
    """

    def __init__(self, config: DataConfig, photos: TaggedPhotos | None = None) -> None:
        self.photos = photos or open_source(config)
        self._masks = open_masks(config, self.photos.classes)
        self._some_label = False

    def has(self, name: str) -> bool:
        """Tell whether there is a mask for the photo."""
        return self._masks.has(name)

    def mask(self, name: str) -> np.ndarray:
        """Return the mask as uint8 (H, W): labels 0..C, 255 = ignore, the photo's own size. Raises DataError."""
        if not self.has(name):
            raise DataError(f"photo {name!r} has no mask. Add it, or measure a split whose photos all have one.")
        size = self.photos.size(name)
        mask = self._masks.read(name, size)
        if mask.shape != size:
            raise DataError(
                f"mask of {name!r} is {_size(mask.shape)} pixels, its photo {_size(size)} (width x height). "
                f"Save the mask at the photo's size."
            )
        limit = label_of(len(self.photos.classes) - 1)
        too_large = mask[(mask > limit) & (mask != IGNORE_INDEX)]
        if too_large.size:
            raise DataError(
                f"mask of {name!r} holds label {too_large.max()}, the {limit} classes have labels "
                f"up to {limit} ({IGNORE_INDEX} = ignore). Correct the mask, or list all classes in `classes`."
            )
        self._check_drawn(name, mask)
        return mask

    def _check_drawn(self, name: str, mask: np.ndarray) -> None:
        """Raise DataError where a mask of a tagged photo holds 0 and 255 alone and so do all others: pictures in black and
        white, whose white is to be a class.
        """
        if self._some_label or not self.photos.tags(name) or not (mask == IGNORE_INDEX).any():
            self._some_label |= bool(((mask != BACKGROUND) & (mask != IGNORE_INDEX)).any())
            return
        if ((mask == BACKGROUND) | (mask == IGNORE_INDEX)).all():
            others = (
                self._masks.read(other, self.photos.size(other)) for other in self.photos.tag_table if self.has(other)
            )
            if not any(((other != BACKGROUND) & (other != IGNORE_INDEX)).any() for other in others):
                raise DataError(
                    f"mask of {name!r} holds 0 and {IGNORE_INDEX} alone, and so do all others; {IGNORE_INDEX} means 'ignore'. "
                    f"Write the number of the class instead, 1 for {self.photos.classes[0]!r}."
                )
        self._some_label = True


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"


def open_masks(config: DataConfig, classes: tuple[str, ...]) -> Masks:
    """Return the masks that belong to a configuration's photos."""
    if config.source == "scenes":
        return SceneMasks(config.scenes)
    if config.source == "coco":
        return CocoMasks(config, classes)
    return MaskFiles(voc_root(config) if config.source == "voc" else require_directory(config.root))


class MaskFiles:
    """It reads masks that are images whose pixel values are labels, in SegmentationClass/ (or, where missing there, ...Aug/)."""

    def __init__(self, root: Path) -> None:
        self._directories = [root / name for name in MASK_DIRECTORIES]

    def has(self, name: str) -> bool:
        return self._path(name) is not None

    def read(self, name: str, size: tuple[int, int]) -> np.ndarray:
        path = self._path(name)
        assert path is not None, "GroundTruth asks has() first"
        return read_mask(path)

    def _path(self, name: str) -> Path | None:
        forms = dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))))
        paths = (directory / f"{form}.png" for directory in self._directories for form in forms)
        return next((path for path in paths if path.is_file()), None)


def read_mask(path: Path) -> np.ndarray:
    """Return the numbers that a palette or grey image stores, uint8 (H, W). Raises DataError."""
    with reading(f"mask {path}"):
        return decode_labels(path.read_bytes())


class SceneMasks:
    """It draws the exact masks of generated scenes."""

    def __init__(self, config: ScenesConfig) -> None:
        self._config = config

    def has(self, name: str) -> bool:
        return is_scene(self._config, name)

    def read(self, name: str, size: tuple[int, int]) -> np.ndarray:
        return render_mask(self._config, name)


class CocoMasks:
    """It draws masks from COCO annotations: smaller regions lie on top of larger ones, crowd regions are "ignore"."""

    def __init__(self, config: DataConfig, classes: tuple[str, ...]) -> None:
        self._images: dict[str, dict[str, Any]] = {}
        self._annotations: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        labels = {class_name: label_of(class_index) for class_index, class_name in enumerate(classes)}
        for _, instances, _ in read_splits(require_directory(config.root), config):
            self._add(instances, labels)

    def _add(self, instances: Instances, labels: Mapping[str, int]) -> None:
        names = {}
        for image in instances.images:
            name = names[image["id"]] = photo_name(image)
            self._images.setdefault(name, image)
            self._annotations.setdefault(name, [])
        for annotation in instances.annotations:
            label = labels.get(instances.category(annotation))
            photo = names.get(annotation["image_id"])
            if label is not None and photo is not None and self._images[photo]["id"] == annotation["image_id"]:
                self._annotations[photo].append((label, annotation))

    def has(self, name: str) -> bool:
        drawn = (annotation.get("segmentation") for _, annotation in self._annotations.get(name, ()))
        return name in self._images and all(drawn)  # A box without an outline is a tag.

    def read(self, name: str, size: tuple[int, int]) -> np.ndarray:
        image = self._images[name]
        try:
            height, width = int(image["height"]), int(image["width"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise DataError(f"COCO image {image['file_name']!r} states no height and width. Add them.") from None
        if (height, width) != size:
            raise DataError(
                f"COCO image {image['file_name']!r} is stated to have {_size((height, width))} pixels, and the photo has {_size(size)} "
                f"(width x height). Correct `width` and `height`; they are those of the photo upright."
            )
        mask = np.full((height, width), BACKGROUND, np.uint8)
        regions = [
            (annotation.get("iscrowd") not in NO_CROWD, draw_region(annotation, height, width), label)
            for label, annotation in self._annotations[name]
        ]
        regions.sort(key=lambda region: (region[0], region[1].sum()), reverse=True)
        for is_crowd, region, label in regions:
            mask[region] = IGNORE_INDEX if is_crowd else label
        return mask


def draw_region(annotation: dict[str, Any], height: int, width: int) -> np.ndarray:
    """Return the polygons or run lengths of an annotation as bool (H, W). Raises DataError."""
    shape = annotation.get("segmentation")
    region = None
    with suppress(Exception):  # pycocotools raises the base class itself for input it does not know.
        runs = (
            runs_of_polygons(shape, height, width) if isinstance(shape, list) else runs_of_counts(shape, height, width)
        )
        with warnings.catch_warnings():  # pycocotools 2.0.11 predates numpy's `copy` keyword.
            warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
            region = coco_mask.decode(runs).astype(bool)
    if region is None or region.shape != (height, width):
        raise DataError(
            f"COCO annotation {annotation.get('id')}: `segmentation` is no polygon of three points or more and no run "
            f"lengths of a {width} x {height} photo. Correct or remove the annotation."
        )
    return region


def runs_of_polygons(shape: list[Any], height: int, width: int) -> Any:
    """Return the run lengths of polygons; raises for what is none. The time and memory that drawing takes grow with the outline."""
    polygons = [np.asarray(polygon, float) for polygon in shape if len(polygon) >= POLYGON_NUMBERS]
    for polygon in polygons:
        if polygon.ndim != 1 or polygon.size % 2 or not (np.abs(polygon) <= MAX_COORDINATE).all():
            raise ValueError("no polygon")
    return coco_mask.merge(coco_mask.frPyObjects([polygon.tolist() for polygon in polygons], height, width))


def runs_of_counts(shape: Any, height: int, width: int) -> Any:
    """Return run lengths as pycocotools takes them; raises for those of another size, which it would make room for."""
    if [int(side) for side in shape["size"]] != [height, width]:
        raise ValueError("another size")
    counts = shape["counts"]
    if isinstance(counts, list):
        if sum(counts) != height * width or min(counts) < 0:
            raise ValueError("another number of pixels")
        return coco_mask.frPyObjects(shape, height, width)
    return shape
