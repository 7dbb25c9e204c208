"""Random views of photos are made here: every function takes its own random generator, so a view depends on (seed, epoch, index) alone.

Photos are PIL images or uint8 (H, W, 3); labels of pixels uint8 (H, W).
"""

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HUES = 256  # PIL's colour circle has this many steps.


def generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the random stream of one photo in one epoch."""
    return np.random.default_rng((seed, epoch, index))


def jitter_colours(image: Image.Image, strength: float, rng: np.random.Generator, hue: float = 0.0) -> Image.Image:
    """Change brightness, contrast and saturation, each by a factor from [1 - strength, 1 + strength], and turn the hue by a
    share of the colour circle from [-hue, hue]; nothing is drawn for a hue of 0.
    """
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(max(0.0, 1 - strength), 1 + strength))
    return turn_hue(image, rng.uniform(-hue, hue)) if hue else image


def turn_hue(image: Image.Image, share: float) -> Image.Image:
    """Turn every colour by a share of the colour circle; saturation and value (HSV) stay."""
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue).astype(int) + round(share * HUES)) % HUES
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")


def random_resized_crop(
    image: Image.Image, size: int, area: tuple[float, float], rng: np.random.Generator
) -> Image.Image:
    """Return a crop of `area` (share of the photo) and aspect ratio 3/4 to 4/3, resized to `size` x `size`."""
    width, height = image.size
    target = width * height * rng.uniform(*area)
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    w, h = min(width, np.sqrt(target * ratio)), min(height, np.sqrt(target / ratio))
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h))


def scale_and_crop(
    image: Image.Image,
    planes: tuple[Image.Image, ...],
    long_side: tuple[int, int],
    size: int,
    outside: int,
    rng: np.random.Generator,
) -> tuple[Image.Image, tuple[Image.Image, ...]]:
    """Resize so that the long side is drawn from `long_side`, then crop or pad to `size` x `size` at a random place.

    `planes` are label maps and the like of the same photo, of any size. Padding is the ImageNet mean colour for the
    photo and `outside` for the planes.
    """
    width, height = image.size
    factor = rng.integers(long_side[0], long_side[1], endpoint=True) / max(width, height)
    w, h = max(1, round(width * factor)), max(1, round(height * factor))
    left = int(rng.integers(min(0, w - size), max(0, w - size), endpoint=True))
    top = int(rng.integers(min(0, h - size), max(0, h - size), endpoint=True))
    mean = tuple(round(255 * value) for value in IMAGENET_MEAN)
    canvas = Image.new("RGB", (size, size), mean)
    canvas.paste(image.resize((w, h), Image.Resampling.BICUBIC), (-left, -top))
    cropped = []
    for plane in planes:
        cropped.append(Image.new("L", (size, size), outside))
        cropped[-1].paste(plane.resize((w, h), Image.Resampling.NEAREST), (-left, -top))
    return canvas, tuple(cropped)


def cut_out(image: Tensor, size: int, rng: np.random.Generator) -> None:
    """Set a square of `size` px at a random place of a normalised image (3, H, W) to the mean colour, in place."""
    top, left = (int(rng.integers(max(1, side - size + 1))) for side in image.shape[1:])
    image[:, top : top + size, left : left + size] = 0


def normalize(image: np.ndarray) -> Tensor:
    """Return float32 (3, H, W) of uint8 (H, W, 3), with ImageNet's mean taken off and divided by its standard deviation."""
    values = (image.astype(np.float32) / 255 - np.array(IMAGENET_MEAN, np.float32)) / np.array(IMAGENET_STD, np.float32)
    return torch.from_numpy(values).permute(2, 0, 1)
