"""The server says that it is going before it goes.

At SIGTERM `/readyz` answers 503 at once, so that whoever spreads requests sends no more, while new connections are still taken
for the seconds of grace; then it stops listening and finishes what it has. SIGINT (Ctrl-C), and a second signal, leave out the
grace.
"""

import signal
import time
from types import FrameType

import uvicorn

from app.runtime.service import Service


class DrainingServer(uvicorn.Server):
    """It is uvicorn with a time of grace between the signal and the end of listening."""

    def __init__(self, config: uvicorn.Config, service: Service, grace_seconds: float) -> None:
        super().__init__(config)
        self._service = service
        self._grace_seconds = grace_seconds
        self._leaves_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.leaving.set()
        if sig == signal.SIGTERM and self._leaves_at is None and self._grace_seconds > 0:
            self._captured_signals.append(sig)
            self._leaves_at = time.monotonic() + self._grace_seconds
            return
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        if self._leaves_at is not None and time.monotonic() >= self._leaves_at:
            self.should_exit = True
        return await super().on_tick(counter)
