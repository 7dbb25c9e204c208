"""A labelled folder holds more than its masks: the lists of PASCAL VOC, COCO and YOLO, and the review."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.batch.labellers import Maker
from app.batch.review import outlines_of, review_page
from app.batch.yolo import write_yolo, write_yolo_lists, yolo_files, yolo_text
from app.inference.errors import DataError
from app.inference.files.choices import Choice
from app.inference.files.file_names import as_cell
from app.inference.files.whole_file import refusal, write_whole
from app.inference.label_maps.regions import CocoImage, Region, coco_document
from app.inference.labels import label_of

REVIEW = ("name", "quality", "agreement", "consistency", "margin", "found", "tags", "choice")


def write_data_set(out: Path, names: Sequence[str], maker: Maker, decided: Mapping[str, Choice]) -> None:
    """Write the lists of these photos, rejected ones left out, and the review of them all."""
    reviewed = [completed(out, json.loads(files_of(out, name)[-1].read_text())) for name in names]
    records = [record for record in reviewed if not is_rejected(record, decided)]
    write_whole(out / "classes.txt", "".join(f"{name}\n" for name in maker.classes))
    listed = "".join(f"{record['name']}\n" for record in records)
    write_whole(out / "ImageSets" / "Segmentation" / "train.txt", listed)
    write_whole(out / "annotations.json", json.dumps(coco_data_set(records, maker)))
    write_yolo_lists(out, [record["name"] for record in records], maker.classes)
    reviewed.sort(key=lambda record: record["quality"]["estimate"])
    write_csv(out / "review.csv", REVIEW, [review_row(record, decided) for record in reviewed])
    write_whole(out / "review.html", review_page(reviewed, maker.classes, decided))


def completed(out: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with what an earlier version of this command did not write."""
    photo, mask = files_of(out, record["name"])[:2]
    if "outlines" not in record or not yolo_files(out, record["name"])[0].is_file():
        try:
            with Image.open(mask) as picture:
                labels = np.array(picture)
        except OSError:  # Somebody put something else in its place, which is theirs.
            labels = np.zeros((record["height"], record["width"]), np.uint8)
        write_yolo(out, record["name"], photo, yolo_text(labels).encode())
        record = {**record, "outlines": outlines_of(labels)}
    return record


def is_rejected(record: dict[str, Any], decided: Mapping[str, Choice]) -> bool:
    """Tell whether somebody decided that the photo is left out."""
    choice = decided.get(record["name"])
    return choice is not None and choice.kind == "reject"


def coco_data_set(records: list[dict[str, Any]], maker: Maker) -> dict[str, Any]:
    """Return the records as COCO instances."""
    images = [
        CocoImage(
            f"JPEGImages/{record['name']}.jpg",
            (record["height"], record["width"]),
            [Region(**region) for region in record["regions"]],
        )
        for record in records
    ]
    categories = {label_of(index): name for index, name in enumerate(maker.classes)}
    return coco_document(images, categories, maker.provenance)


def review_row(record: dict[str, Any], decided: Mapping[str, Choice]) -> list[str]:
    """Return a record as a row of review.csv."""
    quality = record["quality"]
    signs = [quality[name] for name in ("estimate", "agreement", "consistency", "margin")]
    found = ";".join(region["class_name"] for region in record["regions"])
    shown = ["" if sign is None else f"{sign:.4f}" for sign in signs]
    choice = decided.get(record["name"])
    return [as_cell(record["name"]), *shown, found, ";".join(record["tags"] or ()), choice.kind if choice else ""]


def files_of(out: Path, name: str) -> tuple[Path, Path, Path, Path]:
    """Return where a photo's copy, label map, overlay and record are."""
    return (
        out / "JPEGImages" / f"{name}.jpg",
        out / "SegmentationClass" / f"{name}.png",
        out / "overlays" / f"{name}.jpg",
        out / "records" / f"{name}.json",
    )


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Say what keeps a data set from being written: no room, no right, a file in the way. Raises DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(refusal(error, out)) from None


def write_csv(path: Path, header: tuple[str, ...], rows: list[Any]) -> None:
    """Write a table."""
    table = io.StringIO(newline="")
    csv.writer(table).writerows([header, *rows])
    write_whole(path, table.getvalue())
