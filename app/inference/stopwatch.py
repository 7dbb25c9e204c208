"""A stopwatch says how long each stage of one photo's work took, and when it was done."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Lap(NamedTuple):
    """It is one stretch of a stage, from one moment to another, both in nanoseconds since 1970."""

    stage: str
    start: int
    end: int


class Stopwatch:
    """It adds up the milliseconds of stages by name. One photo's work runs in one thread, so nothing is locked.

    A stage inside another one counts for itself, and the other stands still meanwhile. `laps` are all stages, as they came.
    """

    def __init__(self) -> None:
        self._milliseconds: dict[str, float] = {}
        self._running: list[str] = []  # The innermost stage comes last.
        self._since = 0.0
        self.laps: list[Lap] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time until the end of the `with` to the stage `name`."""
        self._count()
        self._running.append(name)
        start = time.time_ns()
        try:
            yield
        finally:
            self._count()
            self._running.pop()
            self.laps.append(Lap(name, start, time.time_ns()))

    def add_lap(self, name: str, milliseconds: float) -> None:
        """Add a stage that ends now and was measured elsewhere."""
        end = time.time_ns()
        self.laps.append(Lap(name, end - round(1e6 * milliseconds), end))
        self._add(name, milliseconds)

    def include(self, other: "Stopwatch") -> None:
        """Add all that another stopwatch has measured."""
        self.laps += other.laps
        for name, milliseconds in other._milliseconds.items():
            self._add(name, milliseconds)

    def _add(self, name: str, milliseconds: float) -> None:
        self._milliseconds[name] = self._milliseconds.get(name, 0.0) + milliseconds

    def _count(self) -> None:
        """Give the time since the last look to the innermost stage."""
        now = time.perf_counter()
        if self._running:
            self._add(self._running[-1], 1000 * (now - self._since))
        self._since = now

    @property
    def milliseconds(self) -> dict[str, float]:
        """Each stage has taken so many milliseconds so far, to two decimals, in the order in which the stages began to count."""
        return {name: round(value, 2) for name, value in self._milliseconds.items()}
