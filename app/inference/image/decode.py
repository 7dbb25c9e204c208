"""Bytes of a picture file -> RGB uint8 (H, W, 3): the format, size and damage checks, and the orientation, once.

Whatever enters as a picture comes through here: uploads, photos of a folder, label maps, saliency, frames of other programs.
What becomes of the unusual kinds:

- transparency (RGBA, LA, palette with transparent entries, tRNS chunk of any depth) is laid over white, as most viewers do;
- palette, bilevel and grey pictures become RGB; 16-bit grey is scaled to 8 bits, not clipped;
- CMYK and YCCK JPEGs are converted by Pillow's plain formula; colour profiles are not applied;
- of an animation the first frame is taken;
- the orientation of EXIF, or of XMP where there is no EXIF, is applied (`app.inference.image.orientation`); all other metadata is left out
  before decoding, so that an intact picture is never refused for what stands beside its pixels;
- a JPEG whose end is missing is decoded where more than half of its rows are there; `Photo.note` says so.

Pillow's file classes are used directly and not through `Image.open`: the allow list is then the code itself, and
Pillow's process-wide pixel limit plays no part, the limit here being checked on the header.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from app.inference.errors import DataError, TooManyPixelsError, UndecodableImageError, UnsupportedTypeError, UploadError
from app.inference.image.jpeg_file import END_OF_IMAGE, JpegFile, covers_the_picture, read_jpeg
from app.inference.image.orientation import UPRIGHT, orientation_of
from app.inference.image.png_file import PngFile, read_png
from app.inference.image.preprocess import geometry_of
from app.inference.labels import IGNORE_INDEX

ALLOWED_FORMATS = ("JPEG", "PNG", "WebP")
BACKDROP = (255, 255, 255)  # This colour shows through transparent pixels.
# A side in px may be as long as libjpeg reads and writes; resizing a longer one would take more memory than its pixels.
MAX_SIDE = 65_500
MAX_SCANS = 100  # A progressive JPEG may have this many scans; encoders write about ten.
# All scans of a file together may have this many pixels: each scan is a walk over the whole picture.
MAX_SCAN_PIXELS = 2_000_000_000
DRAFT_MARGIN = 2  # A JPEG is decoded at reduced size only where this many times the network input remains.
OPAQUE = 255  # An opaque pixel has this value in an alpha channel.
LOW_BYTES = (
    "RGB;16L"  # Pillow's name for an unpacking that, applied to PNG's byte order, gives the lower byte of each value
)
WITHHELD = 8  # The decoder holds back at least this many rows where its data end.
ALMOST = 0.99  # Of a photo that lacks its end at most this share is said to be there.
LEAST_SHARE = 0.5  # A truncated JPEG is refused where it has no more than this share of its rows.
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
# First bytes of the formats that are read, and of those people try, to name them in the refusal.
KNOWN_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
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


# What a file of ISO's media format says it is, behind "ftyp".
BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    b"crx": "raw photo",
}
OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
}


@dataclass(frozen=True)
class Photo:
    """A decoded photo. `height` and `width` are those of the upload after its orientation.

    image: uint8 RGB (H, W, 3) of that size, or smaller where a reduced decoding was asked for. `upright`: the file's own
    pixels lie that way already. kind: "JPEG", "PNG" or "WebP". note: what is wrong with the file, where it was read all the same.
    """

    image: np.ndarray
    height: int
    width: int
    upright: bool = True
    kind: str = "JPEG"
    note: str | None = None


@dataclass(frozen=True)
class Opened:
    """A picture file whose header is read. `parts` is what the file's own reader says of it, None for WebP."""

    kind: str
    file: ImageFile.ImageFile
    orientation: int
    parts: JpegFile | PngFile | None
    size_bytes: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) once it stands upright."""
        width, height = self.file.size
        return (width, height) if self.orientation in (5, 6, 7, 8) else (height, width)


def decode(
    data: bytes,
    *,
    max_image_pixels: int | None = None,
    input_long_side: int | None = None,
    backdrop: tuple[int, int, int] = BACKDROP,
) -> Photo:
    """Decode a JPEG, PNG or WebP file.

    Args:
        data: the file.
        max_image_pixels: refuse more than this, by the size in the header.
        input_long_side: long side in pixels of the largest network input. With it, a much larger JPEG is decoded at
            1/2, 1/4 or 1/8 of its size (`DRAFT_MARGIN` times the input at least). Without it, at full size.
        backdrop: the colour that shows through transparent pixels.

    Raises UploadError (nothing there), UnsupportedTypeError (not such a file), TooManyPixelsError, UndecodableImageError.
    """
    opened = _open(data, max_image_pixels)
    height, width = opened.size
    with _saying_what_is_wrong(opened.kind, len(data)), opened.file as file:
        smaller = None
        if input_long_side is not None and opened.kind == "JPEG":
            geometry = geometry_of(file.size[::-1], input_long_side)
            smaller = DRAFT_MARGIN * geometry.input_width, DRAFT_MARGIN * geometry.input_height
            file.draft(None, smaller)
        note = _load(opened, smaller)
        picture = _to_rgb(opened, backdrop)
    picture = _upright(picture, opened.orientation)
    return Photo(np.asarray(picture), height, width, opened.orientation == UPRIGHT, opened.kind, note)


def measure(data: bytes) -> tuple[int, int]:
    """Return (height, width) of `decode(data)`, from the file's header. Raises the same errors."""
    opened = _open(data, None)
    with opened.file:
        return opened.size


def decode_labels(data: bytes) -> np.ndarray:
    """Return a label map: the numbers that a palette or grey picture stores for its pixels, uint8 (H, W), upright.

    Grey of 1, 2 and 4 bits gives the numbers stored, and not the shades they stand for. Raises DataError for a picture in
    colours, and the errors of `decode`.
    """
    opened = _open(data, None)
    with _saying_what_is_wrong(opened.kind, len(data)), opened.file as file:
        file.load()
        values = np.asarray(_upright(file, opened.orientation))
    if file.mode == "LA" and values[..., 1].min(initial=OPAQUE) == OPAQUE:
        values = values[..., 0]
    elif file.mode not in ("P", "L", "1", "I;16", "I;16B", "I"):
        raise DataError(
            f"it has colour mode {file.mode}: labels are the pixel values of a palette (P) or grey (L) image. Save it as one "
            f"of these."
        )
    if isinstance(opened.parts, PngFile) and file.mode == "L" and opened.parts.bit_depth < 8:
        values = values // _grey_step(opened.parts.bit_depth)
    if values.max(initial=0) > IGNORE_INDEX:
        raise DataError(f"it holds {values.max()}; labels are numbers from 0 to {IGNORE_INDEX}. Save it with 8 bits.")
    return values.astype(np.uint8)


def _open(data: bytes, max_image_pixels: int | None) -> Opened:
    """Read the header, and check the size it states before anything of that size is allocated."""
    kind, opener = _recognise(data)
    if kind == "WebP":  # its decoder allocates the canvas when opened
        _check_pixels(*_webp_size(data), max_image_pixels)
    with _saying_what_is_wrong(kind, len(data)):
        parts = read_jpeg(data) if kind == "JPEG" else read_png(data) if kind == "PNG" else None
        file = opener(io.BytesIO(parts.picture if parts else data))
        orientation = parts.orientation if parts else orientation_of(file.info.get("exif", b""), [_xmp_of(file)])
    _check_pixels(*file.size, max_image_pixels)
    if isinstance(parts, JpegFile):
        _check_scans(parts.scans, *file.size)
    return Opened(kind, file, orientation, parts, len(data))


@contextmanager
def _saying_what_is_wrong(kind: str, size_bytes: int) -> Iterator[None]:
    """Raise UndecodableImageError for what Pillow's decoders raise."""
    try:
        yield
    except DECODER_ERRORS as error:
        raise UndecodableImageError(
            f"the {kind} file of {size_bytes} bytes is damaged or truncated ({_reason(error)}). Save it anew, or take "
            f"the whole file."
        ) from error


def _load(opened: Opened, smaller: tuple[int, int] | None) -> str | None:
    """Decode the pixels; of a JPEG whose end is missing, those that are there. Returns what is wrong, None for nothing."""
    file = opened.file
    try:
        file.load()
        return None
    except OSError:
        share = _share_decoded(opened.parts, file) if isinstance(opened.parts, JpegFile) else 0.0
        if share <= LEAST_SHARE or opened.parts is None:
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
    file.tile = []  # nothing more to load
    decoded = np.flatnonzero(np.asarray(file).reshape(file.size[1], -1).any(axis=1))
    return min((int(decoded[-1]) + WITHHELD) / file.size[1], ALMOST) if decoded.size else 0.0


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    return picture.transpose(TRANSPOSITIONS[orientation]) if orientation in TRANSPOSITIONS else picture


def _recognise(data: bytes) -> tuple[str, Callable[[io.BytesIO], ImageFile.ImageFile]]:
    """Return the format by its first bytes (a declared content type or file name proves nothing) and what opens it."""
    if not data:
        raise UploadError("the photo is empty (0 bytes). Send the bytes of a JPEG, PNG or WebP file.")
    kind = kind_of(data)
    if kind is not None and kind in OPENERS:
        return kind, OPENERS[kind]
    what = kind or f"not a picture this service knows (it starts with {repr(data[:8])[1:]})"
    raise UnsupportedTypeError(
        f"the upload is {what}. Send JPEG, PNG or WebP.", allowed=[name.lower() for name in ALLOWED_FORMATS]
    )


def kind_of(head: bytes) -> str | None:
    """Return the kind of a file by its first bytes; None for one that is not known."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return BRANDS.get(head[8:12].rstrip(), "video")
    return next((name for signature, name in KNOWN_SIGNATURES.items() if head.startswith(signature)), None)


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


def _to_rgb(opened: Opened, backdrop: tuple[int, int, int]) -> Image.Image:
    picture, mask = opened.file, None
    wide = picture.mode in ("I;16", "I;16B", "I;16L", "I")
    if isinstance(opened.parts, PngFile) and opened.parts.transparent and picture.mode in ("1", "L", "I;16", "RGB"):
        mask = Image.fromarray(~_is_transparent(opened.parts, picture))
    if mask is None and (picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info):
        layer = picture.convert("RGBA")
        colours, mask = layer.convert("RGB"), layer.getchannel("A")
    else:
        grey = Image.fromarray(_scale_to_8_bit(np.asarray(picture))) if wide else picture
        colours = grey.convert("RGB")
    if mask is None:
        return colours
    laid = Image.new("RGB", colours.size, backdrop)
    laid.paste(colours, mask=mask)
    return laid


def _is_transparent(parts: PngFile, picture: Image.Image) -> np.ndarray:
    """bool (H, W): the pixels of a grey or RGB picture that have the one colour its tRNS chunk names, at the file's depth."""
    named = np.frombuffer(parts.transparent[: len(parts.transparent) // 2 * 2], ">u2")
    values = np.asarray(picture)
    if picture.mode == "RGB" and parts.bit_depth == 16:  # Pillow keeps the upper byte of each value
        low = PngImageFile(io.BytesIO(parts.picture))
        low.tile = [tile._replace(args=LOW_BYTES) for tile in low.tile]
        values = values.astype(np.uint16) << 8 | np.asarray(low)
    elif picture.mode == "L" and parts.bit_depth < 8:
        values = values // _grey_step(parts.bit_depth)
    if named.size < (values.ndim == 3) * 2 + 1:  # a damaged chunk names no colour
        return np.zeros(values.shape[:2], bool)
    return (values == named[:3]).all(axis=2) if values.ndim == 3 else values == named[0]


def _grey_step(bit_depth: int) -> int:
    """Return what Pillow multiplies grey values of fewer than 8 bits by, so that they fill the range."""
    return 255 // (2**bit_depth - 1)


def _scale_to_8_bit(values: np.ndarray) -> np.ndarray:
    """uint8(value / 257, rounded) of 16-bit values, by integers (as libpng's png_set_scale_16 does)."""
    return ((values.astype(np.uint32) * 255 + 32895) >> 16).astype(np.uint8)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
