"""Orientations in EXIF data of every type, and in XMP."""

import struct

import pytest

from app.inference.image.orientation import orientation_of


def exif(*entries: tuple[int, bytes], count: int = 1) -> bytes:
    """A TIFF structure whose first directory holds orientations of these types and values."""
    written = b"".join(struct.pack(">HHI", 0x112, kind, count) + value for kind, value in entries)
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + written + bytes(4)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (exif((3, b"\0\6\0\0")), 6),
        (exif((4, b"\0\0\0\6")), 6),
        (exif((1, b"\6\0\0\0")), 1),
        (exif((2, b"6\0\0\0")), 1),
        (exif((3, b"\0\6\0\0"), (3, b"\0\1\0\0")), 6),
        (exif((3, b"\0\6\0\1"), count=2), 1),
        (exif((3, b"\0\x09\0\0")), 1),
        (exif((3, b"\0\0\0\0")), 1),
        (exif((3, b"\0\6\0\0"))[:20], 1),
        (b"", 1),
        (b"junk", 1),
    ],
)
def test_exif(data, expected):
    assert orientation_of(data) == expected


def test_xmp_speaks_where_exif_does_not():
    xmp = [b"<x/>", b'<rdf:Description tiff:Orientation="8"/>']
    assert orientation_of(b"", xmp) == 8
    assert orientation_of(exif((3, b"\0\1\0\0")), xmp) == 1
    assert orientation_of(b"", [b"<tiff:Orientation>6</tiff:Orientation>"]) == 6
