"""The rule "threshold" compares the best map of a pixel with a background and a foreground threshold.

It is the rule of `app.inference.label_maps.pseudo_label`, which the service answers with; the dense CRF and graph cuts are training's own.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from app.inference.arrays import resize_bilinear
from app.inference.label_maps.pseudo_label import label_from_maps
from training.label_rules.rule import PhotoMaps, Rule, Settings
from training.smoothing.crf import refine_crf
from training.smoothing.grabcut import cut_labels


def label(photo: PhotoMaps, settings: Settings, options: Any) -> np.ndarray:
    """Return the uint8 (H, W) label map by two thresholds, of maps refined as `settings.refine` says."""
    background = settings.background_threshold
    if settings.refine == "grabcut":
        return cut_labels(photo.image, photo.maps, photo.class_indices, background)
    foreground = background if settings.foreground_threshold is None else settings.foreground_threshold
    if settings.refine == "crf" and photo.class_indices:
        enlarged = resize_bilinear(photo.maps, *photo.image.shape[:2])
        photo = replace(photo, maps=refine_crf(photo.image, enlarged, background))
    refine = "pamr" if settings.refine == "pamr" else "none"
    return label_from_maps(photo.image, photo.maps, photo.class_indices, (background, foreground), refine)


THRESHOLD = Rule(label, reads_saliency=False, blends=True, refines=("none", "pamr", "crf", "grabcut"), unread=())
