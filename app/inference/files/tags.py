"""`labels.csv` holds the tags of a folder's photos, as training and `python -m app label` read them.

    name,classes          one row per photo, the name with or without its suffix
    photo1,dog person     classes are separated by spaces

Where a `classes` field anywhere in the file holds a semicolon (or, quoted, a comma), that character separates the classes of
the whole file, so that names may hold spaces: `photo1,traffic light;bus`. Several rows of one photo add up. Rows are counted
as lines of the file, the header being row 1.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from app.inference.errors import DataError
from app.inference.files.file_names import normalized

EXAMPLE = "name,classes\nphoto1,dog person"
PHOTO_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"),
    *(".tif", ".tiff", ".bmp", ".heic", ".heif", ".hif"),
)


def name_of(written: str) -> str:
    """Return a photo's name: as written, without a photo's suffix."""
    stem, dot, suffix = written.rpartition(".")
    return stem if dot + suffix.lower() in PHOTO_SUFFIXES else written


def read_tags(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the tags for each photo's name. Raises DataError where the file is not such a list."""
    columns, lines = read_rows(path)
    tags: dict[str, tuple[str, ...]] = {}
    for number, cells, row_tags in lines:
        if surplus := surplus_of(cells, columns):
            remedy = "Separate classes by spaces or ';', or quote the field."
            raise DataError(f"{path} row {number} ({cells[0]!r}) has {surplus}. {remedy}")
        name = name_of(normalized(cells[0].strip()))
        tags[name] = tuple(dict.fromkeys(tags.get(name, ()) + row_tags))
    return tags


def read_rows(path: Path) -> tuple[int, list[tuple[int, list[str], tuple[str, ...]]]]:
    """Return the columns of the header; line number, cells and tags of every row below it. Raises DataError."""
    lines = list(csv_rows(path))
    if not lines or [cell.strip().lower() for cell in lines[0][1]][:2] != ["name", "classes"]:
        found = ",".join(lines[0][1]) if lines else "nothing"
        raise DataError(
            f"{path}: the first row must be 'name,classes', found {found!r}. Write it like this:\n{EXAMPLE}"
        )
    separator = separator_of(cells[1] for _, cells in lines[1:] if len(cells) > 1)
    rows = []
    for number, cells in lines[1:]:
        fields = cells[1].split(separator) if len(cells) > 1 else []
        tags = tuple(dict.fromkeys(normalized(" ".join(tag.split())) for tag in fields if tag.strip()))
        rows.append((number, cells, tags))
    return len(lines[0][1]), rows


def surplus_of(cells: list[str], columns: int) -> str | None:
    """Return what is wrong with a row that holds more than the header has columns for; None where nothing is."""
    surplus = any(cell.strip() for cell in cells[columns:])
    return f"{len(cells)} fields where the header has {columns}" if surplus else None


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and cells of every row that is not blank."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, cells
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist: it gives the tags of every photo. Write it like this:\n{EXAMPLE}"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). It is to be a file of CSV text.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} is not CSV text in UTF-8 ({error}). Save it as 'CSV UTF-8', comma separated."
        ) from None


def separator_of(fields: Iterator[str]) -> str | None:
    """Return what separates the classes of a file: ';' or ',' where a field holds one, else any white space."""
    text = "\n".join(fields)
    return next((separator for separator in ";," if separator in text), None)
