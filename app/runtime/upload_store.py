"""Uploads are kept under the hash of their content, for the requests that follow: in this process's memory, or in Redis for all
replicas of the service.
"""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from app.inference.errors import StoreGoneError, UnknownImageError
from app.runtime.bounded import Bounded

if TYPE_CHECKING:
    from app.runtime.redis_store import RedisStore


@dataclass(frozen=True)
class Upload:
    """It holds the bytes of a picture file as they came. `id` is their SHA-256 in hexadecimal, `name` what the client calls the file."""

    id: str
    data: bytes
    name: str | None = None

    @classmethod
    def of(cls, data: bytes, name: str | None = None) -> "Upload":
        return cls(hashlib.sha256(data).hexdigest(), data, name)


class UploadStore(Protocol):
    """It is bounded in bytes (least recently used go first) and in time (from the last use). Threads may share it.

    `put` and `get` may wait for another machine: the event loop asks them by `Service.at_store`.
    """

    @property
    def size_bytes(self) -> int:
        """Bytes held now."""

    @property
    def answers(self) -> bool:
        """It tells whether what is kept can be looked up."""

    def put(self, upload: Upload) -> None:
        """Keep an upload; one larger than the whole store is not kept, and none is where the store cannot be reached."""

    def get(self, image_id: str) -> Upload:
        """Return the upload of that id, whose time starts anew. Raises UnknownImageError, StoreGoneError."""


def unknown_image(image_id: str, time_to_live_seconds: float) -> UnknownImageError:
    """Return what a client is told whose photo is not kept."""
    return UnknownImageError(
        f"no photo is kept under the id {image_id[:80]!r}: uploads are kept for {time_to_live_seconds:g} seconds after their "
        f"last use, and the oldest go first when memory is short. Send the photo again with POST.",
        parameter="image",
    )


class MemoryUploads:
    """It keeps uploads in the memory of this process."""

    answers = True

    def __init__(
        self, capacity_bytes: int, time_to_live_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._uploads = Bounded[Upload](capacity_bytes, time_to_live_seconds, lambda upload: len(upload.data), clock)

    @property
    def size_bytes(self) -> int:
        """Bytes held now."""
        return self._uploads.size_bytes

    def put(self, upload: Upload) -> None:
        """Keep an upload; one larger than the whole store is not kept."""
        self._uploads.put(upload.id, upload)

    def get(self, image_id: str) -> Upload:
        """Return the upload of that id, whose time starts anew. Raises UnknownImageError."""
        upload = self._uploads.get(image_id)
        if upload is None:
            raise unknown_image(image_id, self._uploads.time_to_live_seconds)
        return upload


class RedisUploads:
    """It keeps uploads in Redis: a line of JSON with the name, and behind it the bytes."""

    def __init__(self, store: "RedisStore", time_to_live_seconds: float) -> None:
        self._store = store
        self._time_to_live_seconds = time_to_live_seconds

    @property
    def size_bytes(self) -> int:
        """So many bytes were held when an upload was kept last."""
        return self._store.size_bytes

    @property
    def answers(self) -> bool:
        """It tells whether Redis answered when it was asked last."""
        return self._store.answers

    def put(self, upload: Upload) -> None:
        """Keep an upload where Redis takes it; whoever looks for it finds out where it does not."""
        with suppress(StoreGoneError):
            self._store.put(upload.id, json.dumps(upload.name).encode() + b"\n" + upload.data)

    def get(self, image_id: str) -> Upload:
        """Return the upload of that id, whose time starts anew. Raises UnknownImageError, StoreGoneError."""
        try:
            value = self._store.get(image_id)
        except StoreGoneError as error:
            raise StoreGoneError(f"{error} Send the photo itself with POST, or ask again later.") from None
        if value is None:
            raise unknown_image(image_id, self._time_to_live_seconds)
        name, _, data = value.partition(b"\n")
        return Upload(image_id, data, json.loads(name))
