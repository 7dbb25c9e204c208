"""One budget of bytes for all bodies that are being received or worked on, and all replies that are being sent."""

from app.inference.errors import TooManyBytesError

RETRY_SECONDS = 2


class ByteBudget:
    """`limit` bytes. Belongs to one event loop, so nothing is locked."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

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

    def give(self, count: int) -> None:
        """Give bytes back."""
        self.used -= count
