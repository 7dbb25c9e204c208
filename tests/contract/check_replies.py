"""Records what the service replies to a fixed list of requests, and compares two recordings.

    PYTHONPATH=. python tests/contract/check_replies.py record before        at the one commit
    PYTHONPATH=. python tests/contract/check_replies.py record after         at the other
    PYTHONPATH=. python tests/contract/check_replies.py compare before after

A change that should leave the interface as it is gives no difference. What differs from run to run (dates, request ids, the
milliseconds of timings) is left out. `compare` ends with 1 where replies differ and shows the first lines that do.
"""

import difflib
import hashlib
import io
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from app.main import create_app
from app.runtime.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PASSING = {"date", "x-request-id", "content-length", "set-cookie"}
SHOWN = 12  # lines of a difference
READY_SECONDS = 120

SEGMENT = (
    "", "format=png", "format=overlay", "format=gray8&size=model", "format=gray16&tags=cat", "format=npy&threshold=0.6",
    "format=npz&scales=0.75,1&flip=true", "format=coco&regions=polygons", "format=coco", "format=hf",
    "refine=pamr&regions=polygons", "tags=cat,%20dog,cat&scales=1.5&size=model", "smallest_region=0.01",
)  # fmt: skip
CAM = (
    "class=cat", "class=cat&format=json", "class=cat&format=overlay", "class=cat&format=overlay&size=model",
    "class=dog&tags=cat&format=npy", "class=cat&format=gray8&refine=pamr&threshold=0.3", "class=cat&format=gray16&model=drs",
    "class=cat&format=npz&scales=1&flip=false", "class=cat&format=coco&threshold=0.5", "class=cat&format=hf",
    "class=cat&fuse=cam,drs&format=npy", "class=cat&fuse=all&format=json",
    "class=cat&inference=class-conditional&format=npy&scales=1", "class=all", "class=all&format=npy&size=model",
    "class=all&format=npz&tags=cat", "class=all&format=coco", "class=all&format=hf&tags=cat,person",
)  # fmt: skip
PSEUDO_LABEL = (
    "", "format=json", "format=json&tags=cat&foreground_threshold=0.6", "format=npz&presence_threshold=0.3",
    "format=overlay&tags=cat", "format=gray8&background_threshold=0.4", "format=coco&refine=pamr", "format=hf&model=amr",
    "fuse=cam,drs&tags=cat&format=json&size=model", "inference=class-conditional&scales=1&flip=false&format=json",
)  # fmt: skip
ANALYZE = (
    "", "format=npz&tags=cat", "model=edam&refine=pamr&regions=polygons&threshold=0.5", "fuse=cam,drs&size=model&scales=1",
    "inference=class-conditional&scales=1&format=json", "segmenter=deeplab&tags=cat",
)  # fmt: skip
REFUSED = (
    "/segment?tags=ct", "/segment?tags=,", "/segment?scales=9", "/cam", "/cam?class=dgo", "/segment?size=small",
    "/cam?class=all&inference=class-conditional", "/cam?class=cat&fuse=cam&model=cam", "/cam?class=cat&fuse=cam",
    "/pseudo-label?background_threshold=0.5&foreground_threshold=0.2", "/analyze?segmenter=cam", "/segment?model=nothing",
    "/segment?format=pgn", "/analyze?tags=cat&unknown=1", "/cam?class=cat&class=dog", "/analyze?format=png",
)  # fmt: skip
PLAIN = ("/models", "/classes", "/classes?model=drs", "/healthz", "/readyz", "/v2", "/v2/models/cam", "/openapi.json")


def replies(client: TestClient) -> Iterator[tuple[str, httpx2.Response]]:
    """Every request with its reply."""
    cat = (ROOT / "tests" / "photos" / "cat.jpg").read_bytes()
    buffer = io.BytesIO()
    Image.open(io.BytesIO(cat)).resize((2400, 1600)).save(buffer, "JPEG")
    photos = {"cat": cat, "large": buffer.getvalue()}
    endpoints = {"/segment": SEGMENT, "/cam": CAM, "/pseudo-label": PSEUDO_LABEL, "/analyze": ANALYZE}
    asked = [f"{path}?{query}".rstrip("?") for path, queries in endpoints.items() for query in queries]
    for path in (*asked, *REFUSED):
        client.cookies.clear()
        name = "large" if "size=model" in path or "overlay" in path else "cat"
        yield f"POST {path} of {name}", client.post(path, files={"file": photos[name]})
    for name, body in {"cut off": cat[:1000], "text": b"hello world"}.items():
        yield f"POST /segment of a photo that is {name}", client.post("/segment", files={"file": body})
    client.cookies.clear()
    address = f"/segment?image={hashlib.sha256(cat).hexdigest()}&tags=cat"
    kept = client.get(address)
    yield "GET /segment", kept
    yield "GET /segment, unchanged", client.get(address, headers={"if-none-match": kept.headers["etag"]})
    yield "GET /segment of nothing", client.get("/segment?image=abc")
    yield "GET /segment as npy", client.get(address, headers={"accept": "application/x-npy"})
    for path in PLAIN:
        yield f"GET {path}", client.get(path)


def described(reply: httpx2.Response) -> str:
    """A reply as text that two runs share: status, headers, and the body, or its digest where it is no text."""
    headers = {name: value for name, value in sorted(reply.headers.items()) if name not in PASSING}
    if "server-timing" in headers:
        headers["server-timing"] = re.sub(r"dur=[\d.]+", "dur", headers["server-timing"])
    lines = [str(reply.status_code), *(f"{name}: {value}" for name, value in headers.items())]
    if "json" in headers.get("content-type", ""):
        return "\n".join([*lines, json.dumps(without_milliseconds(reply.json()), indent=1)])
    if headers.get("content-type") == "application/x-npz":  # a zip holds the time at which it was written
        with np.load(io.BytesIO(reply.content)) as arrays:
            digests = [
                f"{name} {values.dtype} {values.shape} {digest(values.tobytes())}" for name, values in arrays.items()
            ]
        return "\n".join([*lines, *digests])
    if headers.get("content-type") == "image/png":  # how well it is compressed is no part of the reply
        with Image.open(io.BytesIO(reply.content)) as picture:
            colours = digest(bytes(picture.getpalette() or ()))
            pixels = np.asarray(picture)
        return "\n".join([*lines, f"{pixels.dtype} {pixels.shape} {digest(pixels.tobytes())}, palette {colours}"])
    return "\n".join([*lines, digest(reply.content)])


def without_milliseconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: list(inner) if key == "timings_ms" else without_milliseconds(inner) for key, inner in value.items()
        }
    return [without_milliseconds(inner) for inner in value] if isinstance(value, list) else value


def digest(content: bytes) -> str:
    return f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}"


def record(folder: Path) -> None:
    """Write one file for each request."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(models=ROOT / "models", device="cpu", workers=1, intra_op_threads=1)
    with TestClient(create_app(settings)) as client:
        end = time.monotonic() + READY_SECONDS
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < end, "the models did not load"
            time.sleep(0.1)
        for number, (request, reply) in enumerate(replies(client)):
            path = folder / f"{number:03d}.txt"
            path.write_text(f"{request}\n{described(reply)}\n", encoding="utf-8")


def compare(before: Path, after: Path) -> bool:
    """Print what differs; returns whether nothing does."""
    names = sorted({path.name for folder in (before, after) for path in folder.glob("*.txt")})
    different = 0
    for name in names:
        paths = (before / name, after / name)
        texts = [path.read_text(encoding="utf-8").splitlines() if path.is_file() else [] for path in paths]
        if texts[0] != texts[1]:
            different += 1
            lines = difflib.unified_diff(*texts, *map(str, paths), lineterm="", n=0)
            print((texts[0] or texts[1])[0], *list(lines)[:SHOWN], sep="\n")
    print(f"{len(names) - different} of {len(names)} replies are the same")
    return not different


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["record", folder]:
            record(Path(folder))
        case ["compare", before, after]:
            sys.exit(0 if compare(Path(before), Path(after)) else 1)
        case _:
            sys.exit(__doc__)
