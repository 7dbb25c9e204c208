"""PAMR: an average over neighbours that look alike."""

import numpy as np

from app.inference.maps.pamr import refine_pamr


def test_constant_maps_stay_constant() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    refined = refine_pamr(image, np.full((2, 20, 30), 0.3, np.float32))
    assert np.allclose(refined, 0.3, atol=1e-5)


def test_map_follows_the_edge_of_the_photo() -> None:
    image = np.zeros((24, 24, 3), np.uint8)
    image[:, 12:] = 255
    blurred = np.linspace(0, 1, 24, dtype=np.float32)[None, None].repeat(24, axis=1)
    refined = refine_pamr(image, blurred)[0]
    across = refined[12, 13] - refined[12, 10]
    assert across > 2 * (blurred[0, 12, 13] - blurred[0, 12, 10])
    assert refined.min() >= 0
    assert refined.max() <= 1


def test_photo_smaller_than_the_largest_dilation() -> None:
    refined = refine_pamr(np.zeros((3, 2, 3), np.uint8), np.ones((1, 3, 2), np.float32))
    assert refined.shape == (1, 3, 2)
    assert np.isfinite(refined).all()
