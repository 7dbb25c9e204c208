"""Mutated requests into the application itself: `python -m tests.attack.fuzz --count 200000 --seed 1`.

Photos, queries, headers and JSON bodies that are right are changed in some place, and whatever the service answers must be an
answer: no 5xx but 503 and 504, no exception. What is wrong is printed with its seed and ends with status 1.
"""

import argparse
import asyncio
import json
import logging
import random
import string
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from app.main import create_app
from app.runtime.settings import Settings
from tests.app.colour_models import BLACK, RED, halves, to_file, write_cam_model, write_segmentation_model

AT_A_TIME = 4  # requests under way at once
BUSY = {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
PHOTO = halves(RED, BLACK)
PHOTOS = [
    *(to_file(PHOTO, kind) for kind in ("PNG", "JPEG", "WEBP")),
    to_file(PHOTO, "JPEG", progressive=True),
    to_file(Image.fromarray(PHOTO).quantize(4)),
    to_file(PHOTO[..., 0]),
]
PATHS = ("/segment", "/cam", "/pseudo-label", "/analyze", "/models", "/classes", "/healthz", "/v2/models/drs_colours")
PARAMETERS = {
    "class": ("dog", "all", "*", "horsse"),
    "tags": ("dog", "dog,cat", ",", "dog cat"),
    "format": ("json", "png", "overlay", "npz", "npy", "coco", "hf", "gray8", "gray16"),
    "scales": ("1", "0.5,1", "2,2,2,2,2,2,2", "nan", "1e999"),
    "flip": ("true", "0", "maybe"),
    "size": ("image", "model"),
    "refine": ("none", "pamr"),
    "regions": ("rle", "polygon"),
    "threshold": ("0", "0.5", "1", "-1", "inf"),
    "background_threshold": ("0.2", "2"),
    "foreground_threshold": ("0.9", "0"),
    "presence_threshold": ("0.5",),
    "smallest_region": ("0.01", "1"),
    "inference": ("plain", "class-conditional"),
    "fuse": ("all", "drs_colours,drs_colours", ","),
    "model": ("drs_colours", "drs_colours/1", "x/y/z"),
    "segmenter": ("deeplab_colours",),
    "image": ("0" * 64, "\u0662"),
}
CONFIG = (
    '<View><Image name="i" value="$image"/><BrushLabels name="b" toName="i"><Label value="dog"/></BrushLabels></View>'
)
JSON_BODIES: dict[str, Any] = {
    "/v2/models/drs_colours/infer": {
        "id": "x",
        "inputs": [{"name": "image", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": [7] * 3072}],
        "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
    },
    "/v2/repository/index": {"ready": True},
    "/label-studio/predict": {
        "tasks": [{"id": 1, "data": {"image": "/data/a.jpg", "tags": "dog"}}],
        "label_config": CONFIG,
    },
    "/label-studio/setup": {"project": "1", "schema": CONFIG},
    "/label-studio/webhook": {"action": "START_TRAINING"},
}
ODD = [None, True, -1, 0, 1e308, 2**63, "", "x" * 300, "\ud800", "\0", [], {}, [[]], {"a": []}, float("nan")]


@dataclass
class Sent:
    """One request."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return bytes with some of them changed, removed, repeated or put in."""
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        if not result:
            break
        place, length = chance.randrange(len(result)), chance.choice((1, 2, 4, 50))
        kind = chance.randrange(4)
        if kind == 0:
            result[place] = chance.randrange(256)
        elif kind == 1:
            del result[place : place + length]
        elif kind == 2:
            result[place:place] = result[place : place + length] * chance.choice((1, 3))
        else:
            result[place:place] = chance.randbytes(length)
    return bytes(result)


def odd_json(value: Any, chance: random.Random) -> Any:
    """Return a JSON value with something else in some place of it."""
    if chance.random() < 0.15 or not value:
        return chance.choice(ODD)
    if isinstance(value, dict):
        key = chance.choice(list(value))
        changed = {**value, key: odd_json(value[key], chance)}
        if chance.random() < 0.2:
            del changed[key]
        return changed
    if isinstance(value, list):
        place = chance.randrange(len(value))
        return [*value[:place], odd_json(value[place], chance), *value[place + 1 :]]
    if isinstance(value, str) and chance.random() < 0.7:
        return mutated(value.encode(), chance).decode("utf-8", "replace")
    return chance.choice(ODD)


def a_photo(chance: random.Random) -> Sent:
    """A mutated photo, to a path that takes one."""
    body, path = mutated(chance.choice(PHOTOS), chance), chance.choice(PATHS[:4])
    return Sent("POST", path, "class=dog" if path == "/cam" else "", {"content-type": "image/*"}, body)


def a_query(chance: random.Random) -> Sent:
    """Parameters in some combination, some of them changed."""
    names = chance.sample(list(PARAMETERS), chance.randrange(5))
    pairs = [(name, chance.choice(PARAMETERS[name])) for name in names]
    if pairs and chance.random() < 0.5:
        place = chance.randrange(len(pairs))
        name, value = (mutated(text.encode(), chance).decode("utf-8", "replace") for text in pairs[place])
        pairs[place] = (name, value)
    query = "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs)
    method = chance.choice(("GET", "POST", "POST", "HEAD", "PUT", "X"))
    path = chance.choice(PATHS) if chance.random() < 0.9 else "/" + mutated(b"segment/../x", chance).decode("latin-1")
    return Sent(method, path, query, {"content-type": "image/png"}, PHOTOS[0] if method == "POST" else b"")


def some_json(chance: random.Random) -> Sent:
    """A JSON body with something else in it, or some of its bytes changed."""
    path, value = chance.choice(list(JSON_BODIES.items()))
    body = json.dumps(odd_json(value, chance)).encode()
    if chance.random() < 0.3:
        body = mutated(body, chance)
    headers = {"content-type": "application/json"}
    if chance.random() < 0.2:
        headers["inference-header-content-length"] = chance.choice((str(len(body)), "1", "-1", "9" * 30, "x"))
    return Sent("POST", path, "", headers, body)


def some_headers(chance: random.Random) -> Sent:
    """A form or a photo with odd headers."""
    boundary = mutated(b"----boundary", chance).decode("latin-1") if chance.random() < 0.3 else "----boundary"
    name = "".join(chance.choices(string.printable, k=5))
    head = f'------boundary\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    form = head.encode() + PHOTOS[0] + b"\r\n------boundary--\r\n"
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    for header in (
        "accept",
        "host",
        "cookie",
        "if-none-match",
        "x-request-id",
        "x-forwarded-prefix",
        "range",
        "origin",
    ):
        if chance.random() < 0.3:
            headers[header] = mutated(b"image/png;q=0.5, */*", chance).decode("latin-1")
    return Sent("POST", "/segment", "", headers, mutated(form, chance) if chance.random() < 0.5 else form)


KINDS: tuple[Callable[[random.Random], Sent], ...] = (a_photo, a_query, some_json, some_headers)


async def ask(app: Any, sent: Sent) -> int:
    """Return the status of the answer."""
    status, waiting = 0, [{"type": "http.request", "body": sent.body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop()
        await asyncio.sleep(3600)  # the client stays
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    headers = {"host": "localhost", "content-length": str(len(sent.body)), **sent.headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "method": sent.method,
        "path": sent.path,
        "raw_path": quote(sent.path).encode(),
        "state": {},
        "query_string": sent.query.encode(),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
    }
    await app(scope, receive, send)
    return status


async def fuzz(app: Any, count: int, seed: int) -> list[str]:
    """Send so many requests; returns what went wrong."""
    faults: list[str] = []
    statuses: Counter[int] = Counter()
    numbers, start = iter(range(count)), time.monotonic()

    async def work() -> None:
        for number in numbers:
            chance = random.Random(f"{seed}/{number}")
            sent = KINDS[number % len(KINDS)](chance)
            try:
                status = await asyncio.wait_for(ask(app, sent), 120)
            except Exception as error:
                status = 0
                faults.append(f"{seed}/{number}: {error!r} {sent!r:.300}")
            statuses[status] += 1
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR and status not in BUSY:
                faults.append(f"{seed}/{number}: {status} {sent!r:.300}")
            if number % 2_000 == 0:
                sys.stdout.write(
                    f"{number} after {time.monotonic() - start:.0f} s: {dict(statuses)}, {len(faults)} faults\n"
                )
                sys.stdout.flush()

    async with app.router.lifespan_context(app):
        while (await ask(app, Sent("GET", "/readyz"))) != HTTPStatus.OK:
            await asyncio.sleep(0.1)
        await asyncio.gather(*(work() for _ in range(AT_A_TIME)))
    sys.stdout.write(
        f"{count} requests, seed {seed}, {time.monotonic() - start:.0f} s: {dict(sorted(statuses.items()))}\n"
    )
    return faults


def application(models: Path) -> Any:
    """A service of the colour models: its workers are threads, so that one process does everything."""
    write_cam_model(models)
    write_segmentation_model(models)
    nobody = {"label_studio_url": "http://127.0.0.1:9", "label_studio_token": "none"}
    settings = Settings(models=models, device="cpu", workers=2, worker_processes=False, upload_store_bytes=0, **nobody)
    return create_app(settings)


def main() -> int:
    """Fuzz, and print what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.ERROR)
    warnings.filterwarnings("ignore", module="PIL")
    with tempfile.TemporaryDirectory() as folder:
        faults = asyncio.run(fuzz(application(Path(folder)), options.count, options.seed))
    sys.stdout.write("\n".join(faults[:50]) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
