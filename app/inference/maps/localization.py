"""A photo gets class scores and localization maps, for the service and for the training package.

Every function takes a `Model`: something with a `card` and a `run` from uint8 images (N, H, W, 3) to named arrays. That
is an `app.inference.engine.Engine`, or a torch module behind the same two names.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from app.inference.arrays import normalize_cam, resize_bilinear
from app.inference.class_names import find_class
from app.inference.errors import UnknownClassError
from app.inference.image.preprocess import Geometry, geometry_of, resize_image
from app.inference.maps.class_conditional import ConditionalOptions, class_conditional_maps, uint8_cams
from app.inference.maps.fusion import fuse_maps
from app.inference.maps.pamr import refine_pamr
from app.inference.model_card import ModelCard

Refinement = Literal["none", "pamr"]
KEPT_TYPE = np.dtype("<f4")  # Kept arrays are of this type on every machine.


class Model(Protocol):
    """Predicting needs this of a model: the card, and images -> outputs by name."""

    @property
    def card(self) -> ModelCard: ...

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True)
class ScaleCams:
    """It holds what the network said of one photo at several scales, mirrored views already turned back and added.

    scores: (C,) probabilities, the mean over all views. cams: one float32 array per scale, (C, h_s, w_s), or
    (K, h_s, w_s) of the classes `class_indices`.
    """

    scores: np.ndarray
    cams: tuple[np.ndarray, ...]
    geometry: Geometry
    class_indices: tuple[int, ...] | None = None

    def select(self, class_indices: tuple[int, ...]) -> "ScaleCams":
        """Return the same with the cams of these classes only."""
        known = self.class_indices
        channels = list(class_indices if known is None else map(known.index, class_indices))
        return ScaleCams(self.scores, tuple(cam[channels] for cam in self.cams), self.geometry, class_indices)

    def to_bytes(self) -> bytes:
        """Return all of it, to be kept; `from_bytes` reads it again."""
        arrays = [np.ascontiguousarray(values, KEPT_TYPE) for values in (self.scores, *self.cams)]
        shapes = [values.shape for values in arrays]
        head = json.dumps([shapes, list(vars(self.geometry).values()), self.class_indices]).encode()
        return b"\n".join([head, b"".join(values.tobytes() for values in arrays)])

    @classmethod
    def from_bytes(cls, content: bytes) -> "ScaleCams":
        """Return what `to_bytes` was asked of."""
        head = content.index(b"\n")
        shapes, geometry, class_indices = json.loads(content[:head])
        values = np.frombuffer(content[head + 1 :], KEPT_TYPE)
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        arrays = [part.reshape(shape) for part, shape in zip(np.split(values, ends[:-1]), shapes, strict=True)]
        known = None if class_indices is None else tuple(class_indices)
        return cls(arrays[0], tuple(arrays[1:]), Geometry(*geometry), known)

    def maps(self) -> np.ndarray:
        """Return (K, h, w) in [0, 1): the cams enlarged to the input size, summed, each divided by its own maximum.

        So do the released codes of AMR, EDAM and CCRM.
        """
        height, width = self.geometry.input_height, self.geometry.input_width
        return normalize_cam(np.sum([resize_bilinear(cam, height, width) for cam in self.cams], axis=0))


@dataclass(frozen=True)
class Localization:
    """It holds class scores and maps of one photo. A class's map is made when it is asked for: C of them can fill the memory.

    sources: what every network said of the photo; the maps of several are fused (`app.inference.maps.fusion`), their scores averaged.
    geometry: the photo's size, which may be larger than that of `image`, the photo as decoded, without which nothing is refined.
    `refine` is "none" or "pamr" (`app.inference.maps.pamr`). allowed: the classes that may have a map, the others' are zero; all where None.
    """

    sources: tuple[ScaleCams, ...]
    geometry: Geometry
    image: np.ndarray | None = None
    refine: Refinement = "none"
    allowed: tuple[int, ...] | None = None

    @property
    def scores(self) -> np.ndarray:
        """The probabilities of the classes are (C,)."""
        return np.mean([source.scores for source in self.sources], axis=0)

    @property
    def maps(self) -> np.ndarray:
        """The maps are (C, h, w) float32 in [0, 1), of all classes there are maps of, at the size of the network input."""
        return self.maps_of(self.class_indices)

    @property
    def class_indices(self) -> tuple[int, ...]:
        """These classes have a map: all, or those CCRM was asked for."""
        known = self.sources[0].class_indices
        return tuple(range(len(self.sources[0].scores))) if known is None else known

    def maps_of(self, class_indices: tuple[int, ...]) -> np.ndarray:
        """Return (K, h, w) float32 in [0, 1), of these classes."""
        maps = fuse_maps([source.select(class_indices).maps() for source in self.sources])
        if self.refine == "pamr" and class_indices:
            assert self.image is not None
            maps = refine_pamr(resize_image(self.image, *maps.shape[1:]), maps)
        if self.allowed is not None:
            maps = maps * np.isin(class_indices, self.allowed)[:, None, None]
        return maps


def scale_cams(
    model: Model, image: np.ndarray, scales: tuple[float, ...] | None = None, flip: bool | None = None
) -> ScaleCams:
    """Run a cam model on one uint8 (H, W, 3) photo at every scale; `scales` and `flip` default to the card's."""
    card = model.card
    mirror = card.flip if flip is None else flip
    scores, cams = [], []
    for scale in scales or card.scales:
        size = geometry_of(image.shape, card.preferred_size, scale)
        resized = resize_image(image, size.input_height, size.input_width)
        outputs = model.run(np.stack([resized, resized[:, ::-1]]) if mirror else resized[None])
        cam = outputs["cam"].astype(np.float32, copy=False)
        cams.append(cam[0] + cam[1, :, :, ::-1] if mirror else cam[0])
        scores.append(outputs["scores"].mean(axis=0))
    geometry = geometry_of(image.shape, card.preferred_size)
    return ScaleCams(np.stack(scores).mean(axis=0), tuple(cams), geometry)


def conditional_cams(
    model: Model,
    image: np.ndarray,
    class_indices: tuple[int, ...],
    options: ConditionalOptions | None = None,
    scores: np.ndarray | None = None,
) -> ScaleCams:
    """Return the class-conditional maps (`app.inference.maps.class_conditional`) of these classes of one uint8 (H, W, 3) photo, as plain ones come.

    One (K, h, w) array at the size of the network input, which is the photo that inference splits and erases; `options`
    hold its scales. `scores` are those of plain inference, made here where they are not known.
    """
    geometry = geometry_of(image.shape, model.card.preferred_size)
    resized = resize_image(image, geometry.input_height, geometry.input_width)
    scores = scale_cams(model, image).scores if scores is None else scores
    maps = np.zeros((0, *resized.shape[:2]), np.float32)
    if class_indices:
        maps = class_conditional_maps(uint8_cams(model.run), resized, class_indices, options).maps
    return ScaleCams(scores, (maps,), geometry, class_indices)


@dataclass(frozen=True)
class Inference:
    """It says how maps are made of a photo: by `scale_cams`, or with `conditional` by CCRM.

    `scales` and `flip` default to the card's, for CCRM to those of its paper.
    """

    conditional: bool = False
    scales: tuple[float, ...] | None = None
    flip: bool | None = None

    def options(self) -> ConditionalOptions:
        """Return those of CCRM."""
        chosen = {"scales": self.scales, "flip": self.flip}
        return ConditionalOptions(**{key: value for key, value in chosen.items() if value is not None})  # type: ignore[arg-type]

    def views(self, card: ModelCard) -> tuple[tuple[float, ...], bool]:
        """Return the scales at which a model looks at the photo, and whether it looks at its mirror image too."""
        if self.conditional:
            options = self.options()
            return options.scales, options.flip
        return self.scales or card.scales, card.flip if self.flip is None else self.flip


def localization_map(localization: Localization, class_index: int) -> np.ndarray:
    """Return the map of one class at the photo's own size: float32 (H, W) in [0, 1)."""
    geometry = localization.geometry
    return resize_bilinear(localization.maps_of((class_index,)), geometry.height, geometry.width)[0]


def presence_thresholds(cards: Sequence[ModelCard], asked: float | None = None) -> np.ndarray:
    """Return the score from which each class counts as present (C,): the one asked for, else the class's own.

    The scores of several models are averaged, and so are their thresholds.
    """
    own = np.mean([card.presence_thresholds for card in cards], axis=0)
    return own if asked is None else np.full_like(own, asked)


def present_classes(scores: np.ndarray, thresholds: np.ndarray) -> tuple[int, ...]:
    """Return class indices whose score (C,) reaches the threshold of the class (C,)."""
    return tuple(int(index) for index in np.flatnonzero(scores >= thresholds))


def tagged_classes(card: ModelCard, tags: tuple[str, ...]) -> tuple[int, ...]:
    """Return class indices of tags, sorted. Raises UnknownClassError for a tag the model does not know."""
    return tuple(sorted({class_index(card, tag, "tags") for tag in tags}))


def class_index(card: ModelCard, name: str, parameter: str = "class") -> int:
    """Return the channel of the class that `name` means, which `parameter` gives. Raises UnknownClassError."""
    index = find_class(name, card.classes, card.synonyms)
    if index is None:
        raise UnknownClassError(name, card.classes, parameter)
    return index
