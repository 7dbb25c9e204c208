"""`python -m app label`: a folder of photos -> a data set with masks, and a list of what to look at first.

OUT/JPEGImages/NAME.jpg           the photo, upright
OUT/SegmentationClass/NAME.png    its label map, indexed, PASCAL VOC's palette; 255 is "ignore"
OUT/ImageSets/Segmentation/train.txt, classes.txt
OUT/annotations.json              the same as COCO instances, one per class and photo, regions as run lengths
OUT/overlays/NAME.jpg             the label map over the photo
OUT/review.csv                    every photo with its estimated quality (`app.quality`), worst first
OUT/refused.csv                   photos that could not be labelled, and why
OUT/records/NAME.json, label.json what is done and by which models: the same command goes on where it stopped
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from app import encode
from app.decode import Photo, decode
from app.errors import DataError, Tag2MaskError, UnknownClassError
from app.labellers import Labelled, Labeller, ServerGoneError
from app.labels import label_of
from app.preprocess import resize_image
from app.quality import Quality, quality_of
from app.regions import coco_annotation, regions_of
from app.schemas import Region
from app.tags import PHOTO_SUFFIXES, read_tags

JPEG_QUALITY = 95
SHOWN_SIDE = 640  # px of an overlay
REVIEW = ("name", "quality", "agreement", "consistency", "margin", "found", "tags")


@dataclass(frozen=True)
class Task:
    """One photo to label."""

    name: str
    path: Path
    tags: tuple[str, ...] | None


def label_folder(
    photos: Path, out: Path, labeller: Labeller, tags: Path | None = None, workers: int = 1
) -> tuple[str, bool]:
    """Label every photo under `photos` into `out`; returns what was done, and whether every photo could be labelled.

    What is done already is left as it is, unless the photo or its tags have changed. Raises DataError for a folder without
    photos, tags that are no classes, or an `out` that was made otherwise.
    """
    tasks = find_photos(photos, out, None if tags is None else read_tags(tags))
    check_tags(tasks, labeller.classes)
    check_settings(out, labeller, tagged=tags is not None)
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
    write_data_set(out, tasks, labeller)
    write_csv(out / "refused.csv", ("photo", "reason"), sorted(refused.items()))
    done = len(tasks) - len(refused)
    lines = [f"{done} of {len(tasks)} photos labelled into {out}; review.csv lists them, worst first"]
    lines += [f"refused {photo}: {reason}" for photo, reason in sorted(refused.items())]
    return "\n".join(lines), not refused


def find_photos(photos: Path, out: Path, tags: dict[str, tuple[str, ...]] | None) -> list[Task]:
    """Every JPEG, PNG and WebP file under `photos`, sorted; a name is the path below it with "/" written as "__".

    Raises DataError where there is none, two share a name, or tags are given and a photo has none.
    """
    if not photos.is_dir():
        raise DataError(f"there is no folder {photos}; name the one that holds the photos")
    inside = out.resolve()
    if inside == photos.resolve() or inside in photos.resolve().parents:
        raise DataError(f"--out {out} is the folder of the photos, or holds it; give the data set a folder of its own")
    paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file())
    paths = [path for path in paths if inside not in path.resolve().parents]
    if not paths:
        raise DataError(f"{photos} holds no photo ({', '.join(PHOTO_SUFFIXES)})")
    stems = Counter(path.stem for path in paths)
    tasks: dict[str, Task] = {}
    for path in paths:
        name = "__".join(path.relative_to(photos).with_suffix("").parts)
        if name in tasks:
            raise DataError(f"{path} and {tasks[name].path} would share the name {name!r}; rename one of them")
        row = None if tags is None else tags_of(name, path.stem, stems[path.stem] == 1, tags)
        tasks[name] = Task(name, path, row)
    untagged = [task.name for task in tasks.values() if task.tags is None]
    if tags is not None and untagged:
        raise DataError(
            f"{len(untagged)} of {len(tasks)} photos have no row in the tags (first: {untagged[0]}); add them by that name, or "
            f"label the folder without --tags"
        )
    return list(tasks.values())


def tags_of(name: str, stem: str, unique: bool, tags: dict[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """The tags of a photo by its path below the folder, by that path as its name, or by a file name no other photo has."""
    for written in (name.replace("__", "/"), name, *([stem] if unique else ())):
        if written in tags:
            return tags[written]
    return None


def check_tags(tasks: list[Task], classes: tuple[str, ...]) -> None:
    """Raise UnknownClassError for a tag that is none of the model's classes."""
    for task in tasks:
        for tag in task.tags or ():
            if tag not in classes:
                raise UnknownClassError(tag, classes, "tags")


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
    photo = decode(data)
    result = labeller.label(data, task.tags)
    label = result.label_map if result.mask is None else result.mask
    quality = estimate(result, label, task, labeller.classes)
    as_it_is = photo.kind == "JPEG" and photo.upright
    write(out / "JPEGImages" / f"{task.name}.jpg", data if as_it_is else encode.to_jpeg(photo.image, JPEG_QUALITY))
    write(out / "SegmentationClass" / f"{task.name}.png", encode.mask_to_png(label))
    write(out / "overlays" / f"{task.name}.jpg", overlay(photo, label))
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
    write(record_path(out, task), json.dumps(record).encode())


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


def record_path(out: Path, task: Task) -> Path:
    """Where a photo's record is."""
    return out / "records" / f"{task.name}.json"


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
