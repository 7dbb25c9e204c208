"""The header of a picture file is read and checked here; its pixels are not decoded yet.

Pillow's file classes are used directly and not through `Image.open`: the allow list is then the code itself, and
Pillow's process-wide pixel limit plays no part, the limit here being checked on the header.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from app.inference.errors import TooManyPixelsError, UndecodableImageError, UnsupportedTypeError, UploadError
from app.inference.image.heic_file import HOW_TO_READ_HEIC, note_on_heic, open_heic
from app.inference.image.jpeg_file import JpegFile, read_jpeg
from app.inference.image.kinds import READ, READ_AS_TEXT, kind_of
from app.inference.image.orientation import UPRIGHT, orientation_of
from app.inference.image.png_file import PngFile, read_png
from app.inference.image.tiff_file import TiffFile, check_tiff, note_on_tiff, open_tiff

# A side in px may be as long as libjpeg reads and writes; resizing a longer one would take more memory than its pixels.
MAX_SIDE = 65_500
MAX_SCANS = 100  # A progressive JPEG may have this many scans; encoders write about ten.
# All scans of a file together may have this many pixels: each scan is a walk over the whole picture.
MAX_SCAN_PIXELS = 2_000_000_000
# Pillow's decoders raise these for bytes they cannot make sense of.
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, RuntimeError,
    struct.error, zlib.error,
)  # fmt: skip
OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "TIFF": open_tiff,
    "BMP": BmpImageFile,
    "HEIC": open_heic,
}
SIDEWAYS = (5, 6, 7, 8)  # These orientations change width and height over.


@dataclass(frozen=True)
class PictureFile:
    """It is a picture file whose header is read.

    orientation: what is left to do to the pixels that `file` gives, which of TIFF and HEIC lie upright already. parts: what the own
    readers of JPEG and PNG say of the file, None for the others. note: what is left out of the file.
    """

    kind: str
    file: ImageFile.ImageFile
    orientation: int
    parts: JpegFile | PngFile | None
    size_bytes: int
    note: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """The picture has this (height, width) once it stands upright."""
        width, height = self.file.size
        return (width, height) if self.orientation in SIDEWAYS else (height, width)


def open_picture(data: bytes, max_image_pixels: int | None) -> PictureFile:
    """Read the header, and check the size it states before anything of that size is allocated.

    Raises UploadError (nothing there), UnsupportedTypeError (no such file), TooManyPixelsError, UndecodableImageError.
    """
    kind = _recognise(data)
    if kind == "WebP":  # Its decoder allocates the canvas when it is opened.
        _check_pixels(*_webp_size(data), max_image_pixels)
    with saying_what_is_wrong(kind, len(data)):
        parts = read_jpeg(data) if kind == "JPEG" else read_png(data) if kind == "PNG" else None
        file = OPENERS[kind](io.BytesIO(parts.picture if parts else data))
    _check_pixels(*file.size, max_image_pixels)
    orientation, note = UPRIGHT, None
    if parts:
        orientation = parts.orientation
    elif kind == "WebP":
        orientation = orientation_of(file.info.get("exif", b""), [_xmp_of(file)])
    elif kind == "HEIC":
        note = note_on_heic(file)
    if isinstance(parts, JpegFile):
        _check_scans(parts.scans, *file.size)
    if isinstance(file, TiffFile):
        check_tiff(file, len(data))
        note = note_on_tiff(file)
    return PictureFile(kind, file, orientation, parts, len(data), note)


@contextmanager
def saying_what_is_wrong(kind: str, size_bytes: int) -> Iterator[None]:
    """Raise UndecodableImageError for what Pillow's decoders raise."""
    try:
        yield
    except DECODER_ERRORS as error:
        raise UndecodableImageError(
            f"the {kind} file of {size_bytes} bytes is damaged or truncated ({_reason(error)}). Save it anew, or take "
            f"the whole file."
        ) from error


def _recognise(data: bytes) -> str:
    """Return the format. Raises UploadError and UnsupportedTypeError for what is not read."""
    if not data:
        raise UploadError(f"the photo is empty (0 bytes). Send the bytes of a {READ_AS_TEXT} file.")
    kind = kind_of(data[:32])
    if kind in READ:
        return kind
    what = kind or f"not a picture this service knows (it starts with {repr(data[:8])[1:]})"
    how = f"{HOW_TO_READ_HEIC} " if kind == "HEIC" else ""
    raise UnsupportedTypeError(
        f"the upload is {what}. {how}Send {READ_AS_TEXT}.", allowed=[name.lower() for name in READ]
    )


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) in the header of a WebP file
    (https://developers.google.com/speed/webp/docs/riff_container).
    """
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


def _check_scans(scans: int, width: int, height: int) -> None:
    """Raise UndecodableImageError where decoding would walk over the picture too often."""
    if scans > MAX_SCANS or scans * width * height > MAX_SCAN_PIXELS:
        raise UndecodableImageError(
            f"the JPEG file has {scans} scans of {width} x {height} pixels; at most {MAX_SCANS} are decoded, of "
            f"{MAX_SCAN_PIXELS} pixels together. Save it anew, as a baseline JPEG.",
            scans=scans,
            limit=min(MAX_SCANS, MAX_SCAN_PIXELS // (width * height)),
        )


def _xmp_of(file: Image.Image) -> bytes:
    """Return the XMP packet of a WebP file."""
    xmp = file.info.get("xmp", b"")
    return xmp if isinstance(xmp, bytes) else b""


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
