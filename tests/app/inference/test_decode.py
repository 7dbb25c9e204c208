"""Decoding: every kind of picture to the same RGB array, and the limits checked on the header."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from app.inference.errors import DataError, TooManyPixelsError, UndecodableImageError, UnsupportedTypeError, UploadError
from app.inference.image.decode import decode, decode_labels, measure
from app.inference.labels import voc_palette
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


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def raw_png(values: np.ndarray, depth: int, colour_type: int, *chunks: bytes) -> bytes:
    """A PNG of whole numbers (H, W) or (H, W, 3), written bit by bit."""
    height, width = values.shape[:2]
    flat = values.reshape(height, -1)
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in flat]
    else:
        rows = [np.packbits((row[:, None] >> np.arange(depth)[::-1] & 1).astype(np.uint8)).tobytes() for row in flat]
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_grey_is_that_of_the_files_depth(depth):
    top = 2**depth - 1
    values = np.array([[0, top, top, 0]])
    image = decode(raw_png(values, depth, 0, png_chunk(b"tRNS", struct.pack(">H", 0)))).image
    assert image[0, :, 0].tolist() == [255, 255, 255, 255]
    image = decode(raw_png(values, depth, 0, png_chunk(b"tRNS", struct.pack(">H", top)))).image
    assert image[0, :, 0].tolist() == [0, 255, 255, 0]
    assert decode(raw_png(values, depth, 0)).image[0, :, 0].tolist() == [0, 255, 255, 0]


def test_the_transparent_colour_of_16_bits_is_compared_in_full():
    values = np.array([[[0x1234, 0x1234, 0x1234], [0x1235, 0x1234, 0x1234]]])
    image = decode(raw_png(values, 16, 2, png_chunk(b"tRNS", struct.pack(">HHH", 0x1234, 0x1234, 0x1234)))).image
    assert image.tolist() == [[[255, 255, 255], [0x12, 0x12, 0x12]]]


def test_a_damaged_tRNS_chunk_names_no_colour():
    assert decode(raw_png(np.array([[0, 255]]), 8, 0, png_chunk(b"tRNS", b"\0"))).image[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"iCCP", b"ICC\0\0" + zlib.compress(bytes(3_000_000))),
        png_chunk(b"iCCP", b"ICC\0\0junk"),
        png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3_000_000))),
        png_chunk(b"tEXt", b"Comment\0" + bytes(5_000_000)),
        png_chunk(b"tEXt", b"Comment\0hello")[:-4] + b"\0\0\0\0",
        png_chunk(b"pHYs", b"\0"),
        png_chunk(b"acTL", b"\0"),
        png_chunk(b"eXIf", b"junk"),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0junk"),
    ],
)
def test_metadata_never_refuse_an_intact_png(chunk):
    data = to_file(colours_of())
    assert np.array_equal(decode(data[:33] + chunk + data[33:]).image, colours_of())


@pytest.mark.parametrize(
    ("marker", "content"),
    [
        (0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000)),
        (0xE2, b"ICC_PROFILE\0\5\3junk"),
        (0xE2, b"MPF\0junk"),
        (0xED, b"Photoshop 3.0\x008BIM\x04\x04"),
        (0xE0, b"JFIF\0"),
        (0xEE, b"Adobe"),
        (0xE1, b"Exif\0\0MM\0*\0\0"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0junk"),
        (0xFE, bytes(60_000)),
    ],
)
def test_metadata_never_refuse_an_intact_jpeg(marker, content):
    data = to_file(colours_of(), "JPEG")
    segment = struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
    assert np.array_equal(decode(data[:2] + segment + data[2:]).image, decode(data).image)


def test_a_second_start_of_image_is_left_out():
    data = to_file(colours_of(), "JPEG")
    assert np.array_equal(decode(data[:2] + data).image, decode(data).image)


@pytest.mark.parametrize("kind", ["exif", "xmp"])
def test_orientation_of_metadata_in_a_png_behind_the_pixels(kind):
    data = to_file(colours_of())
    exif = Image.Exif()
    exif[0x0112] = 6
    chunk = png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    if kind == "xmp":
        chunk = png_chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>')
    turned = data[:-12] + chunk + data[-12:]
    assert np.array_equal(decode(turned).image, np.rot90(colours_of(), -1))
    assert measure(turned) == (16, 12)


def photo_of(height: int = 160, width: int = 240) -> np.ndarray:
    across = np.linspace(20, 235, width)[None, :, None]
    return np.broadcast_to(across, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("missing", [b"", b"\0\0"])
def test_a_jpeg_without_its_end_marker_is_read_and_said_to_lack_it(missing):
    data = to_file(photo_of(), "JPEG")
    photo = decode(data[:-2] + missing)
    assert np.array_equal(photo.image, decode(data).image)
    assert "ends early" in photo.note
    assert decode(data).note is None


def test_a_jpeg_is_read_where_more_than_half_of_its_rows_are_there():
    noise = np.random.default_rng(0).integers(0, 256, (160, 240, 3), np.uint8)
    data = to_file(noise, "JPEG")
    photo = decode(data[: len(data) * 8 // 10])
    assert np.array_equal(photo.image[:100], decode(data).image[:100])
    assert "at least 73% of its rows" in photo.note
    with pytest.raises(UndecodableImageError, match="truncated"):
        decode(data[: len(data) * 4 // 10])
    small = decode(data[: len(data) * 8 // 10], input_long_side=60)
    assert small.image.shape == (80, 120, 3)
    assert small.note


def test_a_progressive_jpeg_is_read_without_its_last_scans():
    noise = np.random.default_rng(0).integers(0, 256, (160, 240, 3), np.uint8)
    data = to_file(noise, "JPEG", progressive=True, quality=90)
    photo = decode(data[: len(data) * 9 // 10])
    assert np.abs(photo.image.astype(int) - decode(data).image).mean() < 8
    assert "finest detail" in photo.note
    with pytest.raises(UndecodableImageError):
        decode(data[: len(data) // 10])


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_labels_are_the_numbers_stored_at_every_depth(depth):
    values = np.array([[0, 1, 1, 0]] if depth == 1 else [[0, 1, 2, 3]])
    assert decode_labels(raw_png(values, depth, 0)).tolist() == values.tolist()
    if depth <= 8:
        palette = png_chunk(b"PLTE", bytes(range(12)))
        assert decode_labels(raw_png(values, depth, 3, palette)).tolist() == values.tolist()


def test_labels_are_no_colours_and_no_larger_than_a_byte():
    red, green, blue = colours_of()[0, 0]
    with pytest.raises(DataError, match=rf"\({red}, {green}, {blue}\) is none of PASCAL VOC's palette"):
        decode_labels(to_file(colours_of()))
    with pytest.raises(DataError, match="colour mode CMYK"):
        decode_labels(to_file(Image.new("CMYK", (4, 4)), "TIFF"))
    with pytest.raises(DataError, match="it holds 300"):
        decode_labels(raw_png(np.array([[0, 300]]), 16, 0))
    layers = Image.fromarray(np.array([[[3, 255], [0, 255]]], np.uint8), "LA")
    assert decode_labels(to_file(layers)).tolist() == [[3, 0]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_labels_in_the_colours_of_voc(mode):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    indexed = Image.fromarray(labels)
    indexed.putpalette(voc_palette().tobytes())
    assert np.array_equal(decode_labels(to_file(indexed.convert(mode))), labels)


def progressive(scans: int, side: int = 64) -> bytes:
    """A progressive JPEG with so many scans: its last one over and over."""
    data = to_file(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * (scans - data.count(b"\xff\xda") + 1) + b"\xff\xd9"


def test_scans_of_a_jpeg_are_counted_before_it_is_decoded():
    assert decode(progressive(100)).image.shape == (64, 64, 3)
    with pytest.raises(UndecodableImageError, match="has 101 scans of 64 x 64 pixels; at most 100"):
        decode(progressive(101))
    with pytest.raises(
        UndecodableImageError, match="has 90 scans of 5000 x 5000 pixels; .* 2000000000 pixels together"
    ):
        decode(progressive(90, 5000))


def test_scans_cannot_be_hidden_behind_a_false_end():
    data = progressive(200)
    comment = b"\xff\xfe\x00\x06\xff\xd9\xff\xd9"
    second = data.find(b"\xff\xda", data.find(b"\xff\xda") + 2)
    with pytest.raises(UndecodableImageError, match="has 200 scans"):
        decode(data[:second] + comment + data[second:])


@pytest.mark.parametrize("filling", [b"\xff\xfe\0\2", b"\xff\xd0", b"\xff\xe1\0\2", b"\xff\xfe\0\4\xff\xd9"])
def test_a_jpeg_of_millions_of_segments_is_refused_at_once(filling):
    data = to_file(halves(RED, BLACK), "JPEG")
    start = time.process_time()
    for where in (2, data.find(b"\xff\xda")):
        with pytest.raises(UndecodableImageError, match="more than 5000 segments"):
            decode(data[:where] + filling * 3_000_000 + data[where:])
    assert time.process_time() - start < 2


@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"\xff\0", b"a"])
def test_stray_bytes_before_a_segment_cost_no_more_than_their_reading(filling):
    data = to_file(halves(RED, BLACK), "JPEG")
    start = time.process_time()
    tables = data.find(b"\xff\xdb")  # the first bytes tell the format
    assert decode(data[:tables] + filling * 10_000_000 + data[tables:]).image.shape == halves(RED, BLACK).shape
    assert time.process_time() - start < 2


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_png_of_a_million_chunks_is_refused_at_once():
    data = to_file(halves(RED, BLACK))
    start = time.process_time()
    with pytest.raises(UndecodableImageError, match="more than 20000 chunks"):
        decode(data[:33] + chunk(b"tEXt", b"a\0b") * 1_200_000 + data[33:])
    assert time.process_time() - start < 2


def test_few_texts_of_a_png_are_unpacked():
    data = to_file(halves(RED, BLACK))
    packed = chunk(b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(bytes(900_000), 9))
    start = time.process_time()
    assert decode(data[:33] + packed * 15_000 + data[33:]).image.shape == halves(RED, BLACK).shape
    assert time.process_time() - start < 2
