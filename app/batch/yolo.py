"""Masks are written as YOLO's segmentation text, which Ultralytics and supervision read.

OUT/yolo/labels/NAME.txt    a line per region: the class's index, then the border's x and y as shares of the photo's sides
OUT/yolo/images/NAME.jpg    the photo again, as a hard link where the disk has them: YOLO looks for labels beside `images`
OUT/yolo/train.txt, data.yaml

The border is the outer one: YOLO's text knows no holes, and no region of more than one part.
"""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from app.inference.files.whole_file import whole_file, write_whole
from app.inference.label_maps.regions import count_labels, polygons_of
from app.inference.labels import BACKGROUND, IGNORE_INDEX, class_index_of

FOLDER = "yolo"


def yolo_files(out: Path, name: str) -> tuple[Path, Path]:
    """Return where a photo's text and its second name are."""
    return out / FOLDER / "labels" / f"{name}.txt", out / FOLDER / "images" / f"{name}.jpg"


def yolo_text(mask: np.ndarray) -> str:
    """Return the regions of a uint8 (H, W) mask, a line each; largest first within a class."""
    sides = np.tile(mask.shape[::-1], 1)
    lines = []
    for label, pixels in enumerate(count_labels(mask)):
        if pixels and label not in (BACKGROUND, IGNORE_INDEX):
            for polygon in polygons_of(mask == label):
                shares = (np.reshape(polygon, (-1, 2)) / sides).clip(0, 1).ravel()
                lines.append(" ".join([str(class_index_of(label)), *(f"{share:.6f}" for share in shares)]))
    return "".join(f"{line}\n" for line in lines)


def write_yolo(out: Path, name: str, photo: Path, content: bytes) -> None:
    """Write a photo's text, and give the photo its second name."""
    text, second = yolo_files(out, name)
    write_whole(text, content)
    second.parent.mkdir(parents=True, exist_ok=True)
    second.unlink(missing_ok=True)
    try:
        os.link(photo, second)
    except FileExistsError:  # Another program labels the same photo.
        pass
    except OSError:  # It is another disk, or one without links.
        with whole_file(second) as partial:
            shutil.copyfile(photo, partial)


def write_yolo_lists(out: Path, names: Iterable[str], classes: Iterable[str]) -> None:
    """Write which photos there are and what the classes are called."""
    listed = "".join(f"./images/{name}.jpg\n" for name in names)
    write_whole(out / FOLDER / "train.txt", listed)
    called = "".join(
        f"  {index}: {json.dumps(name)}\n" for index, name in enumerate(classes)
    )  # A text in JSON is the same text in YAML.
    yaml = f"# val is what YOLO asks for; name photos of your own there.\ntrain: train.txt\nval: train.txt\nnames:\n{called}"
    write_whole(out / FOLDER / "data.yaml", yaml)
