"""Every request has an id, which its answer carries, and one line of JSON in the log; and it is counted, and traced where that is wanted.

No line holds what a photo shows, or an address's query. The id of a photo lets anybody ask for it, so that a prefix of it
stands in the log: enough to tell photos apart.
"""

import json
import logging
import re
import time
import uuid
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.guard.metrics import Metrics
from app.inference.stopwatch import Stopwatch

logger = logging.getLogger("app.requests")

HEADER = b"x-request-id"
VISIBLE = re.compile(rb"[\x21-\x7e]{1,128}")  # An id of the client's that looks so is taken over.
ID_PREFIX = 12  # The log shows this many digits of a photo's id.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
ELSEWHERE = "other"  # Paths and methods that nothing is served under count as this: else each would be a line of its own in the metrics.


class Tracing(Protocol):
    """It makes a trace of a request (`app.guard.traces`)."""

    def record(self, scope: Scope, route: str, status: int, start: int, end: int) -> None:
        """Trace a request that lasted from one moment to another, in nanoseconds since 1970."""


class RequestLog:
    """This ASGI middleware logs id, client, method, path, status, milliseconds and, of a refusal, its reason, with the model, the image
    and the name of the API key that others put into `request.state`. The id is the client's `X-Request-Id` where it sends a
    usable one.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics | None = None, traces: Tracing | None = None) -> None:
        self.app = app
        self.metrics = metrics
        self.traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state: dict[str, Any] = scope.setdefault("state", {})
        sent = dict(scope["headers"]).get(HEADER, b"")
        request_id = sent if VISIBLE.fullmatch(sent) else uuid.uuid4().hex.encode()
        state["request_id"] = request_id.decode()
        status = 500  # This status stays where the application fails before it answers.
        start, moment = time.perf_counter(), time.time_ns()

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (HEADER, request_id)]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            seconds = time.perf_counter() - start
            self._note(scope, state, status, seconds)
            if self.traces:
                self.traces.record(scope, route_of(scope), status, moment, moment + round(1e9 * seconds))

    def _note(self, scope: Scope, state: dict[str, Any], status: int, seconds: float) -> None:
        """Write the line, and count."""
        image = state.get("image")
        line = {
            "id": state["request_id"],
            "client": (scope.get("client") or [None])[0],
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "ms": round(1000 * seconds, 1),
            "reason": state.get("reason"),
            "model": state.get("model"),
            "image": image and ",".join(each[:ID_PREFIX] for each in image.split(",")),
            "key": state.get("key"),
        }
        logger.info("%s", json.dumps(line), extra={"fields": line})
        if self.metrics:
            method = scope["method"] if scope["method"] in METHODS else ELSEWHERE
            self.metrics.count(route_of(scope), method, status, seconds, state.get("reason"))
            self.metrics.count_stages(state.get("stopwatch", Stopwatch()).milliseconds)


def route_of(scope: Scope) -> str:
    """Return the path that a request was served under, with names in the place of what varies."""
    return getattr(scope.get("route"), "path", ELSEWHERE)
