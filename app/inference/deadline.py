"""One piece of work may take a limited time; where it is over, a network ends in the middle of its graph too.

    with time_limit(60):
        analysis = analyzer.read(data)     # raises WorkTimeError once the minute is over

Whatever runs inside asks `check` between its steps; `Engine.run` does so before every view, and hands ONNX Runtime options
whose `terminate` is set when the time is over: it looks at them between the nodes of a graph, and in every round of a loop.
Work that nobody waits for any more ends at the next `check`.
"""

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from app.inference.errors import ClientLeftError, WorkTimeError


class Terminable(Protocol):
    """It can be told to end, as `onnxruntime.RunOptions` can."""

    terminate: bool


class Deadline:
    """It is a moment after which no more work is done; it knows the seconds that lead to it.

    `left` tells whether nobody waits for the work any more.
    """

    def __init__(self, seconds: float, left: Callable[[], bool] | None = None) -> None:
        self.seconds = seconds
        self.end = time.monotonic() + seconds
        self._left = left

    @property
    def over(self) -> bool:
        """It tells whether the moment has passed."""
        return time.monotonic() >= self.end

    def check(self) -> None:
        """Raise ClientLeftError where nobody waits for the work, WorkTimeError where the moment has passed."""
        if self._left and self._left():
            raise ClientLeftError("the client left while its photo was worked on.")
        if self.over:
            raise WorkTimeError(
                f"the work took more than {self.seconds:g} seconds, which is the limit. Ask for fewer scales, models or rounds, "
                f"or raise TAG2MASK_WORK_SECONDS where the service is yours.",
                limit=self.seconds,
            )


_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def time_limit(seconds: float, left: Callable[[], bool] | None = None) -> Iterator[Deadline]:
    """Bound what this thread does inside the `with`; infinitely many seconds are no bound. `left`: see `Deadline`."""
    deadline = Deadline(seconds, left)
    token = _current.set(deadline if math.isfinite(seconds) or left else None)
    try:
        yield deadline
    finally:
        _current.reset(token)


def current() -> Deadline | None:
    """Return the deadline of the work that this thread does; None where it may take any time."""
    return _current.get()


def check() -> None:
    """Raise WorkTimeError where the time of the work that this thread does is over, ClientLeftError where nobody waits for it."""
    if deadline := _current.get():
        deadline.check()


@contextmanager
def ending(options: Terminable, deadline: Deadline) -> Iterator[None]:
    """Set `options.terminate` at the deadline, while the `with` lasts."""
    if not math.isfinite(deadline.end):
        yield
        return
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
