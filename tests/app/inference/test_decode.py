"""Decoding: every kind of picture to the same RGB array, and the limits checked on the header."""

import io

import numpy as np
import pytest
from PIL import Image

from app.inference.errors import TooManyPixelsError, UndecodableImageError, UnsupportedTypeError, UploadError
from app.inference.image.decode import decode
from tests.app.colour_models import BLACK, RED, WHITE, halves, to_file


def colours_of(height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_rgb_png_is_unchanged():
    photo = decode(to_file(colours_of()))
    assert (photo.height, photo.width) == (12, 16)
    assert photo.image.dtype == np.uint8
    assert np.array_equal(photo.image, colours_of())


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_are_exact(kind, options):
    assert np.array_equal(decode(to_file(colours_of(), kind, **options)).image, colours_of())


def test_grey_and_bilevel():
    grey = colours_of()[..., 0]
    assert np.array_equal(decode(to_file(grey)).image, np.repeat(grey[..., None], 3, axis=2))
    bilevel = Image.fromarray(grey).convert("1", dither=Image.Dither.NONE)
    assert set(np.unique(decode(to_file(bilevel)).image)) == {0, 255}
    jpeg = decode(to_file(np.full((16, 16), 90, np.uint8), "JPEG")).image
    assert jpeg.shape == (16, 16, 3)
    assert np.abs(jpeg.astype(int) - 90).max() <= 1


def test_grey_of_16_bits_is_scaled_and_not_clipped():
    values = np.array([[0, 128, 257, 32768, 65406, 65535]], np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)
    assert np.array_equal(decode(to_file(values)).image[..., 0], expected)
    assert np.array_equal(decode(to_file(values)).image[..., 2], expected)


def test_palette_and_its_transparent_entry():
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert decode(to_file(picture)).image.tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    assert decode(to_file(picture, transparency=1)).image.tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_laid_over_white(kind):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 200, (255, 0, 51)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    image = decode(to_file(Image.fromarray(rgba), kind, **options)).image.astype(int)
    assert image[0, 0].tolist() == [200, 0, 0]
    assert image[0, 1].tolist() == [255, 255, 255]
    assert np.abs(image[0, 2] - [244, 204, 204]).max() <= 1


def test_grey_with_alpha_and_single_transparent_colours():
    layers = np.array([[[10, 255], [10, 0]]], np.uint8)
    assert decode(to_file(Image.fromarray(layers, "LA"))).image[0, :, 0].tolist() == [10, 255]
    grey = Image.fromarray(np.array([[10, 20]], np.uint8))
    assert decode(to_file(grey, transparency=10)).image[0, :, 0].tolist() == [255, 20]
    rgb = Image.fromarray(halves(RED, BLACK, 1, 2))
    assert decode(to_file(rgb, transparency=RED)).image.tolist() == [[list(WHITE), list(BLACK)]]


def test_cmyk_jpeg():
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan: red
    assert np.abs(decode(to_file(cmyk, "JPEG", quality=100)).image.astype(int) - RED).max() <= 3


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(halves(RED, RED)), Image.fromarray(halves(BLACK, BLACK))]
    for kind, options in (("WEBP", {"lossless": True}), ("PNG", {})):
        data = to_file(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.array_equal(decode(data).image, halves(RED, RED))


def test_multi_picture_jpeg_of_a_phone_is_a_jpeg():
    frames = [Image.fromarray(halves(RED, RED)), Image.fromarray(halves(BLACK, BLACK))]
    data = to_file(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert np.abs(decode(data).image.astype(int) - RED).max() < 4


@pytest.mark.parametrize("orientation", [0, 9])
def test_nonsense_orientation_counts_as_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode(to_file(colours_of(), exif=exif)).image, colours_of())


@pytest.mark.filterwarnings("ignore:.*EXIF data:UserWarning", "ignore:Tag data:UserWarning")
@pytest.mark.parametrize("junk", [b"", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"junk", b"\0" * 90])
def test_broken_exif_data_counts_as_absent(junk):
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        data = to_file(colours_of(), kind, exif=b"Exif\0\0" + junk, **options)
        assert np.array_equal(decode(data).image, colours_of())
    assert decode(to_file(colours_of(), "JPEG", exif=b"Exif\0\0" + junk)).image.shape == (12, 16, 3)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1599, 100, (1599, 100)),
        (1600, 1200, (200, 150)),
        (800, 800, (200, 200)),
        (399, 300, (399, 300)),
        (640, 480, (320, 240)),
    ],
)
def test_reduced_decoding_leaves_twice_the_network_input(width, height, expected):
    data = to_file(Image.new("RGB", (width, height), RED), "JPEG")
    photo = decode(data, input_long_side=100)
    assert (photo.width, photo.height) == (width, height)
    assert photo.image.shape[1::-1] == expected
    assert decode(data).image.shape == (height, width, 3)


def test_reduced_decoding_of_a_turned_photo_keeps_its_size_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = to_file(Image.fromarray(halves(RED, BLACK, 801, 1203)), "JPEG", exif=exif)
    photo = decode(data, input_long_side=100)
    assert (photo.width, photo.height) == (801, 1203)
    assert photo.image.shape == (301, 201, 3)
    assert np.abs(photo.image[:100].astype(int) - RED).max() < 4


def test_pixel_limit_is_checked_on_the_header():
    data = to_file(Image.new("1", (3000, 2000)))
    with pytest.raises(TooManyPixelsError, match=r"3000 x 2000 = 6000000 pixels; the limit is 5999999"):
        decode(data, max_image_pixels=5_999_999)
    assert decode(data, max_image_pixels=6_000_000).width == 3000
    for options in (
        {"lossless": True},
        {"lossless": False},
        {"save_all": True, "append_images": [Image.new("RGB", (70, 50))]},
    ):
        webp = to_file(Image.new("RGB", (70, 50)), "WEBP", **options)
        with pytest.raises(TooManyPixelsError, match="70 x 50"):
            decode(webp, max_image_pixels=3499)


def test_the_limit_of_pillow_plays_no_part(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode(to_file(colours_of())).width == 16


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"", UploadError), (b"GIF89a", UnsupportedTypeError), (to_file(colours_of())[:60], UndecodableImageError)],
)
def test_errors(data, error):
    with pytest.raises(error):
        decode(data)


def test_the_file_given_is_not_needed_afterwards():
    data = bytearray(to_file(colours_of()))
    image = decode(bytes(io.BytesIO(data).getvalue())).image
    data[:] = bytes(len(data))
    assert np.array_equal(image, colours_of())
