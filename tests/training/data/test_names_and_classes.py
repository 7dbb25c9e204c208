"""Names and classes as people write them: what is taken, and what is refused before anything is trained."""

import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from app.inference.errors import ConfigError, DataError
from tests.app.colour_models import BLACK, RED, halves, to_file
from training.config.data import DataConfig
from training.config.run_config import RunConfig, read_config
from training.data import TaggedPhotos, open_source
from training.masks.ground_truth import GroundTruth
from training.pipeline.preflight import needs_of, require

PHOTO = to_file(halves(RED, BLACK, 48, 64), "JPEG")
SCENES = Path("experiments/scenes/cam.toml")
NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def folder(root: Path, rows: dict[str, str], classes: tuple[str, ...] = (), files: tuple[str, ...] = ()) -> DataConfig:
    """Photos with tags."""
    root.mkdir(exist_ok=True)
    for name in files or rows:
        (root / name).write_bytes(PHOTO)
    lines = "".join(f"{name},{tags}\n" for name, tags in rows.items())
    (root / "labels.csv").write_text(f"name,classes\n{lines}", encoding="utf-8")
    if classes:
        (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    return DataConfig(root=root, val_fraction=0.25)


def opened(root: Path, *tags: str, classes: tuple[str, ...] = ()) -> TaggedPhotos:
    return open_source(folder(root, {f"p{number}.jpg": tag for number, tag in enumerate(tags)}, classes))


@pytest.mark.parametrize("names", [("background",), ("__ignore__", "_background_")])
def test_a_background_before_the_classes_is_no_class(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert opened(tmp_path, "cat", "dog", classes=(*names, "cat", "dog")).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (("background", "wolf"), "'background' is no class of things"),
        (("Wolf", "wolf", "hare"), "hold a name twice: Wolf, wolf"),
        (tuple(f"c{number}" for number in range(255)), "there are 255 classes, and a label map holds 254"),
    ],
)
def test_class_lists_that_cannot_be_trained(tmp_path: Path, tags: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(tmp_path / "tags", *tags)
    with pytest.raises(ValidationError, match="no class|twice|at most 254"):
        DataConfig(root=tmp_path, classes=tags)
    if len(tags) < 255:
        with pytest.raises(DataError, match="classes.txt"):
            opened(tmp_path / "list", "cat", classes=("cat", *tags))


def test_accents_may_be_written_either_way(tmp_path: Path) -> None:
    photos = open_source(folder(tmp_path, {f"{NFC}.jpg": NFD, "b.jpg": NFC}, files=(f"{NFD}.jpg", "b.jpg")))
    assert photos.classes == (NFC,)
    assert sorted(photos.tag_table) == ["b", NFC]
    (tmp_path / "SegmentationClass").mkdir()
    Image.fromarray(np.ones((48, 64), np.uint8)).save(tmp_path / "SegmentationClass" / f"{NFD}.png")
    assert GroundTruth(DataConfig(root=tmp_path)).has(NFC)


def test_a_file_name_that_is_no_utf8_is_found_by_its_latin_1_spelling(tmp_path: Path) -> None:
    photos = open_source(
        folder(tmp_path, {"k\xe4fer.jpg": "wolf", "b.jpg": "wolf"}, files=("b.jpg", os.fsdecode(b"k\xe4fer.jpg")))
    )
    assert sorted(photos.tag_table) == ["b", "k\xe4fer"]
    assert photos.image("k\xe4fer").shape == (48, 64, 3)


def test_sidecars_of_a_mac_are_no_photos(tmp_path: Path) -> None:
    config = folder(tmp_path, {"a": "wolf", "b": "wolf"}, files=("a.jpg", "._a.jpg", "b.jfif"))
    assert sorted(open_source(config).tag_table) == ["a", "b"]


def test_a_name_that_breaks_lists_is_refused(tmp_path: Path) -> None:
    config = folder(tmp_path, {'"two\nlines.jpg"': "wolf", "b.jpg": "wolf"}, files=("two\nlines.jpg", "b.jpg"))
    with pytest.raises(DataError, match="breaks a list's lines"):
        open_source(config)


def test_masks_in_black_and_white_are_refused_before_training(tmp_path: Path) -> None:
    config = folder(tmp_path, {f"p{number}.jpg": "lesion" for number in range(4)})
    (tmp_path / "SegmentationClass").mkdir()
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30] = 255
    for number in range(4):
        Image.fromarray(mask).save(tmp_path / "SegmentationClass" / f"p{number}.png")
    message = "holds 0 and 255 alone, and so do all others; .*1 for 'lesion'"
    with pytest.raises(DataError, match=message):
        GroundTruth(config).mask("p0")
    run = read_config(RunConfig, SCENES, ["data.source=folder", f"data.root={tmp_path}", f"out={tmp_path / 'run'}"])
    with pytest.raises(ConfigError, match=message):
        require(needs_of(run))
    mask[0] = 1
    Image.fromarray(mask).save(tmp_path / "SegmentationClass" / "p3.png")
    assert set(np.unique(GroundTruth(config).mask("p0"))) == {0, 255}, "a photo may hold nothing but what is ignored"


def test_a_place_that_cannot_hold_the_results_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for key in ("out", "export.models"):
        run = read_config(RunConfig, SCENES, [f"{key}={tmp_path / 'file' / 'run'}"])
        with pytest.raises(ConfigError, match="file is a file; name a folder"):
            require(needs_of(run))


def coco_of(root: Path, categories: list[dict[str, object]], ids: tuple[int, ...]) -> DataConfig:
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").mkdir()
    outline = [[5, 5, 25, 5, 25, 25, 5, 25]]
    for number in range(len(ids)):
        (root / "train2017" / f"p {number}.jpg").write_bytes(PHOTO)
    images = [{"id": n, "file_name": f"p {n}.jpg", "height": 48, "width": 64} for n in range(len(ids))]
    annotations = [{"id": n, "image_id": n, "category_id": c, "segmentation": outline} for n, c in enumerate(ids)]
    data = {"categories": categories, "images": images, "annotations": annotations}
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(data))
    return DataConfig(source="coco", root=root)


def test_categories_of_exporters(tmp_path: Path) -> None:
    two = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert open_source(coco_of(tmp_path / "good", two, (1, 2))).classes == ("cat", "dog")
    for above in ({"supercategory": "none"}, {}):
        below = [{**entry, "supercategory": "animals"} for entry in two]
        config = coco_of(tmp_path / f"root{len(above)}", [{"id": 0, "name": "animals", **above}, *below], (1, 2))
        with pytest.raises(DataError, match=r"'animals' stands above others.*data.classes=\[\"cat\", \"dog\"\]"):
            open_source(config)
        assert open_source(config.model_copy(update={"classes": ("cat", "dog")})).classes == ("cat", "dog")
    with pytest.raises(DataError, match="hold a name twice: cat, cat"):
        open_source(coco_of(tmp_path / "twice", [*two, {"id": 3, "name": "cat"}], (1, 2, 3)))
    with pytest.raises(DataError, match="'background' is no class"):
        open_source(coco_of(tmp_path / "background", [{"id": 0, "name": "background"}, *two], (0, 1, 2)))


def test_voc_names_with_spaces_and_annotations_in_odd_encodings(tmp_path: Path) -> None:
    for name in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (tmp_path / name).mkdir(parents=True)
    names = ("my photo", "my photo 1", "plain")
    for name in names:
        (tmp_path / "JPEGImages" / f"{name}.jpg").write_bytes(PHOTO)
        xml = "<annotation><object><name>dog</name></object></annotation>"
        (tmp_path / "Annotations" / f"{name}.xml").write_text(xml)
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("my photo\nmy photo 1\n")
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("plain -1\n")
    config = DataConfig(source="voc", root=tmp_path)
    assert open_source(config).splits == {"train": ("my photo", "my photo 1"), "val": ("plain",)}
    for odd in (
        b"<?xml version='1.0' encoding='klingon'?><annotation/>",
        "<annotation>käfer</annotation>".encode("latin-1"),
    ):
        (tmp_path / "Annotations" / "plain.xml").write_bytes(odd)
        with pytest.raises(DataError, match="plain.xml cannot be read"):
            open_source(config)
