"""Maps of several methods become one: their average, in which a method counts as much as the others agree with it.

Per class, the weight of a method's map is its soft intersection over union with the mean of the others' maps,

    w_m = sum_x min(M_m(x), R_m(x)) / sum_x max(M_m(x), R_m(x)),    R_m = mean of M_n, n != m,

and the fused map is sum_m w_m M_m / sum_m w_m. Where no two methods agree at all the plain mean is taken; so it
is of two methods, which agree with each other equally.
"""

from collections.abc import Sequence

import numpy as np

from app.inference.arrays import resize_bilinear


def agreement(maps: np.ndarray) -> np.ndarray:
    """Return weights (M, K) in [0, 1] of maps (M, K, h, w) >= 0; all 1 for a single method."""
    count = len(maps)
    if count == 1:
        return np.ones(maps.shape[:2], np.float32)
    rest = (maps.sum(axis=0) - maps) / (count - 1)
    shared = np.minimum(maps, rest).sum(axis=(2, 3))
    joined = np.maximum(maps, rest).sum(axis=(2, 3))
    return np.divide(shared, joined, out=np.zeros_like(shared), where=joined > 0)


def fuse_maps(methods: Sequence[np.ndarray]) -> np.ndarray:
    """Return one set of maps (K, h, w) in [0, 1], at the first's size, of the maps (K, h_m, w_m) of the same classes by several methods."""
    if len(methods) == 1:
        return methods[0]
    size = methods[0].shape[1:]
    maps = np.stack([resize_bilinear(maps.astype(np.float32), *size) for maps in methods])
    weights = agreement(maps)
    total = weights.sum(axis=0)
    shares = np.where(total > 0, weights / np.where(total > 0, total, 1), 1 / len(maps)).astype(np.float32)
    return np.einsum("mk,mkhw->khw", shares, maps)
