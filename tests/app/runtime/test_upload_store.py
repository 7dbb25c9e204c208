"""The upload store: bounded in bytes and in time, by use."""

import hashlib
import threading

import pytest

from app.inference.errors import UnknownImageError
from app.runtime.upload_store import MemoryUploads, Upload


class Clock:
    """A clock that stands until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_id_is_the_sha256_of_the_bytes():
    assert Upload.of(b"photo").id == hashlib.sha256(b"photo").hexdigest()


def test_least_recently_used_goes_first():
    store = MemoryUploads(30, 100)
    first, second, third, fourth = (Upload.of(bytes([number]) * 10) for number in range(4))
    for upload in (first, second, third):
        store.put(upload)
    store.get(first.id)
    store.put(fourth)
    assert store.size_bytes == 30
    with pytest.raises(UnknownImageError, match="Send the photo again"):
        store.get(second.id)
    assert store.get(first.id) == first


def test_same_photo_twice_is_held_once():
    store = MemoryUploads(100, 100)
    store.put(Upload.of(b"1234567890"))
    store.put(Upload.of(b"1234567890"))
    assert store.size_bytes == 10


def test_larger_than_the_store_is_not_kept_and_evicts_nothing():
    store = MemoryUploads(15, 100)
    small, large = Upload.of(b"1234567890"), Upload.of(bytes(16))
    store.put(small)
    store.put(large)
    assert store.get(small.id) == small
    with pytest.raises(UnknownImageError):
        store.get(large.id)


def test_time_to_live_counts_from_the_last_use():
    clock = Clock()
    store = MemoryUploads(100, 10, clock)
    used, unused = Upload.of(b"used"), Upload.of(b"unused")
    store.put(used)
    store.put(unused)
    clock.now = 9
    store.get(used.id)
    clock.now = 11
    assert store.size_bytes == len(b"used")
    with pytest.raises(UnknownImageError):
        store.get(unused.id)
    clock.now = 19
    with pytest.raises(UnknownImageError):
        store.get(used.id)
    assert store.size_bytes == 0


def test_threads_keep_the_books_straight():
    store = MemoryUploads(1000, 100)

    def work(number: int) -> None:
        for step in range(300):
            upload = Upload.of(f"{number} {step % 40}".encode() * 10)
            store.put(upload)
            try:
                assert store.get(upload.id) == upload
            except UnknownImageError:  # evicted by another thread in between
                continue

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < store.size_bytes <= 1000
    assert store.size_bytes == sum(len(upload.data) for upload, _ in store._uploads._values.values())
