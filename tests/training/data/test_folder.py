"""The folder source: labels.csv, lists, photos, and the error for every kind of bad row."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from app.inference.errors import DataError
from app.inference.labels import VOC_CLASSES
from tests.training.data.samples import HEIGHT, WIDTH, save_photo
from training.data import DataConfig, TaggedPhotos, open_source

MakeFolder = Callable[..., Path]


def opened(root: Path, **settings: object) -> TaggedPhotos:
    return open_source(DataConfig(root=root, **settings))


def refusal(root: Path, **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        opened(root, **settings)
    return str(caught.value)


def test_reads_photos_and_tags(make_folder: MakeFolder) -> None:
    photos = opened(make_folder("name,classes\na,dog person\nb,cat\n"))
    assert photos.classes == VOC_CLASSES
    assert photos.tags("a") == ("dog", "person")
    image = photos.image("a")
    assert (image.shape, image.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    assert image.flags.writeable, "torch warns of arrays it may not write"
    assert photos.size("a") == (HEIGHT, WIDTH)
    labels = photos.image_labels("a")
    assert labels.dtype == np.float32
    assert [photos.classes[i] for i in np.flatnonzero(labels)] == ["dog", "person"]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfname,classes\r\na.jpg,dog\r\n\r\nb.jpg,cat\r\n",
        b"name,classes\n\n  a , dog \n,\nb,cat",
        b'"name","classes"\n"a","dog"\n"b","cat"\n',
        b"Name,Classes,note\na,dog,old\nb,cat,\n",
        b"name,classes\na,dog\nb,cat\na,dog\na.jpg,dog\n",
    ],
    ids=["bom-crlf-blank", "spaces", "quotes", "more-columns", "repeated"],
)
def test_reads_what_spreadsheets_write(make_folder: MakeFolder, text: bytes) -> None:
    photos = opened(make_folder(text))
    assert dict(photos.tag_table) == {"a": ("dog",), "b": ("cat",)}


def test_rows_of_one_photo_add_up(make_folder: MakeFolder) -> None:
    photos = opened(make_folder("name,classes\na,dog\nb,cat\na,person dog\n"))
    assert photos.tags("a") == ("dog", "person")


@pytest.mark.parametrize("text", ["a,traffic light;bus\nb,red  car", 'a,"traffic light, bus"\nb,red car'])
def test_class_names_may_hold_spaces(make_folder: MakeFolder, text: str) -> None:
    photos = opened(make_folder(f"name,classes\n{text}\n"))
    assert photos.classes == ("bus", "red car", "traffic light")
    assert photos.tags("b") == ("red car",)


@pytest.mark.parametrize("directory", ["JPEGImages", "images", "."])
@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".webp"])
def test_finds_photos(make_folder: MakeFolder, directory: str, suffix: str) -> None:
    root = make_folder("name,classes\na,dog\nb.jpg,cat\n", (f"a{suffix}", "b.jpg"), directory)
    assert opened(root).image("a").shape == (HEIGHT, WIDTH, 3)


def test_every_list_is_a_split(make_folder: MakeFolder) -> None:
    root = make_folder("name,classes\na,dog\nb,cat\nc,dog\n", ("a.jpg", "b.jpg", "c.jpg"))
    lists = root / "ImageSets"
    lists.mkdir()
    (lists / "train.txt").write_bytes(b"\xef\xbb\xbfa\r\n\r\n")
    (lists / "test.txt").write_text("b.jpg\n")
    photos = opened(root)
    assert dict(photos.splits) == {"test": ("b",), "train": ("a",), "val": ("c",)}, "val: the rows in no list"
    with pytest.raises(DataError, match=r"unknown split 'tset' \(nearest: 'test'\); this data has: test, train, val"):
        photos.names("tset")


@pytest.mark.parametrize(
    ("lists", "choosing", "reported"),
    [
        (("val_dev", "val_report"), "val_dev", "val_report"),
        (("val_dev",), "val", "val"),
        (("val_report",), "val", "val"),
        ((), "val", "val"),
    ],
)
def test_what_is_chosen_by_and_what_is_reported(
    make_folder: MakeFolder, lists: tuple[str, ...], choosing: str, reported: str
) -> None:
    names = [*"abcd"]
    rows = "".join(f"{name},dog\n" for name in names)
    root = make_folder(f"name,classes\n{rows}", [f"{name}.jpg" for name in names])
    (root / "ImageSets").mkdir()
    for split, listed in {"train": "a", "val": "b\nc", "val_dev": "b", "val_report": "c\nd"}.items():
        if split in ("train", "val", *lists):
            (root / "ImageSets" / f"{split}.txt").write_text(listed)
    photos = opened(root)
    assert (photos.choosing_split, photos.report_split) == (choosing, reported)
    assert photos.labelled_names() == (("a", "b", "c", "d") if reported == "val_report" else ("a", "b", "c"))


def test_without_lists_a_hash_of_the_name_splits(make_folder: MakeFolder) -> None:
    def split(count: int) -> TaggedPhotos:
        names = [f"p{index}" for index in range(count)]
        rows = "".join(f"{name},dog\n" for name in names)
        return opened(make_folder(f"name,classes\n{rows}", [f"{name}.png" for name in names]), val_fraction=0.3)

    few, more = split(40), split(60)
    assert 4 <= len(few.names("val")) <= 20
    assert set(few.names("val")) <= set(more.names("val"))
    assert set(few.names("train")) <= set(more.names("train"))
    assert set(few.names("train")) | set(few.names("val")) == set(few.tag_table)


@pytest.mark.parametrize("val_fraction", [1e-6, 1 - 1e-6])
def test_neither_split_is_empty(make_folder: MakeFolder, val_fraction: float) -> None:
    photos = opened(make_folder("name,classes\na,dog\nb,cat\n"), val_fraction=val_fraction)
    assert len(photos.names("train")) == len(photos.names("val")) == 1


def test_exif_orientation_is_applied(make_folder: MakeFolder) -> None:
    root = make_folder("name,classes\na,dog\nb,cat\n")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "JPEGImages" / "a.jpg", exif=exif)
    photos = opened(root)
    assert photos.image("a").shape == (WIDTH, HEIGHT, 3)
    assert photos.size("a") == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("RGBA", (9, 9, 9, 0), 255), ("L", 70, 70), ("LA", (70, 0), 255), ("I;16", 70 * 257, 70), ("1", 1, 255)],
)
def test_unusual_modes_become_rgb(make_folder: MakeFolder, mode: str, colour: object, expected: int) -> None:
    root = make_folder("name,classes\na,dog\nb,cat\n", ("a.png", "b.jpg"))
    Image.new(mode, (WIDTH, HEIGHT), colour).save(root / "JPEGImages" / "a.png")
    image = opened(root).image("a")
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert (image == expected).all()


@pytest.mark.parametrize(
    ("labels", "parts"),
    [
        ("name,classes\na,dog\nb,cat elefant\n", ["row 3 ('b')", "unknown class 'elefant' (nearest: 'elephant')"]),
        ("name,classes\na,dog\nb,\n", ["row 3 ('b')", "no tag", "at least one of: cat, dog, elephant"]),
        ("name,classes\na,dog\nb\n", ["row 3 ('b')", "no tag"]),
        ("name,classes\na,dog\nphoto_b,cat\n", ["row 3 ('photo_b')", "no photo 'photo_b'", "(nearest: 'photo_d')"]),
        ("name,classes\na,dog\nb.png,cat\n", ["row 3 ('b.png')", "no photo 'b.png' in"]),
        ("name,classes\na,dog,cat\n", ["row 2 ('a')", "3 fields where the header has 2", "by spaces"]),
        ("name,classes\n../a,dog\n", ["row 2 ('../a')", "not a photo's file name"]),
    ],
    ids=["unknown-class", "no-tag", "no-field", "missing-photo", "other-suffix", "too-many-fields", "path"],
)
def test_a_bad_row_is_named(make_folder: MakeFolder, labels: str, parts: list[str]) -> None:
    root = make_folder(labels, ("a.jpg", "b.jpg", "photo_d.jpg"))
    message = refusal(root, classes=("cat", "dog", "elephant"))
    for part in ["labels.csv row", *parts, 'or set on_error = "skip"']:
        assert part in message


@pytest.mark.parametrize(
    "labels",
    [
        "name,classes\na,dog\nb,elefant\nc,cat\n",
        "name,classes\na,dog\nb,\nc,cat\n",
        "name,classes\na,dog\nx,dog\nc,cat\n",
        "name,classes\na,dog\nb,dog,cat\nc,cat\n",
    ],
)
def test_a_bad_row_is_skipped_and_counted_where_asked(make_folder: MakeFolder, labels: str) -> None:
    photos = opened(make_folder(labels, ("a.jpg", "b.jpg", "c.jpg")), on_error="skip", classes=("cat", "dog"))
    assert set(photos.tag_table) == {"a", "c"}
    assert len(photos.skipped) == 1
    assert photos.skipped[0].startswith("labels.csv row 3")


def test_unreadable_photos(make_folder: MakeFolder) -> None:
    root = make_folder("name,classes\na,dog\nb,cat\n")
    (root / "JPEGImages" / "b.jpg").write_bytes(b"no picture")
    message = refusal(root)
    assert "row 3 ('b')" in message
    assert "b.jpg cannot be read" in message
    photos = opened(root, on_error="skip")
    assert (tuple(photos.tag_table), len(photos.skipped)) == (("a",), 1)


def test_truncated_photos(make_folder: MakeFolder) -> None:
    root = make_folder("name,classes\na,dog\nb,cat\n")
    path = root / "JPEGImages" / "b.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:900])
    photos = opened(root)
    with pytest.raises(DataError, match=r"photo .*b\.jpg cannot be read"):
        photos.image("b")
    assert "row 3 ('b')" in refusal(root, check="pixels")
    assert len(opened(root, on_error="skip").skipped) == 1, "skipping looks at all pixels, it could not skip later"


def test_two_photos_of_one_name(make_folder: MakeFolder) -> None:
    root = make_folder("name,classes\na,dog\nb,cat\n", ("a.jpg", "a.png", "b.jpg"))
    assert "a.jpg and a.png are both there. Write the name with its suffix" in refusal(root)
    (root / "labels.csv").write_text("name,classes\na.png,dog\nb,cat\n")
    assert opened(root).reader.paths["a"].name == "a.png"
    (root / "labels.csv").write_text("name,classes\na.png,dog\na.jpg,cat\n")
    assert "row 3 ('a.jpg'): 'a.jpg' and 'a.png' of row 2 share the name 'a'" in refusal(root)


def test_a_list_names_an_unknown_photo(make_folder: MakeFolder) -> None:
    root = make_folder("name,classes\nphoto_a,dog\n", ("photo_a.jpg",))
    (root / "ImageSets").mkdir()
    (root / "ImageSets" / "val.txt").write_text("photo_a\n\nphoto_z\n")
    assert "val.txt row 3: 'photo_z' has no row in labels.csv (nearest: 'photo_a')" in refusal(root)


def test_a_list_may_leave_rows_out(make_folder: MakeFolder) -> None:
    root = make_folder("name,classes\na,dog\nb,cat\nelsewhere,cat\n")
    (root / "ImageSets").mkdir()
    for split, name in (("train", "a"), ("val", "b")):
        (root / "ImageSets" / f"{split}.txt").write_text(f"{name}\n")
    assert set(opened(root).tag_table) == {"a", "b"}, "photos in no list are not looked for"


def test_missing_labels_say_what_to_write(tmp_path: Path) -> None:
    message = refusal(tmp_path)
    assert str(tmp_path / "labels.csv") in message
    assert message.endswith("name,classes\nphoto1,dog person")


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        (b"", "found 'nothing'"),
        (b"photo1,dog\n", "the first row must be 'name,classes', found 'photo1,dog'"),
        (b"name;classes\na;dog\n", "found 'name;classes'"),
        ("name,classes\na,hund für\n".encode("latin-1"), "Save it as 'CSV UTF-8'"),
        ("name,classes\n".encode("utf-16"), "Save it as 'CSV UTF-8'"),
        (b"name,classes\n", "no photo can be used"),
    ],
)
def test_files_that_are_no_labels(make_folder: MakeFolder, labels: bytes, part: str) -> None:
    assert part in refusal(make_folder(labels))


def test_nothing_left_names_the_first_row(make_folder: MakeFolder) -> None:
    message = refusal(make_folder("name,classes\nx,dog\ny,cat\n"), on_error="skip")
    assert "no photo can be used (2 left out; the first: labels.csv row 2 ('x')" in message


def test_missing_directory(tmp_path: Path) -> None:
    assert f"{tmp_path / 'nowhere'} does not exist. Set `root`" in refusal(tmp_path / "nowhere")


def test_classes_are_taken_from_the_tags(make_folder: MakeFolder) -> None:
    root = make_folder("name,classes\na,fox dog\nb,badger\n")
    assert opened(root).classes == ("badger", "dog", "fox")
    assert opened(root, classes=("fox", "dog", "badger")).image_labels("a").tolist() == [1, 1, 0]


def test_a_slip_of_the_pen_is_no_class(make_folder: MakeFolder) -> None:
    names = [f"p{index}" for index in range(6)]
    rows = [f"{name},dog" for name in names[:5]] + ["p5,dgo"]
    root = make_folder("name,classes\n" + "\n".join(rows), [f"{name}.jpg" for name in names])
    assert "row 7 ('p5'): unknown class 'dgo' (nearest: 'dog')" in refusal(root)
    assert opened(root, classes=("dog", "dgo")).tags("p5") == ("dgo",)
    photos = opened(root, on_error="skip")
    assert (photos.classes, len(photos.skipped)) == (VOC_CLASSES, 1)


def test_unknown_photo(make_folder: MakeFolder) -> None:
    photos = opened(make_folder("name,classes\nphoto1,dog\n", ("photo1.jpg",)))
    with pytest.raises(DataError, match=r"unknown photo 'photo2' \(nearest: 'photo1'\)"):
        photos.tags("photo2")


def test_configuration_errors() -> None:
    with pytest.raises(ValueError, match="source = 'folder' needs `root`"):
        DataConfig()
    with pytest.raises(ValueError, match="hold a name twice"):
        DataConfig(root=Path(), classes=("dog", "dog"))


def test_thousands_of_photos_open_at_once(make_folder: MakeFolder) -> None:
    names = [f"p{index:04d}" for index in range(2000)]
    root = make_folder("name,classes\n" + "".join(f"{name},dog\n" for name in names), ())
    data = save_photo(root / "JPEGImages" / "p0000.jpg").read_bytes()
    for name in names[1:]:
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(data)
    assert len(opened(root).tag_table) == 2000


def test_a_list_of_classes_gives_their_order(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.jpg")
    (tmp_path / "labels.csv").write_text("name,classes\na,zebra\nb,ant\n")
    config = DataConfig(source="folder", root=tmp_path)
    assert open_source(config).classes == ("ant", "zebra")
    (tmp_path / "classes.txt").write_text("zebra\n\nant\n")
    assert open_source(config).classes == ("zebra", "ant")
    assert open_source(config).image_labels("a").tolist() == [1, 0]
    assert open_source(config.model_copy(update={"classes": ("ant", "zebra", "bee")})).classes == (
        "ant",
        "zebra",
        "bee",
    )
    (tmp_path / "classes.txt").write_text("zebra\nant\nzebra\n")
    with pytest.raises(DataError, match="hold a name twice: zebra, zebra"):
        open_source(config)
    (tmp_path / "classes.txt").write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        open_source(config)


def test_a_second_folder_is_trained_on_alone(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder("name,classes\na,dog\nb,cat\n")
    (root / "ImageSets").mkdir()
    (root / "ImageSets" / "val.txt").write_text("b\n")
    extra = tmp_path / "extra"
    save_photo(extra / "c.jpg")
    (extra / "labels.csv").write_text("name,classes\nc,cat dog\n")
    photos = open_source(DataConfig(root=root, extra=extra, classes=("cat", "dog")))
    assert photos.splits["train"] == ("a", "c")
    assert photos.splits["val"] == ("b",)
    assert photos.tags("c") == ("cat", "dog")
    assert photos.image("c").shape == photos.image("a").shape
    (extra / "labels.csv").write_text("name,classes\nc,cat bird\n")
    with pytest.raises(DataError, match="unknown class 'bird'"):
        open_source(DataConfig(root=root, extra=extra, classes=("cat", "dog")))
    (extra / "labels.csv").write_text("name,classes\nc,cat\na,cat\n")
    save_photo(extra / "a.jpg")
    photos = open_source(DataConfig(root=root, extra=extra, classes=("cat", "dog")))
    assert photos.splits["train"] == ("a", "c")
    assert photos.tags("a") == ("dog",)  # the same file in both is one photo, with the tags of the first
    save_photo(extra / "a.jpg", WIDTH + 1)
    (extra / "labels.csv").write_text("name,classes\na,cat\n")
    with pytest.raises(DataError, match="both name 1 photos"):
        open_source(DataConfig(root=root, extra=extra, classes=("cat", "dog")))
    with pytest.raises(ValueError, match='for source = "folder"'):
        DataConfig(source="voc", root=root, extra=extra)


def test_what_somebody_decided_holds(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder("name,classes\na,dog\nb,cat\nc,dog\nd,dog\n", photos=("a.jpg", "b.jpg", "c.jpg", "d.jpg"))
    (root / "ImageSets").mkdir()
    (root / "ImageSets" / "train.txt").write_text("a\nb\nc\n")
    choices = tmp_path / "choices.csv"
    choices.write_text("name,choice,classes\na,accept,\nb,retag,cat;person\nc,reject,\nd.jpg,retag,\ngone,reject,\n")
    photos = opened(root, choices=choices)
    assert dict(photos.tag_table) == {"a": ("dog",), "b": ("cat", "person")}
    assert photos.names("train") == ("a", "b")
    assert "there is no file nowhere.csv; review.html saves it" in refusal(root, choices=Path("nowhere.csv"))
    choices.write_text("name,choice,classes\na,retag,dgo\n")
    assert "unknown class 'dgo'" in refusal(root, choices=choices)
