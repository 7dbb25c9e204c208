"""`python -m app label`: a folder of photos -> a data set with masks, and a list of what to look at first.

OUT/JPEGImages/NAME.jpg           the photo, upright
OUT/SegmentationClass/NAME.png    its label map, indexed, PASCAL VOC's palette; 255 is "ignore"
OUT/ImageSets/Segmentation/train.txt, classes.txt
OUT/annotations.json              the same as COCO instances, one per class and photo, regions as run lengths
OUT/overlays/NAME.jpg             the label map over the photo
OUT/review.csv                    every photo with its estimated quality (`app.quality`), worst first
OUT/refused.csv                   photos that could not be labelled, and why
OUT/records/NAME.json, label.json what is done and by which models: the same command goes on where it stopped

What was made of a photo that is no longer there is removed.
"""

import csv
import io
import json
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from app import encode
from app.decode import Photo, decode
from app.errors import DataError, Tag2MaskError
from app.label_tasks import Task, check_tags, find_photos
from app.labellers import SHOWN_SIDE, Labelled, Labeller, ServerGoneError
from app.labels import label_of
from app.preprocess import resize_image
from app.quality import Quality, quality_of
from app.regions import coco_annotation, regions_of
from app.schemas import Region
from app.tags import read_tags

JPEG_QUALITY = 95
REVIEW = ("name", "quality", "agreement", "consistency", "margin", "found", "tags")


def label_folder(
    photos: Path, out: Path, labeller: Labeller, tags: Path | None = None, workers: int = 1
) -> tuple[str, bool]:
    """Label every photo under `photos` into `out`; returns what was done, and whether every photo could be labelled.

    What is done already is left as it is, unless the photo or its tags have changed; the files of photos that are gone are
    removed. Raises DataError for a folder without photos, tags that are no classes, or an `out` that was made otherwise.
    """
    tasks = find_photos(photos, out, None if tags is None else read_tags(tags))
    check_tags(tasks, labeller.classes)
    check_settings(out, labeller, tagged=tags is not None)
    gone = find_gone(photos, out, tasks)
    todo = [task for task in tasks if not is_done(out, task)]
    refused: dict[str, str] = {}
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(tasks), initial=len(tasks) - len(todo), unit="photo") as bar,
    ):
        for task, error in finish(pool, todo, out, labeller, 2 * workers):
            if error is not None:
                refused[str(task.path)] = str(error)
            bar.update()
    for path in (path for name in gone for path in files_of(out, name)):
        path.unlink(missing_ok=True)
    write_data_set(out, tasks, labeller)
    write_csv(out / "refused.csv", ("photo", "reason"), sorted(refused.items()))
    done = len(tasks) - len(refused)
    lines = [f"{done} of {len(tasks)} photos labelled into {out}; review.csv lists them, worst first"]
    if gone:
        lines.append(f"removed from {out}, being no longer in {photos}: {len(gone)}")
    lines += [f"refused {photo}: {reason}" for photo, reason in sorted(refused.items())]
    return "\n".join(lines), not refused


def find_gone(photos: Path, out: Path, tasks: list[Task]) -> list[str]:
    """The names that have a record and no photo any more.

    Raises DataError where no record has its photo: then it is PHOTOS, or --out, that is mistaken.
    """
    names = {task.name for task in tasks}
    paths = sorted((out / "records").glob("*.json"))
    gone = [path.stem for path in paths if path.stem not in names and is_record(path)]
    if gone and not any(path.stem in names for path in paths):
        raise DataError(
            f"{out} holds the labels of {len(gone)} photos (first: {gone[0]}), none of which is in {photos}; choose another "
            f"--out, or delete this one"
        )
    return gone


def is_record(path: Path) -> bool:
    """Whether this command wrote the file."""
    try:
        record = json.loads(path.read_text())
    except ValueError:
        return False
    return isinstance(record, dict) and record.get("name") == path.stem and "stamp" in record


def is_done(out: Path, task: Task) -> bool:
    """Whether the photo, as it is now and with these tags, has a record."""
    path = record_path(out, task)
    if not path.is_file():
        return False
    record = json.loads(path.read_text())
    tags = None if task.tags is None else list(task.tags)
    return record["tags"] == tags and record["stamp"] == stamp_of(task)


def stamp_of(task: Task) -> list[int]:
    """What the photo's file looks like from outside."""
    status = task.path.stat()
    return [status.st_size, status.st_mtime_ns]


def check_settings(out: Path, labeller: Labeller, tagged: bool) -> None:
    """Note what labels the folder. Raises DataError where it was begun with something else."""
    settings = {**labeller.provenance, "classes": list(labeller.classes), "tagged": tagged}
    path = out / "label.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise DataError(f"{out} was begun with other models or parameters ({path} says which); choose another --out")
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "overlays", "records"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    write(path, json.dumps(settings, indent=1).encode())


def finish(
    pool: ThreadPoolExecutor, todo: list[Task], out: Path, labeller: Labeller, ahead: int
) -> Iterator[tuple[Task, Tag2MaskError | None]]:
    """(task, why it was refused) as photos are done, a few ahead of each other. Raises ServerGoneError."""
    waiting: dict[Future[None], Task] = {}
    tasks = iter(todo)
    while True:
        for task in islice(tasks, ahead - len(waiting)):
            waiting[pool.submit(label_photo, task, out, labeller)] = task
        if not waiting:
            return
        done, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            task = waiting.pop(future)
            try:
                future.result()
            except ServerGoneError:
                for other in waiting:
                    other.cancel()
                raise
            except (Tag2MaskError, OSError) as error:
                yield task, error if isinstance(error, Tag2MaskError) else DataError(str(error))
            else:
                yield task, None


def label_photo(task: Task, out: Path, labeller: Labeller) -> None:
    """Label one photo and write its files, its record last: what has a record is whole."""
    stamp, data = stamp_of(task), task.path.read_bytes()
    result = labeller.label(data, task.tags)
    photo, label = result.photo, result.label_map if result.mask is None else result.mask
    quality = estimate(result, label, task, labeller.classes)
    copy, mask, shown, written = files_of(out, task.name)
    as_it_is = photo.kind == "JPEG" and photo.upright
    write(copy, data if as_it_is else encode.to_jpeg(whole_image(photo, data), JPEG_QUALITY))
    write(mask, encode.mask_to_png(label))
    write(shown, overlay(photo, label))
    scores = {label_of(index): float(score) for index, score in enumerate(result.scores)}
    regions = regions_of(labeller.classes, label, scores)
    record = {
        "name": task.name,
        "photo": str(task.path),
        "stamp": stamp,
        "width": photo.width,
        "height": photo.height,
        "tags": task.tags,
        "quality": {"estimate": quality.estimate, **vars(quality)},
        "regions": [region.model_dump(by_alias=False) for region in regions],
    }
    write(written, json.dumps(record).encode())


def whole_image(photo: Photo, data: bytes) -> np.ndarray:
    """The photo at its own size, uint8 (H, W, 3): it may have been decoded at reduced size."""
    return photo.image if photo.image.shape[:2] == (photo.height, photo.width) else decode(data).image


def estimate(result: Labelled, label: np.ndarray, task: Task, classes: tuple[str, ...]) -> Quality:
    """The quality of a label: against the pseudo-label as a second opinion, and the tags, or the scores."""
    known = result.present if task.tags is None else [classes.index(tag) for tag in task.tags]
    other = None if result.mask is None else result.label_map
    return quality_of(label, other, result.probabilities, frozenset(label_of(index) for index in known))


def overlay(photo: Photo, label: np.ndarray) -> bytes:
    """The label map over the photo, no side longer than `SHOWN_SIDE`."""
    factor = min(1.0, SHOWN_SIDE / max(label.shape))
    height, width = (max(1, round(side * factor)) for side in label.shape)
    small = np.asarray(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST))
    return encode.mask_to_overlay(small, resize_image(photo.image, height, width))


def write_data_set(out: Path, tasks: list[Task], labeller: Labeller) -> None:
    """The list, the COCO file and the review of all photos that have a record."""
    records = [json.loads(record_path(out, task).read_text()) for task in tasks if record_path(out, task).is_file()]
    write(out / "classes.txt", "".join(f"{name}\n" for name in labeller.classes).encode())
    names = "".join(f"{record['name']}\n" for record in records)
    write(out / "ImageSets" / "Segmentation" / "train.txt", names.encode())
    write(out / "annotations.json", json.dumps(coco_data_set(records, labeller)).encode())
    rows = [review_row(record) for record in sorted(records, key=lambda record: record["quality"]["estimate"])]
    write_csv(out / "review.csv", REVIEW, rows)


def coco_data_set(records: list[dict[str, Any]], labeller: Labeller) -> dict[str, Any]:
    """COCO instances of the records, ids from 1."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(records, 1):
        size = {"height": record["height"], "width": record["width"]}
        images.append({"id": number, "file_name": f"JPEGImages/{record['name']}.jpg", **size})
        for region in record["regions"]:
            annotations.append(coco_annotation(Region(**region), len(annotations) + 1, number))
    categories = [{"id": label_of(index), "name": name} for index, name in enumerate(labeller.classes)]
    return {"info": labeller.provenance, "images": images, "annotations": annotations, "categories": categories}


def review_row(record: dict[str, Any]) -> list[str]:
    """A record as a row of review.csv."""
    quality = record["quality"]
    signs = [quality[name] for name in ("estimate", "agreement", "consistency", "margin")]
    found = ";".join(region["class_name"] for region in record["regions"])
    shown = ["" if sign is None else f"{sign:.4f}" for sign in signs]
    return [record["name"], *shown, found, ";".join(record["tags"] or ())]


def files_of(out: Path, name: str) -> tuple[Path, Path, Path, Path]:
    """Where a photo's copy, label map, overlay and record are."""
    return (
        out / "JPEGImages" / f"{name}.jpg",
        out / "SegmentationClass" / f"{name}.png",
        out / "overlays" / f"{name}.jpg",
        out / "records" / f"{name}.json",
    )


def record_path(out: Path, task: Task) -> Path:
    """Where a photo's record is."""
    return files_of(out, task.name)[-1]


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def write_csv(path: Path, header: tuple[str, ...], rows: list[Any]) -> None:
    """Write a table."""
    table = io.StringIO(newline="")
    csv.writer(table).writerows([header, *rows])
    write(path, table.getvalue().encode())
