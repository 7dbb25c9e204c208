"""Pictures are formats: a mask with PASCAL VOC's palette, a heatmap, either over the photo, or grey values."""

from app.http.formats.format import Format, Maps, Mask
from app.inference.image import encode


def mask_overlay(result: Mask) -> bytes:
    """Return the photo with every class in its colour, as JPEG."""
    return encode.mask_to_overlay(result.mask, result.image_of(*result.mask.shape))


def map_overlay(result: Maps) -> bytes:
    """Return the photo under the heatmap, as JPEG."""
    values = next(result.full_size())
    return encode.map_to_overlay(values, result.image_of(*values.shape))


PNG = Format(
    "png",
    "image/png",
    mask=lambda result: encode.mask_to_png(result.mask),
    map=lambda result: encode.map_to_png(next(result.full_size())),
)
OVERLAY = Format("overlay", "image/jpeg", mask=mask_overlay, map=map_overlay)
GRAY8 = Format(
    "gray8",
    "image/png",
    mask=lambda result: encode.labels_to_gray8(result.mask),
    map=lambda result: encode.to_gray8(next(result.full_size())),
)
GRAY16 = Format(
    "gray16",
    "image/png",
    mask=lambda result: encode.labels_to_gray16(result.mask),
    map=lambda result: encode.to_gray16(next(result.full_size())),
)
