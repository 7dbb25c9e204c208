"""HTTP/1.1 connections end: their number has a limit, and whatever the other side has to do has a time.

uvicorn waits for ever for the rest of a request's headers, for a body and for a reply to be read. Here

- the headers of a request are there `header_seconds` after the connection was made, or after the reply before;
- what a closed connection still has to send is read within `reply_seconds`, else the connection is cut (while a reply is being
  written, `app.guard.flow` counts the time, and that of bodies);
- of more than `max_connections` the one is closed that waits longest for a request; where none waits, the new one is told so.
"""

import asyncio
import socket
from typing import Any, ClassVar

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from app.runtime.settings import Settings

# The system holds this much of a reply. The size is fixed, since it would otherwise grow to megabytes that count as read.
SEND_BUFFER_BYTES = 262_144
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n"
)
FULL_BODY = (
    b'{"type":"urn:tag2mask:too-many-connections","title":"Too many connections","status":503,'
    b'"detail":"as many connections are open as may be; send it again after the seconds in Retry-After."}'
)


class Connection(H11Protocol):
    """It is one connection. `lost` is set once it is gone; requests find their connection in `scope["state"]["connection"]`."""

    header_seconds: ClassVar[float]
    reply_seconds: ClassVar[float]
    max_connections: ClassVar[int]
    waiting: ClassVar[dict["Connection", None]]  # These have no request; the one that waits longest comes first.

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, "connection": self}, _loop)
        self.lost = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if (connected := transport.get_extra_info("socket")) is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if len(self.connections) > self.max_connections and not self._make_room():
            transport.write(FULL % len(FULL_BODY) + FULL_BODY)
            transport.close()
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._serve()
        self.lost.set()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and not self.cycle.response_complete:
            self._serve()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # No further request was there already.
            self._wait_for_request()

    def abort(self) -> None:
        """Cut the connection, whatever was still to be sent."""
        self.transport.abort()

    def _make_room(self) -> bool:
        """Cut the connection that waits longest for a request; returns whether there is one."""
        oldest = next(iter(self.waiting), None)
        if oldest is None:
            return False
        oldest._serve()
        oldest.abort()
        return True

    def _wait_for_request(self) -> None:
        """Count the time until the next request."""
        self._serve()
        self.waiting[self] = None
        unsent = self.transport.get_write_buffer_size()
        seconds = max(self.header_seconds, self.reply_seconds) if unsent else self.header_seconds
        self._timer = self.loop.call_later(seconds, self.abort)

    def _serve(self) -> None:
        """Count no longer."""
        self.waiting.pop(self, None)
        if self._timer:
            self._timer.cancel()
            self._timer = None


def connections_of(settings: Settings) -> type[Connection]:
    """Return the protocol of a server with these settings."""
    limits = {
        "header_seconds": settings.header_seconds,
        "reply_seconds": settings.reply_seconds,
        "max_connections": settings.connection_limit,
        "waiting": {},
    }
    return type("Connection", (Connection,), limits)
