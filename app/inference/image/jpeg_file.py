"""A JPEG file (ITU T.81, annex B) has segments that hold the picture, and others that speak of it.

Application segments and comments are left out before the file is decoded, so that none of them, however large or damaged,
keeps an intact picture from being read. Two stay, since the decoder takes the colour model from them: JFIF's and Adobe's.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from app.inference.errors import UndecodableImageError
from app.inference.image.orientation import EXIF_PREFIX, orientation_of

SOI, EOI, SOS, COM = 0xD8, 0xD9, 0xDA, 0xFE
APP0, APP1, APP14, APP15 = 0xE0, 0xE1, 0xEE, 0xEF
LONE_MARKERS = (0x01, *range(0xD0, SOI + 1))  # These markers stand alone: no length follows them.
PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
START_OF_SCAN, END_OF_IMAGE = bytes([0xFF, SOS]), bytes([0xFF, EOI])
COEFFICIENTS = 64  # A block has this many coefficients.
# Whatever bytes stand before a marker are skipped, as decoders do.
MARKER = re.compile(rb"\xff+([^\x00\xff])")
# In a scan 0 is a stuffed byte, and D0 to D7 are restarts.
MARKER_IN_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
MAX_SEGMENTS = 5000  # A file may have this many segments; one of the largest size has some 320 full ones.
MAX_EXIF_BYTES = 1_000_000  # EXIF data of several segments are joined up to this many bytes.
MAX_XMP_PACKETS = 8


@dataclass(frozen=True)
class JpegFile:
    """It holds what is needed of a file. picture: the same file without metadata. in_scans: each scan covers all of the picture, with
    some of its detail (progressive files). scans: their number, each of which is a walk over the whole picture.
    """

    picture: bytes
    orientation: int
    in_scans: bool
    scans: int


def read_jpeg(data: bytes) -> JpegFile:
    """Take the header apart. Whatever follows a damaged segment is left as it is, for the decoder to judge.

    Raises UndecodableImageError for a file of more segments than any encoder writes.
    """
    kept, exif, in_scans = [b"\xff\xd8"], b"", False
    xmp: list[bytes] = []
    end = 2
    for marker, start, stop in _segments(data):
        content = data[start + 2 : stop]
        if _is_picture(marker, content):
            kept.append(b"\xff" + bytes([marker]) + data[start:stop])
        if marker == APP1 and content.startswith(EXIF_PREFIX) and len(exif) < MAX_EXIF_BYTES:
            exif += content if not exif else content.removeprefix(EXIF_PREFIX)
        elif marker == APP1 and content.startswith(XMP_PREFIX) and len(xmp) < MAX_XMP_PACKETS:
            xmp.append(content)
        in_scans |= marker in PROGRESSIVE
        end = stop
    kept.append(data[end:])
    return JpegFile(b"".join(kept), orientation_of(exif, xmp), in_scans, _count_scans(data, end))


def covers_the_picture(file: JpegFile) -> bool:
    """Tell whether the whole scans of a progressive file give every coefficient of its brightness, if not in full
    precision.
    """
    data, given, brightness = file.picture, set(), None
    scan = data.find(START_OF_SCAN)
    while scan >= 0:
        following = MARKER_IN_SCAN.search(data, scan + 2)
        if following is None:  # The scan has no end.
            break
        count = data[scan + 4]
        components, low, high = (
            data[scan + 5 : scan + 5 + 2 * count : 2],
            *data[scan + 5 + 2 * count : scan + 7 + 2 * count],
        )
        brightness = components[0] if brightness is None else brightness
        if brightness in components:
            given |= set(range(low, high + 1))
        scan = data.find(START_OF_SCAN, following.start())
    return len(given) == COEFFICIENTS


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield, of every whole segment before the first scan, its marker and where its length field and its content end."""
    position = 2
    for _ in range(MAX_SEGMENTS):
        match = MARKER.search(data, position)
        if match is None or match.end() + 2 > len(data):
            return
        marker, start = match[1][0], match.end()
        if marker in LONE_MARKERS:
            position = start
            continue
        stop = start + int.from_bytes(data[start : start + 2], "big")
        if marker in (SOS, EOI) or stop > len(data) or stop < start + 2:
            return
        yield marker, start, stop
        position = stop
    raise _too_many_segments()


def _count_scans(data: bytes, position: int) -> int:
    """Return the scans from a position on to the end of the picture. Between them stand tables, comments and restarts."""
    others = data.count(b"\xff", position) - data.count(b"\xff\x00", position)
    if others == 2 and data.startswith(START_OF_SCAN, position) and data.endswith(END_OF_IMAGE):
        return 1  # So most files are told at a tenth of the price of looking at each marker.
    scans = 0
    for _ in range(MAX_SEGMENTS):
        match = MARKER_IN_SCAN.search(data, position)
        marker = data[match.end() - 1] if match else EOI
        if match is None or marker == EOI:
            return scans
        scans += marker == SOS
        length = 0 if marker in LONE_MARKERS else int.from_bytes(data[match.end() : match.end() + 2], "big")
        position = match.end() + length
    raise _too_many_segments()


def _too_many_segments() -> UndecodableImageError:
    return UndecodableImageError(
        f"the JPEG file has more than {MAX_SEGMENTS} segments, which is the limit. Save it anew, without metadata.",
        limit=MAX_SEGMENTS,
    )


def _is_picture(marker: int, content: bytes) -> bool:
    """Tell whether the decoder needs a segment."""
    if marker == APP0:
        return content.startswith(b"JFIF\0") and len(content) >= 14
    if marker == APP14:
        return content.startswith(b"Adobe") and len(content) >= 12
    return marker != COM and not APP0 <= marker <= APP15
