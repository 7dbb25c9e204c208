"""The bytes of a request and its reply come and go in time, and within one budget.

A body has `body_seconds`, and a second more for every 50,000 bytes that have arrived; a reply has `reply_seconds` and as much
more for what has been read of it. So a slow line is served, and who sends or reads nothing is not waited for. A reply is
written in pieces, each once the one before is on its way: the connection holds no second copy of it.
"""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.guard.byte_budget import ByteBudget
from app.guard.connections import Connection
from app.http.reply.problems import problem_response
from app.inference.errors import ServiceError, SlowBodyError, StoppingError
from app.runtime.settings import Settings

BYTES_PER_SECOND = 50_000  # A line that is slower than this is cut in the end.
PIECE_BYTES = 262_144
SLOW_READER = "slow-reader"  # The log gives this reason where the connection was cut.


class Flow:
    """This ASGI middleware keeps the times and the budget."""

    def __init__(self, app: ASGIApp, settings: Settings, budget: ByteBudget) -> None:
        self.app = app
        self.settings = settings
        self.budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        passage = _Passage(self, scope, receive, send)
        try:
            await self.app(scope, passage.receive, passage.send)
        except asyncio.CancelledError:  # The server stops, and has waited long enough.
            if passage.replying:
                raise
            late = StoppingError("the service stops and could not finish this in time; send it again in a moment.")
            await problem_response(scope, late)(scope, receive, send)
        finally:
            self.budget.give(passage.held)


class _Passage:
    """It watches one request and its reply. held: the bytes it has taken of the budget."""

    def __init__(self, flow: Flow, scope: Scope, receive: Receive, send: Send) -> None:
        self.held = 0
        self._budget, self._settings = flow.budget, flow.settings
        self._scope, self._receive, self._send = scope, receive, send
        self._clock = asyncio.get_running_loop().time
        self._started = self._clock()
        self._received = 0
        self._more = True
        # The start of the reply is held back until it is known that there is room for its body.
        self._start: Message | None = None
        self._replaced = False
        self._replying: float | None = None
        self._sent = 0

    @property
    def replying(self) -> bool:
        """It tells whether the reply has begun."""
        return self._replying is not None

    async def receive(self) -> Message:
        """Return a piece of the body. Raises SlowBodyError, TooManyBytesError."""
        if not self._more:
            return await self._receive()
        seconds = self._settings.body_seconds + self._received / BYTES_PER_SECOND
        try:
            async with asyncio.timeout_at(self._started + seconds):
                message = await self._receive()
        except TimeoutError:
            raise SlowBodyError(
                f"{self._received} bytes of the body arrived in {seconds:.0f} seconds, which is too slow: {BYTES_PER_SECOND} a "
                f"second are expected after the first {self._settings.body_seconds:g} seconds (TAG2MASK_BODY_SECONDS). "
                f"Send it again, or a smaller copy."
            ) from None
        if message["type"] == "http.request":
            self._more = message.get("more_body", False)
            self._received += len(message.get("body", b""))
            self._take(len(message.get("body", b"")))
        return message

    async def send(self, message: Message) -> None:
        """Send a piece of the reply; a problem goes in its place where the budget has no room for it."""
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            self._start = message
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._start is not None:
            start, self._start = self._start, None
            try:
                self._take(len(body))
            except ServiceError as error:
                self._replaced = True
                await problem_response(self._scope, error)(self._scope, self._receive, self._send)
                return
            self._replying = self._clock()
            await self._send(start)
        for begin in range(0, len(body) or 1, PIECE_BYTES):
            piece = bytes(body[begin : begin + PIECE_BYTES])
            last = begin + PIECE_BYTES >= len(body)
            if not await self._write({**message, "body": piece, "more_body": more or not last}):
                return
            self._sent += len(piece)

    async def _write(self, message: Message) -> bool:
        """Send a piece; returns whether the client was still reading. Where it was not the connection is cut."""
        assert self._replying is not None
        try:
            async with asyncio.timeout_at(
                self._replying + self._settings.reply_seconds + self._sent / BYTES_PER_SECOND
            ):
                await self._send(message)
        except TimeoutError:
            self._scope["state"]["reason"] = SLOW_READER
            connection = self._scope["state"].get("connection")
            if isinstance(connection, Connection):
                connection.abort()
                await connection.lost.wait()
            return False
        return True

    def _take(self, count: int) -> None:
        self._budget.take(count)
        self.held += count
