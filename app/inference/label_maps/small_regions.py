"""Regions that are too small to be meant are left out of a mask: specks beside a thing, and things taken for another."""

import numpy as np

from app.inference.labels import BACKGROUND, IGNORE_INDEX


def without_small_regions(mask: np.ndarray, smallest_share: float) -> np.ndarray:
    """Return a uint8 (H, W) mask whose regions hold at least `smallest_share` of its pixels each; what is smaller is
    background.

    A region is a set of pixels of one class that touch, at corners too. "Ignore" and the background stay.
    """
    if not smallest_share:
        return mask
    starts = np.ones(mask.shape, bool)  # A run of one label begins here, along the rows.
    starts[:, 1:] = mask[:, 1:] != mask[:, :-1]
    runs = np.cumsum(starts, dtype=np.int32).reshape(mask.shape) - np.int32(1)
    labels = mask[starts]
    lengths = np.diff(np.append(np.flatnonzero(starts), mask.size))
    region_of = joined(len(labels), *touching(mask, starts, runs))
    pixels = np.bincount(region_of, lengths, len(labels))[region_of]
    small = (pixels < smallest_share * mask.size) & (labels != BACKGROUND) & (labels != IGNORE_INDEX)
    return np.where(small, np.uint8(BACKGROUND), labels)[runs]


def touching(mask: np.ndarray, starts: np.ndarray, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of runs of one label that touch, each pair at least once: above and below, then at corners alone."""
    upper, lower = mask[:-1], mask[1:]
    below = (upper == lower) & (starts[:-1] | starts[1:])
    pairs = [(runs[:-1][below], runs[1:][below])]
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:, 1:], np.s_[:, :-1])):
        corner = (upper[here] == lower[there]) & (upper[here] != lower[here]) & (upper[here] != upper[there])
        pairs.append((runs[:-1][here][corner], runs[1:][there][corner]))
    first, second = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    return first, second


def joined(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the smallest number in the group of each of 0..count-1, where every pair (first, second) is in one group."""
    lowest = np.arange(count)
    while True:
        one, other = lowest[first], lowest[second]
        if np.array_equal(one, other):
            return lowest
        np.minimum.at(lowest, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(lowest, further := lowest[lowest]):
            lowest = further
