"""Localization maps become a pseudo-label: the maps of the classes present compete with a constant background."""

from dataclasses import dataclass

import numpy as np

from app.inference.arrays import enlarged_labels, label_by_thresholds
from app.inference.errors import TooManyClassesError
from app.inference.image.preprocess import resize_image
from app.inference.labels import BACKGROUND, MAX_CLASSES, label_of
from app.inference.maps.pamr import refine_pamr

Thresholds = tuple[float, float]  # They are (background, foreground), both in [0, 1].


@dataclass(frozen=True)
class PseudoLabel:
    """It holds a pseudo-label. label_map: uint8 (H, W) at the photo's size, 255 = ignore. maps: (K, h, w) of the classes it may hold, before refinement.
    scores: (C,). class_indices: of the classes it may hold. thresholds: as used.

    A pixel whose best map is at or below the background threshold is background, above the foreground threshold it takes the
    map's class, between the two it is "ignore".
    """

    label_map: np.ndarray
    maps: np.ndarray
    scores: np.ndarray
    class_indices: tuple[int, ...]
    thresholds: Thresholds


def check_labels(highest: int) -> None:
    """Raise TooManyClassesError where a label map, uint8, cannot hold the label `highest`."""
    if highest > MAX_CLASSES:
        raise TooManyClassesError(
            f"a label map holds the labels 1 to {MAX_CLASSES}, and this model's classes have labels up to {highest}. Ask "
            f"GET /cam for the maps of single classes, or import the model with fewer: --classes NAME,NAME.",
            parameter="model",
            limit=MAX_CLASSES,
        )


def label_from_maps(
    image: np.ndarray | None,
    maps: np.ndarray,
    class_indices: tuple[int, ...],
    thresholds: Thresholds,
    refine: str = "none",
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Return the uint8 label map, of `size` (height, width), of the maps (K, h, w) of the classes present; None is the photo's size. Without
    refinement the photo is not needed where there is a size.

    Refinement runs at the maps' size, on the photo resized to it; the maps are then enlarged, so a large photo gets
    smooth borders.
    """
    if size is None:
        assert image is not None
        size = image.shape[0], image.shape[1]
    height, width = size
    if not class_indices:
        return np.full((height, width), BACKGROUND, np.uint8)
    check_labels(label_of(max(class_indices)))
    if refine == "pamr":
        assert image is not None
        maps = refine_pamr(resize_image(image, *maps.shape[1:]), maps)
    return enlarged_labels(maps, height, width, label_by_thresholds(class_indices, *thresholds))
