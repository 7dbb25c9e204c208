"""The PASCAL VOC devkit gives tags in `Annotations/NAME.xml` and splits in `ImageSets/Segmentation`.

The tags of a photo are the names of all its objects, "difficult" and "truncated" ones included: so do the class labels
that AffinityNet and its successors (AMR, DRS, EDAM among them) train on. Parts of objects (head, hand, foot) do not count.

A line of a list is a name (`2007_000032`), or the pair that trainaug lists carry
(`/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png`), of which only the photo's name is kept.
"""

from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from app.inference.errors import DataError
from app.inference.files.file_names import normalized
from app.inference.labels import VOC_CLASSES
from training.config.data import DataConfig
from training.data.folder import PhotoIndex, name_of, read_list, require_directory
from training.data.source import Intake, PhotoFiles, TaggedPhotos, nearest, require_photos

YEAR_DIRECTORY = "VOC2012"
TRAIN_LISTS = ("trainaug", "train")  # The first that the devkit has is taken.


def open_voc(config: DataConfig) -> TaggedPhotos:
    """Read the lists and the annotations of every photo they name. Raises DataError."""
    root = voc_root(config)
    classes = config.classes or VOC_CLASSES
    intake = Intake(config)
    index = PhotoIndex(require_directory(root / "JPEGImages"))
    paths: dict[str, Path] = {}
    tag_table: dict[str, tuple[str, ...]] = {}
    splits = {}
    for split, path in find_lists(root, config).items():
        rows: dict[str, int] = {}
        for number, line in read_list(path):
            rows.setdefault(listed_name(line, index), number)
        for name, number in rows.items():
            where = f"{path.name} row {number} ({name!r})"
            if name in paths:
                continue
            tags = read_tags(root / "Annotations" / f"{name}.xml", where, intake)
            if tags is None or not intake.accepts_tags(where, tags, classes):
                continue
            photo = index.find(name, where, intake)
            if photo is not None and intake.accepts_photo(where, photo):
                paths[name], tag_table[name] = photo, tags
        splits[split] = tuple(name for name in rows if name in paths)
    return require_photos(TaggedPhotos(classes, splits, tag_table, PhotoFiles(paths), tuple(intake.skipped)), str(root))


def voc_root(config: DataConfig) -> Path:
    """Return the year's directory; `root` may be it, or the VOCdevkit above it."""
    root = require_directory(config.root)
    if (root / YEAR_DIRECTORY / "JPEGImages").is_dir():
        return root / YEAR_DIRECTORY
    if not (root / "JPEGImages").is_dir() or not (root / "Annotations").is_dir():
        raise DataError(
            f"{root} is not a VOC devkit: it needs JPEGImages/, Annotations/ and ImageSets/Segmentation/. "
            f"Set `root` to .../VOCdevkit/{YEAR_DIRECTORY}."
        )
    return root


def listed_name(line: str, index: PhotoIndex) -> str:
    """Return the name of the photo in a line of a list: the whole line, whose name may hold spaces, else what stands
    before them.
    """
    whole = name_of(PurePosixPath(line).name)
    return whole if whole in index else name_of(PurePosixPath(line.split()[0]).name)


def find_lists(root: Path, config: DataConfig) -> dict[str, Path]:
    """Return the files that list train and val."""
    directory = root / "ImageSets" / "Segmentation"
    there = [name for name in TRAIN_LISTS if (directory / f"{name}.txt").is_file()]
    train = config.voc.train_list or (there or TRAIN_LISTS)[0]
    return {split: _find_list(directory, value) for split, value in (("train", train), ("val", config.voc.val_list))}


def _find_list(directory: Path, value: str) -> Path:
    for path in (directory / f"{value}.txt", directory.parents[1] / value, Path(value)):
        if path.is_file():
            return path
    known = sorted(path.stem for path in directory.glob("*.txt"))
    raise DataError(
        f"no list {value!r} in {directory}{nearest(value, known)}; known are: {', '.join(known) or 'none'}. "
        f"Set `voc.train_list` and `voc.val_list` to such a name or to the path of a text file."
    )


def read_tags(path: Path, where: str, intake: Intake) -> tuple[str, ...] | None:
    """Return the names of the objects of one annotation, each once; None (and reported) where the file cannot be read."""
    try:
        objects = ElementTree.parse(path).getroot().findall("object")
    except FileNotFoundError:
        intake.refuse(where, f"no annotation {path}", "Add the file or remove the row")
        return None
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:  # Nobody knows its encoding.
        intake.refuse(where, f"annotation {path} cannot be read ({error})", "Replace the file or remove the row")
        return None
    return tuple(dict.fromkeys(normalized((thing.findtext("name") or "").strip()) for thing in objects))
