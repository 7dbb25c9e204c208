"""One piece of work may take a limited time; where it is over, a network ends in the middle of its graph too.

    with time_limit(60):
        analysis = analyzer.read(data)     # raises WorkTimeError once the minute is over

Whatever runs inside asks `check` between its steps; `Engine.run` does so before every view, and hands ONNX Runtime options
whose `terminate` is set when the time is over: it looks at them between the nodes of a graph, and in every round of a loop.
"""

import heapq
import itertools
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from app.inference.errors import WorkTimeError


class Terminable(Protocol):
    """It can be told to end, as `onnxruntime.RunOptions` can."""

    terminate: bool


class Deadline:
    """It is a moment after which no more work is done; it knows the seconds that lead to it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.end = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        """It tells whether the moment has passed."""
        return time.monotonic() >= self.end

    def check(self) -> None:
        """Raise WorkTimeError where the moment has passed."""
        if self.over:
            raise WorkTimeError(
                f"the work took more than {self.seconds:g} seconds, which is the limit. Ask for fewer scales, models or rounds, "
                f"or raise TAG2MASK_WORK_SECONDS where the service is yours.",
                limit=self.seconds,
            )


_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def time_limit(seconds: float) -> Iterator[Deadline]:
    """Bound what this thread does inside the `with`; infinitely many seconds are no bound."""
    deadline = Deadline(seconds)
    token = _current.set(deadline if math.isfinite(seconds) else None)
    try:
        yield deadline
    finally:
        _current.reset(token)


def current() -> Deadline | None:
    """Return the deadline of the work that this thread does; None where it may take any time."""
    return _current.get()


def check() -> None:
    """Raise WorkTimeError where the time of the work that this thread does is over."""
    if deadline := _current.get():
        deadline.check()


@contextmanager
def ending(options: Terminable, deadline: Deadline) -> Iterator[None]:
    """Set `options.terminate` at the deadline, while the `with` lasts."""
    entry = _watch.add(options, deadline.end)
    try:
        yield
    finally:
        _watch.remove(entry)


class _Watch:
    """Its one thread sets `terminate` of whatever is overdue. It starts with the first entry."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._entries: list[tuple[float, int]] = []  # These are (end, number), the next one first.
        self._running: dict[int, Terminable] = {}
        self._numbers = itertools.count()
        self._started = False

    def add(self, options: Terminable, end: float) -> int:
        with self._condition:
            number = next(self._numbers)
            self._running[number] = options
            heapq.heappush(self._entries, (end, number))
            if not self._started:
                threading.Thread(target=self._run, name="deadlines", daemon=True).start()
                self._started = True
            if self._entries[0][1] == number:
                self._condition.notify()
        return number

    def remove(self, number: int) -> None:
        with self._condition:
            self._running.pop(number, None)
            while self._entries and self._entries[0][1] not in self._running:
                heapq.heappop(self._entries)

    def _run(self) -> None:
        with self._condition:
            while True:
                while self._entries and (
                    self._entries[0][0] <= time.monotonic() or self._entries[0][1] not in self._running
                ):
                    if options := self._running.pop(heapq.heappop(self._entries)[1], None):
                        options.terminate = True
                self._condition.wait(self._entries[0][0] - time.monotonic() if self._entries else None)


_watch = _Watch()
