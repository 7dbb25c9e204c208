"""All sources give tagged photos through one interface, and share what stands here.

`TaggedPhotos` knows names, tags and how to read a photo; it holds no path of a mask and no way to one. Masks are read
by `training.masks.ground_truth`, which measuring imports and weakly supervised training does not.
"""

import difflib
import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from app.inference.errors import DataError, UploadError
from app.inference.files.file_names import safe_name
from app.inference.image.decode import decode, measure
from app.inference.labels import VOC_CLASSES
from app.inference.spelling import nearest_name
from training.config.data import DataConfig, fault_of

logger = logging.getLogger(__name__)

BLACK = (0, 0, 0)
FREQUENT, SLIP_SIMILARITY = 5, 0.65  # A message names this many photos; by difflib's ratio 'dgo' is 0.67 like 'dog'.
CHOOSING, REPORTED = "val_dev", "val_report"


class PhotoReader(Protocol):
    """It reads photos by name, and can be pickled."""

    def image(self, name: str) -> np.ndarray: ...

    def size(self, name: str) -> tuple[int, int]: ...


@dataclass(frozen=True)
class PhotoFiles:
    """It holds photos kept as files: name -> path."""

    paths: Mapping[str, Path]

    def image(self, name: str) -> np.ndarray:
        return read_photo(self.paths[name])

    def size(self, name: str) -> tuple[int, int]:
        return read_size(self.paths[name])


@dataclass(frozen=True)
class TaggedPhotos:
    """It holds photos with image-level tags, in named splits.

    Where there is both a split `val_dev` and a split `val_report`, whatever is chosen by looking at validation photos is
    chosen on the first and figures are those of the second; else both are `val`.

    classes: the C class names in channel order. splits: split -> names. tag_table: name -> tags. reader: how a photo
    is read. skipped: one line per photo or row left out.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, tuple[str, ...]]
    tag_table: Mapping[str, tuple[str, ...]]
    reader: PhotoReader
    skipped: tuple[str, ...] = ()

    def names(self, split: str) -> tuple[str, ...]:
        """Return the names of the photos of a split. Raises DataError for an unknown split."""
        if split not in self.splits:
            known = ", ".join(sorted(self.splits))
            raise DataError(f"unknown split {split!r}{nearest(split, self.splits)}; this data has: {known}")
        return self.splits[split]

    @property
    def choosing_split(self) -> str:
        """Settings are chosen by this split."""
        return CHOOSING if self._declared else "val"

    @property
    def report_split(self) -> str:
        """The figures of this split are published."""
        return REPORTED if self._declared else "val"

    @property
    def _declared(self) -> bool:
        return CHOOSING in self.splits and REPORTED in self.splits

    def labelled_names(self) -> tuple[str, ...]:
        """Return the photos that a run makes maps and labels of: those of `train`, of `val` and of what it reports,
        each once.
        """
        splits = ("train", "val", self.choosing_split, self.report_split)
        return tuple(dict.fromkeys(name for split in splits for name in self.splits.get(split, ())))

    def image(self, name: str) -> np.ndarray:
        """Return the photo as uint8 RGB (H, W, 3), EXIF orientation applied. Raises DataError where it cannot be
        decoded.
        """
        self._require(name)
        return self.reader.image(name)

    def size(self, name: str) -> tuple[int, int]:
        """Return (height, width) in pixels of `image(name)`, without decoding it."""
        self._require(name)
        return self.reader.size(name)

    def tags(self, name: str) -> tuple[str, ...]:
        """Return class names of the photo's tags, each once."""
        self._require(name)
        return self.tag_table[name]

    def image_labels(self, name: str) -> np.ndarray:
        """Return the tags as float32 (C,): 1 where the class is tagged, else 0."""
        tags = self.tags(name)
        return np.array([class_name in tags for class_name in self.classes], np.float32)

    def class_indices(self, name: str) -> tuple[int, ...]:
        """Return the tags as ascending class indices."""
        return tuple(int(index) for index in np.flatnonzero(self.image_labels(name)))

    def _require(self, name: str) -> None:
        if name not in self.tag_table:
            raise DataError(f"unknown photo {name!r}{nearest(name, self.tag_table)}: it is in no split of this data")


@dataclass
class Intake:
    """It says what becomes of a row that cannot be used: a DataError, or a line in `skipped`."""

    config: DataConfig
    skipped: list[str] = field(default_factory=list)

    def refuse(self, where: str, problem: str, remedy: str) -> None:
        """Report a row. Raises DataError unless the configuration says `on_error = "skip"`."""
        if self.config.on_error == "fail":
            raise DataError(f'{where}: {problem}. {remedy}, or set on_error = "skip" to leave such photos out.')
        self.skipped.append(f"{where}: {problem}")

    def nearest(self, value: str, known: Iterable[str]) -> str:
        """Return the nearest spelling for an error message; not searched for where the row is only counted."""
        return nearest(value, known) if self.config.on_error == "fail" else ""

    def accepts_tags(self, where: str, tags: tuple[str, ...], classes: tuple[str, ...]) -> bool:
        """Tell whether a photo has tags and all are known; reports it otherwise."""
        unknown = [tag for tag in tags if tag not in classes]
        if not tags:
            self.refuse(where, "the photo has no tag", f"Give it at least one of: {', '.join(classes)}")
        elif unknown:
            hint = self.nearest(unknown[0], classes)
            problem = f"unknown class {unknown[0]!r}{hint}; known are: {', '.join(classes)}"
            self.refuse(where, problem, "Correct the tag, or add the class to `classes`")
        return bool(tags) and not unknown

    def accepts_name(self, where: str, name: str) -> bool:
        """Tell whether files and lists of a run can be called like the photo; reports it otherwise."""
        fits = safe_name(name) == name
        if not fits:
            self.refuse(
                where, "its name is too long for the files of a run, or breaks a list's lines", "Rename the photo"
            )
        return fits

    def accepts_photo(self, where: str, path: Path) -> bool:
        """Tell whether the photo at `path` can be read, as far as the configuration asks to look; reports it otherwise."""
        try:
            if self.config.checks_pixels:
                read_photo(path)
            else:
                read_size(path)
        except DataError as error:
            self.refuse(where, str(error), "Replace the file or remove the row")
            return False
        return True


def nearest(value: str, known: Iterable[str]) -> str:
    """Return the closest of `known` as a hint for an error message, or nothing."""
    name = nearest_name(value, known)
    return f" (nearest: {name!r})" if name else ""


def read_photo(path: Path) -> np.ndarray:
    """Return a photo file as writable uint8 RGB (H, W, 3), decoded as the service does (`app.inference.image.decode`). Raises DataError."""
    with reading(f"photo {path}"):
        photo = decode(path.read_bytes())
    if photo.note:
        say_once(path, photo.note)
    return np.array(photo.image)


@cache
def say_once(path: Path, note: str) -> None:
    """Log what is wrong with a photo that is used all the same: once, however often it is read."""
    logger.warning("photo %s: %s", path, note)


def read_grey(path: Path) -> np.ndarray:
    """Return any picture file as shades of grey, uint8 (H, W); transparent pixels are black. Raises DataError."""
    with reading(str(path)):
        return np.array(Image.fromarray(decode(path.read_bytes(), backdrop=BLACK).image).convert("L"))


def read_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of `read_photo(path)`, from the file's header. Raises DataError."""
    with reading(f"photo {path}"):
        return measure(path.read_bytes())


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Raise DataError, which names the file, for whatever keeps it from being read as a picture."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{what} cannot be read ({error.strerror or error})") from None
    except (UploadError, DataError) as error:
        raise DataError(f"{what} cannot be read: {str(error).rstrip('.')}") from None


def choose_classes(config: DataConfig, tags: Iterable[str]) -> tuple[str, ...]:
    """Return the configured classes; else VOC's where every tag is one of them; else the sorted set of tags.

    A tag of one photo alone that is spelled much like a frequent one is held to be a slip of the pen, no class.
    """
    if config.classes is not None:
        return config.classes
    counts = Counter(tags)
    frequent = [tag for tag, count in counts.items() if count >= FREQUENT]
    rare = {tag for tag, count in counts.items() if count == 1 and tag not in VOC_CLASSES}
    slips = {tag for tag in rare if difflib.get_close_matches(tag, frequent, n=1, cutoff=SLIP_SIMILARITY)}
    found = set(counts) - slips
    return VOC_CLASSES if found <= set(VOC_CLASSES) else checked_classes(tuple(sorted(found)), "the tags")


def checked_classes(classes: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Return the same names. Raises DataError where they cannot be the classes of a data set."""
    if fault := fault_of(classes):
        raise DataError(f"{where}: {fault}")
    return classes


def split_by_hash(names: Iterable[str], val_fraction: float) -> dict[str, tuple[str, ...]]:
    """Split names into train and val by a hash of each name: adding photos moves none of the others.

    With two names or more, neither split is empty.
    """
    names = tuple(names)
    ranks = {name: rank_of(name) for name in names}
    val = {name for name in names if ranks[name] < val_fraction}
    if len(names) > 1 and not val:
        val = {min(names, key=ranks.__getitem__)}
    elif len(names) > 1 and len(val) == len(names):
        val.remove(max(names, key=ranks.__getitem__))
    return {"train": tuple(n for n in names if n not in val), "val": tuple(n for n in names if n in val)}


def rank_of(text: str) -> float:
    """Return a hash of the text, evenly spread over [0, 1)."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def require_photos(photos: TaggedPhotos, where: str) -> TaggedPhotos:
    """Return the same photos; raises DataError where nothing is left to train on."""
    if not any(photos.splits.values()):
        first = f" ({len(photos.skipped)} left out; the first: {photos.skipped[0]})" if photos.skipped else ""
        raise DataError(f"{where}: no photo can be used{first}. Check the names and tags of the list.")
    return photos
