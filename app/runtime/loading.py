"""A model's file becomes an engine that has been tried: no model comes in another way, in whichever process."""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from app.inference.deadline import time_limit
from app.inference.engine import Engine
from app.inference.errors import ModelCardError, Tag2MaskError
from app.runtime.loaded_model import LoadedModel
from app.runtime.model_files import MODEL_FILE
from app.runtime.settings import Settings
from app.runtime.warm import warm

logger = logging.getLogger(__name__)


class Loader(Protocol):
    """It loads the models of a directory, and runs them."""

    def load(self, name: str, version: int, path: Path) -> LoadedModel:
        """Load and warm one model beside those that serve. Raises DeviceError and ModelCardError."""

    def keep(self, models: Collection[LoadedModel]) -> None:
        """Make ready to run these, all of which have been loaded."""


class InThisProcess:
    """It loads and runs the models here; `before` tries each of them elsewhere first."""

    def __init__(self, settings: Settings, before: Loader | None = None) -> None:
        self._settings = settings
        self._before = before

    def load(self, name: str, version: int, path: Path) -> Engine:
        if self._before:
            self._before.load(name, version, path)
        return load_engine(name, version, path, self._settings)

    def keep(self, models: Collection[LoadedModel]) -> None:
        if self._before:
            self._before.keep(())


def load_engine(name: str, version: int, path: Path, settings: Settings) -> Engine:
    """Load and warm one model. Raises DeviceError, and ModelCardError for whatever its file does to the runtime."""
    try:
        engine = Engine(path, device=settings.device, intra_op_threads=settings.network_threads)
        card = engine.card
        if (card.name, card.version) != (name, version):
            raise ModelCardError(
                f"{path} describes itself as {card.name}/{card.version}. Export it under the name it has here, or move it to "
                f"{path.parents[2] / card.name / str(card.version) / MODEL_FILE} if nothing else lies there."
            )
        with time_limit(settings.model_trial_seconds):
            warm(engine)
    except Tag2MaskError:
        raise
    except Exception as error:  # The disk and ONNX Runtime raise classes of their own.
        raise ModelCardError(f"{path} cannot be loaded ({type(error).__name__}: {error}).") from error
    return engine
