"""The authors' released weight files are read without running code from them, then converted to our modules' keys.

One module per repository, each with `convert(state)`: the authors' keys -> ours, every key used or named in the error.
"""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from app.inference.errors import DataError
from training.authors.released import amr, drs, edam, irn, psa
from training.checkpoint import read_state

# `python -m training import --method` names the method; the right side turns its authors' keys into ours.
CONVERTERS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "drs": drs.convert, "drs-refine": drs.convert, "amr": amr.convert, "edam": edam.convert,
    "psa": psa.convert, "ccrm": psa.convert, "irn": irn.convert,
}  # fmt: skip


def convert_released(method: str, path: Path) -> dict[str, Tensor]:
    """Return the weights of an authors' file under our keys. Raises DataError for a method or a file that cannot be used."""
    if method not in CONVERTERS:
        raise DataError(f"no weight files are known of {method!r}; there are {', '.join(CONVERTERS)}")
    return CONVERTERS[method](read_state(path))


__all__ = ["CONVERTERS", "convert_released"]
