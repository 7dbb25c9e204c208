"""Connections end, whatever the other side does or does not do: seen on real sockets."""

import json
import re
import select
import socket
import time
from contextlib import ExitStack

import httpx2
import pytest

from tests.app.colour_models import BLACK, RED, halves, to_file
from tests.app.server import start_server

HEAD = b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
PATIENCE = 15  # seconds, several times the deadlines of the server below


@pytest.fixture(scope="module")
def hurried(models_directory):
    """A service that waits a second for everything, on few connections."""
    seconds = dict.fromkeys(("header_seconds", "body_seconds", "reply_seconds"), 1)
    with start_server(models_directory, max_connections=20, **seconds) as server:
        server.wait_until_ready()
        yield server


def end_of(connection: socket.socket) -> tuple[bytes, float]:
    """What still comes on a connection until it is closed, and the seconds that took."""
    connection.settimeout(PATIENCE)
    start, received = time.monotonic(), b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received, time.monotonic() - start


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", None),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", None),
        (HEAD + b"Content-Length: 1000\r\n\r\n", 408),
        (HEAD + b"Content-Length: 1000\r\n\r\n\x89PNG", 408),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", 408),
        (HEAD.replace(b"image/png", b"multipart/form-data; boundary=b") + b"Content-Length: 99\r\n\r\n--b\r\n", 408),
        (b"POST /v2/models/drs_colours/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{", 408),
        (b"POST /label-studio/webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{", 408),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n", 200),
    ],
)
def test_who_sends_no_more_is_not_waited_for(hurried, sent, status):
    with hurried.connect() as connection:
        connection.sendall(sent)
        received, seconds = end_of(connection)
    assert seconds < PATIENCE
    assert received.startswith(b"HTTP/1.1 %d" % status) if status else not received


@pytest.mark.parametrize("opening", [b"GET /healthz HTTP/1.1\r\nX: ", HEAD + b"Content-Length: 1000\r\n\r\n"])
def test_who_sends_a_byte_now_and_then_is_not_waited_for(hurried, opening):
    def drip() -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            connection.sendall(b"a")
            time.sleep(0.2)

    with hurried.connect() as connection:
        connection.sendall(opening)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            drip()


def test_who_does_not_read_the_reply_is_cut(hurried):
    side = 1200
    tensor = {
        "name": "image",
        "shape": [1, side, side, 3],
        "datatype": "UINT8",
        "parameters": {"binary_data_size": side**2 * 3},
    }
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    body = header + bytes(side**2 * 3)
    head = f"POST /v2/models/deeplab_colours/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: {len(header)}\r\n"
    with hurried.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        end = time.monotonic() + 60
        while '"reason": "slow-reader"' not in (log := hurried.log.read_text()):
            assert time.monotonic() < end
            time.sleep(0.2)
        received, _ = end_of(connection)
    assert b"HTTP/1.1 200" in received
    length = int(re.search(rb"\r\ncontent-length: (\d+)", received)[1])
    assert len(received) < length
    assert "Traceback" not in log


def test_of_too_many_connections_the_one_that_waits_longest_goes(hurried):
    idle = [hurried.connect() for _ in range(40)]
    assert httpx2.get(f"{hurried.url}/healthz").status_code == 200
    received, seconds = end_of(idle[0])
    assert (received, seconds < 1) == (b"", True)
    for connection in idle:
        connection.close()


def test_several_requests_on_one_connection_and_at_once(hurried):
    with httpx2.Client(base_url=hurried.url) as client:
        assert [client.get("/healthz").status_code for _ in range(5)] == [200] * 5
    with hurried.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        received, _ = end_of(connection)
    assert received.count(b"HTTP/1.1 200") == 20


def test_a_slow_line_is_served(models_directory):
    photo = to_file(halves(RED, BLACK))
    with start_server(models_directory, header_seconds=1, body_seconds=8) as server:
        server.wait_until_ready()
        with server.connect() as connection:
            connection.sendall(HEAD + f"Connection: close\r\nContent-Length: {len(photo)}\r\n\r\n".encode())
            for begin in range(0, len(photo), len(photo) // 8 + 1):
                connection.sendall(photo[begin : begin + len(photo) // 8 + 1])
                time.sleep(0.3)
            received, _ = end_of(connection)
    assert received.startswith(b"HTTP/1.1 200")


def test_bodies_in_flight_have_one_budget(models_directory):
    limits = {"max_bytes_in_flight": 2_500_000, "max_upload_bytes": 2_000_000}
    with start_server(models_directory, **limits) as server, ExitStack() as stack:
        server.wait_until_ready()
        parked = []
        for _ in range(4):
            connection = stack.enter_context(server.connect())
            connection.sendall(HEAD + b"Content-Length: 1500000\r\n\r\n" + bytes(1_000_000))
            parked.append(connection)
        refused, _, _ = select.select(parked, [], [], PATIENCE)
        reply = refused[0].recv(4096)
        assert reply.startswith(b"HTTP/1.1 503")
        assert b"retry-after" in reply.lower()
        stack.close()
        end = time.monotonic() + PATIENCE
        photo = to_file(halves(RED, BLACK))
        while httpx2.post(f"{server.url}/segment", files={"file": photo}).status_code != 200:  # all bytes come back
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.mark.parametrize("digits", [19, 5000])
def test_numbers_in_headers_have_few_digits(hurried, digits):
    number = "9" * digits
    with hurried.connect() as connection:
        connection.sendall(HEAD + f"Content-Length: {number}\r\n\r\n".encode())
        received, _ = end_of(connection)
    assert received[9:10] == b"4"
    headers = {"Inference-Header-Content-Length": number}
    reply = httpx2.post(f"{hurried.url}/v2/models/drs_colours/infer", content=b"{}", headers=headers)
    assert (reply.status_code, "is not a length" in reply.text) == (422, True)
    assert "Traceback" not in hurried.log.read_text()
