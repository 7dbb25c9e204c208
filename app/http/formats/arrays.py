"""numpy's own files are formats: npy holds one array, npz everything that was computed, by name."""

import numpy as np

from app.http.formats.format import Format, Maps, Mask
from app.inference.image import encode


def mask_archive(result: Mask) -> bytes:
    """Return the arrays, and the names of the classes."""
    return encode.to_npz({**result.arrays(), "classes": np.array(result.classes)})


def map_archive(result: Maps) -> bytes:
    """Return the maps at the size of the network input, with the scores and names of their classes."""
    indices = list(result.indices)
    names = np.array([result.classes[index] for index in indices])
    return encode.to_npz({"maps": result.input_size(), "scores": result.scores[indices], "classes": names})


NPY = Format(
    "npy",
    "application/x-npy",
    mask=lambda result: encode.to_npy(result.mask),
    map=lambda result: encode.to_npy(next(result.full_size())),
    maps=lambda result: encode.to_npy(np.stack(list(result.full_size()))),
    at_full_size=True,
)
NPZ = Format("npz", "application/x-npz", mask=mask_archive, map=map_archive, maps=map_archive)
