"""A Ray cluster of two nodes on this machine: two `ray start`, each a process group that can be killed."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]  # `ray` of this environment
LOCK = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a token of the tests, which nobody else needs to know"}
MEMORY = 80_000_000  # bytes of a node's object store, about the least that Ray takes
AGENTS = ("metrics-export", "dashboard-agent-grpc", "dashboard-agent-listen", "runtime-env-agent")
ROOT = Path(__file__).parents[3]


@dataclass
class Nodes:
    """The running nodes, the head first."""

    address: str
    environment: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *options: str) -> None:
        """Start a node of one CPU."""
        ports = (f"--{name}-port={free_port()}" for name in AGENTS)  # Ray waits 15 s for an agent to choose one itself.
        given = [f"--object-store-memory={MEMORY}", "--num-cpus=1", "--disable-usage-stats", "--no-monitor", *ports]
        command = [*RAY, "start", "--block", *given, *options]
        self.processes.append(
            subprocess.Popen(command, cwd=ROOT, env=self.environment, start_new_session=True,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )  # fmt: skip

    def join(self) -> None:
        """Start a node beside the head."""
        self.start(f"--address={self.address}")

    def kill(self, number: int) -> None:
        """Kill a node with all that runs on it, at once; the nodes after it move up."""
        process = self.processes.pop(number)
        with suppress(ProcessLookupError):  # It has ended by itself.
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def pids_of(self, title: str, number: int | None = None) -> list[int]:
        """Return the processes, of one node or of all, to which Ray gave a title of this beginning, such as ray::Map."""
        sessions = {process.pid for process in (self.processes if number is None else [self.processes[number]])}
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # one that has just ended
                pid = int(path.parent.name)
                if path.read_bytes().startswith(title.encode()) and os.getsid(pid) in sessions:
                    found.append(pid)
        return found


@contextmanager
def two_nodes(**variables: str) -> Iterator[Nodes]:
    """Start two nodes, whose processes have these variables in their environment."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as directory:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RAY_worker_register_timeout_seconds": "300",
            "RAY_agent_register_timeout_ms": "300000",
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
            "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "120",
            "RAY_worker_niceness": "0",
            "RAY_health_check_period_ms": "1000",  # A killed node is noticed after five of these.
            # A dozen processes import Ray: what one of them compiled the others read.
            "PYTHONPYCACHEPREFIX": os.environ.get("PYTHONPYCACHEPREFIX") or f"{directory}/compiled",
            **LOCK,
            **variables,
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        nodes = Nodes(f"127.0.0.1:{port}", environment)
        try:
            nodes.start("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={directory}")
            wait_for(port)
            nodes.join()
            yield nodes
        finally:
            while nodes.processes:
                nodes.kill(-1)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(port: int) -> None:
    """Return when somebody listens at a port, or after some minutes."""
    end = time.monotonic() + 180
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
