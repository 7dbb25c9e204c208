"""A photo becomes network input; the geometry leads back."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

# An input has this side in px at least; below it the coarsest feature map of a network of stride 32 would be empty.
MIN_INPUT_SIDE = 32


@dataclass(frozen=True)
class Geometry:
    """It holds the sizes in pixels of a photo and of the network input made from it."""

    height: int
    width: int
    input_height: int
    input_width: int


def geometry_of(shape: tuple[int, ...], preferred_size: int, scale: float = 1.0) -> Geometry:
    """Return the input size for a photo of `shape` (H, W, ...): long side `preferred_size * scale`, aspect ratio kept.

    No side is made smaller than 32 px.
    """
    height, width = shape[:2]
    factor = preferred_size * scale / max(height, width)
    input_height, input_width = (max(MIN_INPUT_SIDE, round(side * factor)) for side in (height, width))
    return Geometry(height, width, input_height, input_width)


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a uint8 (H, W, 3) photo; bicubic with antialiasing, as the papers' code does. Same size: the same array."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
