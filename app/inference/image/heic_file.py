"""HEIC files, as iPhones write them, are read where the package pillow-heif is installed (the extra `heic`).

It is no part of what serving needs, because its wheels hold a codec of H.265, which is under the GPL and whose patents are
licensed country by country; whoever wants it chooses it.
"""

import io
from importlib.util import find_spec
from typing import Any, cast

from PIL import ImageFile

CAN_READ_HEIC = find_spec("pillow_heif") is not None
HOW_TO_READ_HEIC = "HEIC is read where the package pillow-heif is installed: pip install pillow-heif."


def open_heic(data: io.BytesIO) -> ImageFile.ImageFile:
    """Open a file whose header is read and whose pixels are not decoded yet; libheif turns them upright itself."""
    import pillow_heif  # It is imported here because it may be missing.

    # Each worker decodes on its own thread.
    pillow_heif.options.DECODE_THREADS = 1
    file_type: Any = pillow_heif.HeifImageFile  # Its constructor has no types.
    return cast(ImageFile.ImageFile, file_type(data))


def note_on_heic(file: ImageFile.ImageFile) -> str | None:
    """Return what is left out of a file of several pictures."""
    count = getattr(file, "n_frames", 1)
    return f"the HEIC file holds {count} pictures; its primary one is read." if count > 1 else None
