"""Servers in processes of their own, what they cost, and clients that ask them again and again."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_INSTALLED = (
    ROOT / ".venv-peers" / "bin" / "python"
)  # `make peers` installs it; without it the peers that need it are left out.
PEERS_PYTHON = _INSTALLED if _INSTALLED.exists() else Path(sys.executable)
START_SECONDS = 180  # A server that has not begun to answer by then is not measured.
ANSWER_SECONDS = 300  # On a machine that others use too, an answer to one of many clients may take long.
TICKS = os.sysconf("SC_CLK_TCK")
BOUNDARY = "tag2mask-benchmark"


@dataclass
class Slice:
    """What one stretch of asking gave. seconds: of each answer. cpu_seconds: of the server and its children, all answers."""

    wall_seconds: float
    cpu_seconds: float
    seconds: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.seconds) / self.wall_seconds

    @property
    def cpu_milliseconds(self) -> float:
        """Of one answer."""
        return 1000 * self.cpu_seconds / max(1, len(self.seconds))

    def quantile(self, share: float) -> float:
        """Return the milliseconds within which this share of the answers came."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass
class Server:
    """A server that answers."""

    process: subprocess.Popen[bytes]
    port: int
    seconds_to_first_answer: float

    def family(self) -> list[int]:
        """Return the process ids of the server and all that it has started."""
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except OSError:  # it has ended meanwhile
                    continue
                parents.setdefault(parent, []).append(int(entry.name))
        found, waiting = [], [self.process.pid]
        while waiting:
            found.append(waiting.pop())
            waiting += parents.get(found[-1], [])
        return found

    def cpu_seconds(self) -> float:
        """Return what all of them have used so far."""
        total = 0
        for pid in self.family():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def peak_bytes(self) -> int:
        """Return the most memory that they held, added up."""
        lines = (line for pid in self.family() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

    def ask(self, clients: int, seconds: float, request: "Request") -> Slice:
        """Ask for so long, each client again once it has its answer."""
        found = Slice(0.0, 0.0)
        end = time.perf_counter() + seconds

        def work() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
            while time.perf_counter() < end:
                start = time.perf_counter()
                request.send(connection)
                found.seconds.append(time.perf_counter() - start)
            connection.close()

        before, start = self.cpu_seconds(), time.perf_counter()
        run_in_threads(work, clients)
        found.wall_seconds, found.cpu_seconds = time.perf_counter() - start, self.cpu_seconds() - before
        return found


@dataclass(frozen=True)
class Request:
    """A request that is answered with 200."""

    path: str
    body: bytes | None = None
    form: bool = True  # whether the body is the file of a form, as clients send it, or the photo and nothing else

    def send(self, connection: http.client.HTTPConnection) -> http.client.HTTPMessage:
        """Send it, read the answer, and return its headers."""
        body, kind = self.body, "image/jpeg"
        if body is not None and self.form:
            head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
            body, kind = (
                head.encode() + body + f"\r\n--{BOUNDARY}--\r\n".encode(),
                f"multipart/form-data; boundary={BOUNDARY}",
            )
        headers = {} if body is None else {"Content-Type": kind}
        connection.request("GET" if body is None else "POST", self.path, body, headers)
        reply = connection.getresponse()
        content = reply.read()
        if reply.status != http.client.OK:
            raise RuntimeError(f"{self.path} was answered {reply.status}: {content[:300]!r}")
        return reply.headers


def loop_slice(answer: Callable[[], object], clients: int, seconds: float) -> Slice:
    """Do in this process what a server is asked for, in as many threads as there are clients."""
    found = Slice(0.0, 0.0)
    end = time.perf_counter() + seconds

    def work() -> None:
        while time.perf_counter() < end:
            start = time.perf_counter()
            answer()
            found.seconds.append(time.perf_counter() - start)

    before, start = time.process_time(), time.perf_counter()
    run_in_threads(work, clients)
    found.wall_seconds, found.cpu_seconds = time.perf_counter() - start, time.process_time() - before
    return found


def run_in_threads(work: Callable[[], None], count: int) -> None:
    """Run it so many times at once; raises what the first that failed raised."""
    failures: list[Exception] = []

    def guarded() -> None:
        try:
            work()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@contextmanager
def started(command: list[str], port: int, environment: Mapping[str, str]) -> Iterator[Server]:
    """Start a server and wait until its `/readyz` answers 200. Raises RuntimeError where it does not."""
    start = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            while not _answers(port):
                if process.poll() is not None or time.perf_counter() - start > START_SECONDS:
                    raise RuntimeError(f"{' '.join(command)} does not serve")
                time.sleep(0.01)
            yield Server(process, port, time.perf_counter() - start)
        finally:
            family = Server(process, port, 0).family()
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
            for pid in family:  # Some peers leave workers behind.
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def service(**settings: object) -> tuple[list[str], int, dict[str, str]]:
    """Return how the service is started, with these settings."""
    port = free_port()
    given = {"port": port, "device": "cpu", "log_level": "warning", "drain_grace_seconds": 0, **settings}
    environment = {f"TAG2MASK_{name.upper()}": str(value) for name, value in given.items()}
    return [sys.executable, "-m", "app"], port, environment


def peer(name: str, model: Path, preferred_size: int) -> tuple[list[str], int, dict[str, str]]:
    """Return how one of `benchmarks.peers` is started, by the Python that has its packages."""
    port = free_port()
    command = [str(PEERS_PYTHON), "-m", f"benchmarks.peers.{name}", str(model), str(preferred_size), str(port)]
    return command, port, {"OPENBLAS_NUM_THREADS": "1"}


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        Request("/readyz").send(connection)
    except (OSError, http.client.HTTPException, RuntimeError):
        return False
    finally:
        connection.close()
    return True
