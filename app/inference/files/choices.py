"""`choices.csv` says what somebody decided who looked through `review.html`; labelling a folder and training read it.

name,choice,classes       one row per photo, the name as in review.csv
beach,accept,             the label is good
street,retag,car;person   the photo shows these classes, separated by semicolons; none is possible
blurred,reject,           the photo is left out
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from app.inference.errors import DataError
from app.inference.files.file_names import normalized
from app.inference.files.tags import csv_rows, name_of

FILE = "choices.csv"
HEADER = ["name", "choice", "classes"]
EXAMPLE = "name,choice,classes\nbeach,retag,dog;person"
Kind = Literal["accept", "retag", "reject"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Choice:
    """It says what becomes of a photo; `tags` are its classes where it is tagged anew."""

    kind: Kind
    tags: tuple[str, ...] = ()


def read_choices(path: Path) -> dict[str, Choice]:
    """Return the choice for each photo's name; the last row of a name holds. Raises DataError where the file is no such list."""
    if not path.is_file():
        raise DataError(f"there is no file {path}; review.html saves it as {FILE}. Write it like this:\n{EXAMPLE}")
    lines = list(csv_rows(path))
    if not lines or [cell.strip().lower() for cell in lines[0][1]][:3] != HEADER:
        found = ",".join(lines[0][1]) if lines else "nothing"
        raise DataError(
            f"{path}: the first row must be '{','.join(HEADER)}', found {found!r}. Write it like this:\n{EXAMPLE}"
        )
    choices: dict[str, Choice] = {}
    for number, cells in lines[1:]:
        written, kind, classes = (*(cell.strip() for cell in cells), "", "")[:3]
        where = f"{path} row {number} ({written!r})"
        known = next((each for each in KINDS if each == kind.lower()), None)
        if known is None:
            raise DataError(
                f"{where}: the choice {kind!r} is none of {', '.join(KINDS)}. Correct it, or remove the row."
            )
        if classes and known != "retag":
            raise DataError(f"{where}: {known} takes no classes, found {classes!r}. Write retag to change them.")
        tags = tuple(dict.fromkeys(normalized(" ".join(tag.split())) for tag in classes.split(";") if tag.strip()))
        choices[name_of(written)] = Choice(known, tags)
    return choices


def choice_of(name: str, choices: Mapping[str, Choice]) -> Choice | None:
    """Return the choice for a photo whose name may be a path: `a/b` is `a__b` in a labelled folder."""
    return choices.get(name) or choices.get("__".join(Path(name).parts))
