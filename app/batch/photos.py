"""The photos of a folder that are to be labelled are found here, each with a name and, where known, its tags; what is left out is said."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from app.inference.class_names import find_class
from app.inference.errors import DataError
from app.inference.files.file_names import is_systems, safe_name, shown, spellings
from app.inference.files.tags import PHOTO_SUFFIXES
from app.inference.image.kinds import OTHER_PICTURES, READ, READ_AS_TEXT, kind_of
from app.inference.spelling import nearest_name

NAMED, MOST_LISTED = 5, 100  # A message names this many photos, and classes, at most.
HEAD_BYTES = 32  # The kind of a file is told by this many of its first bytes.
RAW_SUFFIXES = {".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"}
PICTURE_SUFFIXES = {
    *(".avif", ".gif", ".jxl", ".jp2", ".psd", ".ico", ".svg"),
    *(".mov", ".mp4"),
    *RAW_SUFFIXES,
}


@dataclass(frozen=True)
class FolderPhoto:
    """It says which photo is to be labelled, under which name and with which tags."""

    name: str
    path: Path
    tags: tuple[str, ...] | None


@dataclass
class Found:
    """It lists what a folder holds. left_out: pictures that are not labelled, and why. others: files that are no pictures."""

    tasks: list[FolderPhoto] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)
    others: list[Path] = field(default_factory=list)


def find_photos(photos: Path, out: Path, tags: Mapping[str, tuple[str, ...]] | None) -> Found:
    """Return every file with a photo's suffix (`PHOTO_SUFFIXES`) under `photos`, links followed, sorted; a name is the path below it with "/"
    written as "__", made safe for lists.

    Data sets that this command made there are left alone, and so is what systems and programs put beside photos.

    Raises DataError where there is none, or tags are given and a photo has none.
    """
    if not photos.is_dir():
        raise DataError(f"there is no folder {shown(photos)}; name the one that holds the photos")
    inside = out.resolve()
    if inside == photos.resolve() or inside in photos.resolve().parents:
        raise DataError(f"--out {out} is the folder of the photos, or holds it; give the data set a folder of its own")
    if is_data_set(photos):
        raise DataError(f"{photos} is a data set that this command made; name {photos / 'JPEGImages'} for its photos")
    found = Found()
    paths = []
    for path in sorted(walk(photos, inside, found.left_out)):
        if reason := why_left_out(path):
            found.left_out[path] = reason
        elif path.suffix.lower() in PHOTO_SUFFIXES:
            paths.append(path)
        else:
            found.others.append(path)
    if not paths and not found.left_out:
        raise DataError(f"{shown(photos)} holds no photo ({', '.join(PHOTO_SUFFIXES)})")
    stems = Counter(path.stem for path in paths)
    names: dict[str, Path] = {}
    for path in paths:
        written = "__".join(path.relative_to(photos).with_suffix("").parts)
        name = safe_name(written)
        if (first := names.setdefault(name, path)) != path:
            found.left_out[path] = f"it would share the name {name!r} with {shown(first)}. Rename one of them."
            continue
        row = None if tags is None else tags_of(written, path.stem, stems[path.stem] == 1, tags)
        found.tasks.append(FolderPhoto(name, path, row))
    check_complete(found.tasks, tags)
    return found


def walk(folder: Path, inside: Path, left_out: dict[Path, str]) -> Iterator[Path]:
    """Yield the files under a folder and under folders linked from it, each real folder once. A folder that cannot be
    listed is left out.
    """

    def refuse(error: OSError) -> None:
        left_out[Path(error.filename)] = f"the folder cannot be listed ({error.strerror})."

    seen = set()
    for name, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        here = Path(name)
        real = here.resolve()
        if real in seen or real == inside or (here != folder and is_data_set(here)):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(entry for entry in folders if not is_systems(entry))
        yield from (here / entry for entry in files if not is_systems(entry))


def why_left_out(path: Path) -> str | None:
    """Return why a file that is a picture, or is called like one, is not labelled; None for photos, and for what is no
    picture.
    """
    suffix = path.suffix.lower()
    called_photo = suffix in PHOTO_SUFFIXES
    if not path.exists():
        return "it is a link to nothing." if called_photo or suffix in PICTURE_SUFFIXES or not suffix else None
    if not path.is_file():
        return "it is no file." if called_photo else None
    if called_photo:
        return None
    try:
        with path.open("rb") as file:
            kind = kind_of(file.read(HEAD_BYTES))
    except OSError:
        kind = None
    if suffix in RAW_SUFFIXES:  # By its first bytes such a file may be TIFF.
        kind = "raw photo"
    if suffix in PICTURE_SUFFIXES or kind in (*READ, *OTHER_PICTURES):
        what = kind or suffix.removeprefix(".").upper()
        remedy = "Rename it" if kind in READ else f"Save it as {READ_AS_TEXT}"
        return f"{what} under the suffix {suffix!r} is not read. {remedy} ({' '.join(PHOTO_SUFFIXES)})."
    return None


def is_data_set(folder: Path) -> bool:
    """Tell whether `app.batch.folder` made it."""
    return (folder / "label.json").is_file() and (folder / "records").is_dir()


def tags_of(written: str, stem: str, unique: bool, tags: Mapping[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """Return the tags of a photo by its path below the folder, by that path as its name, or by a file name no other
    photo has.
    """
    for name in (written.replace("__", "/"), written, safe_name(written), *([stem] if unique else ())):
        for spelling in spellings(name):
            if spelling in tags:
                return tags[spelling]
    return None


def check_complete(tasks: list[FolderPhoto], tags: Mapping[str, tuple[str, ...]] | None) -> None:
    """Raise DataError where tags are given and a photo has none."""
    untagged = [task.name for task in tasks if task.tags is None]
    if tags is not None and untagged:
        raise DataError(
            f"{len(untagged)} of {len(tasks)} photos have no row in the tags (first: {untagged[0]}); add them by that name, or "
            f"label the folder without --tags"
        )


def known_tags(
    tasks: list[FolderPhoto], classes: tuple[str, ...], skip: bool
) -> tuple[list[FolderPhoto], dict[Path, str]]:
    """Return the photos whose tags all mean classes of the model (`find_class`), which they are replaced by, and why
    each other photo is left out.

    Raises DataError where there is such a one and it is not to be skipped; the message names the first few.
    """
    known, refused = [], {}
    for task in tasks:
        try:
            known.append(replace(task, tags=meant_tags(task.tags, classes)))
        except DataError as error:
            refused[task.path] = str(error)
    if refused and not skip:
        named = [f"{shown(path.name)} ({reason})" for path, reason in list(refused.items())[:NAMED]]
        raise DataError(
            f"{len(refused)} of {len(tasks)} photos have a tag that is no class: {'; '.join(named)}"
            f"{'; ...' if len(refused) > NAMED else ''}. The model knows {', '.join(classes[:MOST_LISTED])}. Correct the tags, or "
            f"leave those photos out with --on-error skip."
        )
    return known, refused


def meant_tags(tags: tuple[str, ...] | None, classes: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the classes that tags mean, each once. Raises DataError for a tag that means none."""
    if tags is None:
        return None
    meant = []
    for tag in tags:
        index = find_class(tag, classes)
        if index is None:
            nearest = nearest_name(tag, classes)
            raise DataError(
                f"the tag {tag!r} is no class of the model{f', did you mean {nearest!r}?' if nearest else ''}"
            )
        meant.append(classes[index])
    return tuple(dict.fromkeys(meant))
