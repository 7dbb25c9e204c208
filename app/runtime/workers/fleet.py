"""Each of the service's worker processes does one piece of work at a time, and each that ends is replaced.

A process that crashes, or whose work does not end, costs the request that it worked on, and no other: the others go on, and a new
one has the models loaded and warm before it takes part. A model is tried in a process that serves nobody, at the start as
later; a process learns of a new model between two pieces of work, and forgets one that no request holds any more.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from app.inference.errors import ModelCardError, NotReadyError, Tag2MaskError, WorkerLostError, WorkTimeError
from app.runtime.loaded_model import DistantModel, LoadedModel
from app.runtime.settings import Settings
from app.runtime.workers import worker
from app.runtime.workers.forking import CONTEXT
from app.runtime.workers.parcel import pack
from app.runtime.workers.process import LEAVE_SECONDS, WorkerProcess

logger = logging.getLogger(__name__)

WAIT_SECONDS = 30  # Work waits this long for a process where fewer live than should.
LONGEST_PAUSE_SECONDS = 30  # Where one process after another fails to start, the next is tried after this time at most.


class Fleet:
    """It has `size` processes, which `keep` starts. Threads may share it."""

    def __init__(self, settings: Settings, size: int) -> None:
        self.size = size
        self.ended = 0  # So many processes were replaced.
        self._settings = settings
        self._condition = threading.Condition()
        self._all: list[WorkerProcess] = []  # These serve.
        self._free: list[WorkerProcess] = []  # The one that was used last is used next: its memory is warm.
        self._wanted: WorkerProcess | None = None  # This one is to learn of models next.
        self._scout: WorkerProcess | None = None  # Models are tried in this one.
        self._models: tuple[LoadedModel, ...] = ()
        self._held: WeakValueDictionary[str, DistantModel] = (
            WeakValueDictionary()
        )  # A model is here by its hash, as long as a request holds it.
        self._closed = False
        self._news, self._teller = CONTEXT.Pipe(duplex=False)

    @property
    def living(self) -> int:
        """So many processes serve now."""
        return len(self._all)

    def check_ready(self) -> None:
        """Raise NotReadyError where no process is there to work."""
        if self.size and not self._all:
            raise NotReadyError("no worker process is running; the next one is being started.", retry_after_seconds=2)

    def perform(self, function: Callable[..., Any], *arguments: Any, left: threading.Event | None = None) -> Any:
        """Return `function(*arguments)`, done by a process; it ends at its next step once `left` is set.

        Raises WorkTimeError, ClientLeftError, WorkerLostError, or what the function raises.
        """
        seconds = self._settings.work_seconds
        parcel = pack((seconds, function, arguments))
        with self._taking() as process:
            self._equip(process, parcel.models.values())
            return process.deliver(seconds, parcel, left)

    def load(self, name: str, version: int, path: Path) -> DistantModel:
        """Try a model in a process that serves nobody.

        Raises DeviceError, ModelCardError for whatever its file does, and WorkerLostError where the fleet is closed meanwhile.
        """
        seconds = self._settings.model_trial_seconds
        self._scout = self._scout or WorkerProcess(self._settings)
        try:
            model: DistantModel = self._scout.call(seconds, worker.load, name, version, path, self._settings)
        except WorkTimeError:
            self._scout = None
            raise ModelCardError(
                f"{path} was not loaded and run twice within {seconds:g} seconds (TAG2MASK_MODEL_TRIAL_SECONDS). Export a smaller "
                f"model, without loops that do not end."
            ) from None
        except WorkerLostError:
            self._scout = None
            if self._closed:
                raise
            raise ModelCardError(f"{path} ended the process that tried it. Export it again.") from None
        self._scout.models.add(model.sha256)
        self._held[model.sha256] = model
        return model

    def keep(self, models: Collection[LoadedModel]) -> None:
        """Have every process hold these models from now on. The process that tried them takes part where one is missing."""
        first = not self._models
        self._models = tuple(models)
        scout, self._scout = self._scout, None
        if scout:
            self._admit(scout)
        if first and self.size:
            threading.Thread(target=self._supervise, name="supervisor", daemon=True).start()
            for _ in range(self.size - self.living):
                threading.Thread(target=self._start_another, name="starter", daemon=True).start()
        hashes = {model.sha256 for model in self._models}
        for process in list(self._all):
            if not hashes <= process.models:
                # It learns of them with the first photo otherwise.
                with suppress(Tag2MaskError), self._taking(process):
                    self._equip(process, self._models)

    def close(self) -> None:
        """End all processes; what one of them still does is ended with it."""
        with self._condition:
            self._closed = True
            busy = [process for process in self._all if process not in self._free]
            idle = [*self._free, *([self._scout] if self._scout else [])]
            self._all, self._free, self._scout = [], [], None
            self._condition.notify_all()
        self._tell()
        for process in busy:
            process.kill()
        for process in idle:
            process.hang_up()
        end = time.monotonic() + LEAVE_SECONDS
        for process in idle:
            if not wait([process.process.sentinel], max(0, end - time.monotonic())):
                process.kill()

    @contextmanager
    def _taking(self, wanted: WorkerProcess | None = None) -> Iterator[WorkerProcess]:
        """Take a process that is free, or the one that is wanted once it is free, for the `with`. Raises WorkerLostError."""
        process = self._take(wanted)
        try:
            yield process
        finally:
            with self._condition:
                if not process.lost and process in self._all:
                    self._free.append(process)
                    self._condition.notify_all()

    def _take(self, wanted: WorkerProcess | None) -> WorkerProcess:
        def choose() -> WorkerProcess | None:
            if wanted:
                return wanted if wanted in self._free else None
            return next((process for process in reversed(self._free) if process is not self._wanted), None)

        with self._condition:
            if wanted:
                self._wanted = wanted
            try:
                self._condition.wait_for(
                    lambda: choose() or self._closed or (wanted and wanted not in self._all), WAIT_SECONDS
                )
            finally:
                if wanted:
                    self._wanted = None
            process = choose()
            if process is None:
                raise WorkerLostError(
                    "no worker process is free to work on the photo; send it again.", retry_after_seconds=2
                )
            self._free.remove(process)
        return process

    def _equip(self, process: WorkerProcess, models: Collection[LoadedModel]) -> None:
        """Have a process forget what nobody asks for, and learn of those of these models that it lacks."""
        stale = process.models - set(self._held)
        if stale:
            process.call(self._settings.work_seconds, worker.forget, stale)
            process.models -= stale
        for model in models:
            if model.sha256 not in process.models:
                process.load(model, self._settings)

    def _admit(self, process: WorkerProcess) -> None:
        """Have a process take part, unless as many do already: another one may have come while this one loaded its models."""
        with self._condition:
            if self._closed or process.lost or self.living >= self.size:
                process.hang_up()
                return
            self._all.append(process)
            self._free.append(process)
            self._condition.notify_all()
        self._tell()

    def _tell(self) -> None:
        """Have the supervisor look again at which processes there are."""
        self._teller.send_bytes(b"\0")

    def _supervise(self) -> None:
        """Replace every process that ends."""
        while not self._closed:
            sentinels = {process.process.sentinel: process for process in self._all}
            ready: Any
            for ready in wait([self._news, *sentinels]):
                if ready is self._news:
                    self._news.recv_bytes()
                elif not self._closed and ready in sentinels:
                    self._replace(sentinels[ready])

    def _replace(self, process: WorkerProcess) -> None:
        process.process.join()
        process.lost = True
        with self._condition:
            self._all.remove(process)
            if process in self._free:
                self._free.remove(process)
            self.ended += 1
            self._condition.notify_all()
        status = process.process.exitcode or 0
        how = f"signal {-status}" if status < 0 else f"status {status}"
        logger.error(
            "worker process %s has ended (%s); %d of %d live, and another is started",
            process.pid,
            how,
            self.living,
            self.size,
        )
        threading.Thread(target=self._start_another, name="starter", daemon=True).start()

    def _start_another(self) -> None:
        """Start one process, try after try, and have it take part once it holds all models."""
        pause = 1.0
        while not self._closed:
            process = WorkerProcess(self._settings)
            try:
                for model in self._models:
                    try:
                        process.load(model, self._settings)
                    except (ModelCardError, NotReadyError) as error:  # Its file has changed; the others serve.
                        logger.warning("a worker process lacks a model: %s", error)
            except Exception as error:
                process.kill()
                logger.error(
                    "a worker process could not be started, and the next is tried in %g seconds: %s", pause, error
                )
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            self._admit(process)
            return
