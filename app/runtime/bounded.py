"""Values are kept in memory for a while, bounded in bytes and in time, by use."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Bounded(Generic[Value]):
    """It holds values by key, bounded in bytes (least recently used go first) and in time (from the last use). Safe to share among
    threads.
    """

    def __init__(
        self,
        capacity_bytes: int,
        time_to_live_seconds: float,
        size_of: Callable[[Value], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self.time_to_live_seconds = time_to_live_seconds
        self._size_of = size_of
        self._clock = clock
        self._lock = threading.Lock()
        self._values: OrderedDict[str, tuple[Value, float]] = OrderedDict()  # The oldest use comes first.
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """So many bytes are held now."""
        with self._lock:
            self._drop_expired()
            return self._size_bytes

    def put(self, key: str, value: Value) -> None:
        """Keep a value; one larger than the whole store is not kept."""
        with self._lock:
            self._drop_expired()
            size = self._size_of(value)
            if size > self.capacity_bytes:
                return
            if key in self._values:
                self._remove(key)
            while self._size_bytes + size > self.capacity_bytes:
                self._remove(next(iter(self._values)))
            self._values[key] = (value, self._clock())
            self._size_bytes += size

    def get(self, key: str) -> Value | None:
        """Return the value of that key, whose time starts anew; None where none is kept."""
        with self._lock:
            self._drop_expired()
            if key not in self._values:
                return None
            value, _ = self._values[key]
            self._values[key] = (value, self._clock())
            self._values.move_to_end(key)
            return value

    def _drop_expired(self) -> None:
        limit = self._clock() - self.time_to_live_seconds
        while self._values:
            key, (_, used) = next(iter(self._values.items()))
            if used > limit:
                return
            self._remove(key)

    def _remove(self, key: str) -> None:
        value, _ = self._values.pop(key)
        self._size_bytes -= self._size_of(value)
