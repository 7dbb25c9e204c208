"""Classes have names and colours here, and nowhere else does a class index become a label or a label a class index.

A `class_index` counts the foreground classes, 0..C-1, in channel order; a `label` is what a mask stores:
0 is background, 1..C are the classes, 255 is "ignore" (left out of every loss and every figure).
"""

from typing import TypeVar

import numpy as np

BACKGROUND = 0
IGNORE_INDEX = 255
# A label map holds this many classes at most: labels are stored as uint8, 0 is the background, and 255 is taken.
MAX_CLASSES = IGNORE_INDEX - 1
MAX_MAP_CLASSES = 10_000  # A model that gives maps alone, which need no labels, may have this many classes.

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

Index = TypeVar("Index", int, np.ndarray)


def label_of(class_index: Index) -> Index:
    """Turn a class index (0..C-1), a number or an integer array, into a label (1..C)."""
    return class_index + 1


def class_index_of(label: Index) -> Index:
    """Turn a label (1..C), a number or an integer array, into a class index (0..C-1); background (0) becomes -1."""
    return label - 1


def label_count(class_count: int) -> int:
    """Return the channels of a segmenter over `class_count` classes: the classes and the background."""
    return class_count + 1


def class_count(label_count: int) -> int:
    """Return the classes of a segmenter with `label_count` channels."""
    return label_count - 1


def voc_palette() -> np.ndarray:
    """Return the 256 RGB colours of PASCAL VOC masks, uint8 (256, 3)."""
    return voc_colours(np.arange(256))


def voc_colours(labels: np.ndarray) -> np.ndarray:
    """Return the RGB colours of integer labels (K,) in 0..2^24 - 1, uint8 (K, 3); no two labels share one.

    Bit i of a channel is taken from bit 3 * (7 - i) + channel of the label, most significant first
    (the `VOClabelcolormap` of the VOC development kit).
    """
    colours = np.zeros((len(labels), 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours
