"""Photos and masks of a few pixels, as files."""

from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 12, 8


def save_photo(path: Path, width: int = WIDTH, height: int = HEIGHT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path)
    return path


def save_mask(path: Path, labels: np.ndarray) -> Path:
    """Labels as a palette PNG, as VOC stores them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(list(range(256)) * 3)
    image.save(path)
    return path
