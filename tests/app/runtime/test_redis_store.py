"""Uploads in a real Redis: shared by replicas, bounded in bytes and in time, out of reach for a while, and back by itself."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from app.inference.errors import AddressError, StoreGoneError, UnknownImageError
from app.main import create_app
from app.runtime.redis_store import ANSWER_SECONDS, PAUSE_SECONDS, RedisStore, address_of, connect
from app.runtime.settings import Settings
from app.runtime.upload_store import RedisUploads, Upload
from tests.app.redis_server import RedisServer, run_redis

LONG = 100


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with run_redis() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    """A Redis that holds nothing."""
    with redis.Redis(port=running.port) as client:
        client.flushall()
    return running


def replica(server: RedisServer, capacity: int = 1000, seconds: float = LONG) -> RedisStore:
    return RedisStore(connect(server.address), "uploads", capacity, seconds)


def keys_of(server: RedisServer) -> set[bytes]:
    with redis.Redis(port=server.port) as client:
        return set(client.keys())


@pytest.mark.parametrize("name", [None, "my\nÄ photo.png", "\udc80"])
def test_what_one_replica_keeps_another_finds(server, name):
    upload = Upload.of(bytes(range(256)) + b"\n\n", name)
    RedisUploads(replica(server), LONG).put(upload)
    assert RedisUploads(replica(server), LONG).get(upload.id) == upload
    with pytest.raises(UnknownImageError, match="Send the photo again"):
        RedisUploads(replica(server), LONG).get("0" * 64)


def test_least_recently_used_goes_first_whoever_used_it(server):
    one, other = replica(server, 30), replica(server, 30)
    for name in ("a", "b", "c"):
        one.put(name, bytes(10))
    other.get("a")
    other.put("d", bytes(10))
    assert [one.get(name) is not None for name in "abcd"] == [True, False, True, True]
    assert (one.size_bytes, other.size_bytes) == (30, 30)
    one.put("large", bytes(31))
    assert one.get("large") is None
    one.put("all", bytes(30))
    assert [one.get(name) is not None for name in (*"abcd", "all")] == [False, False, False, False, True]
    assert {key.rpartition(b":")[2] for key in keys_of(server)} == {b"uses", b"bytes", b"all"}


def test_the_same_value_twice_is_counted_once(server):
    store = replica(server)
    store.put("a", b"1234567890")
    store.put("a", b"1234567890")
    assert store.size_bytes == 10


def test_time_to_live_counts_from_the_last_use_and_nothing_stays(server):
    store = replica(server, seconds=0.6)
    store.put("used", b"used")
    store.put("unused", b"unused")
    for _ in range(3):
        time.sleep(0.3)
        assert store.get("used") == b"used"
    assert store.get("unused") is None
    store.put("new", b"new")
    assert store.size_bytes == len(b"used" + b"new")
    time.sleep(0.8)
    assert keys_of(server) == set()


def test_replicas_keep_the_books_straight_together(server):
    def work(number: int) -> None:
        store = replica(server)
        for step in range(60):
            store.put(f"{number} {step % 20}", f"{number} {step % 20}".encode() * 10)
            store.get(f"{number} {(step * 7) % 20}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with redis.Redis(port=server.port) as client:
        held = sum(client.strlen(key) for key in client.keys("*value:*"))
        assert held == int(client.get("{tag2mask:uploads}:bytes"))
        assert 0 < held <= 1000
        assert client.zcard("{tag2mask:uploads}:uses") == len(client.keys("*value:*"))


def test_a_redis_that_hangs_costs_one_request_a_second(server, caplog):
    store = replica(server)
    store.put("a", b"a")
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        with pytest.raises(StoreGoneError, match=f"the Redis at 127.0.0.1:{server.port} does not answer"):
            store.get("a")
        assert time.monotonic() - start < 2 * ANSWER_SECONDS
        start = time.monotonic()
        for _ in range(100):
            with pytest.raises(StoreGoneError):
                store.get("a")
        assert time.monotonic() - start < ANSWER_SECONDS / 2
        assert not store.answers
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    with caplog.at_level(logging.INFO):
        time.sleep(PAUSE_SECONDS)
        assert store.get("a") == b"a"
    assert store.answers
    assert f"the Redis at 127.0.0.1:{server.port} answers again" in caplog.text


def test_a_redis_without_memory_left_is_no_fault_of_the_request(server, caplog):
    with redis.Redis(port=server.port) as client:
        client.config_set("maxmemory", 1)
        try:
            upload = Upload.of(b"photo")
            RedisUploads(replica(server), LONG).put(upload)
            assert "refuses what is asked of it" in caplog.text
        finally:
            client.config_set("maxmemory", 0)
    with pytest.raises(UnknownImageError):
        RedisUploads(replica(server), LONG).get(upload.id)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("redis://u:secret@there:7000/2", "the Redis at there:7000"),
        ("redis://there", "the Redis at there:6379"),
        ("unix:///run/redis.sock", "the Redis at /run/redis.sock"),
    ],
)
def test_the_address_is_said_without_the_password(address, said):
    assert address_of(connect(address)) == said


@pytest.mark.parametrize("address", ["http://there", "there:6379", "redis://there:many"])
def test_an_address_that_is_none_stops_the_start(address, models_directory):
    settings = Settings(models=models_directory, device="cpu", store=address)
    with pytest.raises(AddressError, match=r"TAG2MASK_STORE is no address of a Redis .*Write redis://HOST:PORT"):
        create_app(settings)


def test_uploads_are_answered_without_redis_and_it_comes_back_by_itself(
    serve: Callable, models_directory, photo: bytes
):
    with run_redis() as server:
        settings = {"models": models_directory, "device": "cpu", "workers": 1, "store": server.address}
        one, other = serve(Settings(**settings)), serve(Settings(**settings))
        image = one.post("/segment", files={"file": photo}).headers["x-image-id"]
        look_up = f"/cam?class=dog&image={image}"
        assert other.get(look_up).status_code == 200

        server.kill()
        assert one.post("/segment", files={"file": photo}).status_code == 200
        for client in (one, other):
            reply = client.get(look_up)
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
            assert reply.headers["content-type"] == "application/problem+json"
            assert reply.json()["type"] == "urn:tag2mask:store-gone"
            assert "Send the photo itself with POST" in reply.json()["detail"]
            assert client.get("/readyz").status_code == 200
        assert "tag2mask_upload_store_answers 0.0" in one.get("/metrics").text

        server.start()
        time.sleep(PAUSE_SECONDS)
        assert other.get(look_up).status_code == 404  # a Redis that was started anew has lost what it held
        assert one.post("/segment", files={"file": photo}).status_code == 200
        assert other.get(look_up).status_code == 200
        assert "tag2mask_upload_store_answers 1.0" in one.get("/metrics").text
