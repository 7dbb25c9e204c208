"""A segmenter makes the mask of a photo, at one size or as the mean of several views. Training uses it as well."""

from collections.abc import Callable
from functools import cached_property

import numpy as np

from app.inference.arrays import enlarged_labels, mask_from_logits, resize_bilinear, softmax, winner
from app.inference.image.preprocess import geometry_of, resize_image
from app.inference.label_maps.regions import count_labels
from app.inference.labels import BACKGROUND, IGNORE_INDEX, label_of
from app.inference.maps.localization import Model, Refinement, presence_thresholds, present_classes
from app.inference.maps.pamr import refine_pamr

# A better and slower answer takes these scales of the preferred size, with their mirrors.
TEST_SCALES = (0.75, 1.0, 1.25)
LEAST_PROBABILITY = 1e-7  # A class that is known to be in a photo has at least this probability there.


class Segmentation:
    """It holds a mask, uint8 (H, W) at the photo's size. What else a reply may want is worked out when it is read.

    class_scores: the probability (C,) that the whole photo shows a class, of a model that gives `scores`, else None.
    """

    def __init__(
        self, mask: np.ndarray, probabilities: Callable[[], np.ndarray], class_scores: np.ndarray | None = None
    ) -> None:
        self.mask = mask
        self.class_scores = class_scores
        self._probabilities = probabilities

    def with_mask(self, mask: np.ndarray) -> "Segmentation":
        """Return the same with another mask, made of this one."""
        return Segmentation(mask, lambda: self.probabilities, self.class_scores)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """The probabilities are (C + 1, h, w), of all labels, background first, before refinement."""
        return self._probabilities()

    @cached_property
    def scores(self) -> dict[int, float]:
        """The score of a label is the mean probability over its pixels."""
        return mean_scores(self.mask, self.probabilities)


def segment(
    model: Model,
    image: np.ndarray,
    size: tuple[int, int] | None = None,
    *,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    class_indices: tuple[int, ...] | None = None,
    complete: bool = True,
    presence_threshold: float | None = None,
    threshold: float = 0.0,
    below: int = BACKGROUND,
    refine: Refinement = "none",
) -> Segmentation:
    """Return the mask of one uint8 (H, W, 3) photo at its own size, or at `size` (height, width) if decoded at reduced
    size.

    Where nothing else is asked for the mask is the network's own.

    Args:
        scales, flip: views of the photo, whose probabilities are averaged.
        class_indices, complete: the classes known to be in the photo, and whether that is all of them (`keep_classes`). Any
            class where None, but of a model that gives `scores` those alone that reach their presence threshold, or
            `presence_threshold`; their pixels are weighed by the scores (`image_level_prior`).
        threshold: a pixel whose best probability lies below it gets the label `below`.
        refine: "pamr" refines the probabilities of the labels that win somewhere by the look of the photo.
    """
    height, width = size or image.shape[:2]
    if scales == (1.0,) and not flip and class_indices is None and not threshold and refine == "none":
        return own_mask(model, image, (height, width), presence_threshold)
    probabilities, class_scores = segment_probabilities(model, image, scales, flip)
    if class_indices is not None:
        probabilities = keep_classes(probabilities, class_indices, complete)
    elif class_scores is not None:
        present = present_classes(class_scores, presence_thresholds([model.card], presence_threshold))
        weighed = probabilities * np.exp(image_level_prior(class_scores, model.card.presence_weight))
        probabilities = keep_classes(weighed, present, complete=False)
    geometry = geometry_of(image.shape, model.card.preferred_size)
    input_size = geometry.input_height, geometry.input_width
    candidates = np.union1d(BACKGROUND, mask_from_logits(probabilities, np.arange(len(probabilities)), *input_size))
    chosen = probabilities[candidates]
    if refine == "pamr":
        chosen = refine_pamr(resize_image(image, *input_size), resize_bilinear(chosen, *input_size))

    def decide(index: np.ndarray, best: np.ndarray) -> np.ndarray:
        labels = candidates[index].astype(np.uint8)
        return np.where(best < threshold, np.uint8(below), labels) if threshold else labels

    return Segmentation(enlarged_labels(chosen, height, width, decide), lambda: probabilities, class_scores)


def own_mask(model: Model, image: np.ndarray, size: tuple[int, int], presence_threshold: float | None) -> Segmentation:
    """Return the mask of one view at `size` (height, width). A model that gives `scores` loses the labels of the classes
    that do not reach their presence threshold, or `presence_threshold`, and its other labels are weighed by the scores.
    """
    outputs = run_views(model, image, 1.0, mirror=False)
    logits = outputs["logits"][0].astype(np.float32, copy=False)
    class_scores = outputs["scores"][0] if "scores" in outputs else None
    if class_scores is not None and model.card.presence_weight:
        logits = logits + image_level_prior(class_scores, model.card.presence_weight)
    candidates = np.flatnonzero(count_labels(winner(logits)[0].astype(np.uint8)))
    left: tuple[int, ...] | None = None  # These classes are left where some of those in the mask are not present.
    if class_scores is not None:
        present = present_classes(class_scores, presence_thresholds([model.card], presence_threshold))
        allowed = np.array([BACKGROUND, *map(label_of, present)])
        if not np.isin(candidates, allowed).all():
            left = present
            candidates = allowed[np.unique(winner(logits[allowed])[0])]

    def probabilities() -> np.ndarray:
        return softmax(logits) if left is None else keep_classes(softmax(logits), left, complete=False)

    return Segmentation(mask_from_logits(logits, candidates, *size), probabilities, class_scores)


def image_level_prior(class_scores: np.ndarray, weight: float) -> np.ndarray:
    """Return what the labels' logits change by what the whole photo shows: (C + 1, 1, 1), of the probabilities (C,) of the classes.

    A class that is less likely in the photo than not loses `weight` times its log odds, and no other gains anything: what is certain
    to be there may be small. So a pixel's label is decided by the pixel and by the photo together (Shotton, Johnson and Cipolla, "Semantic
    Texton Forests for Image Categorization and Segmentation", CVPR 2008, where the prior's power is our weight).
    """
    probable = np.clip(class_scores, LEAST_PROBABILITY, 0.5)
    return np.concatenate([[0.0], weight * np.log(probable / (1 - probable))])[:, None, None].astype(np.float32)


def masks_at_input_size(logits: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the output `mask` of a model, uint8 (N, H, W): the arg-max of logits (N, C + 1, h, w) enlarged to its input's size."""
    labels = np.arange(logits.shape[1])
    return np.stack([mask_from_logits(each.astype(np.float32, copy=False), labels, height, width) for each in logits])


def mean_scores(mask: np.ndarray, probabilities: np.ndarray) -> dict[int, float]:
    """Return, for every label of a mask but 255, the mean of its probability (C + 1, h, w) over its pixels.

    Its pixels are those at the probabilities' size; a label that has none there gets its largest probability.
    """
    coarse = probabilities.argmax(axis=0)
    scores = {}
    for label in np.flatnonzero(count_labels(mask)):
        if label != IGNORE_INDEX:
            where, region = coarse == label, probabilities[label]
            scores[int(label)] = float(region[where].mean() if where.any() else region.max())
    return scores


def keep_classes(probabilities: np.ndarray, class_indices: tuple[int, ...], complete: bool) -> np.ndarray:
    """Return probabilities (C + 1, h, w) where the photo is known to have these classes and, where they are `complete`,
    no other.

    Then what was another class's is theirs, shared out as they stand to one another, and the background keeps its own: a
    pixel that looks like a thing is one still. Else background and classes share it. No class: background everywhere.
    """
    kept = np.zeros_like(probabilities)
    present = [label_of(index) for index in class_indices]
    if not present:
        kept[BACKGROUND] = 1
    elif complete:
        shares = probabilities[present] + LEAST_PROBABILITY
        kept[BACKGROUND] = probabilities[BACKGROUND]
        kept[present] = shares * ((1 - kept[BACKGROUND]) / shares.sum(axis=0))
    else:
        known = [BACKGROUND, *present]
        shares = probabilities[known] + LEAST_PROBABILITY
        kept[known] = shares / shares.sum(axis=0)
    return kept


def segment_probabilities(
    model: Model, image: np.ndarray, scales: tuple[float, ...], flip: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return probabilities (C + 1, h, w) of a segmenter, and those of the classes in the whole photo (C,) where it
    gives them.

    Both are means over all scales and, with `flip`, their mirrors. (h, w) is the size of the logits at the preferred size,
    where that is among the scales, else at the first.
    """
    views: list[np.ndarray] = []
    class_scores: list[np.ndarray] = []
    for scale in scales:
        outputs = run_views(model, image, scale, flip)
        logits = outputs["logits"].astype(np.float32, copy=False)
        if "scores" in outputs:
            class_scores.extend(outputs["scores"])
        views.append(softmax(logits[0]))
        if flip:
            views[-1] = (views[-1] + softmax(logits[1])[:, :, ::-1]) / 2
    height, width = views[scales.index(1.0) if 1.0 in scales else 0].shape[1:]
    probabilities = np.mean([resize_bilinear(view, height, width) for view in views], axis=0)
    return probabilities, np.mean(class_scores, axis=0) if class_scores else None


def run_views(model: Model, image: np.ndarray, scale: float, mirror: bool) -> dict[str, np.ndarray]:
    """Return the network's outputs for one uint8 (H, W, 3) photo at `scale` times the preferred size, and for its
    mirror.
    """
    size = geometry_of(image.shape, model.card.preferred_size, scale)
    resized = resize_image(image, size.input_height, size.input_width)
    return model.run(np.stack([resized, resized[:, ::-1]]) if mirror else resized[None])
