"""Memory that was freed goes back to the system: the C library keeps what came in small pieces, for a next time that may not come."""

import ctypes
import time
from contextlib import suppress

WORTH_TRIMMING = 64_000_000  # Memory is given back at once where this many bytes were held together.
# Between pieces of work it is given back this often at most. Photos of all sizes leave it in pieces: without this, a worker of 200 MB
# held 700 after 600 requests. It takes some milliseconds.
TRIM_SECONDS = 0.5


def trim_memory() -> None:
    """Have glibc return what it holds of freed memory; other C libraries have no such call."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class Trimming:
    """It gives memory back between the pieces of work of one worker, a process or threads."""

    def __init__(self) -> None:
        self._next = time.monotonic() + TRIM_SECONDS

    def work_ended(self) -> None:
        """Give memory back, where the last time is long enough ago."""
        if time.monotonic() > self._next:
            trim_memory()
            self._next = time.monotonic() + TRIM_SECONDS
