"""A model that is served is the same to the service wherever its network is: here (`app.inference.engine.Engine`) or in the workers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from app.inference.maps.localization import Model
from app.inference.model_card import ModelCard

Interface = dict[str, tuple[str, tuple[int, ...]]]


class LoadedModel(Model, Protocol):
    """The service says this of a model, and asks this of it. `interface` is that of `Engine`, `sha256` the hash of its file."""

    @property
    def path(self) -> Path: ...

    @property
    def sha256(self) -> str: ...

    @property
    def providers(self) -> list[str]: ...

    @property
    def interface(self) -> Interface: ...


@dataclass(frozen=True, eq=False)
class DistantModel:
    """The network of this model is in the worker processes: on the way there the engine takes its place (`app.runtime.workers.parcel`)."""

    path: Path
    sha256: str
    card: ModelCard
    providers: list[str]
    interface: Interface

    @classmethod
    def of(cls, model: LoadedModel) -> "DistantModel":
        """Return what is known of a model without its network."""
        return cls(model.path, model.sha256, model.card, model.providers, model.interface)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Refuse to run: the job that is sent to a worker runs the model there."""
        raise AssertionError(f"{self.path} is run by the worker processes, not in the process that serves.")
