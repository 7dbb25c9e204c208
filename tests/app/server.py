"""A service in a process of its own, for tests of what only a socket shows."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2

ROOT = Path(__file__).parents[2]
MAX_UPLOAD_BYTES = 1_000_000  # of the fixture `server`


@dataclass
class Server:
    """A service in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_until_ready(self, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if httpx2.get(f"{self.url}/readyz").status_code == 200:
                    return
            except httpx2.ConnectError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"the service did not start: {self.log.read_text()}")

    def descendants(self) -> list[int]:
        """The processes that the service has started, and those that they have."""
        parents = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # one that has just ended
                parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        found = [self.process.pid]
        for each in found:
            found += [child for child, parent in parents.items() if parent == each]
        return found[1:]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


@contextmanager
def start_server(models: Path, **settings: object) -> Iterator[Server]:
    """`python -m app` with these models and settings on a free port; wait for it with `wait_until_ready`.

    It has one worker where the settings do not say otherwise: every one loads all models.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"models": models, "device": "cpu", "port": port, "workers": 1, **settings}
    environment = {**os.environ, **{f"TAG2MASK_{name.upper()}": str(value) for name, value in given.items()}}
    command = [sys.executable, "-W", "error", "-m", "app"]
    with (
        tempfile.NamedTemporaryFile() as log,  # a pipe that nobody reads would fill up and stop the service
        subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log) as process,
    ):
        try:
            yield Server(process, port, Path(log.name))
        finally:
            process.kill()
