"""TIFF, BMP and HEIC come through the same decoder as all other pictures, with its limits, orientation and backdrop."""

import re
import struct
import subprocess
import sys
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
from PIL import Image

from app.inference.errors import DataError, TooManyPixelsError, UndecodableImageError, UnsupportedTypeError
from app.inference.image.decode import decode, decode_labels, measure
from app.inference.image.kinds import kind_of
from tests.app.colour_models import to_file

COLOURS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 21, (12, 16)).astype(np.uint8)
ORIENTATION, SUBFILE_TYPE, WIDTH, LENGTH, PHOTOMETRIC, TILE_WIDTH, TILE_LENGTH = 274, 254, 256, 257, 262, 322, 323
X_RESOLUTION, Y_RESOLUTION, PLANAR_CONFIGURATION, EXTRA_SAMPLES = 282, 283, 284, 338
needs_heic = pytest.mark.skipif(find_spec("pillow_heif") is None, reason="pillow-heif is not installed")


def with_tag(data: bytes, tag: int, value: int, instead_of: int | None = None) -> bytes:
    """A TIFF file of Pillow's, with another number under a tag that it has, or in the place of another tag."""
    changed = bytearray(data)
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, entry)[0] == (instead_of or tag):
            struct.pack_into("<HHII", changed, entry, tag, 4, 1, value)
            return bytes(changed)
    raise LookupError(tag)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_of_every_lossless_compression_and_orientation(compression):
    assert np.array_equal(decode(to_file(COLOURS, "TIFF", compression=compression)).image, COLOURS)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        turned = to_file(COLOURS, "TIFF", compression=compression, tiffinfo={ORIENTATION: orientation})
        photo = decode(turned)
        assert np.array_equal(photo.image, decode(to_file(COLOURS, exif=exif)).image)
        assert measure(turned) == photo.image.shape[:2] == (photo.height, photo.width)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_bmp_of_every_mode(mode):
    picture = Image.fromarray(COLOURS).convert(mode)
    assert np.array_equal(decode(to_file(picture, "BMP")).image, np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_grey_of_16_bits_is_scaled_and_its_largest_number_is_white(compression):
    values = (np.arange(192).reshape(12, 16) * 341).astype(np.uint16)
    data = to_file(values, "TIFF", compression=compression)
    expected = np.rint(values / 257)
    assert np.array_equal(decode(data).image[..., 0], expected)
    assert np.array_equal(decode(with_tag(data, PHOTOMETRIC, 0)).image[..., 0], np.rint((65535 - values) / 257))


def test_what_is_transparent_in_a_tiff_is_white():
    rgba = np.dstack([COLOURS, np.zeros((12, 16), np.uint8)])
    assert (decode(to_file(Image.fromarray(rgba), "TIFF")).image == 255).all()


def test_of_several_pages_the_first_is_read_and_that_is_said():
    others = [Image.new("RGB", (5, 5))]
    photo = decode(to_file(Image.fromarray(COLOURS), "TIFF", save_all=True, append_images=others))
    assert np.array_equal(photo.image, COLOURS)
    assert "several pages" in photo.note


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_numbers_of_unknown_brightness_are_refused(mode):
    picture = Image.new("LAB", (4, 4)) if mode == "LAB" else Image.fromarray(COLOURS).convert(mode)
    with pytest.raises(UndecodableImageError, match=f"pixels of mode '{mode}'; grey and colours of 8 or 16 bits"):
        decode(to_file(picture, "TIFF"))


def test_a_preview_is_not_taken_for_the_picture():
    preview = to_file(COLOURS, "TIFF", tiffinfo={SUBFILE_TYPE: 1})
    with pytest.raises(UndecodableImageError, match="begins with a preview"):
        decode(preview)
    canon = b"II*\0\x10\0\0\0CR\2\0" + bytes(40)
    assert kind_of(canon) == "raw photo"
    with pytest.raises(UnsupportedTypeError, match="raw photo"):
        decode(canon)


def test_pixels_and_tiles_are_counted_before_they_are_decoded(monkeypatch):
    small = to_file(Image.new("1", (64, 64)), "TIFF", compression="group4")
    huge = with_tag(with_tag(small, WIDTH, 60_000), LENGTH, 60_000)
    with pytest.raises(TooManyPixelsError, match="60000 x 60000"):
        decode(huge, max_image_pixels=25_000_000)
    tiled = to_file(COLOURS, "TIFF", tiffinfo={X_RESOLUTION: 1, Y_RESOLUTION: 1})
    tiled = with_tag(tiled, TILE_WIDTH, 60_000, instead_of=X_RESOLUTION)
    tiled = with_tag(tiled, TILE_LENGTH, 60_000, instead_of=Y_RESOLUTION)
    with pytest.raises(UndecodableImageError, match="tiles of 3600000000 pixels; the limit is 16777216"):
        decode(tiled)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode(to_file(COLOURS, "TIFF")).width == 16


def test_labels_in_tiff_and_bmp():
    grey = Image.fromarray(LABELS)
    indexed = grey.copy()
    indexed.putpalette(bytes(range(256)) * 3)
    for kind in ("TIFF", "BMP"):
        assert np.array_equal(decode_labels(to_file(grey, kind)), LABELS)
        assert np.array_equal(decode_labels(to_file(indexed, kind)), LABELS)
    with pytest.raises(DataError, match="0 is white"):
        decode_labels(with_tag(to_file(grey, "TIFF"), PHOTOMETRIC, 0))


# HEIC asked of a process in which pillow-heif cannot be imported.
WITHOUT_HEIC = """
import sys
sys.modules["pillow_heif"] = None
from app.inference.errors import UnsupportedTypeError
from app.inference.image.decode import decode
try:
    decode(b"\\0\\0\\0\\x18ftypheic" + bytes(40))
except UnsupportedTypeError as error:
    print(error)
"""


def test_heic_without_its_package_is_refused_with_the_remedy():
    done = subprocess.run([sys.executable, "-c", WITHOUT_HEIC], capture_output=True, text=True, timeout=60)
    assert re.search(r"HEIC\. HEIC is read where .* pip install pillow-heif\. Send JPEG", done.stdout), done.stderr


@needs_heic
def test_heic():
    import pillow_heif

    pillow_heif.register_heif_opener()
    blocks = np.kron(COLOURS, np.ones((10, 10, 1), np.uint8))
    photo = decode(to_file(Image.fromarray(blocks), "HEIF", quality=95))
    assert photo.kind == "HEIC"
    assert np.abs(photo.image.astype(int) - blocks).mean() < 3
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    turned = to_file(Image.fromarray(blocks), "HEIF", quality=95, exif=exif.tobytes())
    assert np.abs(decode(turned).image.astype(int) - np.rot90(blocks, -1)).mean() < 3
    assert measure(turned) == (160, 120)
    with pytest.raises(TooManyPixelsError, match="160 x 120"):
        decode(to_file(Image.fromarray(blocks), "HEIF"), max_image_pixels=19_199)
    with pytest.raises(UndecodableImageError, match="HEIC file"):
        decode(turned[:-50])
    lying = turned.replace(struct.pack(">II", 160, 120), struct.pack(">II", 8, 8))
    assert lying != turned
    with pytest.raises(UndecodableImageError):  # libheif compares the size stated with that of the pixels
        decode(lying)


@needs_heic
def test_of_several_pictures_the_primary_one_is_read_and_that_is_said():
    import pillow_heif

    pillow_heif.register_heif_opener()
    first = Image.fromarray(COLOURS).resize((64, 48))
    data = to_file(first, "HEIF", save_all=True, append_images=[Image.new("RGB", (80, 80))])
    assert "2 pictures" in decode(data).note
    assert decode(data).image.shape == (48, 64, 3)


def bmp_with_alpha(alpha: int) -> bytes:
    """A BMP file of 32 bits a pixel and the header of Windows 98, whose masks name a channel of transparency."""
    height, width = COLOURS.shape[:2]
    pixels = np.dstack([COLOURS[::-1, :, ::-1], np.full((height, width), alpha, np.uint8)]).tobytes()
    header = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 32, 3, len(pixels), 2835, 2835, 0, 0)
    header = (header + struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)).ljust(124, b"\0")
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + pixels


def test_a_fourth_channel_that_is_no_transparency_is_left_out():
    for alpha in (255, 0):  # Of many programs the channel is 0 throughout, and browsers show the picture.
        assert np.array_equal(decode(bmp_with_alpha(alpha)).image, COLOURS)
    half = decode(bmp_with_alpha(128)).image
    assert np.abs(half - (COLOURS.astype(int) + 255) / 2).max() <= 2
    infrared = np.random.default_rng(2).integers(0, 256, (12, 16, 1), np.uint8)
    data = to_file(np.concatenate([COLOURS, infrared], axis=2), "TIFF")
    assert not np.array_equal(decode(data).image, COLOURS)
    assert np.array_equal(decode(with_tag(data, 65000, 0, instead_of=EXTRA_SAMPLES)).image, COLOURS)


def test_colours_of_16_bits_that_are_stored_apart_are_refused_and_not_misread():
    data = cv2.imencode(".tiff", COLOURS[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes()
    assert np.array_equal(decode(data).image, COLOURS)
    with pytest.raises(UndecodableImageError, match="stores its colours apart, with 16 bits each"):
        decode(with_tag(data, PLANAR_CONFIGURATION, 2))
    fractions = cv2.imencode(".tiff", COLOURS.astype(np.float32) / 255)[1].tobytes()
    with pytest.raises(
        UndecodableImageError, match=r"pixels of a kind that is not read, fractions .* Save it with 8 bits"
    ):
        decode(fractions)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"data:image/jpeg;base64,/9j/4AAQ", "the upload is a data URL, which is text: decode its base64 first."),
        (b"/9j/4AAQSkZJRg", "the upload is a JPEG in base64, which is text: decode it first."),
        (b"<!DOCTYPE html><title>Not found", "the upload is an HTML page."),
        (b"version https://git-lfs.github.com/spec/v1", "the upload is the pointer of a Git LFS file"),
        (b"PK\3\4\x14\0", "the upload is a ZIP file: send the pictures in it."),
    ],
)
def test_what_people_send_instead_of_a_picture_is_named(data, said):
    with pytest.raises(UnsupportedTypeError) as caught:
        decode(data)
    assert str(caught.value).startswith(said)
