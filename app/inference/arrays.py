"""Network output becomes maps, pseudo-labels and masks: every rule stands here once, in pure numpy, for training and serving.

Maps are float32 (K, H, W) with one map per class in question, labels uint8 (H, W).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from app.inference.labels import BACKGROUND, IGNORE_INDEX, label_of

# It takes (which map is the largest, its value) of any shape and gives labels, uint8 of that shape.
Decide = Callable[[np.ndarray, np.ndarray], np.ndarray]
STRIP_VALUES = 4_000_000  # So many values at most are enlarged at a time.
# Rows of maps are enlarged together up to about so many values: fewer calls take 0.6 ms less at VOC's size, and more values would be enlarged in
# vain beside the borders.
BAND_VALUES = 60_000
NORMALIZE_EPSILON = 1e-5  # DRS, AMR and CCRM divide by the maximum plus this number: cam / (max + 1e-5).


@dataclass(frozen=True)
class _Positions:
    """They hold a linear interpolation in one dimension, with half-pixel centres (align_corners=False) and edges held: the two sources
    that each target lies between, and their weights, float32.
    """

    low: np.ndarray
    high: np.ndarray
    low_weight: np.ndarray
    high_weight: np.ndarray

    @classmethod
    def of(cls, source: int, target: int) -> "_Positions":
        position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
        low = np.minimum(position.astype(int), max(source - 2, 0))
        share = position - low
        return cls(low, np.minimum(low + 1, source - 1), (1 - share).astype(np.float32), share.astype(np.float32))


@lru_cache(maxsize=16)  # A matrix takes 6 MB at 5000 px.
def _interpolation_matrix(source: int, target: int) -> np.ndarray:
    """Return the weights of 1-D linear interpolation, (target, source)."""
    positions = _Positions.of(source, target)
    matrix = np.zeros((target, source), np.float32)
    matrix[np.arange(target), positions.high] = positions.high_weight
    matrix[np.arange(target), positions.low] = positions.low_weight
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


def label_by_thresholds(
    class_indices: tuple[int, ...], background_threshold: float, foreground_threshold: float
) -> Decide:
    """Return what gives a label to the best of the maps of the classes present.

    Args:
        class_indices: the classes of the maps, 0..C-1.
        background_threshold: a pixel whose best map is at or below it is background.
        foreground_threshold: a pixel whose best map is above it takes that map's class; between the two it is "ignore".

    The labels are uint8: 0 for background, `label_of(class_index)`, or 255 for ignore.
    """
    labels = label_of(np.asarray(class_indices)).astype(np.uint8)

    def decide(index: np.ndarray, best: np.ndarray) -> np.ndarray:
        label_map = labels[index]
        label_map[best <= max(background_threshold, foreground_threshold)] = IGNORE_INDEX
        label_map[best <= background_threshold] = BACKGROUND
        return label_map

    return decide


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over the first axis of (K, h, w)."""
    exponent = np.exp(logits - logits.max(axis=0, keepdims=True))
    return exponent / exponent.sum(axis=0, keepdims=True)


def winner(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the values (K, ...) is the largest, the first of equal ones, and the largest itself.

    `argmax` along the first axis says the same in several times the time.
    """
    best = values[0].copy()
    index = np.zeros(best.shape, np.intp)
    for number in range(1, len(values)):
        index[values[number] > best] = number
        np.maximum(best, values[number], out=best)
    return index, best


def enlarged_labels(maps: np.ndarray, height: int, width: int, decide: Decide) -> np.ndarray:
    """Return the labels, uint8 (height, width), that `decide` gives to bilinearly enlarged maps (K, h, w).

    Between four neighbours with one winner and one label everything has that label, so that values are enlarged between
    other neighbours only, along the borders of regions. `decide` may therefore compare the winner with thresholds, and nothing else.
    """
    index, best = winner(maps)
    labels = decide(index, best)
    mixed = _differs_from_next(labels) | _differs_from_next(index)
    rows, columns = _Positions.of(maps.shape[1], height), _Positions.of(maps.shape[2], width)
    label_map = labels.take(columns.low, axis=1).take(rows.low, axis=0)
    wide = maps.take(columns.low, axis=2) * columns.low_weight + maps.take(columns.high, axis=2) * columns.high_weight
    mixed = mixed.take(columns.low, axis=1)
    count, source_height, _ = maps.shape
    starts = np.searchsorted(rows.low, np.arange(source_height + 1))
    band = max(1, BAND_VALUES * source_height // (count * height * width))
    for first in range(0, source_height, band):
        last = min(first + band, source_height)
        where = np.flatnonzero(mixed[first:last].any(axis=0))
        if not where.size:
            continue
        near = wide[:, first : last + 1].take(where, axis=2)
        step = max(1, STRIP_VALUES // (count * where.size))
        for top in range(starts[first], starts[last], step):
            strip = slice(top, min(top + step, starts[last]))
            upper, lower = (near.take(rows_of[strip] - first, axis=1) for rows_of in (rows.low, rows.high))
            values = upper * rows.low_weight[strip, None] + lower * rows.high_weight[strip, None]
            label_map[strip, where] = decide(*winner(values))
    return label_map


def _differs_from_next(values: np.ndarray) -> np.ndarray:
    """Tell of each of (h, w) whether it differs from the next one to the right, below, or below to the right."""
    padded = np.pad(values, ((0, 1), (0, 1)), mode="edge")
    others = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return np.logical_or.reduce([values != other for other in others])


def mask_from_logits(logits: np.ndarray, candidates: np.ndarray, height: int, width: int) -> np.ndarray:
    """Take the arg-max at (height, width) of bilinearly enlarged logits (K, h, w), among the labels `candidates` only.

    The candidates are the labels of the mask the network gave at its own size: a label that wins nowhere there is not
    enlarged.
    """
    return enlarged_labels(logits[candidates], height, width, lambda index, _: candidates[index].astype(np.uint8))
