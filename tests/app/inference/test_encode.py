"""Encoding, on hand-made arrays."""

import io

import numpy as np
from PIL import Image

from app.inference.image import encode
from app.inference.labels import voc_palette
from tests.app.colour_models import from_file

MASK = np.array([[0, 1, 1, 0], [0, 0, 1, 0], [12, 0, 0, 255], [12, 12, 0, 255]], np.uint8)


def test_mask_png_round_trip():
    assert np.array_equal(from_file(encode.mask_to_png(MASK)), MASK)
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(from_file(encode.mask_to_png(every)), every)
    assert np.array_equal(from_file(encode.labels_to_gray8(every)), every)


def test_mask_png_in_colour():
    with Image.open(io.BytesIO(encode.mask_to_png(MASK))) as picture:
        assert np.array_equal(np.asarray(picture.convert("RGB")), voc_palette()[MASK])


def test_grey_maps():
    values = np.array([[0, 0.5, 1], [0.001, 1 / 255, 0.9999]], np.float32)
    assert np.array_equal(from_file(encode.to_gray8(values)), [[0, 128, 255], [0, 1, 255]])
    assert np.array_equal(from_file(encode.to_gray16(values)), np.rint(values.astype(float) * 65535))


def test_npy_round_trip():
    values = np.random.default_rng(0).random((3, 4, 5), np.float32)
    read = np.load(io.BytesIO(encode.to_npy(values)), allow_pickle=False)
    assert read.dtype == np.float32
    assert np.array_equal(read, values)


def test_colours_of_heatmaps_grow_lighter_with_the_value():
    luminance = encode.heat_palette() @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > 0).all()
    assert luminance[0] < 2
    assert luminance[-1] > 240


def test_map_png_has_the_heat_palette():
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    with Image.open(io.BytesIO(encode.map_to_png(values))) as picture:
        assert np.array_equal(np.asarray(picture.convert("RGB")).reshape(-1, 3), encode.heat_palette())


def test_overlays_leave_their_arguments_alone():
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    kept = image.copy()
    encode.mask_to_overlay(MASK, image)
    encode.map_to_overlay(MASK / np.float32(255), image)
    assert np.array_equal(image, kept)
