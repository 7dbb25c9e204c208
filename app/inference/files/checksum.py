"""A model file must be whole, and one file: its bytes are checked before ONNX Runtime reads them.

A file may state the SHA-256 of itself: the metadata key `checksum` holds that of the file with 64 zeros in its place. So a byte
that changed on a disk or on the way shows, in the weights as anywhere. Weights in a file of their own are refused: ONNX Runtime
would look for it from the directory that the service was started in, and read whatever file the model names.
"""

import hashlib
import re

from app.inference.errors import ModelCardError

KEY = "checksum"
UNKNOWN = "0" * 64
# Protobuf writes the entry of the metadata so: the key, then the value as JSON text, 66 (0x42) bytes long.
START = b'\x0a\x08checksum\x12\x42"'
ENTRY = re.compile(re.escape(START) + rb'([0-9a-f]{64})"')
# A tensor names its file under the key "location", a whole text with its length before it, in any way protobuf may write 8.
EXTERNAL = (b"\x08location", b"\x00location")


def check_content(content: bytes, source: str) -> None:
    """Raise ModelCardError for a file whose weights lie elsewhere, or that is not what its checksum says."""
    if any(name in content for name in EXTERNAL):
        raise ModelCardError(
            f"{source} names external data, weights in another file, which is not read. Save it as one file, with its weights inside"
            f" (onnx.save(model, path) without save_as_external_data)."
        )
    entry = _entry_of(content)
    if entry and entry[1] != _digest(content, entry).encode():
        raise ModelCardError(
            f"{source} has changed since it was exported: its content does not match the checksum in its metadata. Copy it anew, or "
            f"export the model again."
        )


def checksum_of(content: bytes) -> str:
    """Return the checksum that a file's metadata state, or should state."""
    entry = _entry_of(content)
    return _digest(content, entry) if entry else ""


def with_checksum(content: bytes) -> bytes:
    """Return the file with its checksum in the place of the one its metadata state; as it is where they have no such
    key.
    """
    entry = _entry_of(content)
    if entry is None:
        return content
    whole = memoryview(content)
    return b"".join((whole[: entry.start(1)], _digest(content, entry).encode(), whole[entry.end(1) :]))


def _entry_of(content: bytes) -> re.Match[bytes] | None:
    """Return the entry of the metadata. To look for how it begins takes a tenth of the pattern's time."""
    start = content.find(START)
    return None if start < 0 else ENTRY.search(content, start)


def _digest(content: bytes, entry: re.Match[bytes]) -> str:
    """Return the SHA-256 of a file with 64 zeros in the place of what its entry states."""
    digest = hashlib.sha256(memoryview(content)[: entry.start(1)])
    digest.update(UNKNOWN.encode())
    digest.update(memoryview(content)[entry.end(1) :])
    return digest.hexdigest()
