"""The map store: what a key tells apart, and its bound."""

from app.inference.errors import StoreGoneError
from app.runtime.bounded import Bounded
from app.runtime.map_store import MapStore, view_key


def test_a_key_tells_photo_model_and_views_apart() -> None:
    asked = ("photo", "model", (1.0, 2.0), False, 448)
    others = [
        ("other", *asked[1:]),
        (asked[0], "other", *asked[2:]),
        (*asked[:2], (1.0,), *asked[3:]),
        (*asked[:3], True, 448),
        (*asked[:4], 320),
    ]
    assert len({view_key(*each) for each in (asked, *others)}) == 6
    assert view_key(*asked) == view_key(*asked)


def test_the_least_recently_used_goes_first() -> None:
    store = MapStore(Bounded[bytes](20, 100, len))
    store.put_all({"first": b"1" * 10, "second": b"2" * 10})
    assert store.known(["first"]) == {"first": b"1" * 10}
    store.put_all({"third": b"3" * 10})
    assert list(store.known(["first", "second", "third"])) == ["first", "third"]
    assert store.size_bytes == 20


class Gone:
    """A store that cannot be reached."""

    size_bytes = 0

    def put(self, key: str, value: bytes) -> None:
        raise StoreGoneError("no answer")

    def get(self, key: str) -> bytes | None:
        raise StoreGoneError("no answer")


def test_where_the_store_is_gone_nothing_is_known() -> None:
    store = MapStore(Gone())
    store.put_all({"key": b"content"})
    assert store.known(["key"]) == {}
