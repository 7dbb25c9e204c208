"""The bytes of a picture file become RGB uint8 (H, W, 3); its format, size, damage and orientation are looked at once.

Whatever enters as a picture comes through here: uploads, photos of a folder, label maps, saliency, frames of other programs.
What becomes of the unusual kinds:

- transparency (RGBA, LA, palette with transparent entries, tRNS chunk of any depth) is laid over white, as most viewers do;
- a fourth channel is left out where a TIFF file does not say what it holds, or a BMP file has 0 in it everywhere;
- palette, bilevel and grey pictures become RGB; 16-bit grey is scaled to 8 bits, not clipped;
- CMYK and YCCK JPEGs are converted by Pillow's plain formula; colour profiles are not applied;
- of an animation the first frame is taken;
- of a TIFF file of several pages the first one is taken, of a HEIC file of several pictures the primary one; `Photo.note` says so;
- the orientation of EXIF, or of XMP where there is no EXIF, is applied (`app.inference.image.orientation`); all other metadata is left out
  before decoding, so that an intact picture is never refused for what stands beside its pixels;
- a JPEG whose end is missing is decoded where more than half of its rows are there; `Photo.note` says so.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from app.inference.errors import DataError
from app.inference.image.jpeg_file import END_OF_IMAGE, JpegFile, covers_the_picture
from app.inference.image.orientation import UPRIGHT
from app.inference.image.picture_file import PictureFile, open_picture, saying_what_is_wrong
from app.inference.image.png_file import PngFile
from app.inference.image.preprocess import geometry_of
from app.inference.image.tiff_file import TiffFile, bit_depth_of, has_alpha, is_white_zero
from app.inference.labels import IGNORE_INDEX, voc_palette

BACKDROP = (255, 255, 255)  # This colour shows through transparent pixels.
DRAFT_MARGIN = 2  # A JPEG is decoded at reduced size only where this many times the network input remains.
OPAQUE = 255  # An opaque pixel has this value in an alpha channel.
LOW_BYTES = (
    "RGB;16L"  # Pillow calls an unpacking so that, applied to PNG's byte order, gives the lower byte of each value.
)
WITHHELD = 8  # The decoder holds back at least this many rows where its data end.
ALMOST = 0.99  # Of a photo that lacks its end at most this share is said to be there.
LEAST_SHARE_OF_ROWS = 0.5  # A truncated JPEG is refused where it has no more than this share of its rows.
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Photo:
    """It holds a decoded photo. `height` and `width` are those of the upload after its orientation.

    image: uint8 RGB (H, W, 3) of that size, or smaller where a reduced decoding was asked for. `upright`: the file's own
    pixels lie that way already. kind: its format. note: what is wrong with the file, or left out of it, where it was read all
    the same.
    """

    image: np.ndarray
    height: int
    width: int
    upright: bool = True
    kind: str = "JPEG"
    note: str | None = None


def decode(
    data: bytes,
    *,
    max_image_pixels: int | None = None,
    input_long_side: int | None = None,
    backdrop: tuple[int, int, int] = BACKDROP,
) -> Photo:
    """Decode a picture file of one of the formats that are read (`app.inference.image.kinds.READ`).

    Args:
        data: the file.
        max_image_pixels: refuse more than this, by the size in the header.
        input_long_side: long side in pixels of the largest network input. With it, a much larger JPEG is decoded at
            1/2, 1/4 or 1/8 of its size (`DRAFT_MARGIN` times the input at least). Without it, at full size.
        backdrop: the colour that shows through transparent pixels.

    Raises UploadError (nothing there), UnsupportedTypeError (not such a file), TooManyPixelsError, UndecodableImageError.
    """
    return EncodedPhoto(data, max_image_pixels=max_image_pixels, input_long_side=input_long_side).decode(backdrop)


class EncodedPhoto:
    """Its header is read and found good, and its pixels are not read yet. `height` and `width` are those of the upright photo; its pixels
    are decoded by `decode`, whose arguments and errors these are.
    """

    def __init__(self, data: bytes, *, max_image_pixels: int | None = None, input_long_side: int | None = None) -> None:
        self._input_long_side = input_long_side
        self._opened = open_picture(data, max_image_pixels)
        self.height, self.width = self._opened.size

    def decode(self, backdrop: tuple[int, int, int] = BACKDROP) -> Photo:
        """Return the photo, once. Raises UndecodableImageError."""
        return _decode(self._opened, self._input_long_side, backdrop)


def whole_image(photo: Photo, data: bytes) -> np.ndarray:
    """Return a photo at its own size, uint8 (H, W, 3), where it may have been decoded at reduced size from `data`."""
    return photo.image if photo.image.shape[:2] == (photo.height, photo.width) else decode(data).image


def _decode(opened: PictureFile, input_long_side: int | None, backdrop: tuple[int, int, int]) -> Photo:
    height, width = opened.size
    with saying_what_is_wrong(opened.kind, opened.size_bytes), opened.file as file:
        smaller = None
        if input_long_side is not None and opened.kind == "JPEG":
            geometry = geometry_of(file.size[::-1], input_long_side)
            smaller = DRAFT_MARGIN * geometry.input_width, DRAFT_MARGIN * geometry.input_height
            file.draft(None, smaller)
        note = _load(opened, smaller) or opened.note
        picture = _to_rgb(opened, backdrop)
    picture = _upright(picture, opened.orientation)
    return Photo(np.asarray(picture), height, width, opened.orientation == UPRIGHT, opened.kind, note)


def measure(data: bytes) -> tuple[int, int]:
    """Return (height, width) of `decode(data)`, from the file's header. Raises the same errors."""
    opened = open_picture(data, None)
    with opened.file:
        return opened.size


def decode_labels(data: bytes, max_image_pixels: int | None = None) -> np.ndarray:
    """Return a label map: the numbers that a palette or grey picture stores for its pixels, uint8 (H, W), upright.

    Grey of 1, 2 and 4 bits gives the numbers stored, and not the shades they stand for. A picture in colours is a label map
    where PASCAL VOC's palette has every colour of it. More than `max_image_pixels`, by the size in the header, are refused.
    Raises DataError for a picture in other colours, and the errors of `decode`.
    """
    opened = open_picture(data, max_image_pixels)
    with saying_what_is_wrong(opened.kind, len(data)), opened.file as file:
        file.load()
        values = np.asarray(_upright(file, opened.orientation))
    grey = file.mode in ("L", "1", "I;16", "I;16B", "I")
    if file.mode in ("LA", "RGBA") and values[..., -1].min(initial=OPAQUE) == OPAQUE:
        values = values[..., :-1].squeeze(axis=2) if file.mode == "LA" else _labels_in_colours(values[..., :3])
    elif file.mode == "RGB":
        values = _labels_in_colours(values)
    elif file.mode != "P" and not grey:
        raise DataError(
            f"it has colour mode {file.mode}: labels are the pixel values of a palette (P) or grey (L) image. Save it as one "
            f"of these."
        )
    if grey and isinstance(file, TiffFile) and is_white_zero(file):
        raise DataError(
            "it is a TIFF file in which 0 is white. Save it as PNG, in which the pixel values are the labels."
        )
    if file.mode == "L" and (depth := _bit_depth(opened)) < 8:
        values = values // _grey_step(depth)
    if values.max(initial=0) > IGNORE_INDEX:
        raise DataError(f"it holds {values.max()}; labels are numbers from 0 to {IGNORE_INDEX}. Save it with 8 bits.")
    return values.astype(np.uint8)


def _labels_in_colours(colours: np.ndarray) -> np.ndarray:
    """Return the labels of which colours, uint8 (H, W, 3), are those of PASCAL VOC's palette, uint8 (H, W)."""
    numbers = _colour_numbers(colours)
    palette = _colour_numbers(voc_palette())
    order = palette.argsort()
    places = np.searchsorted(palette, numbers, sorter=order).clip(max=len(palette) - 1)
    labels = order[places].astype(np.uint8)
    strange = palette[labels] != numbers
    if strange.any():
        red, green, blue = colours[strange][0].tolist()
        raise DataError(
            f"it is in colours, of which ({red}, {green}, {blue}) is none of PASCAL VOC's palette. Save it with the labels as pixel values "
            f"of a palette (P) or grey (L) image."
        )
    return labels


def _colour_numbers(colours: np.ndarray) -> np.ndarray:
    """Return one number for each colour, uint8 (..., 3)."""
    return colours.astype(np.int32) @ np.array([65536, 256, 1], np.int32)


def _bit_depth(opened: PictureFile) -> int:
    """Return the bits of one number of a pixel, as the file stores it."""
    if isinstance(opened.parts, PngFile):
        return opened.parts.bit_depth
    return bit_depth_of(opened.file) if isinstance(opened.file, TiffFile) else 8


def _load(opened: PictureFile, smaller: tuple[int, int] | None) -> str | None:
    """Decode the pixels; of a JPEG whose end is missing, those that are there. Returns what is wrong, None for nothing."""
    file = opened.file
    try:
        file.load()
        return None
    except OSError:
        share = _share_decoded(opened.parts, file) if isinstance(opened.parts, JpegFile) else 0.0
        if share <= LEAST_SHARE_OF_ROWS or opened.parts is None:
            raise
    whole = JpegImageFile(io.BytesIO(opened.parts.picture + END_OF_IMAGE))
    if smaller:
        whole.draft(None, smaller)
    whole.load()
    file.im, file.tile = whole.im, []
    if share == 1:
        return f"the JPEG file ends after {opened.size_bytes} bytes, before the scans that bring its finest detail."
    return f"the JPEG file ends early, after {opened.size_bytes} bytes: at least {share:.0%} of its rows are there."


def _share_decoded(parts: JpegFile, file: ImageFile.ImageFile) -> float:
    """Return the share of a truncated JPEG's rows that were decoded: those after them are black still."""
    if parts.in_scans:
        return float(covers_the_picture(parts))
    file.tile = []  # There is nothing more to load.
    decoded = np.flatnonzero(np.asarray(file).reshape(file.size[1], -1).any(axis=1))
    return min((int(decoded[-1]) + WITHHELD) / file.size[1], ALMOST) if decoded.size else 0.0


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    return picture.transpose(TRANSPOSITIONS[orientation]) if orientation in TRANSPOSITIONS else picture


def _to_rgb(opened: PictureFile, backdrop: tuple[int, int, int]) -> Image.Image:
    picture, mask = opened.file, None
    wide = picture.mode in ("I;16", "I;16B", "I;16L", "I")
    if isinstance(opened.parts, PngFile) and opened.parts.transparent and picture.mode in ("1", "L", "I;16", "RGB"):
        mask = Image.fromarray(~_is_transparent(opened.parts, picture))
    if mask is None and (picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info):
        layer = picture.convert("RGBA")
        colours, mask = layer.convert("RGB"), layer.getchannel("A")
        if _is_unused(opened, mask):
            mask = None
    else:
        grey = Image.fromarray(_scale_to_8_bit(_wide_values(picture))) if wide else picture
        colours = grey.convert("RGB")
    if mask is None:
        return colours
    laid = Image.new("RGB", colours.size, backdrop)
    laid.paste(colours, mask=mask)
    return laid


def _is_unused(opened: PictureFile, alpha: Image.Image) -> bool:
    """Tell whether a fourth channel is no transparency: a TIFF file does not say what it holds, near infrared perhaps, or a BMP
    file has 0 in it everywhere, which browsers take for a program's neglect.
    """
    if isinstance(opened.file, TiffFile):
        return not has_alpha(opened.file)
    return opened.kind == "BMP" and alpha.getextrema() == (0, 0)


def _is_transparent(parts: PngFile, picture: Image.Image) -> np.ndarray:
    """Return bool (H, W): the pixels of a grey or RGB picture that have the one colour its tRNS chunk names, at the file's depth."""
    named = np.frombuffer(parts.transparent[: len(parts.transparent) // 2 * 2], ">u2")
    values = np.asarray(picture)
    if picture.mode == "RGB" and parts.bit_depth == 16:  # Pillow keeps the upper byte of each value.
        low = PngImageFile(io.BytesIO(parts.picture))
        low.tile = [tile._replace(args=LOW_BYTES) for tile in low.tile]
        values = values.astype(np.uint16) << 8 | np.asarray(low)
    elif picture.mode == "L" and parts.bit_depth < 8:
        values = values // _grey_step(parts.bit_depth)
    if named.size < (values.ndim == 3) * 2 + 1:  # A damaged chunk names no colour.
        return np.zeros(values.shape[:2], bool)
    return (values == named[:3]).all(axis=2) if values.ndim == 3 else values == named[0]


def _grey_step(bit_depth: int) -> int:
    """Return what Pillow multiplies grey values of fewer than 8 bits by, so that they fill the range."""
    return 255 // (2**bit_depth - 1)


def _wide_values(picture: Image.Image) -> np.ndarray:
    """Return grey values of 16 bits, of which the largest is white: Pillow turns those of fewer bits over itself."""
    values = np.asarray(picture)
    return 65535 - values if isinstance(picture, TiffFile) and is_white_zero(picture) else values


def _scale_to_8_bit(values: np.ndarray) -> np.ndarray:
    """Return uint8(value / 257, rounded) of 16-bit values, by integers (as libpng's png_set_scale_16 does)."""
    return ((values.astype(np.uint32) * 255 + 32895) >> 16).astype(np.uint8)
