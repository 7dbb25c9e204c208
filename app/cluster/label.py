"""`label --engine ray` makes a data set with masks of a folder, a prefix of an object store or Parquet files, on a Ray cluster.

A folder becomes what `app.batch.folder` makes of it, to the byte. Of an object store or Parquet files, which may be of any size,
each photo has the same files, and the lists are those that can be written without holding all records:

OUT/JPEGImages/NAME.jpg, SegmentationClass/NAME.png, overlays/NAME.jpg, yolo/, records/NAME.json, label.json
OUT/ImageSets/Segmentation/train.txt, classes.txt, refused.csv
"""

import csv
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from app.batch.folder import label_all, noted_settings
from app.batch.photos import meant_tags
from app.cluster.places import Place, is_address, place_of
from app.cluster.sources import Unit, parquet_files, row_groups, stored_files
from app.cluster.workers import RayCrew
from app.http.request.parameters import AnalyzeParameters
from app.inference.errors import DataError
from app.inference.files.tags import read_tags
from app.inference.files.whole_file import refusal
from app.runtime.settings import Settings

TOLD = 20  # The command names this many refused photos; refused.csv names all.


@dataclass
class Counts:
    """They count what was found and done. refused: (photo, reason)."""

    found: int = 0
    labelled: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)


def label_by_ray(
    photos: str,
    out: str,
    settings: Settings,
    parameters: AnalyzeParameters,
    *,
    tags: Path | None,
    prune: bool,
    choices: Path | None,
    skip: bool,
) -> tuple[str, bool]:
    """Label photos into `out`; returns what was done, and whether every photo could be labelled. Raises Tag2MaskError."""
    crew = RayCrew(settings, parameters)
    if not is_address(photos) and Path(photos).is_dir() and not parquet_files(photos):
        if is_address(out):
            raise DataError(f"--out {out}: the labels of a folder go into a folder; name one that all nodes see")
        return label_all(Path(photos), Path(out), crew, crew, tags, prune, choices, skip)
    if prune or choices:
        raise DataError(f"--prune and --choices are for a folder of photos; {photos} is none")
    return label_stored(photos, out, crew, tags, skip)


def label_stored(photos: str, out: str, crew: RayCrew, tags: Path | None, skip: bool) -> tuple[str, bool]:
    """Label the photos of an object store or of Parquet files."""
    place, counts = place_of(out), Counts()
    units = list(units_of(photos, crew, tags, skip, counts))
    if not units:
        raise DataError(f"{photos} holds no photo; name a folder, a prefix of an object store, or Parquet files")
    try:
        place.write("label.json", noted_settings(out, noted(place), crew, tags is not None).encode())
        with tempfile.TemporaryFile("w+", encoding="utf-8") as names, tqdm(total=counts.found, unit="photo") as bar:
            for outcome in crew.outcomes(units, out):
                bar.update()
                if outcome.refused is None:
                    names.write(f"{outcome.name}\n")
                    counts.labelled += 1
                else:
                    counts.refused.append((outcome.shown, outcome.refused))
            names.seek(0)
            place.write("ImageSets/Segmentation/train.txt", names.read().encode())
        place.write("classes.txt", "".join(f"{name}\n" for name in crew.classes).encode())
        place.write("refused.csv", refused_table(counts.refused).encode())
    except OSError as error:
        raise DataError(refusal(error, out)) from None
    total = counts.labelled + len(counts.refused)
    lines = [f"{counts.labelled} of {total} photos labelled into {out}"]
    lines += [f"refused {photo}: {reason}" for photo, reason in sorted(counts.refused)[:TOLD]]
    lines += [f"{len(counts.refused)} were refused; {out}/refused.csv names all"] * (len(counts.refused) > TOLD)
    return "\n".join(lines), not counts.refused


def units_of(photos: str, crew: RayCrew, tags: Path | None, skip: bool, counts: Counts) -> Iterator[Unit]:
    """Yield the work that a source holds, and count its photos. Raises DataError."""
    try:
        if paths := parquet_files(photos):
            if tags is not None:
                raise DataError("--tags is for photos in files; those of Parquet have a column `tags`")
            for group, count in row_groups(photos, paths):
                counts.found += count
                yield group
            return
        if not is_address(photos):
            raise DataError(f"there is no folder {photos}; name the one that holds the photos")
        known = None if tags is None else read_tags(tags)
        for file in stored_files(photos, known, lambda photo, reason: counts.refused.append((photo, reason))):
            try:
                meant_tags(file.tags, crew.classes)
            except DataError as error:
                if not skip:
                    raise DataError(
                        f"{file.path}: {error}. Correct it, or leave such photos out with --on-error skip."
                    ) from None
            counts.found += 1
            yield file
    except OSError as error:
        raise DataError(f"{photos} cannot be listed ({error.strerror or error})") from None


def noted(place: Place) -> str | None:
    """Return the label.json of a place; None where there is none."""
    try:
        return place.read("label.json").decode("utf-8", "replace")
    except FileNotFoundError:
        return None


def refused_table(refused: list[tuple[str, str]]) -> str:
    """Return refused.csv."""
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("photo", "reason"), *sorted(refused)])
    return table.getvalue()
