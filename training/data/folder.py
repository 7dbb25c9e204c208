"""A folder of photos has a `labels.csv`, whose form is that of `app.inference.files.tags`.

    ROOT/labels.csv                   name,classes: one row per photo
    ROOT/JPEGImages/NAME.jpg          or ROOT/images/, or the photos directly in ROOT; .jpg .png .webp .tif .bmp .heic and the like
    ROOT/ImageSets/{train,val}.txt    optional, one name per line; every other list there is a split as well, and
                                      val_dev and val_report, where both are there, part choosing from reporting
    ROOT/classes.txt                  optional, one class per line: the order of the labels in the masks
    ROOT/SegmentationClass/NAME.png   optional masks, for measuring (read by `training.masks.ground_truth` alone)

Names of photos may be written with or without their suffix.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from app.inference.errors import DataError
from app.inference.files.choices import Choice, choice_of, read_choices
from app.inference.files.file_names import normalized, spellings
from app.inference.files.tags import PHOTO_SUFFIXES, name_of, read_rows, surplus_of
from training.config.data import RESERVED, DataConfig
from training.data.source import (
    Intake,
    PhotoFiles,
    TaggedPhotos,
    checked_classes,
    choose_classes,
    require_photos,
    split_by_hash,
)

logger = logging.getLogger(__name__)

CLASSES = "classes.txt"
PHOTO_DIRECTORIES = ("JPEGImages", "images")
Splits = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Row:
    """It is one photo of labels.csv: `number` is its (first) line, `written` its name as typed."""

    number: int
    written: str
    tags: tuple[str, ...]


def open_folder(config: DataConfig) -> TaggedPhotos:
    """Return the photos of the folder, and in `train` those of `extra` that it does not have. Raises DataError."""
    photos, paths = open_one(config)
    if config.extra is None:
        return photos
    further, extra_paths = open_one(
        config.model_copy(update={"root": config.extra, "extra": None, "choices": None, "classes": photos.classes})
    )
    both = paths.keys() & extra_paths.keys()
    twice = sorted(name for name in both if paths[name].read_bytes() != extra_paths[name].read_bytes())
    if twice:
        raise DataError(
            f"{config.root} and {config.extra} both name {len(twice)} photos (first: {twice[0]}) that differ. Rename them in one."
        )
    extra_paths = {name: path for name, path in extra_paths.items() if name not in both}
    return TaggedPhotos(
        photos.classes,
        {**photos.splits, "train": photos.names("train") + tuple(extra_paths)},
        {**further.tag_table, **photos.tag_table},
        PhotoFiles(paths | extra_paths),
        photos.skipped + further.skipped,
    )


def open_one(config: DataConfig) -> tuple[TaggedPhotos, dict[str, Path]]:
    """Read labels.csv and the lists of `root`, and look at every photo they name: photos, name -> file. Raises DataError."""
    root = require_directory(config.root)
    intake = Intake(config)
    rows = read_labels(root / "labels.csv", intake)
    classes = config.classes or listed_classes(root / CLASSES)
    classes = classes or choose_classes(config, (tag for row in rows.values() for tag in row.tags))
    lists = read_lists(root / "ImageSets", rows, intake)
    if config.choices is not None:
        rows = decided_rows(rows, read_choices(config.choices))
    wanted = {name for names in lists.values() for name in names} if lists else set(rows)
    index = PhotoIndex(photo_directory(root))
    paths: dict[str, Path] = {}
    for name, row in rows.items():
        where = f"labels.csv row {row.number} ({row.written!r})"
        if name in wanted and intake.accepts_name(where, name) and intake.accepts_tags(where, row.tags, classes):
            path = index.find(row.written, where, intake)
            if path is not None and intake.accepts_photo(where, path):
                paths[name] = path
    splits = {split: tuple(name for name in names if name in paths) for split, names in lists.items()}
    splits = splits or split_by_hash(paths, config.val_fraction)
    tag_table = {name: rows[name].tags for name in paths}
    photos = TaggedPhotos(classes, splits, tag_table, PhotoFiles(paths), tuple(intake.skipped))
    return require_photos(photos, str(root)), paths


def decided_rows(rows: dict[str, Row], decided: Mapping[str, Choice]) -> dict[str, Row]:
    """Return the rows with the tags that somebody decided on, without the photos that are to be left out; a photo that
    was tagged anew as one of no class is none to train on.
    """
    left: dict[str, Row] = {}
    for name, row in rows.items():
        choice = choice_of(name, decided)
        if choice is None or choice.kind == "accept":
            left[name] = row
        elif choice.tags:
            left[name] = replace(row, tags=choice.tags)
    return left


def listed_classes(path: Path) -> tuple[str, ...] | None:
    """Return the classes of a list, without the background that some tools write before them; None where there is no
    list.

    Raises DataError for an empty one, and for names that cannot be classes.
    """
    if not path.is_file():
        return None
    names = [" ".join(line.split()) for _, line in read_list(path)]
    while names and names[0].casefold() in RESERVED:
        logger.warning("%s: %r is left out; the labels of masks begin with %r", path, names[0], (names[1:] or [""])[0])
        del names[0]
    if not names:
        raise DataError(f"{path} is empty. Write one class per line, in the order of the masks' labels, or remove it.")
    return checked_classes(tuple(names), str(path))


def require_directory(root: Path | None) -> Path:
    """Return the directory, which must exist."""
    if root is None or not root.is_dir():
        raise DataError(f"data directory {root} does not exist. Set `root` to the folder that holds the photos.")
    return root


def photo_directory(root: Path) -> Path:
    """Return where a folder keeps its photos: JPEGImages/, else images/, else the folder itself."""
    return next((root / name for name in PHOTO_DIRECTORIES if (root / name).is_dir()), root)


def read_labels(path: Path, intake: Intake) -> dict[str, Row]:
    """Return the row of labels.csv for each name, in the file's order. Raises DataError where it is not such a file."""
    columns, lines = read_rows(path)
    rows: dict[str, Row] = {}
    for number, cells, tags in lines:
        written = normalized(cells[0].strip())
        where = f"{path.name} row {number} ({written!r})"
        if surplus := surplus_of(cells, columns):
            intake.refuse(where, surplus, "Separate classes by spaces, or quote the field")
            continue
        if not written or "/" in written or "\\" in written:
            intake.refuse(
                where, "not a photo's file name", f"Write the name of a file of {photo_directory(path.parent)}"
            )
            continue
        _add(rows, Row(number, written, tags), where, intake)
    return rows


def _add(rows: dict[str, Row], row: Row, where: str, intake: Intake) -> None:
    name = name_of(row.written)
    first = rows.setdefault(name, row)
    if first is row:
        return
    if first.written != row.written and name not in (first.written, row.written):
        problem = f"{row.written!r} and {first.written!r} of row {first.number} share the name {name!r}"
        intake.refuse(where, problem, "Rename one of the files")
        return
    written = max(first.written, row.written, key=len)
    rows[name] = Row(first.number, written, tuple(dict.fromkeys(first.tags + row.tags)))


def read_list(path: Path) -> list[tuple[int, str]]:
    """Return the line number and text of every line of a list that is not blank. Raises DataError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"list {path} cannot be read ({error}). Write one name per line, in UTF-8.") from None
    return [(number, normalized(line.strip())) for number, line in enumerate(lines, 1) if line.strip()]


def read_lists(directory: Path, rows: Mapping[str, Row], intake: Intake) -> Splits:
    """Return every ImageSets/*.txt as a split; where only one of train and val is there, the other is the remaining
    rows.
    """
    splits: Splits = {}
    for path in sorted(directory.glob("*.txt")):
        names: dict[str, None] = {}
        for number, written in read_list(path):
            name = name_of(written)
            if name in rows:
                names[name] = None
            else:
                problem = f"{written!r} has no row in labels.csv{intake.nearest(name, rows)}"
                intake.refuse(f"{path.name} row {number}", problem, "Add the row or remove the line")
        splits[path.stem] = tuple(names)
    listed = {name for names in splits.values() for name in names}
    for split in ("train", "val") if splits else ():
        splits.setdefault(split, tuple(name for name in rows if name not in listed))
    return {split: names for split, names in splits.items() if names}


class PhotoIndex:
    """It lists the photo files of one directory by name, once, so that thousands of look-ups touch the disk once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: dict[str, list[str]] = {}
        try:
            listing = sorted(entry.name for entry in directory.iterdir())
        except OSError as error:
            raise DataError(f"photo directory {directory} cannot be listed ({error}).") from None
        for file in listing:
            if name_of(file) != file and not file.startswith("."):
                for name in spellings(name_of(file)):
                    self._files.setdefault(name, []).append(file)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def find(self, written: str, where: str, intake: Intake) -> Path | None:
        """Return the file of a photo written with or without its suffix; None where it is missing or not the only one."""
        files = self._files.get(name_of(written), [])
        if name_of(written) != written:
            files = [file for file in files if written.casefold() in map(str.casefold, spellings(file))]
        if len(files) == 1 or written in files:
            return self.directory / (written if written in files else files[0])
        if files:
            problem = f"{' and '.join(files)} are both there"
            intake.refuse(where, problem, "Write the name with its suffix")
        else:
            hint = intake.nearest(name_of(written), self._files)
            kinds = "" if name_of(written) != written else f" ({' '.join(PHOTO_SUFFIXES)})"
            problem = f"no photo {written!r}{kinds} in {self.directory}{hint}"
            intake.refuse(where, problem, "Add the photo or correct the name")
        return None
