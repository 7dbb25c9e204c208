"""PAMR, pixel-adaptive mask refinement, stands here in pure numpy.

Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020, section 3.4,
https://arxiv.org/abs/2005.08104. A mask is averaged again and again over neighbours that look alike:

    m_i <- sum_j alpha_ij m_j,   alpha_ij = softmax over j of k_ij,   k_ij = -|I_i - I_j| / (w * sigma_i)

with j the eight neighbours at every dilation (`DILATIONS`), I the RGB photo, sigma_i the standard deviation of I over
these and the pixel itself, and w = 0.1 (`WEIGHT`); k is averaged over the colour channels. Ten iterations.
Departure from the authors' code: dilations that do not fit into a small photo are left out.
"""

import numpy as np

from app.inference import deadline

DILATIONS = (1, 2, 4, 8, 12, 24)
WEIGHT = 0.1
ITERATIONS = 10
NEIGHBOURS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))


def _shifted(padded: np.ndarray, dy: int, dx: int, pad: int, height: int, width: int) -> np.ndarray:
    return padded[..., pad + dy : pad + dy + height, pad + dx : pad + dx + width]


def _affinity(image: np.ndarray, offsets: list[tuple[int, int]], pad: int) -> np.ndarray:
    """Return (J, H, W) weights over the J offsets, summing to 1 at every pixel."""
    height, width = image.shape[1:]
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
    neighbours = [_shifted(padded, dy, dx, pad, height, width) for dy, dx in offsets]
    centres = len(offsets) // len(NEIGHBOURS)  # The pixel itself counts once per dilation.
    count = len(offsets) + centres
    mean = (sum(neighbours) + centres * image) / count
    squares = sum((n - mean) ** 2 for n in neighbours) + centres * (image - mean) ** 2
    variance = squares / (count - 1)  # The deviation is unbiased, as torch.std is.
    scale = WEIGHT * np.sqrt(variance) + 1e-8
    affinity = np.stack([(-np.abs(n - image) / scale).mean(axis=0) for n in neighbours])
    np.exp(affinity - affinity.max(axis=0), out=affinity)
    return affinity / affinity.sum(axis=0)


def refine_pamr(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Refine localization maps (K, H, W) in [0, 1] by the look of the photo, uint8 (H, W, 3) of the same size.

    The weights sum to one, so a constant background score would stay what it is: the thresholds keep their meaning.
    Returns float32 (K, H, W) in [0, 1].
    """
    height, width = image.shape[:2]
    dilations = [d for d in DILATIONS if d < min(height, width)] or [1]
    offsets = [(dy * d, dx * d) for d in dilations for dy, dx in NEIGHBOURS]
    pad = max(dilations)
    weights = _affinity(np.moveaxis(image, 2, 0).astype(np.float32) / 255, offsets, pad)
    refined = maps.astype(np.float32)
    for _ in range(ITERATIONS):
        deadline.check()
        padded = np.pad(refined, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
        refined = sum(
            weight * _shifted(padded, dy, dx, pad, height, width)
            for weight, (dy, dx) in zip(weights, offsets, strict=True)
        )
    return refined
