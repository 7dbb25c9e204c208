"""COCO's instances JSON gives the tags of a photo: the categories of its annotations.

Crowd regions (`iscrowd`) count as tags, since the photo does show the class. A photo in which no annotation has one of
the classes is normal in COCO: it is left out of train, and counted; in other splits it stays, with no tag.
With `classes` set to some of the categories, the others are neither tags nor labels.
A photo's name is its file name without directory and suffix.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from app.inference.errors import DataError
from app.inference.files.file_names import normalized
from app.inference.files.tags import name_of
from training.config.data import DataConfig
from training.data.folder import PhotoIndex, require_directory
from training.data.source import (
    Intake,
    PhotoFiles,
    TaggedPhotos,
    checked_classes,
    nearest,
    require_photos,
    split_by_hash,
)

IDS = (int, str)  # Exporters write numbers, or texts such as UUIDs.
WORDS = {str: "text", IDS: "number or text"}


@dataclass(frozen=True)
class Instances:
    """It holds one instances file: `images` and `annotations` as COCO has them, but with texts as ids, and `categories` id -> name in
    order of id.

    roots: categories without an annotation that stand above others, as some exporters write them.
    """

    path: Path
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: dict[str, str]
    roots: frozenset[str] = frozenset()

    def category(self, annotation: dict[str, Any]) -> str:
        """Return the category name of an annotation. Raises DataError for an id that the file does not define."""
        try:
            return self.categories[annotation["category_id"]]
        except KeyError:
            raise DataError(
                f"{self.path.name} annotation {annotation.get('id')}: no category {annotation.get('category_id')}; "
                f"known ids are {', '.join(self.categories)}. Correct `category_id` or add the category."
            ) from None


def open_coco(config: DataConfig) -> TaggedPhotos:
    """Read the tags out of the instances files and look at every photo. Raises DataError."""
    root = require_directory(config.root)
    intake = Intake(config)
    paths: dict[str, Path] = {}
    tag_table: dict[str, tuple[str, ...]] = {}
    classes = config.classes
    splits = {}
    for split, instances, directory in read_splits(root, config):
        classes = choose_categories(instances, classes)
        tags_of = tags_by_image(instances, classes)
        kept = []
        index = PhotoIndex(directory)
        for number, image in enumerate(instances.images):
            where = f"{instances.path.name} images[{number}] ({image['file_name']!r})"
            name = photo_name(image)
            tags = tags_of.get(image["id"], ())
            if split == "train" and not tags:
                intake.skipped.append(f"{where}: no object of the classes")
            elif name in paths:
                problem = f"{paths[name]} has the same name"
                intake.refuse(where, problem, "Rename one of the files; names are unique over all splits")
            elif intake.accepts_name(where, name):
                path = find_photo(image["file_name"], directory, index, where, intake)
                if path is not None and intake.accepts_photo(where, path):
                    paths[name], tag_table[name] = path, tags
                    kept.append(name)
        splits[split] = tuple(kept)
    if "val" not in splits:
        splits = split_by_hash(splits["train"], config.val_fraction)
    photos = TaggedPhotos(classes or (), splits, tag_table, PhotoFiles(paths), tuple(intake.skipped))
    return require_photos(photos, str(root))


def read_splits(root: Path, config: DataConfig) -> Iterator[tuple[str, Instances, Path]]:
    """Split, instances and photo directory of train, and of val where its instances file exists."""
    coco = config.coco
    yield "train", read_instances(root / coco.train_instances), require_directory(root / coco.train_images)
    if (root / coco.val_instances).is_file():
        yield "val", read_instances(root / coco.val_instances), require_directory(root / coco.val_images)


def read_instances(path: Path) -> Instances:
    """Load an instances file. Raises DataError where it is missing or not one."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Set `coco.train_instances` to the instances file.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}). Replace it by an instances file of COCO's format.") from None
    images = [image for image in entries(path, data, "images", file_name=str, id=IDS) if image["file_name"]]
    annotations = entries(path, data, "annotations", image_id=IDS, category_id=IDS)
    listed = entries(path, data, "categories", id=IDS, name=str)
    by_text = sorted(listed, key=lambda category: (str(type(category["id"])), category["id"]))
    categories = {str(category["id"]): normalized(category["name"]) for category in by_text}
    for some, keys in ((images, ["id"]), (annotations, ["image_id", "category_id"]), (listed, ["id"])):
        for entry in some:  # Some exporters write 7 in one place and "7" in another.
            entry.update({key: str(entry[key]) for key in keys})
    return Instances(path, images, annotations, categories, roots_of(listed, annotations))


def entries(path: Path, data: Any, key: str, **needed: type | tuple[type, ...]) -> list[dict[str, Any]]:
    """Return a list of an instances file, each entry of which holds values of the types needed. Raises DataError."""
    listed = data.get(key) if isinstance(data, dict) else None
    if not isinstance(listed, list):
        raise DataError(
            f"{path} is not an instances file: the list `{key}` is missing. It needs `images`, `annotations` and `categories`."
        )
    for number, entry in enumerate(listed):
        wrong = [
            name
            for name, kind in needed.items()
            if not isinstance(entry, dict) or not isinstance(entry.get(name), kind)
        ]
        if wrong:
            raise DataError(
                f"{path.name} {key}[{number}]: `{wrong[0]}` is missing, or is no {WORDS[needed[wrong[0]]]}. Correct or remove the entry."
            )
    return listed


def roots_of(categories: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> frozenset[str]:
    """Return the names of the categories without an annotation that have no super-category, or are one."""
    used = {annotation["category_id"] for annotation in annotations}
    above = [category.get("supercategory") for category in categories]
    return frozenset(
        category["name"]
        for category in categories
        if category["id"] not in used and (category["name"] in above or category.get("supercategory") == "none")
    )


def choose_categories(instances: Instances, classes: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the classes asked for, all of them categories of the file; else all categories by id."""
    known = tuple(instances.categories.values())
    for name in classes or ():
        if name not in known:
            raise DataError(
                f"{instances.path}: no category {name!r}{nearest(name, known)}; known are: {', '.join(known)}. "
                f"Correct `classes`."
            )
    if classes:
        return classes
    roots = {name for name in known if name in instances.roots}
    if roots:
        rest = ", ".join(f'"{name}"' for name in known if name not in roots)
        raise DataError(
            f"{instances.path}: the category {min(roots)!r} stands above others and no annotation has it. Set the classes: "
            f"--set 'data.classes=[{rest}]'"
        )
    return checked_classes(known, str(instances.path))


def tags_by_image(instances: Instances, classes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the tags for each image id, in the order of `classes`; images without any are left out."""
    found: dict[str, set[str]] = {}
    for annotation in instances.annotations:
        found.setdefault(annotation["image_id"], set()).add(instances.category(annotation))
    tags = {image: tuple(name for name in classes if name in names) for image, names in found.items()}
    return {image: names for image, names in tags.items() if names}


def find_photo(written: str, directory: Path, index: PhotoIndex, where: str, intake: Intake) -> Path | None:
    """Return the photo of an entry of `images`: its path below the directory, or what of the path's end is there, since
    exporters write paths of their own machine. None (and reported) where it is missing.
    """
    if (directory / written).is_file():
        return directory / written
    parts = parts_of(written)
    for start in range(len(parts)):
        if (path := directory.joinpath(*parts[start:])).is_file():
            return path
    return index.find(normalized(parts[-1]), where, intake)


def photo_name(image: dict[str, Any]) -> str:
    """Return the name of an entry of `images`."""
    return name_of(normalized(parts_of(image["file_name"])[-1]))


def parts_of(written: str) -> tuple[str, ...]:
    """Return the parts of a path that was written on any system."""
    return PurePosixPath(written.replace("\\", "/")).parts
