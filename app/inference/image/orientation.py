"""A picture's metadata say how it has to be turned to stand upright: EXIF first, XMP where EXIF says nothing.

Metadata that cannot be read counts as absent: they are not pixels, and a photo with broken metadata is still a photo.
"""

import re
import struct
from collections.abc import Iterable

ORIENTATION_TAG = 0x0112
UPRIGHT = 1
EXIF_PREFIX = b"Exif\0\0"
BYTE_ORDERS = {b"II": "<", b"MM": ">"}
# Each of TIFF's types of whole numbers has this format. An orientation of another type counts as absent, as it does for Pillow.
WHOLE_NUMBERS = {3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def orientation_of(exif: bytes, xmp: Iterable[bytes] = ()) -> int:
    """Return the orientation 1 to 8 that EXIF data state, else that of the first XMP packet with one, else 1 (upright)."""
    stated = _in_exif(exif)
    if stated is None:
        found = (match for packet in xmp if (match := XMP_ORIENTATION.search(packet)))
        stated = next((int(match[1]) for match in found), None)
    return stated if stated is not None and 1 <= stated <= 8 else UPRIGHT


def _in_exif(data: bytes) -> int | None:
    """Return the value of the tag in the first directory of a TIFF structure; of several, the first one, as Pillow has
    it.
    """
    tiff = data.removeprefix(EXIF_PREFIX)
    order = BYTE_ORDERS.get(tiff[:2])
    try:
        if order is None:
            return None
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(f"{order}HHI", tiff, entry)
            if tag == ORIENTATION_TAG:
                if kind not in WHOLE_NUMBERS or values != 1:
                    return None
                (value,) = struct.unpack_from(order + WHOLE_NUMBERS[kind], tiff, entry + 8)
                return int(value)
    except struct.error:  # The data end amid the directory.
        pass
    return None
