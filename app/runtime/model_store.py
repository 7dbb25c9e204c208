"""The models directory (`app.runtime.model_files`) becomes engines, by name and version.

The directory may change while the service runs: `ModelStore.refresh` loads what is new beside what serves, and swaps.
"""

import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from app.inference.errors import (
    ModelCardError,
    ModelStoreError,
    NoModelForTaskError,
    NotReadyError,
    Tag2MaskError,
    UnknownModelError,
    WrongTaskError,
)
from app.inference.spelling import nearest_name
from app.runtime.loaded_model import LoadedModel
from app.runtime.loading import InThisProcess, Loader
from app.runtime.model_files import MODEL_FILE, Key, Stamp, find_misplaced, find_model_files, stamps_of
from app.runtime.settings import Settings

logger = logging.getLogger(__name__)

Task = Literal["cam", "segmentation"]
TASKS: tuple[Task, ...] = ("cam", "segmentation")
# Where no default is configured, the cam model is taken whose method does best without tags in models/, the first here.
METHOD_PREFERENCE = ("joined", "cam", "drs", "amr", "edam")


@dataclass(frozen=True)
class Catalog:
    """It holds the engines served at one moment. It is replaced as a whole, never changed: a request keeps the one it began with.

    engines: by (name, version). defaults: the engine of each task where a request names none. refused: why a file that lies
    there is not served as it is now. misplaced: name -> folder -> why an ONNX file that is no NAME/VERSION/model.onnx is not.
    """

    engines: dict[Key, LoadedModel]
    defaults: dict[str, LoadedModel]
    refused: dict[Key, str] = field(default_factory=dict)
    misplaced: dict[str, dict[str, str]] = field(default_factory=dict)

    def choose(self, task: Task, wanted: str | None) -> LoadedModel:
        """Return the engine for `wanted` ("NAME", meaning its highest version, or "NAME/VERSION"), or the task's
        default.

        Raises UnknownModelError, WrongTaskError or NoModelForTaskError.
        """
        if wanted is not None:
            engine = self.find(wanted)
            if engine.card.task != task:
                fitting = sorted({name for (name, _), other in self.engines.items() if other.card.task == task})
                raise WrongTaskError(
                    f"model {wanted!r} is a {engine.card.task} model; this endpoint needs a {task} model"
                    f"{': ' + ', '.join(fitting) if fitting else ', and none is served'}.",
                    parameter="model",
                    known=fitting,
                )
            return engine
        if task not in self.defaults:
            raise NoModelForTaskError(
                f"this endpoint needs a {task} model and none is served. Put one into the models directory as "
                f"NAME/VERSION/{MODEL_FILE}; GET /models lists what is there."
            )
        return self.defaults[task]

    def find(self, wanted: str) -> LoadedModel:
        """Return the engine of "NAME" or "NAME/VERSION". Raises UnknownModelError."""
        name, _, version = wanted.partition("/")
        versions = {str(number): self.engines[other, number] for other, number in sorted(self.engines) if other == name}
        if version in versions:
            return versions[version]
        if versions and not version:
            return list(versions.values())[-1]
        raise self._unknown(name, version, list(versions))

    def newest(self, task: Task) -> list[LoadedModel]:
        """Return the highest version of every model of a task, by name."""
        engines = (self.find(name) for name in sorted({name for name, _ in self.engines}))
        return [engine for engine in engines if engine.card.task == task]

    def _unknown(self, name: str, version: str, versions: list[str]) -> UnknownModelError:
        """Return what keeps a model from being served: it is refused, misplaced, has other versions, or is not there."""
        known = [f"{name}/{number}" for number in versions] or sorted({other for other, _ in self.engines})
        details: dict[str, Any] = {"parameter": "model", "known": known}
        newest_first = sorted(self.refused.items(), reverse=True)
        reasons = {str(number): reason for (other, number), reason in newest_first if other == name}
        reasons |= self.misplaced.get(name, {})
        reason = reasons.get(version)
        if not reason and not versions:
            reason = next(iter(reasons.values()), None)
        if reason:
            what = f"{name}/{version}" if version in reasons and version else name
            return UnknownModelError(f"model {what!r} is refused (GET /models lists all that are): {reason}", **details)
        if versions:
            pinned = ", ".join(f"{name}/{number}" for number in versions)
            message = f"no version {version[:80]!r} of model {name!r} is served; there are {pinned}."
            return UnknownModelError(message, **details)
        details["nearest"] = nearest = nearest_name(name, known)
        hint = f"Did you mean {nearest!r}? " if nearest else ""
        return UnknownModelError(f"no model {name[:80]!r} is served. {hint}There are: {', '.join(known)}.", **details)


class ModelStore:
    """It finds, loads and warms the models, and holds the current catalog."""

    def __init__(self, settings: Settings, loader: Loader | None = None) -> None:
        """Look for model files, without loading any; without a loader they are loaded into this process.

        Raises ModelStoreError where there are none.
        """
        self._settings = settings
        self._loader = loader or InThisProcess(settings)
        self._paths = find_model_files(settings.models)
        self._complaint: str | None = None  # It is the last warning about the directory as a whole.
        self._stamps: dict[Key, Stamp] = {}  # What the files looked like when they were loaded, or refused.
        self._seen: dict[Key, Stamp] = {}  # What the files looked like at the last look.
        self._catalog: Catalog | None = None
        self._failure: str | None = None
        self._loading: Future[Catalog] | None = None

    def check_ready(self) -> None:
        """Raise NotReadyError unless all models are loaded and warm."""
        if self._failure is not None:
            raise NotReadyError(f"the models could not be loaded: {self._failure}", retry_after_seconds=30)
        if self._catalog is None:
            raise NotReadyError(
                f"the models are still being loaded ({len(self._paths)} files); GET /readyz tells when.",
                retry_after_seconds=2,
            )

    @property
    def catalog(self) -> Catalog:
        """The catalog says what is served now. Raises NotReadyError while the models are being loaded."""
        self.check_ready()
        assert self._catalog is not None
        return self._catalog

    def start_loading(self) -> "Future[Catalog]":
        """Have a thread load the models (`load`). The first call starts it, and all return the same promise of the catalog."""
        if self._loading is None:
            self._loading = loading = Future[Catalog]()

            def work() -> None:
                try:
                    loading.set_result(self.load())
                except Exception as error:
                    loading.set_exception(error)

            threading.Thread(target=work, name="loading", daemon=True).start()
        return self._loading

    def load(self) -> Catalog:
        """Load and warm every model, then serve them. Raises ModelCardError, DeviceError or ModelStoreError."""
        try:
            self._stamps = stamps_of(self._paths)
            catalog = self._load_all()
        except Exception as error:
            self._failure = str(error)
            raise
        self._catalog = catalog
        return catalog

    def refresh(self, only_unchanged: bool = True) -> bool:
        """Serve the directory as it is now; returns whether that changed anything. Not to be called twice at a time.

        What is new or changed is loaded and warmed beside what serves, then the catalog is replaced; a request keeps the
        engines it began with. A file that cannot be served leaves the one before it serving and its reason in
        `Catalog.refused`. With `only_unchanged` a file must look as it did at the call before, so that none is read while it is
        being written.
        """
        before = self.catalog
        try:
            paths = find_model_files(self._settings.models)
        except ModelStoreError as error:  # All are gone, perhaps for a moment.
            self._complain(f"still serving what was loaded: {error}")
            return False
        misplaced = self._find_misplaced(before.misplaced)
        stamps, seen = stamps_of(paths), self._seen
        self._seen = stamps
        engines = {key: engine for key, engine in before.engines.items() if key in stamps}
        refused = {key: reason for key, reason in before.refused.items() if key in stamps}
        for key, stamp in stamps.items():
            if stamp == self._stamps.get(key) or (only_unchanged and stamp != seen.get(key)):
                continue
            self._stamps[key] = stamp
            try:
                engines[key] = self._load_model(*key, paths[key])
                refused.pop(key, None)
            except Tag2MaskError as error:
                logger.warning("model %s/%d is refused: %s", *key, error)
                refused[key] = str(error)
        self._stamps = {key: stamp for key, stamp in self._stamps.items() if key in stamps}
        complaint = None
        try:
            defaults = self._choose_defaults(Catalog(engines, {}, refused, misplaced))
        except ModelStoreError as error:  # The file of a configured default is gone.
            complaint = f"still serving the models set as default: {error}"
            defaults = before.defaults
            engines |= {(engine.card.name, engine.card.version): engine for engine in defaults.values()}
        self._complain(complaint)
        self._loader.keep(tuple(engines.values()))
        if (engines, refused, misplaced) == (before.engines, before.refused, before.misplaced):
            return False
        self._catalog = Catalog(engines, defaults, refused, misplaced)
        return True

    def _complain(self, complaint: str | None) -> None:
        """Warn of what is wrong with the directory as a whole, once as long as it stays the same; None where nothing is."""
        if complaint not in (None, self._complaint):
            logger.warning("%s", complaint)
        self._complaint = complaint

    def _load_all(self) -> Catalog:
        """Return what can be served of the directory. Raises the first ModelCardError where that is nothing."""
        engines: dict[Key, LoadedModel] = {}
        errors: dict[Key, ModelCardError] = {}
        misplaced = self._find_misplaced({})
        for key, path in self._paths.items():
            try:
                engines[key] = self._load_model(*key, path)
            except ModelCardError as error:
                logger.warning("model %s/%d is refused: %s", *key, error)
                errors[key] = error
        if not engines:
            raise next(iter(errors.values()))
        refused = {key: str(error) for key, error in errors.items()}
        catalog = Catalog(engines, {}, refused, misplaced)
        catalog = replace(catalog, defaults=self._choose_defaults(catalog))
        self._loader.keep(tuple(engines.values()))
        return catalog

    def _find_misplaced(self, before: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        """Return the ONNX files that are no NAME/VERSION/model.onnx; what is new since the look before is logged."""
        misplaced = find_misplaced(self._settings.models)
        for name, reasons in misplaced.items():
            for folder, reason in reasons.items():
                if folder not in before.get(name, ()):
                    logger.warning("%s", reason)
        return misplaced

    def _load_model(self, name: str, version: int, path: Path) -> LoadedModel:
        """Try one model. Raises DeviceError, and ModelCardError for whatever its file does to the runtime."""
        model = self._loader.load(name, version, path)
        card = model.card
        logger.info(
            "model %s/%d: task %s, method %s, providers %s", name, version, card.task, card.method, model.providers
        )
        return model

    def _choose_defaults(self, catalog: Catalog) -> dict[str, LoadedModel]:
        configured: dict[str, str | None] = {
            "cam": self._settings.cam_model,
            "segmentation": self._settings.segmentation_model,
        }
        defaults: dict[str, LoadedModel] = {}
        for task in TASKS:
            fitting = [engine for engine in catalog.engines.values() if engine.card.task == task]
            wanted = configured[task]
            if wanted is not None:
                try:
                    defaults[task] = catalog.choose(task, wanted)
                except UnknownModelError as error:
                    raise ModelStoreError(f"TAG2MASK_{task.upper()}_MODEL={wanted}: {error}") from error
            elif fitting:
                defaults[task] = min(fitting, key=_preference)
        return defaults


def pin(engine: LoadedModel) -> str:
    """Return NAME/VERSION, which names one version of a model."""
    return f"{engine.card.name}/{engine.card.version}"


def _preference(engine: LoadedModel) -> tuple[int, str, int]:
    """Return the key by which defaults are sorted: the method (see METHOD_PREFERENCE), then the name, then the highest version."""
    method = engine.card.method
    rank = METHOD_PREFERENCE.index(method) if method in METHOD_PREFERENCE else len(METHOD_PREFERENCE)
    return rank, engine.card.name, -engine.card.version
