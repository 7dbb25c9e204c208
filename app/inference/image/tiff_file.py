"""Of TIFF files it is said here what is read; their first page is checked before its pixels are decoded.

Of several pages the first is read. Raw photos of cameras, which are TIFF files by their first bytes, are refused, because their first
page is a small preview.
"""

import io

from PIL import Image, TiffImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from app.inference.errors import UndecodableImageError

SUBFILE_TYPE, BITS_PER_SAMPLE, PHOTOMETRIC, TILE_WIDTH, TILE_LENGTH, DNG_VERSION = 254, 258, 262, 322, 323, 50706
PLANAR_CONFIGURATION, EXTRA_SAMPLES = 284, 338
APART = 2  # This planar configuration means that red, green and blue are stored one after the other, each whole.
UNKNOWN_MODE = "unknown pixel mode"  # Pillow says this of pixels that it has no mode for.
REDUCED = 1  # This bit of the subfile type means that the page is a smaller copy of another one.
WHITE_IS_ZERO = 0  # This photometric interpretation means that the largest number is black.
# These modes of Pillow hold colours or grey of 8 or 16 bits. The others hold numbers whose range of brightness nobody knows.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "I;16", "I;16B", "I;16L")
# A tile may have this many pixels, or as many as the picture where that is more: a tile is decoded whole, however small
# the picture of which it is a part.
MAX_TILE_PIXELS = 4096 * 4096


class TiffFile(TiffImageFile):
    """It is Pillow's reader without Pillow's process-wide limit of pixels, which it applies to TIFF when it makes room for them."""

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.core.new(self.mode, self._tile_size)
        super().load_prepare()


def check_tiff(file: TiffImageFile, size_bytes: int) -> None:
    """Raise UndecodableImageError for a first page that is not the picture, or not one of known brightness."""
    tags = file.tag_v2
    if DNG_VERSION in tags or _number(tags, SUBFILE_TYPE, 0) & REDUCED:
        raise UndecodableImageError(
            f"the TIFF file of {size_bytes} bytes is a raw photo, or begins with a preview of its picture. Save the picture itself as "
            f"JPEG, PNG or TIFF."
        )
    if file.mode not in MODES:
        raise UndecodableImageError(
            f"the TIFF file of {size_bytes} bytes has pixels of mode {file.mode!r}; grey and colours of 8 or 16 bits are read. Save "
            f"it with 8 bits."
        )
    if _number(tags, PLANAR_CONFIGURATION, 1) == APART and bit_depth_of(file) > 8:
        raise UndecodableImageError(
            f"the TIFF file of {size_bytes} bytes stores its colours apart, with {bit_depth_of(file)} bits each, which is not read. Save "
            f"it with 8 bits, or with the colours of a pixel together."
        )
    pixels = _number(tags, TILE_WIDTH, 0) * _number(tags, TILE_LENGTH, 0)
    limit = max(MAX_TILE_PIXELS, file.size[0] * file.size[1])
    if pixels > limit:
        raise UndecodableImageError(
            f"the TIFF file of {size_bytes} bytes has tiles of {pixels} pixels; the limit is {limit}. Save it anew, without tiles.",
            limit=limit,
        )


def open_tiff(data: io.BytesIO) -> TiffFile:
    """Open a file whose pixels are not decoded yet. Raises UndecodableImageError for pixels that Pillow has no mode for."""
    try:
        return TiffFile(data)
    except SyntaxError as error:
        if UNKNOWN_MODE not in str(error):
            raise
        raise UndecodableImageError(
            f"the TIFF file of {len(data.getvalue())} bytes has pixels of a kind that is not read, fractions or many channels for "
            f"example; grey and colours of 8 or 16 bits are. Save it with 8 bits."
        ) from None


def note_on_tiff(file: TiffImageFile) -> str | None:
    """Return what is left out of a file of several pages."""
    return "the TIFF file has several pages; the first one is read." if file.is_animated else None


def bit_depth_of(file: TiffImageFile) -> int:
    """Return the bits of one number of a pixel."""
    return _number(file.tag_v2, BITS_PER_SAMPLE, 1)


def has_alpha(file: TiffImageFile) -> bool:
    """Tell whether the file says what its fourth channel holds; without a word it is none of transparency."""
    return EXTRA_SAMPLES in file.tag_v2


def is_white_zero(file: TiffImageFile) -> bool:
    """Tell whether 0 stands for white."""
    return _number(file.tag_v2, PHOTOMETRIC, WHITE_IS_ZERO) == WHITE_IS_ZERO


def _number(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int, missing: int) -> int:
    """Return the first whole number of a tag; `missing` where there is none."""
    value = tags.get(tag, missing)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else missing
