"""Checkpoints are written whole or not at all, and read without running code from them."""

import io
import pickle
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from app.inference.errors import DataError
from app.inference.files.whole_file import whole_file

CONTAINERS = ("model", "state_dict")  # A file with other things besides keeps its weights under one of these keys.
PARALLEL = "module."  # torch's DataParallel puts this before every key.


def save_checkpoint(fabric: Fabric, path: Path, state: dict[str, Any]) -> None:
    """Write `state` (modules and optimisers are replaced by their state dicts) to `path` atomically."""
    with whole_file(path) if fabric.is_global_zero else nullcontext(path) as target:
        fabric.save(target, state)  # The first process alone writes.
    fabric.barrier()


def load_checkpoint(fabric: Fabric, path: Path, state: dict[str, Any]) -> None:
    """Restore `state` in place from `path`: modules and optimisers are filled, other entries replaced."""
    fabric.load(path, state, weights_only=True)


def save_weights(path: Path, module: torch.nn.Module, half: bool = False) -> None:
    """Write a module's state dict alone, floating-point tensors in half precision where asked to."""
    state = module.state_dict()
    if half:
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    buffer = io.BytesIO()  # torch says of its own writing to a full disk only that it failed.
    torch.save(state, buffer)
    with whole_file(path) as partial:
        partial.write_bytes(buffer.getbuffer())


def load_weights(path: Path, module: torch.nn.Module) -> None:
    """Fill a module from `save_weights`. Raises DataError where the file is missing or is another module's."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; run the verb that writes it first (python -m training run does all)")
    try:
        module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except RuntimeError as error:
        raise DataError(f"{path} was written by another configuration: {error}") from None


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file of torch weights, its container and prefix taken off.

    Raises DataError where the file is missing, holds anything but tensors and plain containers (loading it would run
    code from it), or has no state dict.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; name a file of torch weights")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is refused: more than tensors would be loaded from it ({reason})") from None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise DataError(f"{path} is not a file of torch weights: {error}") from None
    for container in CONTAINERS:
        if isinstance(stored, dict) and isinstance(stored.get(container), dict):
            stored = stored[container]
    if (
        not isinstance(stored, dict)
        or not stored
        or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in stored.items())
    ):
        raise DataError(f"{path} holds no state dict (names of parameters and their tensors)")
    if all(key.startswith(PARALLEL) for key in stored):
        stored = {key.removeprefix(PARALLEL): value for key, value in stored.items()}
    return dict(stored)
