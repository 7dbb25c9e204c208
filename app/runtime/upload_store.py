"""Uploads kept in memory under the hash of their content, for the requests that follow."""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from app.inference.errors import UnknownImageError


@dataclass(frozen=True)
class Upload:
    """The bytes of a picture file as they came. `id` is their SHA-256 in hexadecimal, `name` what the client calls the file."""

    id: str
    data: bytes
    name: str | None = None

    @classmethod
    def of(cls, data: bytes, name: str | None = None) -> "Upload":
        return cls(hashlib.sha256(data).hexdigest(), data, name)


class UploadStore:
    """Bounded in bytes (least recently used go first) and in time (from the last use). Safe to share among threads."""

    def __init__(
        self, capacity_bytes: int, time_to_live_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self.time_to_live_seconds = time_to_live_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._uploads: OrderedDict[str, tuple[Upload, float]] = OrderedDict()  # oldest use first
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Bytes held now."""
        with self._lock:
            self._drop_expired()
            return self._size_bytes

    def put(self, upload: Upload) -> None:
        """Keep an upload; one larger than the whole store is not kept."""
        with self._lock:
            self._drop_expired()
            if len(upload.data) > self.capacity_bytes:
                return
            if upload.id in self._uploads:
                self._remove(upload.id)
            while self._size_bytes + len(upload.data) > self.capacity_bytes:
                self._remove(next(iter(self._uploads)))
            self._uploads[upload.id] = (upload, self._clock())
            self._size_bytes += len(upload.data)

    def get(self, image_id: str) -> Upload:
        """Return the upload of that id, whose time starts anew. Raises UnknownImageError."""
        with self._lock:
            self._drop_expired()
            if image_id not in self._uploads:
                raise UnknownImageError(
                    f"no photo is kept under the id {image_id[:80]!r}: uploads are kept for "
                    f"{self.time_to_live_seconds:g} seconds after their last use, and the oldest go first when memory "
                    f"is short. Send the photo again with POST.",
                    parameter="image",
                )
            upload, _ = self._uploads[image_id]
            self._uploads[image_id] = (upload, self._clock())
            self._uploads.move_to_end(image_id)
            return upload

    def _drop_expired(self) -> None:
        limit = self._clock() - self.time_to_live_seconds
        while self._uploads:
            image_id, (_, used) = next(iter(self._uploads.items()))
            if used > limit:
                return
            self._remove(image_id)

    def _remove(self, image_id: str) -> None:
        upload, _ = self._uploads.pop(image_id)
        self._size_bytes -= len(upload.data)
