"""API keys are known by their SHA-256 and compared in constant time; each has a rate of its own.

A key is a long random text, so its plain hash tells nothing:

    key=$(openssl rand -hex 24); printf %s "$key" | sha256sum

`TAG2MASK_API_KEYS` holds hashes, or NAME:HASH, separated by commas; `TAG2MASK_API_KEYS_FILE` names a file with one on a line.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import math
import re
import time
from collections.abc import Callable

from app.inference.errors import AddressError, KeyRequiredError, RateLimitError
from app.runtime.settings import Settings

ENTRY = re.compile(r"(?:([\w.-]{1,64})[:\s]\s*)?([0-9a-f]{64})", re.IGNORECASE)
MINUTE = 60
REMEDY = "Send the key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY', or as the password of a browser's sign-in."


class Keys:
    """It holds the keys that are known, by name. `required` is False where there are none: then everybody is served."""

    def __init__(
        self, hashes: dict[str, bytes], requests_per_minute: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._hashes = hashes
        self._per_minute = requests_per_minute
        self._clock = clock
        self._tokens: dict[str, tuple[float, float]] = {}  # Each name has (requests left, as of this moment).

    @classmethod
    def of(cls, settings: Settings) -> "Keys":
        """Return those of the settings. Raises AddressError for an entry that is none."""
        entries = settings.api_keys.get_secret_value().split(",") if settings.api_keys else []
        if settings.api_keys_file is not None:
            lines = settings.api_keys_file.read_text(encoding="utf-8").splitlines()
            entries += [line for line in lines if not line.lstrip().startswith("#")]
        hashes = {}
        for number, entry in enumerate((entry.strip() for entry in entries if entry.strip()), 1):
            match = ENTRY.fullmatch(entry)
            if not match:  # The entry may be a key by mistake, so no message repeats it.
                raise AddressError(
                    f"entry {number} of the API keys is no SHA-256 in 64 hexadecimal digits, with a name and a colon before it "
                    f"or without. Write the hash of the key, not the key: printf %s KEY | sha256sum."
                )
            hashes[match[1] or f"key-{number}"] = bytes.fromhex(match[2])
        return cls(hashes, settings.key_requests_per_minute)

    @property
    def required(self) -> bool:
        """It tells whether a request needs a key."""
        return bool(self._hashes)

    def admit(self, headers: dict[bytes, bytes]) -> str:
        """Return the name of the key that a request brings. Raises KeyRequiredError, RateLimitError."""
        presented = _presented(headers)
        if presented is None:
            raise KeyRequiredError(f"this service answers whoever has an API key. {REMEDY}")
        digest = hashlib.sha256(presented).digest()
        names = [name for name, known in self._hashes.items() if hmac.compare_digest(known, digest)]
        if not names:
            raise KeyRequiredError(f"the API key is not known here. {REMEDY}")
        self._count(names[0])
        return names[0]

    def _count(self, name: str) -> None:
        """Take one of the requests that a key has left; they come back evenly over a minute."""
        if not self._per_minute:
            return
        now, rate = self._clock(), self._per_minute / MINUTE
        left, since = self._tokens.get(name, (float(self._per_minute), now))
        left = min(self._per_minute, left + (now - since) * rate)
        if left < 1:
            raise RateLimitError(
                f"the key {name!r} has sent {self._per_minute} requests within a minute, which is its limit "
                f"(TAG2MASK_KEY_REQUESTS_PER_MINUTE). Send it again after the seconds in Retry-After.",
                retry_after_seconds=math.ceil((1 - left) / rate),
                limit=self._per_minute,
            )
        self._tokens[name] = (left - 1, now)


def is_public(host: str) -> bool:
    """Tell whether a server that listens there can be reached from other machines."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() != "localhost"


def _presented(headers: dict[bytes, bytes]) -> bytes | None:
    """Return the key in the headers of a request."""
    scheme, _, credentials = headers.get(b"authorization", b"").strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return credentials.strip()
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(credentials.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            return None
    return headers.get(b"x-api-key")
