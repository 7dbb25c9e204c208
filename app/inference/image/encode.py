"""Results become bytes: a mask PNG or overlay, a localization map colour or grey PNG or overlay, arrays npy.

PNGs are compressed at deflate's first level, by ISA-L where it is installed: Pillow's writer takes seven times as long for a mask,
and higher levels more than the network, for a few percent.
"""

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from app.inference.labels import BACKGROUND, voc_palette

try:
    from isal import isal_zlib

    deflate: Callable[..., bytes] = isal_zlib.compress
except ImportError:  # ISA-L is not built for this machine.
    deflate = zlib.compress

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
LEVEL = 1  # These are levels of compression; ISA-L has 0 to 3, zlib 0 to 9.
NO_FILTER, UP = 0, 2  # The rows of a PNG are stored as they are, or as the difference to the row above.
GREY, INDEXED = 0, 3  # PNG gives its types of colour these numbers.
OVERLAY_QUALITY = 88
MASK_OPACITY = 0.55  # A class's colour covers the photo by this share.
# The colour map covers the photo by these shares, where the map is 0 and where it is 1.
MAP_OPACITY = (0.0, 0.85)

# Coefficients, constant term first, of a polynomial of degree 6 per channel that follows matplotlib's "inferno"
# (S. van der Walt and N. Smith, CC0), whose lightness rises evenly with the value; the fit is Matt Zucker's,
# https://www.shadertoy.com/view/WlfXRN (CC0).
INFERNO = (
    (0.0002189403691192265, 0.001651004631001012, -0.01948089843709184),
    (0.1065134194856116, 0.5639564367884091, 3.932712388889277),
    (11.60249308247187, -3.972853965665698, -15.9423941062914),
    (-41.70399613139459, 17.43639888205313, 44.35414519872813),
    (77.162935699427, -33.40235894210092, -81.80730925738993),
    (-71.31942824499214, 32.62606426397723, 73.20951985803202),
    (25.13112622477341, -12.24266895238567, -23.07032500287172),
)


@lru_cache(maxsize=1)
def heat_palette() -> np.ndarray:
    """Return the 256 RGB colours of a heatmap, uint8 (256, 3), dark for 0 and light for 1."""
    value = np.linspace(0, 1, 256)[:, None]
    colours = np.zeros((256, 3))
    for coefficients in reversed(INFERNO):  # This is Horner's rule.
        colours = colours * value + np.asarray(coefficients)
    return (colours.clip(0, 1) * 255).round().astype(np.uint8)


def mask_to_png(mask: np.ndarray) -> bytes:
    """Return a label map, uint8 (H, W), as indexed PNG: the pixel values are the labels, the palette is PASCAL VOC's."""
    return png_file(mask, NO_FILTER, voc_palette())


def mask_to_overlay(mask: np.ndarray, image: np.ndarray) -> bytes:
    """Return the photo, uint8 RGB (H, W, 3), with every label but the background in its colour, as JPEG."""
    opacity = np.full(256, round(MASK_OPACITY * 255), np.uint8)
    opacity[BACKGROUND] = 0
    return _overlay(image, _with_palette(mask, voc_palette()), opacity[mask])


def map_to_png(localization_map: np.ndarray) -> bytes:
    """Return a map in [0, 1], float (H, W), as colour PNG (indexed: a third of the size and time of RGB)."""
    return png_file(_quantize(localization_map, np.uint8), UP, heat_palette())


def map_to_overlay(localization_map: np.ndarray, image: np.ndarray) -> bytes:
    """Return the photo, uint8 RGB (H, W, 3), under the coloured map, which covers the more the higher it is; as JPEG."""
    opacity = (np.linspace(*MAP_OPACITY, 256) * 255).round().astype(np.uint8)
    values = _quantize(localization_map, np.uint8)
    return _overlay(image, _with_palette(values, heat_palette()), opacity[values])


def to_gray8(localization_map: np.ndarray) -> bytes:
    """Return a map in [0, 1], float (H, W), as 8-bit grey PNG: round(255 * value)."""
    return png_file(_quantize(localization_map, np.uint8), UP)


def to_gray16(localization_map: np.ndarray) -> bytes:
    """Return a map in [0, 1], float (H, W), as 16-bit grey PNG: round(65535 * value)."""
    return png_file(_quantize(localization_map, np.uint16), UP)


def labels_to_gray8(mask: np.ndarray) -> bytes:
    """Return a label map, uint8 (H, W), as grey PNG without a palette: the grey values are the labels."""
    return png_file(mask, NO_FILTER)


def labels_to_gray16(mask: np.ndarray) -> bytes:
    """Return a label map, uint8 (H, W), as 16-bit grey PNG: the grey values are the labels."""
    return png_file(mask.astype(np.uint16), NO_FILTER)


def to_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return named arrays in numpy's own archive, compressed."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def to_npy(array: np.ndarray) -> bytes:
    """Return an array in numpy's own file format."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def to_jpeg(image: np.ndarray, quality: int = OVERLAY_QUALITY) -> bytes:
    """Return a photo, uint8 RGB (H, W, 3), as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _quantize(values: np.ndarray, dtype: type[np.unsignedinteger[Any]]) -> np.ndarray:
    scaled = values * np.float32(np.iinfo(dtype).max)
    np.rint(scaled, out=scaled)
    return scaled.clip(0, np.iinfo(dtype).max, out=scaled).astype(dtype)


def _with_palette(indices: np.ndarray, palette: np.ndarray) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(indices))
    picture.putpalette(palette.tobytes())  # A grey picture with a palette becomes an indexed one.
    return picture


def _overlay(image: np.ndarray, colours: Image.Image, opacity: np.ndarray) -> bytes:
    picture = Image.fromarray(image)
    picture.paste(colours.convert("RGB"), mask=Image.fromarray(opacity))
    return to_jpeg(np.asarray(picture))


def png_file(values: np.ndarray, row_filter: int, palette: np.ndarray | None = None) -> bytes:
    """Return uint8 or uint16 (H, W) as grey PNG, or uint8 as indexed PNG with a palette, uint8 (256, 3)."""
    height, width = values.shape
    lines = np.ascontiguousarray(values, values.dtype.newbyteorder(">")).view(np.uint8)
    stored = np.empty((height, 1 + lines.shape[1]), np.uint8)
    stored[:, 0], stored[:, 1:] = row_filter, lines
    if row_filter == UP:
        stored[1:, 1:] -= lines[:-1]
    header = struct.pack(">IIBBBBB", width, height, 8 * values.itemsize, GREY if palette is None else INDEXED, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", deflate(stored, LEVEL)), (b"IEND", b"")]
    if palette is not None:
        chunks.insert(1, (b"PLTE", palette.tobytes()))
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
