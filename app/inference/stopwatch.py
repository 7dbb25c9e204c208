"""How long each stage of one photo's work took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the milliseconds of stages by name. One photo's work runs in one thread, so nothing is locked.

    A stage inside a stage of its own name is part of it and counts once.
    """

    def __init__(self) -> None:
        self._milliseconds: dict[str, float] = {}
        self._running: set[str] = set()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time until the end of the `with` to the stage `name`."""
        if name in self._running:
            yield
            return
        self._running.add(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self._running.discard(name)
            self.add(name, 1000 * (time.perf_counter() - start))

    def add(self, name: str, milliseconds: float) -> None:
        """Add milliseconds that were measured elsewhere."""
        self._milliseconds[name] = self._milliseconds.get(name, 0.0) + milliseconds

    @property
    def milliseconds(self) -> dict[str, float]:
        """Stage -> milliseconds so far, to two decimals, in the order in which the stages began to count."""
        return {name: round(value, 2) for name, value in self._milliseconds.items()}
