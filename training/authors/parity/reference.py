"""A fixture file offers this to the code that reproduces it: arrays, the weights' fill rule, the inputs.

The fixtures were made by the authors' released modules with weights drawn by a rule from the names of their parameters,
so that a reproduction fills the same weights under the authors' names, imports them (`training.authors.released`) and
compares what comes out.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from app.inference.errors import DataError
from app.inference.labels import VOC_CLASSES
from training.data.augment import IMAGENET_MEAN, IMAGENET_STD

KEYS_FILE = "keys.json"

# Our code starts from these (file, array): any change would otherwise be seen only as far as it shows in the outcome.
INPUT_DIGESTS = {
    ("drs_rules", "loc"): "5556eb92dcf23457",
    ("drs_rules", "saliency_uint8"): "78762b254510e74d",
    ("drs_rules", "refine_input_uint8"): "966cc7460f847761",
    ("amr_amm", "x"): "8311a6867c23c666",
    ("amr_amm_bnbatch", "x"): "8311a6867c23c666",
    ("amr_loss", "label"): "520530d0cf347068",
    ("amr_advcam", "classes"): "cf8cc10dae54cf31",
    ("amr_advcam_scales", "image"): "f42e30de10ebf6de",
    ("cam_scales", "raw0"): "22794ac1f2167228",
    ("cam_scales", "raw1"): "1fbd3b10bcfd8c37",
    ("cam_scales", "raw2"): "ffcb98510e380a3d",
    ("cam_scales", "raw3"): "276aa55e662e9a49",
    ("edam_train", "label_idx"): "9c8ae5a72ae7dda8",
    ("edam_train", "label"): "8922afab6bb2c024",
    ("edam_rules", "masks"): "ce5d7f76a7a28337",
    ("edam_rules", "label"): "9fc0b2d4c44ded7b",
    ("edam_rules", "saliency_uint8"): "78762b254510e74d",
    ("irn_walk", "cam"): "d1629b5a9a4ba26b",
    ("irn_walk", "edge"): "cf1f21ffbea2b4c8",
    ("ccrm_1class", "image"): "95620ced0029031d",
    ("ccrm_1class", "label"): "8ed5e86cd22e67b5",
    ("ccrm_1class", "classes"): "4f10b8495fcada0f",
    ("ccrm_2class", "image"): "95620ced0029031d",
    ("ccrm_2class", "label"): "e6cee02900ccaca5",
    ("ccrm_2class", "classes"): "6f204b20b06a2826",
    ("ccrm_3class", "image"): "95620ced0029031d",
    ("ccrm_3class", "label"): "8dec8823dc97f725",
    ("ccrm_3class", "classes"): "86f1e4beb55d7b41",
}


class Claim(NamedTuple):
    """It is one array of a fixture as our code computes it.

    tolerance: accepted max |ours - reference| / max |reference|; 0 demands equality. With `share` it is the accepted
    share of entries that differ.
    """

    array: str
    ours: Any
    tolerance: float
    share: bool = False


Claims = Iterator[Claim]


@dataclass
class Reference:
    """It is one fixture file. Every array has to be claimed, or read with `input` because our code starts from it."""

    directory: Path
    file: str
    inputs: list[str] = field(default_factory=list)
    _arrays: dict[str, np.ndarray] | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays of the file. Raises DataError where it is missing or unreadable."""
        if self._arrays is None:
            self._arrays = read_arrays(self.directory / f"{self.file}.npz")
        return self._arrays

    def array(self, name: str) -> np.ndarray:
        """Return one array, to look at; reading it does not claim it. Raises DataError where it is missing."""
        arrays = self.arrays()
        if name not in arrays:
            raise DataError(f"{self.file}.npz holds no array {name!r}; take the fixtures from their source again")
        return arrays[name]

    def input(self, name: str) -> np.ndarray:
        """Return one array from which our code starts. It needs no claim: what comes out depends on it."""
        self.inputs.append(name)
        return self.array(name)

    def state(self, model: str) -> dict[str, Tensor]:
        """Return the authors' state dict of `model`, a name in keys.json, filled by the rule."""
        keys = read_keys(self.directory / KEYS_FILE)
        if model not in keys:
            raise DataError(f"{self.directory / KEYS_FILE} does not know the model {model!r}")
        return authors_state(keys[model])


def digest(array: np.ndarray) -> str:
    """Return the first 16 hex digits of the SHA-256 of an array's type, shape and bytes."""
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of an .npz file. Raises DataError where it is missing or unreadable."""
    try:
        with path.open("rb") as stored, np.load(stored, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise DataError(f"fixture {path} cannot be read: {error}") from None


def read_keys(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Read keys.json: model -> the authors' key -> {shape, dtype, kind, alias_of?, not_filled?}."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"fixture {path} cannot be read: {error}") from None


def authors_state(entries: dict[str, dict[str, Any]]) -> dict[str, Tensor]:
    """Return weights by the fill rule, under the authors' keys and in their order; keys marked `not_filled` are left
    out.

    Keys that name one storage (`alias_of`) share one tensor, drawn from the smallest name among them.
    """
    filled: dict[str, Tensor] = {}
    state = {}
    for key, entry in entries.items():
        if entry.get("not_filled"):
            continue
        canonical = entry.get("alias_of", key)
        if canonical not in filled:
            filled[canonical] = fill(canonical, tuple(entry["shape"]))
        state[key] = filled[canonical]
    return state


def fill(key: str, shape: tuple[int, ...]) -> Tensor:
    """Return one tensor: normal numbers seeded by the key's SHA-256, scaled by what the last part of the name says."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little")
    kind = key.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    r = normal(shape, seed)
    if kind == "running_mean":
        return 0.05 * r
    if kind == "running_var":
        return 1 + 0.1 * r.abs()
    if kind in ("weight", "a_2") and len(shape) == 1:
        return 1 + 0.05 * r
    if kind in ("bias", "b_2"):
        return 0.01 * r
    if len(shape) >= 2:
        return r * (2 / prod(shape[1:])) ** 0.5
    raise DataError(f"the fill rule says nothing about {key!r} of shape {shape}")


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    """Return N(shape, seed), float32 normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def images(shape: tuple[int, ...], seed: int) -> Tensor:
    """Return img(shape, seed), uniform noise (..., 3, H, W), normalised as ImageNet photos are."""
    u = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (u - mean) / std


def tag_rows(*rows: tuple[int, ...]) -> Tensor:
    """Return the tags of a batch (N, 20): one tuple of class indices for each image."""
    image_labels = torch.zeros(len(rows), len(VOC_CLASSES))
    for image_label, classes in zip(image_labels, rows, strict=True):
        image_label[list(classes)] = 1
    return image_labels
