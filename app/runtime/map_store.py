"""What the cam models said of photos is kept, so that further maps of a photo need no network: in this process's memory, or in
Redis for all replicas of the service.

A key names the photo by the hash of its content, the model by that of its file, and the views (`view_key`); a content is
`app.inference.maps.localization.ScaleCams.to_bytes`. So a photo that is sent again, or a model that is replaced, is told apart.
"""

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from app.inference.errors import StoreGoneError


class Contents(Protocol):
    """They are bytes by key, bounded: `app.runtime.bounded.Bounded`, or `app.runtime.redis_store.RedisStore`."""

    @property
    def size_bytes(self) -> int: ...

    def put(self, key: str, value: bytes, /) -> None: ...

    def get(self, key: str, /) -> bytes | None: ...


class MapStore:
    """It keeps what the cam models said. A store that cannot be reached keeps nothing, and what is missing is worked out anew.

    `found` and `missing` count what was looked up.
    """

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._lock = threading.Lock()
        self.found = self.missing = 0

    @property
    def size_bytes(self) -> int:
        """So many bytes are held now."""
        return self._contents.size_bytes

    def known(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return what is kept under those of these keys under which there is something."""
        found: dict[str, bytes] = {}
        asked = list(keys)
        with suppress(StoreGoneError):
            for key in asked:
                if content := self._contents.get(key):
                    found[key] = content
        with self._lock:
            self.found += len(found)
            self.missing += len(asked) - len(found)
        return found

    def put_all(self, contents: Mapping[str, bytes]) -> None:
        """Keep these contents by key; one larger than the whole store is not kept."""
        with suppress(StoreGoneError):
            for key, content in contents.items():
                self._contents.put(key, content)


def view_key(image_id: str, model_sha256: str, scales: tuple[float, ...], flip: bool, input_long_side: int) -> str:
    """Return the key of what a model says of a photo that is decoded for this input (`Analyzer.input_long_side`)."""
    parts = [image_id, model_sha256, scales, flip, input_long_side]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
