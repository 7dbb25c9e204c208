"""All bodies that are being received or worked on, and all replies that are being sent, share one budget of bytes."""

import threading

from app.inference.errors import TooManyBytesError
from app.runtime.memory import WORTH_TRIMMING, trim_memory

RETRY_SECONDS = 2


class ByteBudget:
    """It hands out `limit` bytes. It belongs to one event loop, so nothing is locked.

    Once most of a large amount is given back, the C library gives it back too: of pieces as small as those of a body it keeps the
    memory otherwise, for a next time that may not come.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._highest = 0

    def take(self, count: int) -> None:
        """Take bytes; they come back by `give`. Raises TooManyBytesError where they are not there."""
        if self.used + count > self.limit:
            raise TooManyBytesError(
                f"the bodies and replies on their way hold {self.used} bytes; with {count} more they would exceed the limit of "
                f"{self.limit} (TAG2MASK_MAX_BYTES_IN_FLIGHT). Send it again after the seconds in Retry-After.",
                retry_after_seconds=RETRY_SECONDS,
                limit=self.limit,
            )
        self.used += count
        self._highest = max(self._highest, self.used)

    def give(self, count: int) -> None:
        """Give bytes back."""
        self.used -= count
        if self._highest > WORTH_TRIMMING and self.used < self._highest // 4:
            self._highest = self.used
            timer = threading.Timer(1, trim_memory)  # What held the bytes is let go by then.
            timer.daemon = True
            timer.start()
