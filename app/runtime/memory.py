"""Memory that was freed goes back to the system: the C library keeps what came in small pieces, for a next time that may not come."""

import ctypes
from contextlib import suppress

WORTH_TRIMMING = 64_000_000  # bytes that were held


def trim_memory() -> None:
    """Have glibc return what it holds of freed memory; other C libraries have no such call."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
