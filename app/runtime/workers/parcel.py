"""A parcel crosses between the service and its worker processes: a pickle, large bytes beside it, and models by name.

A model crosses as the hash of its file, since both sides have it: the workers as an engine, the service as a `DistantModel`. The
settings stay where they are. Bytes from `APART` on go through shared memory: a pipe carries them in pieces of some 100 kB, and
both sides wait at every one (20 MB took 280 ms so, 53 ms through shared memory, on two busy cores).

Both ends are this program's own; nothing that a client sends is unpickled.
"""

import io
import mmap
import os
import pickle  # nosec B403
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

from app.runtime.loaded_model import DistantModel
from app.runtime.settings import Settings

APART = 262_144  # Bytes objects of this length and more go beside the pickle.
SHARES_MEMORY = hasattr(os, "memfd_create")  # Elsewhere than on Linux they go through the pipe.
MODEL, SETTINGS, BYTES = "model", "settings", "bytes"


@dataclass(frozen=True)
class Parcel:
    """It is what crosses. content: the pickle. apart: the large bytes in it. models: those that it names, by hash; known to the sender only."""

    content: bytes
    apart: list[bytes | memoryview]
    models: dict[str, DistantModel] = field(default_factory=dict)


def pack(thing: Any, by_name: bool = True) -> Parcel:
    """Return what is sent for anything that can be pickled; what comes from a worker names nothing, and is whole."""
    buffer = io.BytesIO()
    packer = _Packer(buffer, by_name)
    packer.dump(thing)
    return Parcel(buffer.getvalue(), packer.apart, packer.models)


def unpack(parcel: Parcel, find: Callable[[str, str], Any]) -> Any:
    """Return what was packed; `find` gives what stands for ("model", hash) and ("settings", "")."""
    unpacker = pickle.Unpickler(io.BytesIO(parcel.content))  # nosec B301
    unpacker.persistent_load = lambda named: parcel.apart[named[1]] if named[0] == BYTES else find(*named)  # type: ignore[method-assign]
    return unpacker.load()


def send(connection: Connection, parcel: Parcel) -> None:
    """Send a parcel. Raises OSError where nobody is there."""
    connection.send((parcel.content, [len(data) for data in parcel.apart]))
    for data in parcel.apart:
        if not SHARES_MEMORY:
            connection.send_bytes(data)
            continue
        with open(os.memfd_create("tag2mask"), "wb") as file:
            file.write(data)
            file.flush()
            reduction.send_handle(connection, file.fileno(), 0)


def receive(connection: Connection) -> Parcel:
    """Return the next parcel, its large bytes as views of the shared memory. Raises EOFError, OSError where nobody is there."""
    content, sizes = connection.recv()
    return Parcel(content, [_receive_apart(connection, size) for size in sizes])


def _receive_apart(connection: Connection, size: int) -> memoryview:
    if not SHARES_MEMORY:
        return memoryview(connection.recv_bytes())
    file = reduction.recv_handle(connection)
    try:
        return memoryview(mmap.mmap(file, size, access=mmap.ACCESS_READ))
    finally:
        os.close(file)


class _Packer(pickle.Pickler):
    """It puts names in the place of what is on the other side already, and of large bytes."""

    def __init__(self, file: io.BytesIO, by_name: bool) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.by_name = by_name
        self.apart: list[bytes | memoryview] = []
        self.models: dict[str, DistantModel] = {}

    def persistent_id(self, thing: Any) -> tuple[str, str | int] | None:
        # What came beside a parcel is a view of shared memory, and may go on beside another.
        if isinstance(thing, bytes | memoryview) and len(thing) >= APART:
            self.apart.append(thing)
            return BYTES, len(self.apart) - 1
        if not self.by_name:
            return None
        if isinstance(thing, DistantModel):
            self.models[thing.sha256] = thing
            return MODEL, thing.sha256
        return (SETTINGS, "") if isinstance(thing, Settings) else None
