"""`label --engine ray` on a small cluster: what the engine of threads writes, to the byte, from folders, S3 and Parquet."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from PIL import Image

from app.batch.folder import label_folder
from app.batch.labellers import InProcess
from app.http.request.parameters import AnalyzeParameters
from app.inference.errors import DataError
from app.runtime.settings import Settings
from tests.app.cluster.ray_nodes import Nodes
from tests.app.colour_models import BLACK, BLUE, GREEN, RED, halves, to_file

pytestmark = [pytest.mark.environment("cluster"), pytest.mark.filterwarnings("default")]  # Ray warns of itself
COLOURS = (RED, GREEN, BLUE)
PHOTOS = 96  # of the kill tests: three tasks of Ray
SECONDS = 120  # The rest of the photos is labelled in a fraction of this where nothing waits for what is dead.


@pytest.fixture
def settings(models_directory: Path) -> Settings:
    return Settings(models=models_directory, device="cpu", workers=2)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos of three colours in two folders, one that is damaged, one whose name is no UTF-8."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number in range(6):
        colour = COLOURS[number % 3]
        (folder / "more" / f"{number}.png").write_bytes(to_file(halves(colour, BLACK)))
    Image.fromarray(halves(BLUE, BLACK, 40, 80)).save(folder / "person.webp", lossless=True)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xffnothing more")
    (folder / os.fsdecode(b"odd\xff.png")).write_bytes(to_file(halves(RED, BLACK)))
    return folder


def by_ray(photos: object, out: object, settings: Settings, **options: object) -> tuple[str, bool]:
    from app.cluster.label import label_by_ray

    given = {"tags": None, "prune": False, "choices": None, "skip": False} | options
    return label_by_ray(str(photos), str(out), settings, AnalyzeParameters(), **given)  # type: ignore[arg-type]


def content_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_folder_becomes_what_threads_make_of_it(
    nodes: Nodes, photos: Path, tmp_path: Path, settings: Settings
) -> None:
    said, complete = label_folder(photos, tmp_path / "threads", InProcess(settings, AnalyzeParameters()), workers=2)
    assert by_ray(photos, tmp_path / "ray", settings) == (said.replace("threads", "ray"), complete)
    assert content_of(tmp_path / "ray") == content_of(tmp_path / "threads")
    one = tmp_path / "ray" / "records" / "person.json"
    before = one.stat().st_mtime_ns
    (tmp_path / "ray" / "records" / "more__0.json").unlink()
    by_ray(photos, tmp_path / "ray", settings)
    assert one.stat().st_mtime_ns == before  # what is done is left as it is
    assert content_of(tmp_path / "ray") == content_of(tmp_path / "threads")


@pytest.mark.parametrize("what", ["a worker", "a node"])
def test_what_is_killed_costs_no_photo(nodes: Nodes, tmp_path: Path, settings: Settings, what: str) -> None:
    """What it had in work is done again by another, where a node died by the other one, and every photo has its files once."""
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for number in range(PHOTOS):
        (folder / f"{number:03}.png").write_bytes(to_file(halves(COLOURS[number % 3], BLACK)))
    ended: list[tuple[str, bool]] = []
    labelling = Thread(target=lambda: ended.append(by_ray(folder, out, settings)), daemon=True)
    labelling.start()

    def done() -> int:
        return len(list((out / "records").glob("*.json")))

    while done() < 5 or not (pids := nodes.pids_of("ray::Map", 1)):
        assert labelling.is_alive()
        time.sleep(0.01)
    if what == "a node":
        nodes.kill(1)
    else:
        os.kill(pids[0], signal.SIGKILL)
    assert done() < PHOTOS
    labelling.join(SECONDS)
    if what == "a node":
        nodes.join()  # for the tests that follow
    said, complete = ended[0]
    assert complete
    assert said.startswith(f"{PHOTOS} of {PHOTOS} photos labelled")
    names = [f"{number:03}" for number in range(PHOTOS)]
    for kind in ("JPEGImages", "SegmentationClass", "overlays", "records"):
        assert sorted(path.stem for path in (out / kind).iterdir()) == names
    assert (out / "ImageSets" / "Segmentation" / "train.txt").read_text().split() == names


def test_a_photo_that_kills_its_workers_is_named(
    nodes: Nodes, photos: Path, tmp_path: Path, settings: Settings
) -> None:
    from app.cluster.workers import TRIES

    for path in photos.rglob("*"):
        if path.is_file() and path.stem != "person":
            path.unlink()
    (photos / "more").rmdir()
    killed: set[int] = set()

    def kill() -> None:
        while len(killed) < TRIES:
            for pid in set(nodes.pids_of("ray::MapBatches")) - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)

    killing = Thread(target=kill, daemon=True)
    killing.start()
    with pytest.raises(DataError, match=r"5 workers died over .*person\.webp.*the same command goes on"):
        by_ray(photos, tmp_path / "out", settings)
    assert by_ray(photos, tmp_path / "out", settings)[1]


def test_no_node_with_room_for_a_worker_is_waited_for_so_long(
    nodes: Nodes, photos: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.cluster import workers

    monkeypatch.setattr(workers, "PATIENCE_SECONDS", 0.2)
    large = settings.model_copy(update={"intra_op_threads": 64})
    with pytest.raises(
        DataError, match=r"no node of the Ray cluster has 64 CPU, which .* and the same command goes on"
    ):
        by_ray(photos, tmp_path / "out", large)

    def rows() -> Iterator[dict[str, int]]:
        yield {"row": 1}
        Event().wait()

    def check() -> None:
        raise DataError("looked")

    watched = workers.watched(rows(), check)
    assert next(watched) == {"row": 1}
    with pytest.raises(DataError, match="looked"):
        next(watched)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A server of S3 and a bucket: the address of a prefix, and its client."""
    moto = pytest.importorskip("moto.server", reason="moto could not be installed")
    import boto3

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
                          aws_access_key_id="any", aws_secret_access_key="any")  # fmt: skip
    client.create_bucket(Bucket="bucket")
    yield f"127.0.0.1:{port}"
    server.stop()


def address(s3: str, prefix: str) -> str:
    return f"s3://bucket/{prefix}?endpoint_override={s3}&scheme=http"


def test_an_object_store_becomes_a_data_set_of_the_same_masks(
    nodes: Nodes, s3: str, photos: Path, tmp_path: Path, settings: Settings
) -> None:
    from app.cluster.places import Bucket

    source, out = Bucket(address(s3, "photos")), Bucket(address(s3, "out"))
    for path in photos.rglob("*.*"):
        if "odd" not in path.name:
            source.write(path.relative_to(photos).as_posix(), path.read_bytes())
    source.write("more/0.jpg", b"shares its name")
    tags = tmp_path / "labels.csv"
    tags.write_text("name,classes\nbroken,dog\nperson,person\n" + "".join(f"more__{n},\n" for n in range(6)))
    label_folder(photos, tmp_path / "threads", InProcess(settings, AnalyzeParameters()))
    said, complete = by_ray(address(s3, "photos"), address(s3, "out"), settings)
    assert said.startswith("6 of 9 photos labelled into s3://bucket/out")
    assert "more/0.png: it would share the name 'more__0' with" in said
    assert not complete
    names = ["person", *(f"more__{n}" for n in range(1, 6))]
    assert out.read("ImageSets/Segmentation/train.txt").decode().split() == names
    for name in ("person", "more__1", "more__5"):
        for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png"), ("overlays", "jpg")):
            expected = (tmp_path / "threads" / folder / f"{name}.{suffix}").read_bytes()
            assert out.read(f"{folder}/{name}.{suffix}") == expected
        record = json.loads(out.read(f"records/{name}.json"))
        other = json.loads((tmp_path / "threads" / "records" / f"{name}.json").read_text())
        assert {**record, "photo": "", "stamp": 0} == {**other, "photo": "", "stamp": 0}
    with pytest.raises(DataError, match=r"was begun with without --tags, not --tags"):
        by_ray(address(s3, "photos"), address(s3, "out"), settings, tags=tags)
    with pytest.raises(DataError, match="is no address of an object store"):
        by_ray("s4://bucket/photos", tmp_path / "never", settings)


def test_parquet_holds_photos_names_and_tags(nodes: Nodes, tmp_path: Path, settings: Settings) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [to_file(halves(colour, BLACK)) for colour in COLOURS]
    table = pa.table({
        "image": [*files, files[0], b"no photo"],
        "name": ["a/red.png", "a/green.png", "a/blue.png", "tagged", "broken"],
        "tags": [None, None, None, "cat; dog", "unicorn"],
    })  # fmt: skip
    (tmp_path / "photos").mkdir()
    pq.write_table(table, tmp_path / "photos" / "0.parquet", row_group_size=2)
    said, complete = by_ray(tmp_path / "photos", tmp_path / "out", settings)
    assert said.startswith("4 of 5 photos labelled")
    assert "0.parquet#2:0: the tag 'unicorn' is no class of the model" in said
    assert not complete
    out = tmp_path / "out"
    names = ["a__red", "a__green", "a__blue", "tagged"]
    assert (out / "ImageSets" / "Segmentation" / "train.txt").read_text().split() == names
    assert json.loads((out / "records" / "tagged.json").read_text())["tags"] == ["cat", "dog"]
    masks = [np.array(Image.open(out / "SegmentationClass" / f"{name}.png")) for name in names[:3]]
    assert len({mask[0, 0] for mask in masks}) == 3
    pq.write_table(table.rename_columns(["picture", "name", "tags"]), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="none of which holds photos; call it image or bytes or photo"):
        by_ray(tmp_path / "other.parquet", tmp_path / "out", settings)
