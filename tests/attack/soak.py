"""Mixed requests for half an hour, and what becomes of the memory: `python -m tests.attack.soak --minutes 30`.

Photos of many sizes and all endpoints, tensors of odd shapes, what is refused, clients that leave. Every line is one look at the
memory of all processes of the service together; the last says how it grew over the second half, in MB an hour (the median of all
pairs of looks: a large photo that is being worked on is no growth).
"""

import argparse
import io
import itertools
import json
import random
import sys
import threading
import time
from collections import Counter

import httpx2
import numpy as np
from PIL import Image

from tests.app.server import ROOT, Server, start_server
from tests.attack.watching import resident_mb

CLIENTS = 3
STORE_BYTES = 20_000_000  # Photos that are kept fill this much memory within minutes; with the default they would for half an hour.
LOOKS = 60  # at the memory, evenly over the time
PHOTO = Image.open(ROOT / "tests/photos/cat.jpg").convert("RGB")
PATHS = (
    *("/segment", "/segment?format=png", "/segment?format=overlay", "/segment?format=npz&size=model"),
    *("/cam?class=cat", "/cam?class=all&format=npz", "/cam?class=cat&format=gray16&fuse=cam,drs", "/cam?class=horsse"),
    *("/pseudo-label", "/pseudo-label?tags=cat&refine=pamr&format=png", "/analyze", "/analyze?format=npz&tags=cat"),
)


def photo_of(chance: random.Random) -> bytes:
    """A JPEG of some size, now and then a broken one."""
    size = chance.choice(((500, 375), (640, 480), (97, 1200), (1600, 1200), (64, 64), (3000, 2000)))
    buffer = io.BytesIO()
    PHOTO.resize(size).save(buffer, "JPEG", quality=chance.randrange(30, 95))
    return buffer.getvalue()[: chance.choice((None, None, None, 500))]


def ask(server: Server, client: httpx2.Client, chance: random.Random) -> int:
    """Send one request; returns its status, 0 where the client left."""
    kind = chance.random()
    if kind < 0.15:
        shape = (chance.randrange(1, 4), chance.randrange(32, 500), chance.randrange(32, 500), 3)
        count = int(np.prod(shape))
        tensor = {"name": "image", "shape": shape, "datatype": "UINT8", "parameters": {"binary_data_size": count}}
        header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        headers = {"Inference-Header-Content-Length": str(len(header))}
        return client.post("/v2/models/deeplab/infer", content=header + bytes(count), headers=headers).status_code
    if kind < 0.2:
        with server.connect() as connection:
            body = photo_of(chance)
            connection.sendall(
                f"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            )
            connection.sendall(body)
        return 0
    return client.post(
        chance.choice(PATHS), content=photo_of(chance), headers={"Content-Type": "image/jpeg"}
    ).status_code


def soak(server: Server, minutes: float) -> tuple[list[tuple[float, int]], Counter[int]]:
    """Return (minutes, megabytes) of every look, and the statuses."""
    statuses: Counter[int] = Counter()
    start, seconds = time.monotonic(), 60 * minutes

    def work(number: int) -> None:
        chance = random.Random(number)
        with httpx2.Client(base_url=server.url, timeout=180) as client:
            while time.monotonic() < start + seconds:
                statuses[ask(server, client, chance)] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    looks = []
    for look in itertools.count():
        passed = time.monotonic() - start
        looks.append((passed / 60, resident_mb(server)))
        sys.stdout.write(f"{passed / 60:5.1f} min {looks[-1][1]:5d} MB {sum(statuses.values()):6d} requests\n")
        sys.stdout.flush()
        if look == LOOKS:
            break
        time.sleep(max(0.0, start + seconds * (look + 1) / LOOKS - time.monotonic()))
    for thread in threads:
        thread.join()
    return looks, statuses


def main() -> int:
    """Soak, and print what became of the memory; status 1 where a request failed or the service ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args()
    with start_server(ROOT / "models", workers=2, log_level="warning", upload_store_bytes=STORE_BYTES) as server:
        server.wait_until_ready(600)
        looks, statuses = soak(server, options.minutes)
        alive = server.process.poll() is None
        ended = httpx2.get(f"{server.url}/metrics").text.partition("\ntag2mask_workers_ended ")[2].split()[0]
        traceback = "Traceback" in server.log.read_text()
    pairs = itertools.combinations(looks[len(looks) // 2 :], 2)
    slope = 60 * float(np.median([(after[1] - before[1]) / (after[0] - before[0]) for before, after in pairs]))
    sys.stdout.write(
        f"{dict(sorted(statuses.items()))}; workers replaced {ended}; {looks[0][1]} MB at the start, {looks[-1][1]} at the end, "
        f"{slope:+.0f} MB an hour over the second half\n"
    )
    return 0 if alive and not traceback and not any(status >= 500 for status in statuses) else 1


if __name__ == "__main__":
    sys.exit(main())
