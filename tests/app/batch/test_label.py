"""`python -m app label`: what it writes, what it refuses, how it goes on; and the quality estimate by hand."""

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from app.__main__ import STOPPED
from app.batch.folder import label_folder
from app.batch.labellers import InProcess, Remote
from app.http.request.parameters import AnalyzeParameters
from app.inference.errors import DataError, ParameterError, ServerGoneError
from app.inference.label_maps.quality import quality_of
from app.runtime.settings import Settings
from tests.app.colour_models import BLACK, BLUE, DOG, GREEN, PERSON, RED, halves, to_file

# pycocotools 2.0.11 under numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
ROOT = Path(__file__).parents[3]
TURNED = 6  # EXIF: the upright picture is the stored one turned to the right


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A dog, a person in a folder below, a dog that lies on its side in the file, and a file that is no photo."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / "dog.png").write_bytes(to_file(halves(RED, BLACK)))
    Image.fromarray(halves(BLUE, BLACK, 40, 80)).save(folder / "more" / "person.webp", lossless=True)
    exif = Image.Exif()
    exif[0x0112] = TURNED
    Image.fromarray(halves(RED, BLACK, 64, 32)).save(folder / "turned.jpg", quality=95, exif=exif)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xffnothing more")
    return folder


@pytest.fixture
def labeller(models_directory: Path) -> InProcess:
    return InProcess(Settings(models=models_directory, device="cpu"), AnalyzeParameters())


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_folder_becomes_a_data_set(photos, tmp_path, labeller):
    out = tmp_path / "out"
    said, complete = label_folder(photos, out, labeller)
    assert not complete
    assert said.startswith("3 of 4 photos labelled")
    assert "broken.jpg: the JPEG file of 15 bytes is damaged" in said
    assert [row["photo"] for row in rows_of(out / "refused.csv")] == [str(photos / "broken.jpg")]
    names = (out / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    assert names == ["dog", "more__person", "turned"]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(out / "annotations.json"))
    assert len(coco.imgs) == 3
    for image in coco.imgs.values():
        name = Path(image["file_name"]).stem
        with (
            Image.open(out / image["file_name"]) as photo,
            Image.open(out / "SegmentationClass" / f"{name}.png") as mask,
        ):
            assert photo.size == mask.size == (image["width"], image["height"])
            assert mask.mode == "P"
            labels = np.array(mask)
        with Image.open(out / "overlays" / f"{name}.jpg") as overlay:
            assert overlay.format == "JPEG"
        [annotation] = coco.imgToAnns[image["id"]]
        label = PERSON if name == "more__person" else DOG
        assert annotation["category_id"] == label
        np.testing.assert_array_equal(coco.annToMask(annotation) > 0, labels == label)
    with Image.open(out / "SegmentationClass" / "turned.png") as mask:
        assert mask.size == (64, 32)
        assert (np.array(mask)[:12] == DOG).all()  # the red half lies on top once it is upright
    review = rows_of(out / "review.csv")
    qualities = [float(row["quality"]) for row in review]
    assert qualities == sorted(qualities)
    assert {row["name"]: row["found"] for row in review}["dog"] == "dog"


def test_the_data_set_loads_in_torchvision(photos, tmp_path, labeller):
    datasets = pytest.importorskip("torchvision.datasets")
    label_folder(photos, tmp_path / "root" / "VOCdevkit" / "VOC2012", labeller)
    loaded = datasets.VOCSegmentation(str(tmp_path / "root"), year="2012", image_set="train")
    assert len(loaded) == 3
    photo, mask = loaded[0]
    assert photo.size == mask.size
    assert DOG in np.array(mask)


def test_photos_with_an_unknown_tag_can_be_left_out(photos, tmp_path, labeller):
    (photos / "broken.jpg").unlink()
    tags = tmp_path / "labels.csv"
    tags.write_text("name,classes\ndog,Dog\nperson.webp,persn\nturned,dgo\n")  # Dog is dog
    said, complete = label_folder(photos, tmp_path / "out", labeller, tags, skip=True)
    assert not complete
    assert said.startswith("1 of 3 photos labelled")
    reasons = {Path(row["photo"]).name: row["reason"] for row in rows_of(tmp_path / "out" / "refused.csv")}
    assert reasons["person.webp"] == "the tag 'persn' is no class of the model, did you mean 'person'?"
    assert set(reasons) == {"person.webp", "turned.jpg"}


def test_tags_gate_the_labels_and_must_be_complete(photos, tmp_path, labeller):
    tags = tmp_path / "labels.csv"
    tags.write_text("name,classes\ndog,cat\nperson.webp,person\nturned,dgo\n")
    with pytest.raises(DataError, match="1 of 4 photos have no row in the tags \\(first: broken\\)"):
        label_folder(photos, tmp_path / "out", labeller, tags)
    (photos / "broken.jpg").unlink()
    wrong = (
        r"1 of 3 photos have a tag that is no class: turned.jpg \(the tag 'dgo' is no class .*, did you mean 'dog'\?\)"
    )
    with pytest.raises(DataError, match=wrong):
        label_folder(photos, tmp_path / "out", labeller, tags)
    tags.write_text("name,classes\ndog,cat\nperson.webp,person\nturned,\n")
    said, complete = label_folder(photos, tmp_path / "out", labeller, tags)
    assert complete
    found = {row["name"]: row for row in rows_of(tmp_path / "out" / "review.csv")}
    assert found["dog"]["found"] == "cat"  # the photo shows a dog, and its tag says that the thing is a cat
    assert found["more__person"]["found"] == "person"
    assert found["turned"]["found"] == ""
    assert float(found["dog"]["agreement"]) == 0  # of which the heatmaps see nothing
    assert float(found["dog"]["quality"]) < min(float(found[name]["quality"]) for name in ("more__person", "turned"))
    assert "photos that the tags give no class: 1; their labels are background" in said
    with pytest.raises(DataError, match="was begun with --tags, not without --tags; choose"):
        label_folder(photos, tmp_path / "out", labeller)
    tags.write_text("name,classes\ndog,cat, person\n")
    with pytest.raises(DataError, match=r"labels\.csv row 2 \('dog'\) has 3 fields where the header has 2"):
        label_folder(photos, tmp_path / "other", labeller, tags)


def test_data_sets_made_inside_the_folder_are_no_photos(photos, tmp_path, labeller):
    label_folder(photos, photos / "first", labeller)
    said, _ = label_folder(photos, photos / "second", labeller)
    assert said.startswith("3 of 4 photos labelled")
    with pytest.raises(DataError, match="is a data set that this command made; name .*JPEGImages"):
        label_folder(photos / "first", photos / "third", labeller)


def test_what_has_changed_is_labelled_again(photos, tmp_path, labeller):
    (photos / "broken.jpg").unlink()
    tags, out = tmp_path / "labels.csv", tmp_path / "out"
    tags.write_text("name,classes\ndog,cat\nmore/person,person\nturned,dog\n")
    label_folder(photos, out, labeller, tags)
    before = {path.name: path.stat().st_mtime_ns for path in (out / "records").iterdir()}
    tags.write_text("name,classes\ndog,dog\nmore/person,person\nturned,dog\n")
    Image.fromarray(halves(RED, RED)).save(photos / "turned.jpg", quality=95)
    label_folder(photos, out, labeller, tags)
    after = {path.name: path.stat().st_mtime_ns for path in (out / "records").iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"dog.json", "turned.json"}
    assert {row["name"]: row["found"] for row in rows_of(out / "review.csv")}["dog"] == "dog"


def files_in(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def names_in(out: Path) -> list[str]:
    """The photos listed, the same in every list."""
    names = (out / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    coco = json.loads((out / "annotations.json").read_text())
    assert [Path(image["file_name"]).stem for image in coco["images"]] == names
    assert sorted(row["name"] for row in rows_of(out / "review.csv")) == names
    return names


def test_what_was_made_of_photos_that_are_gone_stays(photos, tmp_path, labeller):
    (photos / "broken.jpg").unlink()
    out, away = tmp_path / "out", tmp_path / "away"
    label_folder(photos, out, labeller)
    (out / "SegmentationClass" / "more__person.png").write_bytes(b"corrected by hand")
    before = files_in(out)
    (photos / "more").rename(away)  # a disk that is not mounted
    said, complete = label_folder(photos, out, labeller)
    assert complete
    assert said.splitlines()[1] == (
        f"photos that are no longer in {photos}: 1 (more__person); {out} keeps what was made of them; --prune removes it"
    )
    assert names_in(out) == ["dog", "turned"]
    lists = {"annotations.json", "review.csv", "review.html", "ImageSets/Segmentation/train.txt", "yolo/train.txt"}
    after = files_in(out)
    assert {name for name in before if after.get(name) != before[name]} == lists
    away.rename(photos / "more")
    assert "no longer" not in label_folder(photos, out, labeller)[0]
    assert files_in(out) == before


def test_prune_removes_what_was_made_of_photos_that_are_gone(photos, tmp_path, labeller):
    (photos / "broken.jpg").unlink()
    for number in range(4):
        (photos / "more" / f"{number}.png").write_bytes(to_file(halves(RED, BLACK)))
    out = tmp_path / "out"
    label_folder(photos, out, labeller)
    own = [out / "records" / "notes.json", out / "records" / "list.json", out / "JPEGImages" / "mine.jpg"]
    for path in own:
        path.write_text("[]" if path.stem == "list" else "{}")
    before = files_in(out)
    shutil.rmtree(photos / "more")
    names = ["more__0", "more__1", "more__2", "more__3", "more__person"]
    said, _ = label_folder(photos, out, labeller)
    assert "5 (more__0, more__1, more__2, ...)" in said
    said, _ = label_folder(photos, out, labeller, prune=True)
    assert said.splitlines()[1].endswith("5 (more__0, more__1, more__2, ...); what was made of them is removed")
    kinds = {"JPEGImages": "jpg", "SegmentationClass": "png", "overlays": "jpg", "records": "json"}
    kinds |= {"yolo/images": "jpg", "yolo/labels": "txt"}
    gone = {f"{folder}/{name}.{suffix}" for folder, suffix in kinds.items() for name in names}
    assert set(before) - set(files_in(out)) == gone
    assert names_in(out) == ["dog", "turned"]
    assert "no longer" not in label_folder(photos, out, labeller, prune=True)[0]


def test_the_wrong_folder_costs_no_data_set(photos, tmp_path, labeller):
    out, other = tmp_path / "out", tmp_path / "other"
    label_folder(photos, out, labeller)
    before = files_in(out)
    other.mkdir()
    (other / "another.png").write_bytes(to_file(halves(RED, BLACK)))
    with pytest.raises(DataError, match=r"labels of 3 photos \(first: dog\), none of which is in"):
        label_folder(other, out, labeller)
    (other / "dog.png").write_bytes(to_file(halves(RED, BLACK, 40, 80)))  # one name in common
    with pytest.raises(DataError, match=r"2 photos \(first: more__person\), and none of the others is in .* as it was"):
        label_folder(other, out, labeller, prune=True)
    assert files_in(out) == before
    said, _ = label_folder(other, out, labeller)
    assert "2 (more__person, turned); " in said
    assert set(before) < set(files_in(out))


def test_a_rename_in_case_alone_on_a_disk_that_tells_none(photos, tmp_path, labeller):
    (photos / "broken.jpg").unlink()
    out = tmp_path / "out"
    label_folder(photos, out, labeller)
    (photos / "dog.png").rename(photos / "Dog.png")
    for path in [*out.rglob("dog.*")]:  # such a disk finds one file under either name
        path.with_stem("Dog").hardlink_to(path)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("[Dd]og.*")}
    said, _ = label_folder(photos, out, labeller, prune=True)
    assert "no longer" not in said
    assert {path: path.stat().st_mtime_ns for path in out.rglob("[Dd]og.*")} == before
    assert len(before) == 12


def test_a_photo_replaced_by_an_unreadable_one_is_in_no_list(photos, tmp_path, labeller):
    (photos / "broken.jpg").unlink()
    out = tmp_path / "out"
    label_folder(photos, out, labeller)
    before = files_in(out)
    (photos / "dog.png").write_bytes(b"no photo any more")
    _, complete = label_folder(photos, out, labeller)
    assert not complete
    assert [row["photo"] for row in rows_of(out / "refused.csv")] == [str(photos / "dog.png")]
    assert names_in(out) == ["more__person", "turned"]
    assert files_in(out)["SegmentationClass/dog.png"] == before["SegmentationClass/dog.png"]


@pytest.mark.parametrize("content", ["{}", "[]", '{"name": "notes", "stamp": null}', '{"name": 1}', "no JSON"])
def test_a_file_of_ones_own_in_the_place_of_a_record(tmp_path, labeller, content):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    (folder / "notes.png").write_bytes(to_file(halves(RED, BLACK)))
    (out / "records").mkdir(parents=True)
    (out / "records" / "notes.json").write_text(content)
    _, complete = label_folder(folder, out, labeller)
    assert complete
    assert names_in(out) == ["notes"]


def test_a_large_photo_that_lies_on_its_side_keeps_its_size(tmp_path, labeller):
    folder, exif = tmp_path / "photos", Image.Exif()
    exif[0x0112] = TURNED
    folder.mkdir()
    Image.fromarray(halves(RED, BLACK, 1200, 800)).save(folder / "a.jpg", quality=95, exif=exif)  # decoded reduced
    label_folder(folder, tmp_path / "out", labeller)
    with Image.open(tmp_path / "out" / "JPEGImages" / "a.jpg") as copy:
        assert (copy.size, copy.getexif().get(0x0112, 1)) == ((1200, 800), 1)
        assert np.array(copy)[:350, :, 0].min() > 200  # red lies on top
    with Image.open(tmp_path / "out" / "overlays" / "a.jpg") as overlay:
        assert overlay.size == (640, 427)


def test_tags_of_photos_of_one_file_name(tmp_path, labeller):
    folder, tags = tmp_path / "photos", tmp_path / "labels.csv"
    for name, colour in (("a", RED), ("b", BLUE)):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.png").write_bytes(to_file(halves(colour, BLACK)))
    tags.write_text("name,classes\n1,dog\n")
    with pytest.raises(DataError, match="2 of 2 photos have no row"):  # which of them?
        label_folder(folder, tmp_path / "out", labeller, tags)
    tags.write_text("name,classes\na/1.png,dog\nb__1,person\n")
    label_folder(folder, tmp_path / "out", labeller, tags)
    found = {row["name"]: row["found"] for row in rows_of(tmp_path / "out" / "review.csv")}
    assert found == {"a__1": "dog", "b__1": "person"}


def stop_at_first_record(command: list[str], environment: dict[str, str], out: Path, by: signal.Signals) -> str:
    """Start it and end it by a signal once the first photo is labelled; returns what it said."""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test in the background inherits "ignore"
    ) as process:
        end = time.monotonic() + 60
        while not list((out / "records").glob("*.json")):
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(by)
        _, said = process.communicate(timeout=60)
        assert process.returncode == (STOPPED if by == signal.SIGINT else -by)
    return said


def test_it_goes_on_where_it_was_killed(tmp_path, models_directory):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02}.png").write_bytes(to_file(halves(RED if number % 2 else GREEN, BLACK, 600, 800)))
    command = [sys.executable, "-m", "app", "label", str(folder), "--out", str(out)]
    environment = {
        **os.environ,
        "TAG2MASK_MODELS": str(models_directory),
        "TAG2MASK_DEVICE": "cpu",
        "TAG2MASK_WORKERS": "1",
    }
    stop_at_first_record(command, environment, out, signal.SIGKILL)
    stopped = tmp_path / "stopped"
    said = stop_at_first_record([*command[:-1], str(stopped)], environment, stopped, signal.SIGINT)
    assert "stopped; the same command goes on" in said
    assert "Traceback" not in said
    before = {path: path.stat().st_mtime_ns for path in (out / "records").glob("*.json")}
    assert 0 < len(before) < 40
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("40 of 40 photos labelled")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(rows_of(out / "review.csv")) == 40
    (folder / "00.png").unlink()
    done = subprocess.run([*command, "--prune"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, "1 (00); what was made of them is removed" in done.stdout) == (0, True)
    assert not list(out.rglob("00.*"))
    other = subprocess.run(
        [*command, "--set", "refine=pamr"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (other.returncode, "was begun with parameters {" in other.stderr) == (1, True)
    wrong = subprocess.run(
        [*command, "--set", "threshold=2"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (wrong.returncode, "--set threshold=2" in wrong.stderr) == (1, True)


def test_nothing_to_label(tmp_path, labeller):
    with pytest.raises(DataError, match="there is no folder"):
        label_folder(tmp_path / "none", tmp_path / "out", labeller)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="a folder of its own"):
        label_folder(tmp_path / "empty" / "..", tmp_path, labeller)
    with pytest.raises(DataError, match="holds no photo"):
        label_folder(tmp_path / "empty", tmp_path / "out", labeller)


def test_a_server_that_is_not_there():
    with pytest.raises(ServerGoneError, match="does not answer \\(Connection refused\\). Start the service there"):
        Remote("http://127.0.0.1:9", AnalyzeParameters())
    with pytest.raises(DataError, match="not the address of a server"):
        Remote("ftp://127.0.0.1", AnalyzeParameters())


@contextlib.contextmanager
def answering(reply: str) -> Iterator[str]:
    """The address of a server that says this, once, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply.encode())

        answered = pool.submit(answer)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        answered.result()


@pytest.mark.parametrize("status", ["200 OK", "422 Unprocessable Content", "nothing of HTTP"])
def test_a_server_that_goes_while_it_answers(status):
    with (
        answering(f"HTTP/1.1 {status}\r\nContent-Length: 1000\r\n\r\n{{") as address,
        pytest.raises(ServerGoneError, match="does not answer"),
    ):
        Remote(address, AnalyzeParameters())


@pytest.mark.parametrize("body", ["<!doctype html>", "[]", '{"models": 3}', '{"models": [{"name": "resnet"}]}'])
def test_a_server_that_is_something_else(body):
    with (
        answering(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}") as address,
        pytest.raises(DataError, match="not the list of models a tag2mask service gives"),
    ):
        Remote(address, AnalyzeParameters())


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


WHOLE = npz(label_map=np.zeros((64, 64), np.uint8), scores=np.zeros(1), present=np.zeros(0, int))


@pytest.mark.parametrize(
    "broken",
    [WHOLE[:100], WHOLE[:-30], b"", b"<!doctype html>", npz(scores=np.zeros(1)), WHOLE[:60] + b"?" * 20 + WHOLE[80:]],
)
def test_a_broken_answer_costs_one_photo(photos, tmp_path, broken):
    """A proxy that cuts an answer off, or sends a page of its own, ends no run."""
    model = {"name": "a", "version": 1, "task": "cam", "default": True, "sha256": "0", "classes": ["dog"]}
    (photos / "broken.jpg").unlink()

    class Handler(BaseHTTPRequestHandler):
        answers = iter([broken, WHOLE, WHOLE])

        def do_GET(self) -> None:
            self.answer(json.dumps({"models": [model]}).encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(next(self.answers))

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(server.serve_forever, 0.05)
        try:
            labeller = Remote(f"http://127.0.0.1:{server.server_port}", AnalyzeParameters())
            said, complete = label_folder(photos, tmp_path / "out", labeller)
        finally:
            server.shutdown()
    assert not complete
    assert said.startswith("2 of 3 photos labelled")
    assert "cannot be read as the arrays of /analyze" in said


def test_thresholds_in_the_wrong_order_are_refused_before_a_photo_is_read(models_directory):
    """In this process as by the server, against the model's own background threshold too."""
    settings = Settings(models=models_directory, device="cpu")
    for given in ({"background_threshold": 0.5, "foreground_threshold": 0.2}, {"foreground_threshold": 0.1}):
        with pytest.raises(ParameterError, match="lies below the background threshold"):
            InProcess(settings, AnalyzeParameters(**given))


def test_quality_by_hand():
    label = np.zeros((4, 4), np.uint8)
    label[:2] = 1
    other = np.zeros((4, 4), np.uint8)
    other[0] = 1
    other[3] = 2
    probabilities = np.zeros((3, 4, 4), np.float32)
    probabilities[1, :2], probabilities[0, :2] = 0.75, 0.25
    probabilities[0, 2:] = 1
    quality = quality_of(label, other, probabilities, frozenset({1, 2}))
    assert quality.agreement == pytest.approx((4 / 8 + 0) / 2)
    assert quality.consistency == pytest.approx(1 / 2)
    assert quality.margin == pytest.approx(0.5)
    assert quality.estimate == pytest.approx((0.25 + 0.5 + 0.5) / 3)
    alone = quality_of(label, None, None, frozenset({1}))
    assert (alone.agreement, alone.margin, alone.estimate) == (None, None, 1)
    nothing = np.zeros((4, 4), np.uint8)
    assert quality_of(nothing, nothing, None, frozenset()).estimate == 1


def test_a_record_tells_how_it_came_about(photos, tmp_path, labeller):
    label_folder(photos, tmp_path / "out", labeller)
    settings = json.loads((tmp_path / "out" / "label.json").read_text())
    assert set(settings["models"]) == {"drs_colours/1", "deeplab_colours/1"}
    assert all(len(sha256) == 64 for sha256 in settings["models"].values())
