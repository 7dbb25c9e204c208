"""`tag2mask.Client` against a real service, and against one that is busy, gone, or something else."""

import contextlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from tag2mask import Client, Mask, Problem, ServerGoneError
from tag2mask.problems import ClientError
from tests.app.server import ROOT, start_server

# pycocotools 2.0.11 under numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
CAT, COFFEE = (ROOT / "tests" / "photos" / name for name in ("cat.jpg", "coffee.jpg"))
SIZE = (300, 451)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with start_server(ROOT / "models") as server:
        server.wait_until_ready()
        with Client(server.url + "/") as client:
            yield client


@pytest.fixture
def asked() -> list[str]:
    """What the other server was asked."""
    return []


@pytest.fixture
def other(asked: list[str]) -> Iterator[str]:
    """A server that is busy at first, and no tag2mask service afterwards."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            busy = len(asked) < 3
            self.send_response(503 if busy else 200)
            if busy:
                self.send_header("Retry-After", "0")
            body = b'{"models": []}' if self.path.startswith("/good") else b"<html>"
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_mask_as_array_picture_and_coco(client: Client, tmp_path: Path) -> None:
    mask = client.segment(CAT, tags=["cat"])
    assert mask.labels.shape == SIZE
    assert list(mask.names.values()) == ["cat"]
    assert mask.region("cat").mean() > 0.2
    assert not mask.region("dog").any()
    assert "cat" in repr(mask)
    assert "array" not in repr(mask)
    assert set(np.unique(mask.labels)) == {0, *mask.names}
    picture = mask.to_pillow()
    assert picture.mode == "P"
    np.testing.assert_array_equal(np.array(picture), mask.labels)
    served = client._send("POST", "segment", {"format": "png", "tags": "cat"}, CAT.read_bytes()).data
    with Image.open(io.BytesIO(served)) as other:
        np.testing.assert_array_equal(np.array(other), mask.labels)
        assert other.convert("RGB").tobytes() == picture.convert("RGB").tobytes()
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(mask.to_coco()))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    assert coco.imgs[1]["file_name"] == "cat.jpg"
    np.testing.assert_array_equal(coco.annToMask(coco.anns[1]) > 0, mask.region("cat"))


def test_a_photo_may_come_in_any_shape(client: Client) -> None:
    with Image.open(CAT) as picture:
        pixels = np.array(picture)
        picture.load()
    masks = [client.segment(photo).labels for photo in (str(CAT), CAT.read_bytes(), picture, pixels)]
    with CAT.open("rb") as file:
        masks.append(client.segment(file).labels)
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])
    printed = picture.convert("CMYK")
    np.testing.assert_array_equal(client.segment(printed).labels, client.segment(printed.convert("RGB")).labels)
    with pytest.raises(ValueError, match=r"an array of float64 \(300, 451, 3\) is no photo"):
        client.segment(pixels / 255)
    with pytest.raises(ValueError, match=r"an array of uint8 \(1, 300, 451, 3\) is no photo"):
        client.segment(pixels[None])
    with pytest.raises(TypeError, match="None is no photo; give a path"):
        client.segment(None)  # type: ignore[arg-type]
    assert client.segment(CAT, scales=[0.5, 1]).reply["scales"] == [0.5, 1]


def test_heatmap_scores_and_everything_at_once(client: Client) -> None:
    heatmap = client.heatmap(CAT, "cat", flip=False)
    assert heatmap.values.shape == SIZE
    assert heatmap.values.max() == pytest.approx(1, abs=0.01)
    assert heatmap.to_pillow().size == SIZE[::-1]
    scores = {each.name: each for each in client.scores(CAT)}
    assert len(scores) == len(client.classes()) == 20
    assert scores["cat"].present
    for each in scores.values():
        assert each.threshold is not None
        assert each.present == (each.score >= each.threshold)
    told = {each.name: each for each in client.scores(CAT, tags=["dog"])}
    assert (told["cat"].present, told["cat"].threshold, told["dog"].present) == (False, None, True)
    assert scores["cat"].score == pytest.approx(heatmap.score, abs=1e-5)
    found = client.analyze(CAT, tags=["cat"], foreground_threshold=0.9)
    assert found.mask is not None
    assert 255 in found.pseudo_label.labels  # between the two thresholds
    assert {model["task"] for model in client.models()} == {"cam", "segmentation"}


def test_many_photos_in_their_order_and_what_is_refused(client: Client, tmp_path: Path) -> None:
    notes = ROOT / "README.md"
    photos = [COFFEE, CAT, notes, CAT]
    found = list(client.segment_many(photos, tags=lambda photo: ["cat"] if photo == CAT else None, on_error="return"))
    assert [photo for photo, _ in found] == photos
    assert [type(result) for _, result in found] == [Mask, Mask, Problem, Mask]
    assert isinstance(found[2][1], Problem)
    assert (found[2][1].status, found[2][1].kind) == (415, "unsupported-type")
    with pytest.raises(Problem, match="not a picture"):
        list(client.segment_many(photos))
    [(_, gone), (_, there)] = client.segment_many([tmp_path / "gone.jpg", CAT], on_error="return")
    assert isinstance(gone, Problem)
    assert (gone.status, gone.kind) == (0, "unreadable")
    assert str(gone) == f"the photo '{tmp_path / 'gone.jpg'}' cannot be read (No such file or directory)"
    assert isinstance(there, Mask)
    with pytest.raises(FileNotFoundError):
        list(client.segment_many([tmp_path / "gone.jpg"]))


def test_many_takes_photos_only_as_fast_as_they_are_asked_about(client: Client) -> None:
    taken, running, most = [], 0, 0
    lock = threading.Lock()

    def photos() -> Iterator[Path]:
        for _ in range(40):
            taken.append(CAT)
            yield CAT

    def ask(photo: Path) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.01)
        with lock:
            running -= 1
        return photo.name

    results = client.many(ask, photos(), concurrency=3)
    assert next(results) == (CAT, "cat.jpg")
    assert len(taken) == 6
    assert len(list(results)) == 39
    assert most == 3


def test_tags_that_cannot_be_sent(client: Client) -> None:
    with pytest.raises(ValueError, match="write a list"):
        client.segment(CAT, tags="cat")
    with pytest.raises(ValueError, match="names no class"):
        client.segment(CAT, tags=[])
    with pytest.raises(Problem, match="unknown class 'ct'") as caught:
        client.segment(CAT, tags=["ct"])
    assert caught.value.members["status"] == caught.value.status == 422


def test_a_busy_service_is_asked_again_and_another_server_is_told_apart(other: str, asked: list[str]) -> None:
    assert Client(f"{other}/good").models() == []
    assert asked == ["/good/models"] * 3
    with pytest.raises(ClientError, match="something else than JSON"):
        Client(other).models()
    asked.clear()
    with pytest.raises(Problem, match="HTTP status 503 and no explanation"):
        Client(other, retries=1).models()


def test_no_service_at_all() -> None:
    with pytest.raises(ServerGoneError, match="does not answer \\(Connection refused\\). Start the service there"):
        Client("http://127.0.0.1:9", retries=0).models()
    with pytest.raises(ValueError, match="write http://HOST:PORT"):
        Client("localhost:8000")
