"""Asks a container that was just started: waits until it is ready, sends a photo, asks for a map, and says how long it took.

    PYTHONPATH=. python tests/deploy/check_image.py http://127.0.0.1:8000

Ends with 1 where an answer is not what it should be. `make check-image` builds the image, runs it, and asks it.
"""

import io
import sys
import time
from pathlib import Path

import httpx2
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "tests" / "photos" / "cat.jpg"
START_SECONDS = 120


def check(address: str, patience_seconds: float = START_SECONDS) -> str:
    """Return what was found. Raises AssertionError for a wrong answer, or none in time."""
    begin = time.monotonic()
    with httpx2.Client(base_url=address, timeout=60) as client:
        while not is_ready(client):
            assert time.monotonic() < begin + patience_seconds, f"{address} is not ready"
            time.sleep(0.1)
        ready = time.monotonic() - begin
        reply = client.post("/segment", files={"file": PHOTO.read_bytes()})
        assert reply.status_code == 200, reply.text
        found = [region["class"] for region in reply.json()["classes"]]
        assert "cat" in found, f"no cat was found, but {found}"
        reply = client.get("/cam", params={"class": "dog", "format": "overlay"})  # of the photo in the cookie
        assert reply.status_code == 200, reply.text
        with Image.open(PHOTO) as photo, Image.open(io.BytesIO(reply.content)) as heat:
            assert photo.size == heat.size
    return f"ready after {ready:.1f} s; /segment found {', '.join(found)}; /cam?class=dog is a picture"


def is_ready(client: httpx2.Client) -> bool:
    """Whether the service listens and has its models."""
    try:
        return client.get("/readyz").status_code == 200
    except httpx2.TransportError:
        return False


if __name__ == "__main__":
    try:
        print(check(sys.argv[1]))
    except AssertionError as wrong:
        sys.exit(f"{wrong}")
