"""Leaving small regions out, against a fill by hand."""

import numpy as np
import pytest

from app.inference.label_maps.small_regions import without_small_regions
from app.inference.labels import IGNORE_INDEX


def filled(mask: np.ndarray, smallest: int) -> np.ndarray:
    """The same, pixel by pixel."""
    result, seen = mask.copy(), np.zeros(mask.shape, bool)
    for start in zip(*np.nonzero((mask != 0) & (mask != IGNORE_INDEX)), strict=True):
        region, waiting = [], [start]
        while waiting:
            y, x = waiting.pop()
            inside = 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]
            if not inside or seen[y, x] or mask[y, x] != mask[start]:
                continue
            seen[y, x] = True
            region.append((y, x))
            waiting += [(y + down, x + right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
        if len(region) < smallest:
            for place in region:
                result[place] = 0
    return result


@pytest.mark.parametrize("random_seed", range(6))
def test_small_regions_become_background(random_seed: int) -> None:
    generator = np.random.default_rng(random_seed)
    mask = generator.choice(np.array([0, 1, 2, IGNORE_INDEX], np.uint8), (23, 31), p=[0.5, 0.3, 0.15, 0.05])
    for smallest in (2, 5, 20):
        np.testing.assert_array_equal(without_small_regions(mask, smallest / mask.size), filled(mask, smallest))


def test_corners_touch_and_nothing_is_asked() -> None:
    mask = np.diag([1, 1, 1, 0]).astype(np.uint8)
    np.testing.assert_array_equal(without_small_regions(mask, 3 / 16), mask)
    assert not without_small_regions(mask, 4 / 16).any()
    assert without_small_regions(mask, 0) is mask
