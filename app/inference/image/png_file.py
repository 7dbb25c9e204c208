"""A PNG file (https://www.w3.org/TR/png-3/) has chunks that hold the picture, and others that speak of it.

Text, colour profiles and time stamps are left out before the file is decoded, so that none of them, however large or
damaged, keeps an intact picture from being read. The frames of an animation are left out too; the picture that remains is the
one that programs without animations show.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from app.inference.errors import UndecodableImageError
from app.inference.image.orientation import orientation_of

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PICTURE_CHUNKS = (b"IHDR", b"CgBI", b"PLTE", b"IDAT", b"IEND")
PALETTE = 3  # This colour type means that pixels are indices into a palette.
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
XMP_KEYWORDS = (b"XML:com.adobe.xmp", b"Raw profile type xmp")
EXIF_KEYWORDS = (b"Raw profile type exif", b"Raw profile type APP1")
MAX_KEYWORD_BYTES = 80  # A keyword takes this many bytes at most, with the zero behind it.
# A text is decompressed up to this many bytes; an orientation stands in the first kilobytes.
MAX_TEXT_BYTES = 1_000_000
# A file may have this many chunks; encoders write 8 KB a chunk, so one of the largest size has some 2,500.
MAX_CHUNKS = 20_000
MAX_TEXTS = 8  # This many texts of a file are searched for an orientation.
FRAMING = 12  # A chunk has this many bytes besides its content: length, type and checksum.


@dataclass(frozen=True)
class PngFile:
    """It holds what is needed of a file. picture: the same file without metadata. transparent: the content of its tRNS chunk,
    which `picture` keeps for palettes alone.
    """

    picture: bytes
    bit_depth: int
    transparent: bytes
    orientation: int


def read_png(data: bytes) -> PngFile:
    """Take a file apart. Whatever follows a damaged chunk is left as it is, for the decoder to judge.

    Raises UndecodableImageError for a file of more chunks than any encoder writes.
    """
    kept, exif, transparent = [SIGNATURE], b"", b""
    texts: list[tuple[bytes, bytes]] = []
    depth, palette = (
        data[24:25] or b"\x08",
        data[25:26] == bytes([PALETTE]),
    )  # They stand in IHDR, behind width and height.
    end = len(SIGNATURE)
    for kind, start, stop in _chunks(data):
        content = memoryview(data)[start:stop]
        if kind in PICTURE_CHUNKS or (kind == b"tRNS" and palette):
            kept.append(data[end : stop + 4])
        if kind == b"tRNS":
            transparent = bytes(content)
        elif kind == b"eXIf":
            exif = bytes(content)
        elif kind in TEXT_CHUNKS and len(texts) < MAX_TEXTS and _may_state_orientation(content):
            texts.append((kind, bytes(content[:MAX_TEXT_BYTES])))
        end = stop + 4
        if kind == b"IEND":
            end = len(data)
            break
    kept.append(data[end:])
    named = [entry for kind, content in texts if (entry := _text(kind, content))]
    exif = exif or next((_profile(text) for keyword, text in named if keyword in EXIF_KEYWORDS), b"")
    xmp = [text for keyword, text in named if keyword in XMP_KEYWORDS]
    return PngFile(b"".join(kept), depth[0], transparent, orientation_of(exif, xmp))


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield, of every whole chunk, its type and where its content begins and ends."""
    position = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if position + FRAMING > len(data):
            return
        start = position + 8
        stop = start + int.from_bytes(data[position : position + 4], "big")
        if stop + 4 > len(data):
            return
        yield data[position + 4 : start], start, stop
        position = stop + 4
    raise UndecodableImageError(
        f"the PNG file has more than {MAX_CHUNKS} chunks, which is the limit. Save it anew, without metadata.",
        limit=MAX_CHUNKS,
    )


def _may_state_orientation(content: memoryview) -> bool:
    """Tell whether a text chunk has one of the keywords under which an orientation may stand."""
    return bytes(content[:MAX_KEYWORD_BYTES]).partition(b"\0")[0] in (*XMP_KEYWORDS, *EXIF_KEYWORDS)


def _text(kind: bytes, content: bytes) -> tuple[bytes, bytes] | None:
    """Return the keyword and text of a chunk; None for a damaged one."""
    keyword, _, rest = content.partition(b"\0")
    packed = kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]  # The text stands behind the language and the translated keyword.
    if packed:
        try:
            rest = zlib.decompressobj().decompress(rest, MAX_TEXT_BYTES)
        except zlib.error:
            return None
    return keyword, rest


def _profile(text: bytes) -> bytes:
    """Return EXIF data that ImageMagick wrote as text: a name, a length, hexadecimal digits. b"" where it is not that."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""
