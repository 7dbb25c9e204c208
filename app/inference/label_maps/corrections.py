"""A folder of corrected masks holds what people drew over a model's drafts. The service writes it, training reads it.

    FOLDER/classes.txt       one name per line, the background first: line i, counted from 0, is label i of the masks
    FOLDER/masks/NAME.png    indexed PNG in PASCAL VOC's colours, at the size of the upright photo; 255 is "ignore"
    FOLDER/corrections.csv   photo,mask,made_by,draft_model,draft_checksum,pixels_changed,made_at,source
    FOLDER/incoming/*.json   exports of label tools that nobody has taken in yet

NAME is the photo's name in its data set, without a suffix. The list grows by a row for each saving, and the last row of a
photo holds. A mask without a row is none of the corrections: nobody knows where it comes from.
"""

import csv
import io
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from app.inference.errors import DataError, UploadError
from app.inference.files.file_names import normalized, safe_name
from app.inference.files.tags import csv_rows
from app.inference.files.whole_file import whole_file, write_whole
from app.inference.image.decode import decode_labels
from app.inference.image.encode import mask_to_png
from app.inference.labels import IGNORE_INDEX, MAX_CLASSES, class_count

CLASSES, LIST, MASKS, INCOMING = "classes.txt", "corrections.csv", "masks", "incoming"
BACKGROUND_NAME = "background"  # The first line of classes.txt reads so.
HEADER = ("photo", "mask", "made_by", "draft_model", "draft_checksum", "pixels_changed", "made_at", "source")
WRITING = threading.Lock()  # Requests of one service save one after another.


@dataclass(frozen=True)
class Correction:
    """It says where a corrected mask comes from; what is not known is empty.

    photo: its name in the data set, without a suffix. draft_model: NAME/VERSION of the model whose mask was corrected, and
    draft_checksum the SHA-256 of its file. pixels_changed: how many pixels differ from that draft. made_at: UTC, ISO 8601.
    source: what it was drawn with or read from, such as "page" or "coco".
    """

    photo: str
    made_by: str = ""
    draft_model: str = ""
    draft_checksum: str = ""
    pixels_changed: int | None = None
    made_at: str = ""
    source: str = ""


@dataclass(frozen=True)
class Corrections:
    """It lists what a folder of corrections holds. classes: without the background. rows: photo's name -> its last row."""

    folder: Path
    classes: tuple[str, ...]
    rows: Mapping[str, Correction]

    def mask(self, photo: str, size: tuple[int, int] | None = None) -> np.ndarray:
        """Return the corrected mask of a photo, uint8 (H, W), checked against these classes and, where the photo's `size`
        (height, width) is given, against it. Raises DataError.
        """
        path = mask_file(self.folder, photo)
        where = f"{self.folder / LIST} ({photo!r})"
        try:
            mask = decode_labels(path.read_bytes())
        except OSError as error:
            raise DataError(
                f"{where}: {path} cannot be read ({error.strerror}). Add the mask, or remove the row."
            ) from None
        except (UploadError, DataError) as error:
            raise DataError(f"{where}: {path} cannot be read: {error}") from None
        check_mask(mask, size or mask.shape, self.classes, where)
        return mask


def mask_file(folder: Path, photo: str) -> Path:
    """Return where the corrected mask of a photo lies."""
    return folder / MASKS / f"{photo}.png"


def changed_pixels(draft: np.ndarray, mask: np.ndarray) -> int:
    """Return how many pixels of two label maps (H, W) differ."""
    return int(np.count_nonzero(draft != mask))


def check_photo_name(photo: str) -> None:
    """Raise DataError for a name that no photo of a data set has."""
    if not photo or safe_name(photo) != photo or "/" in photo or "\\" in photo:
        raise DataError(
            f"{photo[:80]!r} is not a photo's name. Take the name of its file in the data set, without folders and suffix."
        )


def check_mask(mask: np.ndarray, size: tuple[int, ...], classes: Sequence[str], where: str) -> None:
    """Raise DataError for a mask, uint8 (H, W), of another `size` (height, width) or with a label that is no class.

    `where` begins the message. A mask that lies across its photo is said to be turned.
    """
    if mask.shape != tuple(size):
        turned = mask.shape == tuple(size)[::-1]
        remedy = (
            "The photo is stored turned: draw the mask on the upright photo."
            if turned
            else "Save it at the photo's size."
        )
        raise DataError(
            f"{where}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels, its photo {size[1]} x {size[0]} (width x "
            f"height). {remedy}"
        )
    highest = int(mask[mask != IGNORE_INDEX].max(initial=0))
    if highest > len(classes):
        raise DataError(
            f"{where}: the mask holds label {highest}, and the {len(classes)} classes have labels up to {len(classes)} "
            f"({IGNORE_INDEX} is ignore). Correct the mask, or the list of classes."
        )


def write_correction(
    folder: Path, mask: np.ndarray, size: tuple[int, int], classes: Sequence[str], correction: Correction
) -> Path:
    """Save a corrected mask, uint8 (H, W), and a row about it; returns the mask's path. A mask saved before is replaced.

    `size` (height, width) is that of the upright photo; `classes`, without the background, those of the mask's labels.
    The time is now where the correction names none. Raises DataError for a mask or a name that does not fit, and where the
    folder's masks have other classes.
    """
    check_photo_name(correction.photo)
    check_mask(mask, size, classes, f"the mask of {correction.photo!r}")
    made_at = correction.made_at or datetime.now(UTC).isoformat(timespec="seconds")
    path = mask_file(folder, correction.photo)
    with WRITING:
        _settle_classes(folder, classes)
        with whole_file(path) as partial:
            partial.write_bytes(mask_to_png(mask))
        _append(folder / LIST, replace(correction, made_at=made_at))
    return path


def _settle_classes(folder: Path, classes: Sequence[str]) -> None:
    """Write the list of classes where there is none. Raises DataError where there is another one."""
    path = folder / CLASSES
    if not path.is_file():
        write_whole(path, "".join(f"{name}\n" for name in (BACKGROUND_NAME, *classes)))
    elif (there := read_classes(path)) != tuple(classes):
        raise DataError(
            f"{path} lists {len(there)} classes ({', '.join(there[:3])}, ...), and the mask has {len(classes)} "
            f"({', '.join(list(classes)[:3])}, ...). Give masks of other classes, or in another order, a folder of their own."
        )


def _append(path: Path, correction: Correction) -> None:
    """Add a row to the list, in one write, so that no half of it is left."""
    values = asdict(correction)
    count = "" if correction.pixels_changed is None else correction.pixels_changed
    row = [{**values, "mask": f"{MASKS}/{correction.photo}.png", "pixels_changed": count}[key] for key in HEADER]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([row] if path.is_file() else [HEADER, row])
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, text.getvalue().encode())
    finally:
        os.close(descriptor)


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the classes of a classes.txt, its first line, the background, left out. Raises DataError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}): it names the labels of the masks, one a line.") from None
    names = [normalized(line.strip()) for line in lines if line.strip()]
    if not names or names[0] != BACKGROUND_NAME or not 1 <= class_count(len(names)) <= MAX_CLASSES:
        raise DataError(
            f"{path}: the first line must be {BACKGROUND_NAME!r}, and 1 to {MAX_CLASSES} classes follow, one a line; it "
            f"has {len(names)} lines."
        )
    return tuple(names[1:])


def read_corrections(folder: Path) -> Corrections:
    """Return what a folder of corrections holds; no mask is read yet. Raises DataError where it is no such folder."""
    path = folder / LIST
    if not path.is_file():
        raise DataError(
            f"{folder} is no folder of corrections: it has no {LIST}. `python -m training corrections add` makes one of "
            f"masks drawn elsewhere."
        )
    lines = list(csv_rows(path))
    if not lines or tuple(cell.strip() for cell in lines[0][1]) != HEADER:
        found = ",".join(lines[0][1]) if lines else "nothing"
        raise DataError(f"{path}: the first row must be '{','.join(HEADER)}', found {found!r}.")
    rows: dict[str, Correction] = {}
    for number, cells in lines[1:]:
        values = dict(zip(HEADER, (cell.strip() for cell in cells), strict=False))
        count = values.get("pixels_changed", "")
        if len(cells) != len(HEADER) or not (count.isdecimal() or not count):
            raise DataError(
                f"{path} row {number} ({cells[0]!r}): it must have {len(HEADER)} fields, and pixels_changed be a whole "
                f"number or empty. Correct or remove the row."
            )
        photo = normalized(values["photo"])
        check_photo_name(photo)
        known = {key: value for key, value in values.items() if key not in ("photo", "mask", "pixels_changed")}
        rows[photo] = Correction(photo, pixels_changed=int(count) if count else None, **known)
    return Corrections(folder, read_classes(folder / CLASSES), rows)
