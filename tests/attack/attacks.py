"""The attacks: each tries one thing on a running service and says whether the promise held, with a figure."""

import io
import json
import os
import signal
import socket
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
from PIL import Image

from tests.app.server import ROOT, Server
from tests.attack.watching import Watch, resident_mb

PHOTO = (ROOT / "tests/photos/cat.jpg").read_bytes()
JPEG = {"Content-Type": "image/jpeg"}
WAITED = 2.0  # seconds that others may wait meanwhile, on a machine that does other things too
HEADER_SECONDS = 2  # of the service that `__main__` starts


@dataclass(frozen=True)
class Outcome:
    """held: whether the promise held. figure: what was seen."""

    held: bool
    figure: str


Attack = Callable[[Server], Outcome]
ATTACKS: list[tuple[str, str, Attack]] = []


def attack(promise: str, tried: str) -> Callable[[Attack], Attack]:
    """Enter an attack into the table."""

    def enter(function: Attack) -> Attack:
        ATTACKS.append((promise, tried, function))
        return function

    return enter


def send(
    server: Server, path: str, status: int, content: bytes = b"", headers: dict[str, str] | None = None
) -> Outcome:
    """One request that is to get this status while others are answered in time."""
    with Watch(server) as watch:
        method = "POST" if content else "GET"
        reply = httpx2.request(method, server.url + path, content=content or None, headers=headers, timeout=120)
    held = reply.status_code == status and watch.worst < WAITED and not watch.failed
    return Outcome(held, f"{reply.status_code} after {watch.seconds:.2f} s; others waited {watch.worst:.2f} s")


@attack("a query costs no more than its length", "11,500 names")
def many_names(server: Server) -> Outcome:
    return send(server, "/healthz?" + "&".join(f"{number:x}" for number in range(11_500)), 422)


V2 = "/v2/models/deeplab/infer"


@attack("JSON is small where tensors can be bytes", "/v2, 18 MB of shape")
def long_shape(server: Server) -> Outcome:
    return send(
        server, V2, 413, b'{"inputs":[{"name":"image","datatype":"UINT8","shape":[' + b"-1," * 6_000_000 + b"1]}]}"
    )


@attack("lists are bounded before their entries are read", "/v2, 4 MB of shape")
def shape(server: Server) -> Outcome:
    return send(
        server, V2, 422, b'{"inputs":[{"name":"image","datatype":"UINT8","shape":[' + b"-1," * 1_300_000 + b"1]}]}"
    )


@attack("lists are bounded before their entries are read", "Label Studio, 1.5 million tasks")
def many_tasks(server: Server) -> Outcome:
    return send(server, "/label-studio/predict", 422, b'{"tasks":[' + b"1," * 1_500_000 + b'1],"label_config":""}')


@attack("scans are counted before decoding", "a JPEG of 25 megapixels with 3,000 scans")
def many_scans(server: Server) -> Outcome:
    buffer = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rfind(b"\xff\xda")
    return send(server, "/segment", 422, data[:last] + data[last:-2] * 3000 + b"\xff\xd9", JPEG)


@attack("segments are counted before decoding", "a JPEG with 4.9 million comments")
def many_comments(server: Server) -> Outcome:
    return send(server, "/segment", 422, PHOTO[:2] + b"\xff\xfe\0\2" * 4_900_000 + PHOTO[2:], JPEG)


@attack("chunks are counted before decoding", "a PNG with 1.2 million texts")
def many_texts(server: Server) -> Outcome:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    data, text = buffer.getvalue(), b"tEXta\0b"
    entry = struct.pack(">I", 3) + text + struct.pack(">I", zlib.crc32(text))
    return send(server, "/segment", 422, data[:33] + entry * 1_200_000 + data[33:], {"Content-Type": "image/png"})


def tensors(server: Server, shape: tuple[int, ...], binary: bool) -> httpx2.Response:
    """The reply to black images under /v2."""
    count = shape[0] * shape[1] * shape[2] * 3
    tensor = {"name": "image", "shape": [*shape, 3], "datatype": "UINT8", "parameters": {"binary_data_size": count}}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": binary}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(header))}
    return httpx2.post(server.url + V2, content=header + bytes(count), headers=headers, timeout=120)


@attack("odd sizes leave no memory behind", "eleven /v2 requests")
def odd_sizes(server: Server) -> Outcome:
    tensors(server, (1, 320, 320), True)
    before = resident_mb(server)
    sizes = [(1, 1024, 1024), (3, 600, 900), (40, 96, 96), (1, 32, 30_000), (7, 333, 555), (1, 1400, 1400)]
    sizes += [(100, 64, 64), (1, 1500, 200), (2, 801, 801), (9, 200, 300), (1, 400, 4000)]
    statuses = {tensors(server, size, True).status_code for size in sizes}
    grown = resident_mb(server) - before
    return Outcome(statuses == {200} and grown < 400, f"{statuses}, {grown:+d} MB")


@attack("JSON replies do not stop the others", "/v2, JSON of 1,400 x 1,400")
def large_json(server: Server) -> Outcome:
    with Watch(server) as watch:
        reply = tensors(server, (1, 1400, 1400), False)
    held = reply.status_code in (200, 422) and watch.worst < WAITED
    return Outcome(held, f"{reply.status_code}, {len(reply.content) / 1e6:.0f} MB; others waited {watch.worst:.2f} s")


@attack("who sends no more is not waited for", "half a header; half a body")
def half_sent(server: Server) -> Outcome:
    ends = []
    for sent in (
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        b"POST /segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n",
    ):
        with server.connect() as connection:
            connection.sendall(sent)
            start = time.monotonic()
            while connection.recv(4096):
                pass
            ends.append(time.monotonic() - start)
    return Outcome(
        max(ends) < 4 * HEADER_SECONDS, f"closed after {ends[0]:.1f} and {ends[1]:.1f} s of {HEADER_SECONDS}"
    )


@attack("connections have a limit, and one is free for a request", "700 idle sockets")
def many_sockets(server: Server) -> Outcome:
    with ExitStack() as stack:
        for _ in range(700):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
        with Watch(server) as watch:
            time.sleep(1)
    return Outcome(
        watch.worst < WAITED and not watch.failed, f"others waited {watch.worst:.2f} s, {watch.failed} in vain"
    )


@attack("bodies in flight share one budget", "60 unfinished bodies of 19 MB")
def parked_bodies(server: Server) -> Outcome:
    head = b"POST /segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 19999999\r\n\r\n"
    before = peak = resident_mb(server)
    with ExitStack() as stack:
        for _ in range(60):
            connection = stack.enter_context(server.connect())
            with suppress(OSError):  # refused, or too slow
                connection.sendall(head + bytes(19_000_000))
            peak = max(peak, resident_mb(server))
    return Outcome(peak - before < 400, f"{peak - before:+d} MB at most, of a budget of 100 MB")


@attack("a request's price is known before", "class-conditional, all models, six scales, mirrored, pamr")
def dearest(server: Server) -> Outcome:
    asked = "inference=class-conditional&fuse=all&scales=2,2,2,2,2,2&flip=true&refine=pamr"
    return send(server, f"/pseudo-label?{asked}", 422, PHOTO, JPEG)


DEAR = "/pseudo-label?inference=class-conditional&fuse=cam,drs&scales=1,1.5,2&flip=true"


@attack("who leaves takes the work along", "a request of many views, left once it is worked on")
def left_alone(server: Server) -> Outcome:
    def jobs() -> int:
        text = httpx2.get(f"{server.url}/metrics", timeout=60).text
        return int(float(text.partition("\ntag2mask_jobs ")[2].split()[0]))

    with server.connect() as connection:
        head = f"POST {DEAR} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: {len(PHOTO)}\r\n\r\n"
        connection.sendall(head.encode() + PHOTO)
        wait_for(jobs)
    start = time.monotonic()
    wait_for(lambda: not jobs())
    seconds = time.monotonic() - start
    dropped = '"reason": "client-left"' in server.log.read_text()
    return Outcome(dropped, f"its place was free after {seconds:.1f} s")


@attack("a worker that dies costs one request of many", "SIGKILL of the busiest with 12 in flight")
def killed_worker(server: Server) -> Outcome:
    address = f"{server.url}/pseudo-label?format=png&scales=0.5,1,1.5,2&flip=true&tags=cat"
    with ThreadPoolExecutor(12) as clients, Watch(server) as watch:
        replies = [clients.submit(httpx2.post, address, content=PHOTO, headers=JPEG, timeout=300) for _ in range(12)]
        time.sleep(1)
        before = spent(server)
        time.sleep(0.5)
        busiest = max(before, key=lambda pid: spent(server).get(pid, 0) - before[pid])
        os.kill(busiest, signal.SIGKILL)
        ready = httpx2.get(f"{server.url}/readyz", timeout=60).status_code
        statuses = Counter(reply.result().status_code for reply in replies)
    held = statuses == {200: 11, 503: 1} and ready == 200 and watch.worst < WAITED and not watch.failed
    return Outcome(held, f"{dict(statuses)}, /readyz {ready}; others waited {watch.worst:.2f} s")


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    """Return once it holds, or after this time."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)


def spent(server: Server) -> dict[int, int]:
    """The processes that the service has started, and the processor time that each has taken."""
    ticks = {}
    for pid in server.descendants():
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks[pid] = int(fields[11]) + int(fields[12])
    return ticks


@attack("numbers in headers have few digits", "5,000 digits")
def long_number(server: Server) -> Outcome:
    return send(server, V2, 422, b"{}", {"Inference-Header-Content-Length": "9" * 5000})


@attack("an id in the log is no key", "the log searched for a photo's id")
def id_in_log(server: Server) -> Outcome:
    image_id = httpx2.post(f"{server.url}/segment", content=PHOTO, headers=JPEG, timeout=60).headers["x-image-id"]
    httpx2.get(f"{server.url}/cam", params={"class": "cat", "image": image_id}, timeout=60)
    count = server.log.read_text().count(image_id)
    return Outcome(count == 0, f"{count} times")


@attack("only named hosts are answered", "Host: evil.example")
def other_host(server: Server) -> Outcome:
    return send(server, "/models", 421, headers={"Host": "evil.example"})


@attack("every answer carries nosniff", "/models, /docs, /nothing")
def headers_everywhere(server: Server) -> Outcome:
    replies = [httpx2.get(server.url + path) for path in ("/models", "/docs", "/nothing")]
    found = sum(reply.headers.get("x-content-type-options") == "nosniff" for reply in replies)
    return Outcome(found == len(replies), f"{found} of {len(replies)}")
