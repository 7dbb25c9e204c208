"""Label Studio's JSON export gives the newest annotation of every task, of brushes and polygons.

A task names its photo by an address; the photo is the one whose name ends it, Label Studio's eight digits of an upload
taken off. An annotation without a region says that nothing is there. The draft is the task's prediction, where the export
holds it; `tag2mask`'s say which model made them (`deeplab/5@sha256:...`).
"""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from app.inference.errors import DataError
from app.inference.files.file_names import normalized
from app.inference.files.tags import name_of
from app.inference.label_maps.brush import decode_brush
from app.inference.label_maps.corrections import Correction
from app.inference.labels import BACKGROUND
from training.data import TaggedPhotos
from training.masks.corrections.drawn import Drawn, Row, known_label, known_photo
from training.masks.ground_truth import draw_region

UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # Label Studio puts this before the name of an uploaded file.
BRUSHES, POLYGONS = ("brushlabels", "brush"), ("polygonlabels", "polygon")
Task = Mapping[str, Any]


def rows_of_label_studio_file(path: Path, photos: TaggedPhotos) -> list[Row]:
    """Return the annotated tasks of an export. Raises DataError."""
    try:
        tasks = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not JSON ({error}). Export the project as JSON.") from None
    return rows_of_tasks(tasks, path.name, photos)


def rows_of_tasks(tasks: Any, source: str, photos: TaggedPhotos) -> list[Row]:
    """Return the annotated ones of these tasks; `source` is named in messages. Raises DataError."""
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise DataError(
            f"{source} is no export of Label Studio: a list of tasks. Export the project as JSON, not JSON-MIN."
        )
    annotated = [(task, annotation) for task in tasks if (annotation := newest_annotation(task)) is not None]
    return [
        partial(read_one, task, annotation, f"{source} task {task.get('id')}", photos) for task, annotation in annotated
    ]


def read_one(task: Task, annotation: Task, where: str, photos: TaggedPhotos) -> Drawn:
    """Return what an annotation shows. Raises DataError."""
    try:
        return drawn_in(task, annotation, where, photos)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(
            f"{where}: it is not as Label Studio exports tasks ({type(error).__name__}: {error}). Export it anew."
        ) from None


def newest_annotation(task: Task) -> Task | None:
    """Return the annotation that was changed last; None where nobody finished one."""
    entries = [entry for entry in task.get("annotations") or () if isinstance(entry, dict)]
    finished = [entry for entry in entries if not entry.get("was_cancelled")]
    return max(finished, key=lambda entry: str(entry.get("updated_at") or entry.get("created_at") or ""), default=None)


def drawn_in(task: Task, annotation: Task, where: str, photos: TaggedPhotos) -> Drawn:
    """Return what an annotation shows, and what the draft showed that it was made of."""
    photo = photo_of(task, where, photos)
    size = photos.size(photo)
    mask = draw(annotation["result"], size, where, photos)
    predictions = [entry for entry in task.get("predictions") or () if isinstance(entry, dict)]
    parent = annotation.get("parent_prediction")
    draft = next((entry for entry in predictions if entry.get("id") == parent), None) or next(iter(predictions), None)
    model, _, checksum = str((draft or {}).get("model_version") or "").partition("@sha256:")
    who = annotation.get("completed_by")
    made_by = (
        who.get("email") or f"user {who.get('id')}" if isinstance(who, dict) else "" if who is None else f"user {who}"
    )
    made_at = str(annotation.get("updated_at") or annotation.get("created_at") or "")
    before = draw(draft["result"], size, f"{where}, its prediction", photos) if draft and "result" in draft else None
    correction = Correction(photo, str(made_by), model, checksum, made_at=made_at, source="label-studio")
    return Drawn(where, mask, correction, before)


def photo_of(task: Task, where: str, photos: TaggedPhotos) -> str:
    """Return the photo that the task's data name by an address. Raises DataError where the data have none of them."""
    addresses = [value for value in task["data"].values() if isinstance(value, str) and value]
    written = []
    for address in addresses:
        parts = urlsplit(address)
        file = parse_qs(parts.query).get("d", [unquote(parts.path)])[0]
        name = normalized(name_of(PurePosixPath(file).name))
        written.append(name)
        for candidate in (name, UPLOADED.sub("", name)):
            if candidate in photos.tag_table:
                return candidate
    return known_photo(addresses[0] if addresses else "", written[0] if written else "", photos, where)


def draw(result: list[dict[str, Any]], size: tuple[int, int], where: str, photos: TaggedPhotos) -> np.ndarray:
    """Return the regions of a result as a mask, uint8 (H, W); later ones lie on top. Raises DataError."""
    mask = np.full(size, BACKGROUND, np.uint8)
    named = {entry["id"]: entry["value"]["labels"][0] for entry in result if entry["type"] == "labels"}
    for entry in result:
        kind = entry["type"]
        if kind not in (*BRUSHES, *POLYGONS):
            continue
        if entry.get("item_index"):
            raise DataError(f"{where}: it has several photos; give each a task of its own.")
        if entry.get("image_rotation"):
            raise DataError(f"{where}: the photo was turned by {entry['image_rotation']} degrees; draw on it upright.")
        height, width = entry["original_height"], entry["original_width"]
        if (height, width) != size:
            turned = " It is stored turned: draw on the upright photo." if (width, height) == size else ""
            raise DataError(
                f"{where}: it was drawn on a photo of {width} x {height} pixels, and the data's has {size[1]} x {size[0]} "
                f"(width x height).{turned}"
            )
        value = entry["value"]
        class_name = value[kind][0] if kind in value else named[entry["id"]]
        region = (
            decode_brush(value["rle"], height, width) if kind in BRUSHES else polygon(value["points"], height, width)
        )
        mask[region] = known_label(class_name, photos, where)
    return mask


def polygon(points: list[list[float]], height: int, width: int) -> np.ndarray:
    """Return the pixels of a polygon whose corners are in percent of width and height, bool (H, W)."""
    corners = np.asarray(points, float) * [width / 100, height / 100]
    return draw_region({"id": "polygon", "segmentation": [corners.ravel().tolist()]}, height, width)
