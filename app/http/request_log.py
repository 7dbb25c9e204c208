"""Every request has an id, which its answer carries, and one line of JSON in the log."""

import json
import logging
import re
import time
import uuid
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("app.requests")

HEADER = b"x-request-id"
VISIBLE = re.compile(rb"[\x21-\x7e]{1,128}")  # an id of the client's that is taken over


class RequestLog:
    """ASGI middleware: id, method, path, status and milliseconds, with the model and image id the endpoint put into
    `request.state`. The id is the client's `X-Request-Id` where it sends a usable one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state: dict[str, Any] = scope.setdefault("state", {})
        sent = dict(scope["headers"]).get(HEADER, b"")
        request_id = sent if VISIBLE.fullmatch(sent) else uuid.uuid4().hex.encode()
        state["request_id"] = request_id.decode()
        status = 500  # where the application fails before it answers
        start = time.perf_counter()

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (HEADER, request_id)]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            line = {
                "id": state["request_id"],
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "ms": round(1000 * (time.perf_counter() - start), 1),
                "model": state.get("model"),
                "image": state.get("image"),
            }
            logger.info("%s", json.dumps(line))
