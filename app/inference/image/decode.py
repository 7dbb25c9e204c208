"""Bytes of a picture file -> RGB uint8 (H, W, 3): the format, size and damage checks, and EXIF orientation, once.

What becomes of the unusual kinds of picture:

- transparency (RGBA, LA, palette with transparent entries, tRNS chunk) is laid over white, as most viewers do;
- palette, bilevel and grey pictures become RGB; 16-bit grey is scaled to 8 bits, not clipped;
- CMYK and YCCK JPEGs are converted by Pillow's plain formula; colour profiles are not applied;
- of an animation the first frame is taken;
- EXIF orientation is applied; EXIF data that cannot be read counts as absent.

Pillow's file classes are used directly and not through `Image.open`: the allow list is then the code itself, and
Pillow's process-wide pixel limit plays no part, the limit here being checked on the header.
"""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from app.inference.errors import TooManyPixelsError, UndecodableImageError, UnsupportedTypeError, UploadError
from app.inference.image.preprocess import geometry_of

ALLOWED_FORMATS = ("JPEG", "PNG", "WebP")
BACKDROP = (255, 255, 255)  # what shows through transparent pixels
MAX_SIDE = 65_500  # px, what libjpeg reads and writes; resizing a longer side would take more memory than its pixels
DRAFT_MARGIN = 2  # a JPEG is decoded at reduced size only where this many times the network input remains
EXIF_ORIENTATION = 0x0112
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders raise for bytes they cannot make sense of.
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, RuntimeError,
    struct.error, zlib.error,
)  # fmt: skip
# First bytes of formats people try, to name them in the refusal.
KNOWN_SIGNATURES = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"<?xml": "SVG or XML",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
}


@dataclass(frozen=True)
class Photo:
    """A decoded photo. `height` and `width` are those of the upload after EXIF orientation.

    image: uint8 RGB (H, W, 3) of that size, or smaller where a reduced decoding was asked for. `upright`: the file's own
    pixels lie that way already. kind: "JPEG", "PNG" or "WebP".
    """

    image: np.ndarray
    height: int
    width: int
    upright: bool = True
    kind: str = "JPEG"


def decode(data: bytes, *, max_image_pixels: int | None = None, input_long_side: int | None = None) -> Photo:
    """Decode a JPEG, PNG or WebP file.

    Args:
        data: the file.
        max_image_pixels: refuse more than this, by the size in the header.
        input_long_side: long side in pixels of the largest network input. With it, a much larger JPEG is decoded at
            1/2, 1/4 or 1/8 of its size (`DRAFT_MARGIN` times the input at least). Without it, at full size.

    Raises UploadError (nothing there), UnsupportedTypeError (not such a file), TooManyPixelsError, UndecodableImageError.
    """
    kind, opener = _recognise(data)
    if kind == "WebP":  # its decoder allocates the canvas when opened
        _check_pixels(*_webp_size(data), max_image_pixels)
    try:
        with opener(io.BytesIO(data)) as file:
            width, height = file.size
            _check_pixels(width, height, max_image_pixels)
            if input_long_side is not None and kind == "JPEG":
                geometry = geometry_of((height, width), input_long_side)
                file.draft(None, (DRAFT_MARGIN * geometry.input_width, DRAFT_MARGIN * geometry.input_height))
            file.load()
            orientation = _orientation(file)
            picture = _to_rgb(file)
    except DECODER_ERRORS as error:
        raise UndecodableImageError(
            f"the {kind} file of {len(data)} bytes is damaged or truncated ({_reason(error)}). Save it anew, or take "
            f"the whole file."
        ) from error
    if orientation in TRANSPOSITIONS:
        picture = picture.transpose(TRANSPOSITIONS[orientation])
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    return Photo(np.asarray(picture), height, width, orientation not in TRANSPOSITIONS, kind)


def _recognise(data: bytes) -> tuple[str, Callable[[io.BytesIO], ImageFile.ImageFile]]:
    """The format by its first bytes (a declared content type or file name proves nothing) and what opens it."""
    if not data:
        raise UploadError("the photo is empty (0 bytes). Send the bytes of a JPEG, PNG or WebP file.")
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG", JpegImageFile
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG", PngImageFile
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP", WebPImageFile
    kind = next((name for signature, name in KNOWN_SIGNATURES.items() if data.startswith(signature)), None)
    if data[4:8] == b"ftyp":
        kind = "HEIC, AVIF or video"
    what = kind or f"not a picture this service knows (it starts with {repr(data[:8])[1:]})"
    raise UnsupportedTypeError(
        f"the upload is {what}. Send JPEG, PNG or WebP.", allowed=[name.lower() for name in ALLOWED_FORMATS]
    )


def _webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) in the header of a WebP file (https://developers.google.com/speed/webp/docs/riff_container)."""
    chunk, body = data[12:16], data[20:30]
    if chunk == b"VP8X" and len(body) == 10:
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if chunk == b"VP8 " and len(body) == 10:
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    if chunk == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise UndecodableImageError("the WebP file has no readable header. Send the whole file, or save it anew.")


def _check_pixels(width: int, height: int, limit: int | None) -> None:
    if limit is None:
        return
    if max(width, height) > MAX_SIDE:
        raise TooManyPixelsError(
            f"the photo has {width} x {height} pixels; the limit is {MAX_SIDE} on a side. Send a smaller copy.",
            limit=MAX_SIDE,
            width=width,
            height=height,
        )
    if width * height > limit:
        raise TooManyPixelsError(
            f"the photo has {width} x {height} = {width * height} pixels; the limit is {limit}. Send a smaller copy, "
            f"or raise TAG2MASK_MAX_IMAGE_PIXELS where the service is yours.",
            limit=limit,
            width=width,
            height=height,
        )


def _orientation(file: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none or none that can be read."""
    try:
        orientation = file.getexif().get(EXIF_ORIENTATION, 1)
    except DECODER_ERRORS:  # a photo with broken EXIF data is still a photo
        return 1
    return orientation if isinstance(orientation, int) else 1


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I;16", "I;16B", "I;16L", "I"):
        return Image.fromarray(_scale_to_8_bit(np.asarray(picture))).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        backdrop = Image.new("RGB", layer.size, BACKDROP)
        backdrop.paste(layer, mask=layer.getchannel("A"))
        return backdrop
    return picture.convert("RGB")


def _scale_to_8_bit(values: np.ndarray) -> np.ndarray:
    """uint8(value / 257, rounded) of 16-bit values, by integers (as libpng's png_set_scale_16 does)."""
    return ((values.astype(np.uint32) * 255 + 32895) >> 16).astype(np.uint8)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
