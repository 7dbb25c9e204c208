"""The agreement-weighted average of several methods' maps."""

import numpy as np

from app.inference.maps.fusion import agreement, fuse_maps


def disc(row: int, column: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """One class's map: a soft blob around a place."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 30.0)[None].astype(np.float32)


def test_weights_by_hand() -> None:
    maps = np.array(
        [[[[1.0, 0.0]]], [[[1.0, 0.5]]], [[[0.0, 1.0]]]], np.float32
    )  # three methods, one class, two pixels
    # the others' means: (.5, .75), (.5, .5), (1, .25); shared .5, 1, .25; joined 1.75, 1.5, 2
    np.testing.assert_allclose(agreement(maps)[:, 0], [0.5 / 1.75, 1 / 1.5, 0.25 / 2], rtol=1e-6)
    weights = agreement(maps)[:, 0]
    expected = (weights[:, None] * maps[:, 0, 0]).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(fuse_maps(list(maps))[0, 0], expected, rtol=1e-6)


def test_the_odd_one_out_counts_less() -> None:
    fused = fuse_maps([disc(8, 8), disc(8, 9), disc(18, 26)])[0]
    mean = np.mean([disc(8, 8), disc(8, 9), disc(18, 26)], axis=0)[0]
    assert fused[8, 8] > mean[8, 8]
    assert fused[18, 26] < mean[18, 26] / 2
    assert fused.min() >= 0
    assert fused.max() <= 1


def test_one_method_stays_as_it_is_and_sizes_may_differ() -> None:
    np.testing.assert_array_equal(fuse_maps([disc(8, 8)]), disc(8, 8))
    small = disc(4, 4, (12, 16))
    assert fuse_maps([disc(8, 8), small]).shape == (1, 24, 32)
    np.testing.assert_allclose(fuse_maps([disc(8, 8), disc(8, 8)]), disc(8, 8), atol=1e-6)


def test_methods_that_share_nothing_are_averaged() -> None:
    left, right = np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2), np.float32)
    left[0, :, 0] = right[0, :, 1] = 1
    np.testing.assert_allclose(fuse_maps([left, right]), 0.5)
    np.testing.assert_array_equal(fuse_maps([np.zeros_like(left)] * 3), 0)
    assert fuse_maps([np.zeros((0, 4, 4), np.float32)] * 2).shape == (0, 4, 4)
