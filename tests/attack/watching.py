"""What is seen of a service from outside while it is attacked: its memory, and how long others wait."""

import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import httpx2

from tests.app.server import Server

INTERVAL = 0.05  # seconds between two looks


def resident_mb(server: Server) -> int:
    """The memory of the service's processes together, in megabytes; what they share counts once."""
    kilobytes = 0
    for pid in (server.process.pid, *server.descendants()):
        with suppress(OSError, StopIteration):  # one that has just ended
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            kilobytes += int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return kilobytes // 1024


class Watch:
    """Asks for /healthz while the `with` lasts. worst: the longest wait in seconds; failed: how many were not answered."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.worst, self.failed, self.seconds = 0.0, 0, 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.seconds = time.monotonic() - self._start
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            start = time.monotonic()
            try:
                self.failed += httpx2.get(f"{self.server.url}/healthz", timeout=60).status_code != 200
            except httpx2.HTTPError:
                self.failed += 1
            self.worst = max(self.worst, time.monotonic() - start)
            self._over.wait(INTERVAL)
