"""Network output -> maps, pseudo-labels and masks: pure numpy, one rule in one place for training and serving.

Maps are float32 (K, H, W) with one map per class in question, labels uint8 (H, W).
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from app.inference.labels import BACKGROUND, IGNORE_INDEX, label_of

NORMALIZE_EPSILON = 1e-5  # DRS, AMR and CCRM divide by the maximum plus this number: cam / (max + 1e-5).


@lru_cache(maxsize=16)  # a matrix takes 6 MB at 5000 px
def _interpolation_matrix(source: int, target: int) -> np.ndarray:
    """Return (target, source) weights of 1-D linear interpolation, half-pixel centres (align_corners=False), edges
    held.
    """
    position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.minimum(position.astype(int), max(source - 2, 0))
    weight = position - low
    matrix = np.zeros((target, source), np.float32)
    matrix[np.arange(target), low] = 1 - weight
    if source > 1:
        matrix[np.arange(target), low + 1] = weight
    return matrix


def resize_bilinear(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize float maps (K, h, w) to (K, height, width): torch's `interpolate(..., align_corners=False)`.

    Linear interpolation is separable, so it is two matrix products.
    """
    if maps.shape[1:] == (height, width):
        return maps
    rows = _interpolation_matrix(maps.shape[1], height)
    columns = _interpolation_matrix(maps.shape[2], width).T
    return np.matmul(np.matmul(rows, maps.astype(np.float32, copy=False)), columns)


def normalize_cam(maps: np.ndarray) -> np.ndarray:
    """Divide every map (K, H, W) by its own maximum (plus 1e-5) after clipping below zero: values in [0, 1)."""
    positive = np.maximum(maps, 0)
    return positive / (positive.max(axis=(1, 2), keepdims=True) + NORMALIZE_EPSILON)


def pseudo_label(
    maps: np.ndarray, class_indices: tuple[int, ...], background_threshold: float, foreground_threshold: float
) -> np.ndarray:
    """Take the largest of the maps of the classes present, against two constant thresholds.

    Args:
        maps: (K, H, W) in [0, 1], one per entry of `class_indices`, K >= 1.
        class_indices: the classes of the maps, 0..C-1.
        background_threshold: a pixel whose best map is at or below it is background.
        foreground_threshold: a pixel whose best map is above it takes that map's class; between the two it is "ignore".

    Returns:
        uint8 (H, W): 0 for background, `label_of(class_index)`, or 255 for ignore.
    """
    labels = label_of(np.asarray(class_indices)).astype(np.uint8)
    best = maps.max(axis=0)
    label_map = labels[maps.argmax(axis=0)]
    label_map[best <= max(background_threshold, foreground_threshold)] = IGNORE_INDEX
    label_map[best <= background_threshold] = BACKGROUND
    return label_map


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over the first axis of (K, h, w)."""
    exponent = np.exp(logits - logits.max(axis=0, keepdims=True))
    return exponent / exponent.sum(axis=0, keepdims=True)


def enlarged_strips(maps: np.ndarray, height: int, width: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Bilinearly enlarge maps (K, h, w) to (K, height, width) in strips of rows of about 4 million values.

    Yields (rows, (K, len(rows), width)): what makes labelling a 25-megapixel photo affordable.
    """
    rows = _interpolation_matrix(maps.shape[1], height)
    columns = _interpolation_matrix(maps.shape[2], width).T
    step = max(1, 4_000_000 // (width * len(maps)))
    for top in range(0, height, step):
        strip = slice(top, min(top + step, height))
        yield strip, np.matmul(np.matmul(rows[strip], maps), columns)


def mask_from_logits(logits: np.ndarray, candidates: np.ndarray, height: int, width: int) -> np.ndarray:
    """Arg-max at (height, width) of bilinearly enlarged logits (K, h, w), among the labels `candidates` only.

    The candidates are the labels of the mask the network gave at its own size: a label that wins nowhere there is not
    enlarged.
    """
    mask = np.empty((height, width), np.uint8)
    for rows, enlarged in enlarged_strips(logits[candidates], height, width):
        mask[rows] = candidates[enlarged.argmax(axis=0)]
    return mask
