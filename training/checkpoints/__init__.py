"""The authors' released weight files: read without running code from them, then converted to our modules' keys.

One module per repository, each with `convert(state)`: the authors' keys -> ours, every key used or named in the error.
"""

import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from app.errors import DataError
from training.checkpoints import amr, drs, edam, irn, psa

# method as `python -m training import --method` names it -> its authors' keys to ours
CONVERTERS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "drs": drs.convert, "drs-refine": drs.convert, "amr": amr.convert, "edam": edam.convert,
    "psa": psa.convert, "ccrm": psa.convert, "irn": irn.convert,
}  # fmt: skip
CONTAINERS = ("model", "state_dict")  # where a file keeps its weights beside other things
PARALLEL = "module."  # what torch's DataParallel puts before every key


def convert_released(method: str, path: Path) -> dict[str, Tensor]:
    """The weights of an authors' file under our keys. Raises DataError for a method or a file that cannot be used."""
    if method not in CONVERTERS:
        raise DataError(f"no weight files are known of {method!r}; there are {', '.join(CONVERTERS)}")
    return CONVERTERS[method](read_released(path))


def read_released(path: Path) -> dict[str, Tensor]:
    """The state dict of an authors' file, its container and prefix taken off.

    Raises DataError where the file is missing, holds anything but tensors and plain containers (loading it would run
    code from it), or has no state dict.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; download it from the authors' page and name it here")
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
    if not isinstance(stored, dict) or not stored or not all(isinstance(value, Tensor) for value in stored.values()):
        raise DataError(f"{path} holds no state dict (names of parameters and their tensors)")
    if all(key.startswith(PARALLEL) for key in stored):
        stored = {key.removeprefix(PARALLEL): value for key, value in stored.items()}
    return dict(stored)


__all__ = ["CONVERTERS", "convert_released", "read_released"]
