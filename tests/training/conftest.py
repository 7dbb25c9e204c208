"""Small real data sets, written to disk; stand-ins for exported networks."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.samples import HEIGHT, WIDTH, save_mask, save_photo
from tests.training.exports import stand_ins


@pytest.fixture
def stands_in() -> Iterator[None]:
    """Runs of the test export stand-ins for their networks."""
    with stand_ins():
        yield


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder source: labels.csv as given, and a photo for each of `photos`."""

    def make(labels: str | bytes, photos: Sequence[str] = ("a.jpg", "b.jpg"), directory: str = "JPEGImages") -> Path:
        root = tmp_path / "photos"
        root.mkdir(exist_ok=True)
        (root / "labels.csv").write_bytes(labels if isinstance(labels, bytes) else labels.encode())
        for photo in photos:
            save_photo(root / directory / photo)
        return root

    return make


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A devkit of three photos: a dog (with a head) and a difficult person; a cat; a car."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    objects = {
        "2007_000001": "<object><name>dog</name><part><name>head</name></part></object>"
        "<object><name>person</name><difficult>1</difficult></object><object><name>dog</name></object>",
        "2007_000002": "<object><name>cat</name></object>",
        "2007_000003": "<object><name>car</name></object>",
    }
    lists = root / "ImageSets" / "Segmentation"
    for directory in (lists, root / "Annotations"):
        directory.mkdir(parents=True)
    for name, text in objects.items():
        save_photo(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{text}</annotation>")
        save_mask(root / "SegmentationClass" / f"{name}.png", np.zeros((HEIGHT, WIDTH)))
    (lists / "train.txt").write_text("2007_000001\n")
    (lists / "val.txt").write_text("2007_000003\n")
    (lists / "trainaug.txt").write_text(
        "/JPEGImages/2007_000001.jpg /SegmentationClassAug/2007_000001.png\n"
        "/JPEGImages/2007_000002.jpg /SegmentationClassAug/2007_000002.png\n"
    )
    return root


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two training photos, one without any object, and one validation photo. Categories: 7 cat, 3 dog."""
    root = tmp_path / "coco"
    square = [2, 1, 6, 1, 6, 5, 2, 5]  # columns 2..5, rows 1..4
    whole = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * 2, HEIGHT * 8, HEIGHT * 2]}  # columns 2..9, by column
    crowd = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT, HEIGHT * (WIDTH - 1)]}  # column 0
    annotations = [
        {"id": 1, "image_id": 10, "category_id": 7, "iscrowd": 0, "segmentation": [square]},
        {"id": 2, "image_id": 10, "category_id": 3, "iscrowd": 0, "segmentation": whole},
        {"id": 3, "image_id": 12, "category_id": 3, "iscrowd": 1, "segmentation": crowd},
    ]
    images = [(10, "train2017", "000010.jpg"), (11, "train2017", "000011.jpg"), (12, "val2017", "000012.jpg")]
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        entries = [
            {"id": i, "file_name": file, "height": HEIGHT, "width": WIDTH}
            for i, where, file in images
            if where == split
        ]
        ids = {entry["id"] for entry in entries}
        data = {
            "images": entries,
            "annotations": [annotation for annotation in annotations if annotation["image_id"] in ids],
            "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(data))
        for entry in entries:
            save_photo(root / split / str(entry["file_name"]))
    return root
