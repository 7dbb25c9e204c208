"""A worker process holds the models and does one piece of work after another, until the service hangs up.

The work is a function and its arguments (`app.runtime.workers.parcel`); what comes back is the result, or the exception, and the log
lines that were written meanwhile.
"""

import gc
import itertools
import logging
import math
import signal
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from app.inference.deadline import time_limit
from app.inference.engine import Engine
from app.inference.errors import NotReadyError, Tag2MaskError
from app.runtime.loaded_model import DistantModel
from app.runtime.loading import load_engine
from app.runtime.memory import Trimming, trim_memory
from app.runtime.settings import Settings
from app.runtime.workers.parcel import MODEL, Parcel, pack, receive, send, unpack

GRACE_SECONDS = 2  # Work that does not heed its deadline is ended with its process this long after it.
ORPHAN_SECONDS = 2  # A process whose work goes on for longer still, because nobody is there to end it, ends itself.

_engines: dict[str, Engine] = {}  # They are found by the hash of their file.


@dataclass(frozen=True)
class Outcome:
    """It says what came of a piece of work: a result, or an error; and the log lines that were written."""

    result: Any
    error: BaseException | None
    records: list[logging.LogRecord]


class Number(Protocol):
    """It is a number that two processes share."""

    value: int


def serve(connection: Connection, settings: Settings, log_level: int, dropped: Number) -> None:
    """Do what is sent, one after the other; nobody waits any more for the piece of work whose number `dropped` holds.

    Signals that mean the service are left to it: it hangs up once it has finished.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    gc.freeze()  # What was imported is no garbage, and stays in the memory that the workers share.
    gc.enable()
    records: SimpleQueue[logging.LogRecord] = SimpleQueue()
    logging.basicConfig(handlers=[QueueHandler(records)], level=log_level, force=True)
    leave_out_odd_metadata()
    trimming = Trimming()
    for number in itertools.count(1):
        try:
            parcel = receive(connection)
            outcome = perform(parcel, settings, partial(_is_dropped, dropped, number))
            while not records.empty():
                outcome.records.append(records.get())
            send(connection, pack(outcome, by_name=False))
            del parcel, outcome
            trimming.work_ended()  # Nobody waits for an answer now.
        except (EOFError, OSError):  # The service has gone.
            return


def perform(parcel: Parcel, settings: Settings, left: Callable[[], bool]) -> Outcome:
    """Return what comes of the (seconds, function, arguments) in a parcel, until nobody waits for it any more."""

    def find(kind: str, name: str) -> Any:
        return _engines[name] if kind == MODEL else settings

    try:
        apart = replace(parcel, apart=[bytes(data) for data in parcel.apart])
        seconds, function, arguments = unpack(apart, find)
        with _ending_itself(seconds + GRACE_SECONDS + ORPHAN_SECONDS), time_limit(seconds, left):
            return Outcome(function(*arguments), None, [])
    except Tag2MaskError as error:
        return Outcome(None, error, [])
    except Exception as error:
        return Outcome(None, _portable(error), [])


def _is_dropped(dropped: Number, number: int) -> bool:
    return dropped.value == number


def load(name: str, version: int, path: Path, settings: Settings, sha256: str | None = None) -> DistantModel:
    """Load and warm a model here. With `sha256` the file must still be the one that was tried.

    Raises DeviceError, ModelCardError, NotReadyError.
    """
    engine = load_engine(name, version, path, settings)
    if sha256 not in (None, engine.sha256):
        raise NotReadyError(
            f"the file of model {name}/{version} has changed since it was tried, and is tried anew. Send the request again in "
            f"a moment.",
            retry_after_seconds=5,
        )
    _engines[engine.sha256] = engine
    return DistantModel.of(engine)


def forget(hashes: Collection[str]) -> None:
    """Let go of models that nobody asks for any more."""
    for sha256 in hashes:
        _engines.pop(sha256, None)
    trim_memory()


def leave_out_odd_metadata() -> None:
    """Keep quiet what Pillow says of odd metadata in an upload: it is no news to whoever runs the service."""
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")


@contextmanager
def _ending_itself(seconds: float) -> Iterator[None]:
    """End this process after some seconds, whatever it does then: the alarm needs neither the interpreter nor the service."""
    if not math.isfinite(seconds) or not hasattr(signal, "setitimer"):  # Windows has no alarm.
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent, with where it came from: the service writes it into its log."""
    said = "".join(traceback.format_exception(error))
    try:
        unpack(pack(error, by_name=False), lambda *_: None)
    except Exception:  # Its class may do anything when it is pickled.
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"In the worker process:\n{said}")
    return error
