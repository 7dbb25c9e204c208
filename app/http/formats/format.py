"""A format of replies is given a label map, or the maps of classes, with all that can be said of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.inference.image.preprocess import resize_image
from app.inference.label_maps.regions import Region, Shape, region_of
from app.inference.labels import label_of
from app.inference.maps.localization import Localization, localization_map


@dataclass(frozen=True)
class Result:
    """It holds what every format may use. classes: those of the model. image: gives the photo as uint8 (H, W, 3). name: the photo's
    id, or what the client calls its file. shape: how regions are to be given. info: what made the result, as JSON can hold it.
    """

    classes: tuple[str, ...]
    image: Callable[[], np.ndarray]
    name: str
    shape: Shape
    info: Mapping[str, Any] = field(default_factory=dict)

    def image_of(self, height: int, width: int) -> np.ndarray:
        """Return the photo at this size."""
        return resize_image(self.image(), height, width)


@dataclass(frozen=True, kw_only=True)
class Mask(Result):
    """It holds a label map. mask: uint8 (H, W). scores: gives label -> score. arrays: gives everything that can be computed, by name."""

    mask: np.ndarray
    scores: Callable[[], Mapping[int, float]]
    arrays: Callable[[], Mapping[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Maps(Result):
    """It holds the maps of the classes `indices`. scores: (C,) of all classes. size: (height, width) of the result. threshold: maps are
    0 where they do not exceed it. region_threshold: what exceeds it is the region of a class.
    """

    localization: Localization
    indices: tuple[int, ...]
    scores: np.ndarray
    size: tuple[int, int]
    threshold: float | None
    region_threshold: float

    def full_size(self) -> Iterator[np.ndarray]:
        """Yield the maps, float32 (H, W) in [0, 1), one after the other: all of a large photo's would fill the memory."""
        for index in self.indices:
            yield self._cut(localization_map(self.localization, index))

    def input_size(self) -> np.ndarray:
        """Return (K, h, w) float32, the maps at the size of the network input."""
        return self._cut(self.localization.maps_of(self.indices))

    def found(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (class index, bool (H, W) of its region) of every class that has one, one after the other."""
        for index in self.indices:
            where = localization_map(self.localization, index) > self.region_threshold
            if where.any():
                yield index, where

    def regions(self) -> list[Region]:
        """Return the regions of the classes that have one."""
        return [
            region_of(self.classes[index], label_of(index), where, float(self.scores[index]), self.shape)
            for index, where in self.found()
        ]

    def _cut(self, values: np.ndarray) -> np.ndarray:
        return values if self.threshold is None else np.where(values > self.threshold, values, np.float32(0))


@dataclass(frozen=True)
class Format:
    """It is a format of replies. What it cannot show is None: a label map, the map of one class, the maps of several.

    of_present: of all classes it shows those that are held to be in the
    photo. at_full_size: it holds all maps at the photo's size, so that its size is checked before they are made.
    """

    word: str
    media_type: str
    mask: Callable[[Mask], bytes] | None = None
    map: Callable[[Maps], bytes] | None = None
    maps: Callable[[Maps], bytes] | None = None
    of_present: bool = False
    at_full_size: bool = False
