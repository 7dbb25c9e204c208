"""A real HTTP server as the Label Studio that holds the photos of tasks, and what its user asks of the service."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from starlette.testclient import TestClient

from app.runtime.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
TOKEN = "0123456789secret"
PERSONAL_TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.c2VjcmV0"
ACCESS_TOKEN = "short-lived-secret"
BRUSH = (DOCS / "label-studio.xml").read_text(encoding="utf-8")
POLYGONS = (DOCS / "label-studio-polygons.xml").read_text(encoding="utf-8")
MAX_UPLOAD_BYTES = 100_000


@dataclass
class FakeHost:
    """A Label Studio's files: path -> body, or status and headers. seen: the (path, Authorization) asked for.
    posted: what was sent to its projects.
    """

    url: str = ""
    files: dict[str, bytes | tuple[int, dict[str, str]]] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)
    posted: list[bytes] = field(default_factory=list)


@contextmanager
def run_host(asks_for_token: bool = True) -> Iterator[FakeHost]:
    host = FakeHost()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("Authorization", "")
            host.seen.append((self.path, given))
            if asks_for_token and given not in (f"Token {TOKEN}", f"Bearer {ACCESS_TOKEN}"):
                return self.answer(401, {}, b"")
            found = host.files.get(self.path, (404, {}))
            return self.answer(200, {}, found) if isinstance(found, bytes) else self.answer(*found, b"")

        def do_POST(self) -> None:
            if self.path.startswith("/api/projects/"):
                host.posted.append(self.rfile.read(int(self.headers["Content-Length"])))
                return self.do_GET()
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            host.seen.append((self.path, ""))
            accepted = self.path == "/api/token/refresh/" and body == {"refresh": PERSONAL_TOKEN}
            self.answer(200 if accepted else 401, {}, json.dumps({"access": ACCESS_TOKEN}).encode())

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        host.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield host
        finally:
            server.shutdown()
            thread.join()


def settings_for(host: FakeHost, models: Path, token: str = TOKEN, **others: object) -> Settings:
    named = {"label_studio_url": host.url, "label_studio_token": token, **others}
    return Settings(models=models, device="cpu", workers=2, max_upload_bytes=MAX_UPLOAD_BYTES, **named)


def predict(client: TestClient, *tasks: dict, label_config: str = BRUSH) -> list[dict]:
    """The predictions for tasks' data, as Label Studio asks for them."""
    body = {
        "tasks": [{"id": number, "data": data, "project": 1} for number, data in enumerate(tasks)],
        "project": "1.1795284085",
        "label_config": label_config,
        "params": {"login": None, "password": None, "context": None},
    }
    reply = client.post("/label-studio/predict", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()["results"]
