"""Folders as people have them: what is labelled, what is left alone, and what is left out and said."""

import os
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from app.batch.folder import label_folder
from app.batch.labellers import InProcess
from app.batch.photos import find_photos
from app.http.request.parameters import AnalyzeParameters
from app.inference.errors import DataError
from app.inference.files.file_names import of_cell
from app.inference.files.tags import read_tags
from app.inference.files.whole_file import write_whole
from app.runtime.settings import Settings
from tests.app.batch.test_label import rows_of
from tests.app.colour_models import BLACK, RED, halves, to_file

PHOTO = to_file(halves(RED, BLACK), "JPEG")
SIDECAR = b"\0\x05\x16\x07\0\x02\0\0Mac OS X        " + bytes(4000)
LATIN_1 = os.fsdecode(b"k\xe4fer.jpg")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(PHOTO)
    return folder


@pytest.fixture
def labeller(models_directory: Path) -> InProcess:
    return InProcess(Settings(models=models_directory, device="cpu"), AnalyzeParameters())


def listed(out: Path) -> list[str]:
    return (out / "ImageSets" / "Segmentation" / "train.txt").read_text(encoding="utf-8").split("\n")[:-1]


def refused(out: Path) -> dict[str, str]:
    return {Path(row["photo"]).name: row["reason"] for row in rows_of(out / "refused.csv")}


@pytest.mark.parametrize("tagged", [False, True])
def test_what_systems_put_beside_photos_is_left_alone(tagged, photos, tmp_path, labeller):
    for name in ("._cat.jpg", "__MACOSX/._cat.jpg", "__MACOSX/cat.jpg", "@eaDir/cat.jpg/SYNOPHOTO_THUMB.jpg"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(SIDECAR)
    (photos / ".ipynb_checkpoints").mkdir()
    (photos / ".ipynb_checkpoints" / "cat-checkpoint.jpg").write_bytes(PHOTO)
    (photos / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (photos / "labels.csv").write_text("name,classes\ncat.jpg,dog\n")
    (photos / "notes.txt").write_text("of the trip")
    said, complete = label_folder(photos, tmp_path / "out", labeller, photos / "labels.csv" if tagged else None)
    assert complete
    assert listed(tmp_path / "out") == ["cat"]
    others = "1 (notes.txt)" if tagged else "2 (labels.csv, notes.txt)"
    assert f"files that are no photos, left alone: {others}" in said


def test_pictures_that_are_not_read_are_named(photos, tmp_path, labeller):
    for name in ("a.jfif", "b.JPE", "without"):
        (photos / name).write_bytes(PHOTO)
    for name in ("c.bmp", "d.tif", "e.gif"):
        Image.fromarray(halves(RED, BLACK)).save(photos / name)
    (photos / "f.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (photos / "g.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (photos / "h.jpg").symlink_to(tmp_path / "nothing")
    (photos / "i.jpg").mkdir()
    said, complete = label_folder(photos, tmp_path / "out", labeller)
    assert not complete
    assert listed(tmp_path / "out") == ["a", "b", "c", "cat", "d"]
    reasons = refused(tmp_path / "out")
    assert sorted(reasons) == ["e.gif", "f.heic", "g.jpg", "h.jpg", "without"]
    assert "JPEG under the suffix ''" in reasons["without"]
    assert "HEIC" in reasons["f.heic"]
    assert "HEIC" in reasons["g.jpg"]
    assert "link to nothing" in reasons["h.jpg"]
    assert said.startswith("5 of 10 photos labelled")


def test_links_are_followed_once(photos, tmp_path, labeller):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "z.jpg").write_bytes(PHOTO)
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    (photos / "loop").symlink_to(photos)
    (photos / "link.jpg").symlink_to(tmp_path / "elsewhere" / "z.jpg")
    assert label_folder(photos, tmp_path / "out", labeller)[1]
    assert listed(tmp_path / "out") == ["cat", "link", "linked__z"]


def test_a_photo_whose_name_another_has_does_not_stop_the_others(photos, tmp_path, labeller):
    (photos / "cat.png").write_bytes(to_file(halves(BLACK, BLACK)))
    (photos / "a").mkdir()
    (photos / "a" / "b.jpg").write_bytes(PHOTO)
    (photos / "a__b.jpg").write_bytes(PHOTO)
    _, complete = label_folder(photos, tmp_path / "out", labeller)
    assert not complete
    assert listed(tmp_path / "out") == ["a__b", "cat"]
    assert "would share the name 'cat' with" in refused(tmp_path / "out")["cat.png"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x" * 251 + ".jpg", "x" * 237 + "~"),
        ("猫" * 82 + ".jpg", "猫" * 82),
        ("/".join(f"folder {i} of a deep tree of photos, with a longish name of its own" for i in range(5)) + "/b.jpg", "folder 0"),
        (LATIN_1, "k%E4fer"),
        ("two\nlines.jpg", "two%0Alines"),
        ("=cmd|calc.jpg", "=cmd|calc"),
        ("-1+1.jpg", "-1+1"),
        (" around .jpg", "%20around%20"),
        ("back\\slash.jpg", "back\\slash"),
        (unicodedata.normalize("NFD", "café.jpg"), unicodedata.normalize("NFD", "café")),
        ("a, \"b\" & <c>;%s#?.jpg", "a, \"b\" & <c>;%s#?"),
    ],
)  # fmt: skip
def test_every_file_name_becomes_one_that_lists_can_hold(name, expected, photos, tmp_path, labeller):
    (photos / name).parent.mkdir(parents=True, exist_ok=True)
    (photos / name).write_bytes(PHOTO)
    out = tmp_path / "out"
    _, complete = label_folder(photos, out, labeller)
    assert complete
    (other,) = set(listed(out)) - {"cat"}
    assert other.startswith(expected)
    for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png"), ("yolo/labels", "txt")):
        assert (out / folder / f"{other}.{suffix}").is_file()
    cells = {row["name"] for row in rows_of(out / "review.csv")}
    assert {of_cell(cell) for cell in cells} == {"cat", other}
    assert not any(
        cell.startswith(("=", "+", "-", "@")) for cell in cells
    )  # A spreadsheet would take it for a formula.
    _, complete = label_folder(photos, out, labeller)
    assert complete


@pytest.mark.parametrize(
    ("on_disk", "in_list"),
    [
        (unicodedata.normalize("NFD", "café.jpg"), unicodedata.normalize("NFC", "café.jpg")),
        (unicodedata.normalize("NFC", "café.jpg"), unicodedata.normalize("NFD", "café.jpg")),
        (LATIN_1, "käfer.jpg"),
        ("x" * 251 + ".jpg", "x" * 251 + ".jpg"),
    ],
)
def test_tags_find_their_photo_however_its_name_is_written(on_disk, in_list, photos, tmp_path):
    (photos / "cat.jpg").rename(photos / on_disk)
    (tmp_path / "labels.csv").write_text(f"name,classes\n{in_list},dog\n", encoding="utf-8")
    (task,) = find_photos(photos, tmp_path / "out", read_tags(tmp_path / "labels.csv")).tasks
    assert task.tags == ("dog",)


def test_a_folder_in_the_place_of_a_list_is_said(photos, tmp_path, labeller):
    with pytest.raises(DataError, match="cannot be read \\(Is a directory\\)"):
        label_folder(photos, tmp_path / "out", labeller, photos)
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match="Something else has the name.*name another folder"):
            label_folder(photos, out, labeller)
    (tmp_path / "out" / "review.csv").mkdir(parents=True)
    with pytest.raises(DataError, match="review.csv: Is a directory"):
        label_folder(photos, tmp_path / "out", labeller)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "label.json").write_text("[]no json")
    with pytest.raises(DataError, match="is not what this command wrote"):
        label_folder(photos, tmp_path / "odd", labeller)


def test_a_full_disk_is_said_and_the_same_command_goes_on(photos, tmp_path, labeller, monkeypatch):
    for number in range(4):
        (photos / f"{number}.jpg").write_bytes(PHOTO)
    room = 9

    def write_while_there_is_room(path: Path, content: bytes) -> None:
        nonlocal room
        room -= 1
        if room < 0:
            raise OSError(28, "No space left on device", str(path))
        write_whole(path, content)

    monkeypatch.setattr("app.batch.folder.write_whole", write_while_there_is_room)
    with pytest.raises(DataError, match="jpg: No space left on device. Make room"):
        label_folder(photos, tmp_path / "out", labeller)
    monkeypatch.undo()
    said, complete = label_folder(photos, tmp_path / "out", labeller)
    assert complete
    assert said.startswith("5 of 5")


@pytest.mark.skipif(
    os.name != "posix" or not shutil.which("mount"), reason="a small disk is mounted, which needs Linux"
)
def test_a_disk_that_is_really_full(photos, tmp_path, labeller):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a disk")
    try:
        for number in range(20):
            (photos / f"{number}.jpg").write_bytes(PHOTO)
        with pytest.raises(DataError, match="No space left on device"):
            label_folder(photos, disk / "out", labeller)
        assert not list(disk.rglob("*.partial"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
