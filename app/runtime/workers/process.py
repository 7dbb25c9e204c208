"""The service holds this end of a worker process (`app.runtime.workers.worker`)."""

import atexit
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any
from weakref import WeakSet

from app.inference.errors import WorkerLostError, WorkTimeError
from app.runtime.loaded_model import LoadedModel
from app.runtime.settings import Settings
from app.runtime.workers import worker
from app.runtime.workers.forking import CONTEXT, start_importing
from app.runtime.workers.parcel import Parcel, pack, receive, send, unpack

LEAVE_SECONDS = 5  # A process has this long to end once it is hung up on.
LOOK_SECONDS = 0.1  # Whether anybody still waits for the work is asked this often, while it is done.


_living: "WeakSet[WorkerProcess]" = WeakSet()


@atexit.register
def _end_all() -> None:
    """End all workers at the end of this process: multiprocessing would wait for them."""
    for process in list(_living):
        process.kill()


class WorkerProcess:
    """It is one process. `models` are the hashes of those that it holds. One thread at a time may call it.

    Once `lost` is set it does no more work.
    """

    def __init__(self, settings: Settings) -> None:
        self._connection, theirs = CONTEXT.Pipe()
        level = logging.getLogger().getEffectiveLevel()
        # The number of a parcel whose work nobody waits for; both sides count the parcels. It lies in memory that they share.
        self._dropped = CONTEXT.RawValue("Q", 0)
        self._number = 0
        arguments = (theirs, settings, level, self._dropped)
        self.process = CONTEXT.Process(target=worker.serve, args=arguments, name="worker", daemon=True)
        start_importing()
        self.process.start()
        theirs.close()
        _living.add(self)
        self.models: set[str] = set()
        self.lost = False

    @property
    def pid(self) -> int | None:
        return self.process.pid

    def call(self, seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return `function(*arguments)`, done there.

        Raises WorkTimeError and ends the process where it takes much longer than `seconds`, WorkerLostError where the process
        ends meanwhile, or what the function raises.
        """
        return self.deliver(seconds, pack((seconds, function, arguments)))

    def deliver(self, seconds: float, parcel: Parcel, left: threading.Event | None = None) -> Any:
        """Do the same with a parcel of (seconds, function, arguments). Once `left` is set the work ends at its next step."""
        try:
            self._number += 1
            send(self._connection, parcel)
            if not self._answers_within(seconds + worker.GRACE_SECONDS, left):
                self.kill()
                raise WorkTimeError(
                    f"the work took more than {seconds:g} seconds, which is the limit, and its process was ended. Ask for fewer "
                    f"scales, models or rounds, or raise TAG2MASK_WORK_SECONDS where the service is yours.",
                    limit=seconds,
                )
            outcome = unpack(receive(self._connection), lambda *_: None)
        except (EOFError, OSError):
            self.kill()
            raise WorkerLostError(
                "the process that worked on the photo has ended; another one takes its place. Where the same photo ends it again, "
                "tell whoever runs the service.",
                retry_after_seconds=2,
            ) from None
        assert isinstance(outcome, worker.Outcome)
        for record in outcome.records:
            logging.getLogger(record.name).handle(record)
        if outcome.error is not None:
            raise outcome.error
        return outcome.result

    def _answers_within(self, seconds: float, left: threading.Event | None) -> bool:
        """Wait for the outcome, and have the work dropped once `left` is set. Returns whether the outcome came in time."""
        end = time.monotonic() + seconds
        if left is not None:
            while not left.is_set() and time.monotonic() < end:
                if self._connection.poll(LOOK_SECONDS):
                    return True
            self._dropped.value = self._number
        rest = max(0.0, end - time.monotonic())
        return bool(self._connection.poll(rest if math.isfinite(rest) else None))

    def load(self, model: LoadedModel, settings: Settings) -> None:
        """Have the process hold a model that has been tried."""
        card = model.card
        self.call(
            settings.model_trial_seconds, worker.load, card.name, card.version, model.path, settings, model.sha256
        )
        self.models.add(model.sha256)

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        self.lost = True
        if self.process.pid is None or wait([self.process.sentinel], 0):  # Its number may be another's by now.
            return
        with suppress(OSError):
            os.kill(self.process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))

    def hang_up(self) -> None:
        """Have the process end when it has finished what it does."""
        self.lost = True
        self._connection.close()
