"""The photos of a folder that are to be labelled, each with a name and, where they are known, its tags."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from app.inference.errors import DataError, UnknownClassError
from app.inference.tags import PHOTO_SUFFIXES


@dataclass(frozen=True)
class FolderPhoto:
    """One photo to label."""

    name: str
    path: Path
    tags: tuple[str, ...] | None


def find_photos(photos: Path, out: Path, tags: dict[str, tuple[str, ...]] | None) -> list[FolderPhoto]:
    """Every JPEG, PNG and WebP file under `photos`, sorted; a name is the path below it with "/" written as "__".

    Data sets that this command made there are left alone.

    Raises DataError where there is none, two share a name, or tags are given and a photo has none.
    """
    if not photos.is_dir():
        raise DataError(f"there is no folder {photos}; name the one that holds the photos")
    inside = out.resolve()
    if inside == photos.resolve() or inside in photos.resolve().parents:
        raise DataError(f"--out {out} is the folder of the photos, or holds it; give the data set a folder of its own")
    paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file())
    if is_data_set(photos):
        raise DataError(f"{photos} is a data set that this command made; name {photos / 'JPEGImages'} for its photos")
    made = {inside, *(path.parent.resolve() for path in photos.rglob("label.json") if is_data_set(path.parent))}
    paths = [path for path in paths if not made & set(path.resolve().parents)]
    if not paths:
        raise DataError(f"{photos} holds no photo ({', '.join(PHOTO_SUFFIXES)})")
    stems = Counter(path.stem for path in paths)
    tasks: dict[str, FolderPhoto] = {}
    for path in paths:
        name = "__".join(path.relative_to(photos).with_suffix("").parts)
        if name in tasks:
            raise DataError(f"{path} and {tasks[name].path} would share the name {name!r}; rename one of them")
        row = None if tags is None else tags_of(name, path.stem, stems[path.stem] == 1, tags)
        tasks[name] = FolderPhoto(name, path, row)
    untagged = [task.name for task in tasks.values() if task.tags is None]
    if tags is not None and untagged:
        raise DataError(
            f"{len(untagged)} of {len(tasks)} photos have no row in the tags (first: {untagged[0]}); add them by that name, or "
            f"label the folder without --tags"
        )
    return list(tasks.values())


def is_data_set(folder: Path) -> bool:
    """Whether `app.batch.folder` made it."""
    return (folder / "label.json").is_file() and (folder / "records").is_dir()


def tags_of(name: str, stem: str, unique: bool, tags: dict[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """The tags of a photo by its path below the folder, by that path as its name, or by a file name no other photo has."""
    for written in (name.replace("__", "/"), name, *([stem] if unique else ())):
        if written in tags:
            return tags[written]
    return None


def check_tags(tasks: list[FolderPhoto], classes: tuple[str, ...]) -> None:
    """Raise UnknownClassError for a tag that is none of the model's classes."""
    for task in tasks:
        for tag in task.tags or ():
            if tag not in classes:
                raise UnknownClassError(tag, classes, "labels.csv")
