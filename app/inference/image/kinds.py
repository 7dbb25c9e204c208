"""The first bytes of a file tell what kind it is: a declared content type and a file's name prove nothing."""

import re

from app.inference.image.heic_file import CAN_READ_HEIC

READ = ("JPEG", "PNG", "WebP", "TIFF", "BMP", *(["HEIC"] if CAN_READ_HEIC else []))
READ_AS_TEXT = f"{', '.join(READ[:-1])} or {READ[-1]}"
# These pictures are recognised and refused by their name.
OTHER_PICTURES = ("HEIC", "GIF", "AVIF", "JPEG XL", "JPEG 2000", "raw photo")
# Clients declare these types; the docs list HEIC's too, wherever they are written.
MEDIA_TYPES = tuple(f"image/{kind}" for kind in ("jpeg", "png", "webp", "tiff", "bmp", "heic"))
# Files of these formats begin with these bytes: those that are read, and those that people try, to name them in the refusal.
SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"<?xml": "SVG or XML",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"<!DOCTYPE html": "an HTML page",
    b"<html": "an HTML page",
    b"data:": "a data URL, which is text: decode its base64 first",
    b"/9j/": "a JPEG in base64, which is text: decode it first",
    b"iVBORw0KGgo": "a PNG in base64, which is text: decode it first",
    b"version https://git-lfs": "the pointer of a Git LFS file: `git lfs pull` fetches the picture",
    b"PK\x03\x04": "a ZIP file: send the pictures in it",
    b"\x1f\x8b": "a gzip file: unpack it first",
}
# The two letters of a BMP file begin many texts too; the length of its second header tells them apart.
BMP = re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL)
# A file of ISO's media format says behind "ftyp" what it is.
BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    b"crx": "raw photo",
}
# HEIF has these brands whatever it is compressed with: AVIF names itself among the compatible brands that follow.
ANY_COMPRESSION = (b"mif1", b"msf1")


def kind_of(head: bytes) -> str | None:
    """Return the kind of a file by its first 32 bytes; None for one that is not known."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if BMP.match(head):
        return "BMP"
    if head[:4] == b"II*\0" and head[8:10] == b"CR":  # Canon's raw photos are TIFF files of their own kind.
        return "raw photo"
    if head[4:8] == b"ftyp":
        if head[8:12] in ANY_COMPRESSION and b"avif" in head[16:]:
            return "AVIF"
        return BRANDS.get(head[8:12].rstrip(), "video")
    return next((name for signature, name in SIGNATURES.items() if head.startswith(signature)), None)
