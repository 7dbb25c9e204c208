"""The random walk of IRN spreads class maps over a photo until they meet an edge.

Ahn, Cho and Kwak, "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations", CVPR 2019, section
4.1, https://arxiv.org/abs/1904.05044. With B the edge map in [0, 1]:

    a_ij = (1 - max of B over the pixels on the line from i to j)^beta    for |i - j| < radius; a_ii = 1   `affinities`
    T    = a, each column divided by its sum
    maps <- (maps^gamma * (1 - B)) T^t,   t = 2^8, beta = 10, radius 5, gamma = 1.5                    `random_walk`

The sum over a pixel's neighbours is done t times, in float64; the released code squares the dense matrix of all pairs
of pixels log2(t) times, which is the same product and needs (h w)^2 numbers (`dense`). gamma is AMR's exponent.
As in the released code, the result is divided by the largest value over all classes (`refine_walk`).
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from app.inference.arrays import resize_bilinear

Offset = tuple[int, int]  # (dy, dx)


@lru_cache(maxsize=8)
def paths(radius: int) -> tuple[tuple[Offset, ...], ...]:
    """Return, for each neighbour in the lower half of the disc of `radius`, the offsets on the line to it; its own comes first.

    On the line are the pixels of the line's bounding box less than 1 px from it. Neighbours are sorted by the number
    of those pixels, then by row and column, the row of the pixel itself first.
    """
    ends = [(0, dx) for dx in range(1, radius)]
    ends += [(dy, dx) for dy in range(1, radius) for dx in range(1 - radius, radius) if dx * dx + dy * dy < radius**2]
    return tuple(sorted((_line(dy, dx) for dy, dx in ends), key=len))


def _line(dy: int, dx: int) -> tuple[Offset, ...]:
    box = [(y, x) for y in range(dy + 1) for x in range(min(0, dx), max(0, dx) + 1)]
    near = [(y, x) for y, x in box if (dy * x - dx * y) ** 2 < dy * dy + dx * dx]
    return tuple(sorted(near, key=lambda offset: -abs(offset[0]) - abs(offset[1])))


def affinities(edge: np.ndarray, radius: int) -> np.ndarray:
    """Return 1 - the largest edge on the line from each pixel to each of the neighbours `paths(radius)` ends at.

    Args:
        edge: (h, w) in [0, 1].

    Returns:
        (D, h, w); 0 where the neighbour lies outside.
    """
    height, width = edge.shape
    margin = radius - 1
    padded = np.pad(edge, ((0, margin), (margin, margin)), constant_values=1)
    result = np.empty((len(paths(radius)), height, width), edge.dtype)
    for row, path in zip(result, paths(radius), strict=True):
        cells = [padded[dy : dy + height, margin + dx : margin + dx + width] for dy, dx in path]
        np.subtract(1, np.maximum.reduce(cells), out=row)
    return result


def neighbours(edge: np.ndarray, radius: int) -> tuple[list[Offset], np.ndarray]:
    """Return the offsets of a pixel's 2 D + 1 neighbours, itself first, and its affinities to them (2 D + 1, h, w)."""
    height, width = edge.shape
    offsets: list[Offset] = [(0, 0)]
    stacked = [np.ones_like(edge)]
    for path, affinity in zip(paths(radius), affinities(edge, radius), strict=True):
        dy, dx = path[0]
        backward = np.zeros_like(affinity)  # The pixel that is the other's neighbour has the same affinity to it.
        left, right = max(0, -dx), min(width, width - dx)
        if dy < height and left < right:
            backward[dy:, left + dx : right + dx] = affinity[: height - dy, left:right]
        offsets += [(dy, dx), (-dy, -dx)]
        stacked += [affinity, backward]
    return offsets, np.stack(stacked)


def random_walk(
    maps: np.ndarray,
    edge: np.ndarray,
    radius: int = 5,
    beta: float = 10.0,
    doublings: int = 8,
    exponent: float = 1.5,
    dense: bool = False,
) -> np.ndarray:
    """Return the maps (K, h, w) >= 0 after 2^`doublings` steps along an edge map (h, w) in [0, 1]: float32 (K, h, w).

    `dense` squares the matrix of all pairs of pixels in float32, as released; the two differ by its rounding, some 2e-5.
    """
    precision: type[np.floating[Any]] = np.float32 if dense else np.float64
    edge = edge.astype(precision)
    start = maps.astype(precision) ** edge.dtype.type(exponent) * (1 - edge)
    offsets, affinity = neighbours(edge, radius)
    if dense:
        return square_walk(start, offsets, affinity, beta, doublings)
    weights = affinity**beta
    return walk(start, offsets, weights / weights.sum(axis=0), 2**doublings).astype(np.float32)


def walk(maps: np.ndarray, offsets: list[Offset], weights: np.ndarray, steps: int) -> np.ndarray:
    """Replace every pixel of the maps (K, h, w) by the weighted mean of its neighbours, `steps` times."""
    count, height, width = maps.shape
    margin = max(abs(offset) for pair in offsets for offset in pair)
    padded = np.zeros((count, height + 2 * margin, width + 2 * margin))
    inner = padded[:, margin : margin + height, margin : margin + width]
    views = [padded[:, margin + dy : margin + dy + height, margin + dx : margin + dx + width] for dy, dx in offsets]
    inner[:] = maps
    product, total = np.empty_like(inner), np.empty_like(inner)
    for _ in range(steps):
        total[:] = 0
        for view, weight in zip(views, weights, strict=True):
            total += np.multiply(view, weight, out=product)
        inner[:] = total
    return inner


def square_walk(
    maps: np.ndarray, offsets: list[Offset], affinity: np.ndarray, beta: float, doublings: int
) -> np.ndarray:
    """Return the walk by squaring the matrix (h w, h w) of all pairs of pixels."""
    _, height, width = affinity.shape
    index = np.arange(height * width).reshape(height, width)
    matrix = torch.zeros(height * width, height * width)
    for (dy, dx), values in zip(offsets, affinity, strict=True):
        inside = values > 0
        matrix[index[inside] + dy * width + dx, index[inside]] = torch.from_numpy(values[inside])
    matrix = matrix**beta
    matrix /= matrix.sum(dim=0, keepdim=True)
    for _ in range(doublings):
        matrix = matrix @ matrix
    return (torch.from_numpy(maps).flatten(1) @ matrix).view(maps.shape).numpy()


def refine_walk(
    maps: np.ndarray, edge: np.ndarray, radius: int = 5, beta: float = 10.0, doublings: int = 8, exponent: float = 1.5
) -> np.ndarray:
    """Refine localization maps (K, H, W) in [0, 1] by a walk at the size of the edge map (h, w).

    Returns float32 (K, H, W) in [0, 1]: the walk's maps over the largest value among all of them. IRN compares them with
    a background of 0.25.
    """
    if not len(maps):
        return maps
    walked = random_walk(resize_bilinear(maps, *edge.shape), edge, radius, beta, doublings, exponent)
    enlarged = resize_bilinear(walked, *maps.shape[1:])
    return enlarged / max(float(enlarged.max()), 1e-12)
