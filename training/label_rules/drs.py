"""The rule "drs" makes pseudo-labels of DRS from maps and a saliency map.

Kim, Han and Kim, "Discriminative Region Suppression for Weakly-Supervised Semantic Segmentation", AAAI 2021,
https://arxiv.org/abs/2103.07246, section "Pseudo-label". With the saliency s, the maps A_k of the tagged classes and t the
background threshold:

    score_0 = [s <= limit];  score_k = A_k where A_k >= t, else 0;  label = argmax of the scores

A pixel is left out ("ignore") where three scores are high at once, or where it is salient and no class claims it.
"""

from typing import Any

import numpy as np

from app.inference.labels import BACKGROUND, IGNORE_INDEX, label_of
from training.label_rules.rule import PhotoMaps, Rule, Settings
from training.smoothing.crf import refine_crf


def label(photo: PhotoMaps, settings: Settings, options: Any) -> np.ndarray:
    """Return the uint8 (H, W) label map of a photo whose maps may be refined before."""
    maps, threshold = photo.full_size(settings.refine), settings.background_threshold
    if settings.refine == "crf" and photo.class_indices:
        maps = refine_crf(photo.image, maps, threshold)
    return drs_pseudo_label(maps, photo.class_indices, photo.salience, threshold, photo.saliency_limit)


def drs_pseudo_label(
    maps: np.ndarray,
    class_indices: tuple[int, ...],
    saliency: np.ndarray,
    threshold: float = 0.2,
    saliency_threshold: int = 50,
    conflict_threshold: float = 0.9,
) -> np.ndarray:
    """Label maps (K, H, W) by the released code's rule; ties go to the lowest label.

    "Ignore" are pixels where three or more scores exceed `conflict_threshold`, and salient pixels that no class claims.

    Args:
        maps: (K, H, W), unbounded above (the refinement net is).
        saliency: uint8 (H, W); salient means > `saliency_threshold`.
    """
    salient = saliency > saliency_threshold
    kept = np.where(maps >= threshold, maps, 0)
    scores = np.concatenate([(1 - salient)[None], kept])
    labels = np.concatenate([[BACKGROUND], label_of(np.asarray(class_indices, int))])
    label_map = labels[scores.argmax(axis=0)]
    conflict = (scores > conflict_threshold).sum(axis=0) > 2
    unclaimed = salient & (label_map == BACKGROUND)
    return np.where(conflict | unclaimed, IGNORE_INDEX, label_map).astype(np.uint8)


DRS = Rule(label)
