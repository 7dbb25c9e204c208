"""Localization maps -> pseudo-label: the maps of the classes present against a constant background."""

from dataclasses import dataclass

import numpy as np

from app.inference.arrays import enlarged_strips, pseudo_label
from app.inference.errors import TooManyClassesError
from app.inference.image.preprocess import resize_image
from app.inference.labels import BACKGROUND, MAX_CLASSES, label_of
from app.inference.maps.localization import (
    PLAIN,
    Inference,
    Localization,
    Model,
    Refinement,
    ScaleCams,
    conditional_cams,
    present_classes,
    scale_cams,
)
from app.inference.maps.pamr import refine_pamr
from app.inference.model_card import ModelCard


@dataclass(frozen=True)
class PseudoLabel:
    """label_map: uint8 (H, W) at the photo's size, 255 = ignore. class_indices: the classes it may hold.
    maps: (K, h, w) of these classes, before refinement. sources: what every network said. thresholds: (background,
    foreground) as used.
    """

    label_map: np.ndarray
    maps: np.ndarray
    sources: tuple[ScaleCams, ...]
    scores: np.ndarray
    class_indices: tuple[int, ...]
    thresholds: tuple[float, float]


@dataclass(frozen=True)
class LabelRule:
    """How maps become a pseudo-label. Both thresholds are in [0, 1]; the card's background threshold where None.

    A pixel whose best map is at or below `background_threshold` is background, above `foreground_threshold` it takes
    the map's class, between the two it is "ignore"; without a `foreground_threshold` nothing is. `refine` is "none" or
    "pamr" (`app.inference.maps.pamr`).
    """

    background_threshold: float | None = None
    foreground_threshold: float | None = None
    refine: Refinement = "none"

    def thresholds(self, card: ModelCard) -> tuple[float, float]:
        """(background, foreground), the card's background threshold filled in."""
        background = card.background_threshold if self.background_threshold is None else self.background_threshold
        return background, background if self.foreground_threshold is None else self.foreground_threshold


def predict_pseudo_label(
    model: Model,
    image: np.ndarray,
    rule: LabelRule,
    *,
    tags: tuple[str, ...] | None = None,
    presence_threshold: float | None = None,
    inference: Inference = PLAIN,
    size: tuple[int, int] | None = None,
    others: tuple[Model, ...] = (),
) -> PseudoLabel:
    """The pseudo-label of one uint8 (H, W, 3) photo: maps of the classes present against a constant background.

    It has the photo's size, or `size` (height, width) for a photo decoded at reduced size. The maps of `others`, models of
    the same classes, are fused with `model`'s.

    `tags` are the photo's image-level labels; without them the classes present are those whose score reaches
    `presence_threshold`, or the card's threshold of the class. Raises TooManyClassesError where the model has more
    classes than a label map can name.
    """
    check_labels(len(model.card.classes))
    models = (model, *others)
    first = PLAIN if inference.conditional else inference  # CCRM's scales are its own
    sources = tuple(scale_cams(each, image, first.scales, first.flip) for each in models)
    scores = np.mean([source.scores for source in sources], axis=0)
    class_indices = present_classes(model.card, scores, tags, presence_threshold)
    if inference.conditional:
        sources = tuple(
            conditional_cams(each, image, class_indices, inference.options(), source.scores)
            for each, source in zip(models, sources, strict=True)
        )
    maps = Localization(sources, sources[0].geometry, image).maps_of(class_indices)
    thresholds = rule.thresholds(model.card)
    label_map = label_from_maps(image, maps, class_indices, thresholds, rule.refine, size)
    return PseudoLabel(label_map, maps, sources, scores, class_indices, thresholds)


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
    image: np.ndarray,
    maps: np.ndarray,
    class_indices: tuple[int, ...],
    thresholds: tuple[float, float],
    refine: str = "none",
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Maps (K, h, w) of the classes present -> uint8 label map of `size` (height, width), the photo's where None.

    Refinement runs at the maps' size, on the photo resized to it; the maps are then enlarged, so a large photo gets
    smooth borders.
    """
    height, width = size or image.shape[:2]
    label_map = np.full((height, width), BACKGROUND, np.uint8)
    if not class_indices:
        return label_map
    check_labels(label_of(max(class_indices)))
    if refine == "pamr":
        maps = refine_pamr(resize_image(image, *maps.shape[1:]), maps)
    for rows, enlarged in enlarged_strips(maps, height, width):
        label_map[rows] = pseudo_label(enlarged, class_indices, *thresholds)
    return label_map
