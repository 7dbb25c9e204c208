"""A stopwatch says how long each stage of one photo's work took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """It adds up the milliseconds of stages by name. One photo's work runs in one thread, so nothing is locked.

    A stage inside another one counts for itself, and the other stands still meanwhile.
    """

    def __init__(self) -> None:
        self._milliseconds: dict[str, float] = {}
        self._running: list[str] = []  # The innermost stage comes last.
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time until the end of the `with` to the stage `name`."""
        self._count()
        self._running.append(name)
        try:
            yield
        finally:
            self._count()
            self._running.pop()

    def add(self, name: str, milliseconds: float) -> None:
        """Add milliseconds that were measured elsewhere."""
        self._milliseconds[name] = self._milliseconds.get(name, 0.0) + milliseconds

    def _count(self) -> None:
        """Give the time since the last look to the innermost stage."""
        now = time.perf_counter()
        if self._running:
            self.add(self._running[-1], 1000 * (now - self._since))
        self._since = now

    @property
    def milliseconds(self) -> dict[str, float]:
        """Each stage has taken so many milliseconds so far, to two decimals, in the order in which the stages began to count."""
        return {name: round(value, 2) for name, value in self._milliseconds.items()}
