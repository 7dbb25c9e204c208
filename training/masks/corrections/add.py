"""The verb `corrections add` checks masks drawn in another tool against their photos and puts them into a folder of corrections.

What a source is, is told by its form: a folder with SegmentationClass/ (VOC's devkit, CVAT's "Segmentation mask"), a COCO
file or a folder with one in annotations/, Label Studio's JSON export, or the choices.csv of `review.html`.
"""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from app.inference.errors import DataError
from app.inference.files.choices import FILE as CHOICES
from app.inference.files.choices import HEADER, Choice, read_choices
from app.inference.files.whole_file import write_whole
from app.inference.label_maps.corrections import (
    LIST,
    Correction,
    changed_pixels,
    check_mask,
    read_corrections,
    write_correction,
)
from training.data import TaggedPhotos
from training.masks.corrections.coco_file import rows_of_coco_file
from training.masks.corrections.drawn import Drawn, Row, known_label, known_photo
from training.masks.corrections.label_studio_file import rows_of_label_studio_file
from training.masks.corrections.voc_folder import MASKS, rows_of_voc_folder
from training.masks.ground_truth import read_mask

LABELLED = "label.json"  # `python -m app label` notes here which models made a folder's masks.
EXAMPLES = "a folder with SegmentationClass/, a COCO file, Label Studio's JSON export, or choices.csv"


def rows_there(folder: Path) -> Mapping[str, Correction]:
    """Return the last row of each photo that a folder of corrections has, by its name; nothing where there is no such folder."""
    return read_corrections(folder).rows if (folder / LIST).is_file() else {}


def add_corrections(
    source: Path, photos: TaggedPhotos, folder: Path, made_by: str = "", drafts: Path | None = None, skip: bool = False
) -> str:
    """Put what a source holds into a folder of corrections; returns what was done, in sentences.

    All of it is checked before any is written. A mask that equals its draft was not corrected and is left out, and so is one
    of which the folder's list says the same, its time included. `drafts` is a folder that `python -m app label` wrote: what
    the masks looked like before. With `skip` a mask that cannot be used is left out and named, else it ends the work.
    Raises DataError.
    """
    if source.suffix.lower() == ".csv":
        return add_choices(source, photos, folder)
    there = set(rows_there(folder).values())
    usable, known, unchanged, refused = [], 0, 0, []
    for row in rows_of(source, photos):
        try:
            correction = correction_of(checked(row(), photos), drafts, made_by)
        except DataError as error:
            if not skip:
                raise
            refused.append(f"refused: {error}")
            continue
        if correction.pixels_changed == 0:
            unchanged += 1
        elif correction.made_at and correction in there:
            known += 1
        else:
            usable.append(row)
    for row in usable:  # Masks are read again: thousands of them need not fit into memory.
        drawn = row()
        correction = correction_of(drawn, drafts, made_by)
        write_correction(folder, drawn.mask, photos.size(correction.photo), photos.classes, correction)
    lines = [f"{len(usable)} corrected masks were put into {folder}"]
    if known:
        lines.append(f"{known} masks were there already")
    if unchanged:
        lines.append(f"{unchanged} masks are as their drafts were, and were left out")
    return "\n".join([*lines, *refused])


def rows_of(source: Path, photos: TaggedPhotos) -> list[Row]:
    """Return the masks of a source, whatever its form. Raises DataError."""
    if (source / MASKS).is_dir():
        return rows_of_voc_folder(source, photos)
    if source.is_dir():
        files = sorted({*source.glob("annotations/*.json"), *source.glob("*.json")})
        if len(files) != 1:
            raise DataError(f"{source} holds {len(files)} JSON files; name the one that is meant, or {EXAMPLES}")
        source = files[0]
    if not source.is_file():
        raise DataError(f"there is no {source}; name {EXAMPLES}")
    try:
        is_coco = isinstance(json.loads(source.read_bytes()), dict)
    except (ValueError, OSError) as error:
        raise DataError(f"{source} is not JSON ({error}); name {EXAMPLES}") from None
    return rows_of_coco_file(source, photos) if is_coco else rows_of_label_studio_file(source, photos)


def checked(drawn: Drawn, photos: TaggedPhotos) -> Drawn:
    """Return what was drawn. Raises DataError where it does not fit its photo and the classes."""
    check_mask(drawn.mask, photos.size(drawn.correction.photo), photos.classes, drawn.where)
    return drawn


def correction_of(drawn: Drawn, drafts: Path | None, made_by: str) -> Correction:
    """Return a mask's provenance, with how far it is from its draft, where that is known."""
    correction = replace(drawn.correction, made_by=drawn.correction.made_by or made_by)
    draft = drawn.draft
    if draft is None and drafts is not None:
        draft = draft_in(drafts, correction.photo)
        if draft is not None:
            model, checksum = model_of(drafts)
            correction = replace(correction, draft_model=model, draft_checksum=checksum)
    if draft is None or draft.shape != drawn.mask.shape:
        return correction
    return replace(correction, pixels_changed=changed_pixels(draft, drawn.mask))


def draft_in(drafts: Path, photo: str) -> np.ndarray | None:
    """Return the mask that a labelled folder holds of a photo; None where it holds none."""
    path = drafts / MASKS / f"{photo}.png"
    return read_mask(path) if path.is_file() else None


def model_of(drafts: Path) -> tuple[str, str]:
    """Return the model that made a labelled folder's masks, NAME/VERSION, and its checksum; empty where it is not noted."""
    try:
        models = json.loads((drafts / LABELLED).read_text(encoding="utf-8"))["models"]
        return list(models.items())[-1]  # The segmenter stands last.
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return "", ""


def add_choices(source: Path, photos: TaggedPhotos, folder: Path) -> str:
    """Put the choices of a review into the folder's choices.csv: tags that hold instead, photos that are left out.

    Raises DataError for a photo or a class that the data does not have.
    """
    choices = read_choices(source)
    for name, choice in choices.items():
        where = f"{source} ({name!r})"
        known_photo(name, name, photos, where)
        for tag in choice.tags:
            known_label(tag, photos, where)
    path = folder / CHOICES
    before = read_choices(path) if path.is_file() else {}
    write_whole(path, table_of(before | choices))
    return f"{len(choices)} choices were put into {path}; --set data.choices={path} trains by them"


def table_of(choices: dict[str, Choice]) -> str:
    """Return choices as the text of a choices.csv."""
    text = io.StringIO(newline="")
    rows = [(name, choice.kind, ";".join(choice.tags)) for name, choice in choices.items()]
    csv.writer(text).writerows([HEADER, *rows])
    return text.getvalue()
