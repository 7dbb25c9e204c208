"""`label --engine ray` finds photos in a folder, a prefix of an object store, or Parquet files that hold them.

A source gives its work in units, which are small and say where photos are; a worker reads the photos of a unit one at a
time. So no photo passes through the memory of another process.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import pyarrow.parquet as pq
from pyarrow import fs

from app.batch.folder import stamp_of
from app.batch.photos import FolderPhoto, tags_of
from app.cluster.places import Bucket
from app.inference.errors import DataError
from app.inference.files.file_names import is_systems, safe_name, shown
from app.inference.files.tags import PHOTO_SUFFIXES

Tags = tuple[str, ...] | None
PARQUET = (".parquet", ".pq")
PHOTO_COLUMNS = ("image", "bytes", "photo")  # The first of these columns holds the photos' files.
ROWS = 8  # So many rows of a Parquet file are in memory at a time.


@dataclass(frozen=True)
class StoredPhoto:
    """It is one photo. shown: where it is, as records and lists say it. stamp: of its file; None where it cannot be had.

    unique: the driver has seen to it that no other photo has this name.
    """

    name: str
    shown: str
    tags: Tags
    stamp: Callable[[], list[int]]
    read: Callable[[], bytes]
    unique: bool = False


@dataclass(frozen=True)
class FolderFile:
    """It is a photo of a folder that all nodes see; `app.batch.photos` found it. `number` tells it from the others."""

    number: int
    task: FolderPhoto

    def photos(self) -> Iterator[StoredPhoto]:
        task = self.task
        yield StoredPhoto(
            task.name, shown(task.path), task.tags, lambda: stamp_of(task), task.path.read_bytes, unique=True
        )


@dataclass(frozen=True)
class StoredFile:
    """It is a photo of an object store."""

    address: str
    path: str  # It is the path below the address.
    tags: Tags

    def photos(self) -> Iterator[StoredPhoto]:
        bucket = Bucket(self.address)
        where = f"{bucket.root}/{self.path}"

        def stamp() -> list[int]:
            info = bucket.files.get_file_info(where)
            if info.type != fs.FileType.File:
                raise FileNotFoundError(2, "No such object", where)
            return [info.size, info.mtime_ns or 0]

        yield StoredPhoto(written_name(self.path), shown(where), self.tags, stamp, lambda: bucket.read(self.path))


@dataclass(frozen=True)
class RowGroup:
    """It is a row group of a Parquet file, which holds photos in one of `PHOTO_COLUMNS`, and perhaps their `name` and `tags`."""

    source: str
    path: str
    number: int
    columns: tuple[str, ...] = field(default=())

    def photos(self) -> Iterator[StoredPhoto]:
        files, _ = file_system(self.source)
        with files.open_input_file(self.path) as file:
            parquet = pq.ParquetFile(file)
            row = 0
            for batch in parquet.iter_batches(ROWS, row_groups=[self.number], columns=list(self.columns)):
                for values in batch.to_pylist():
                    yield self._photo(values, row)
                    row += 1

    def _photo(self, values: dict[str, Any], row: int) -> StoredPhoto:
        image = next(values[column] for column in PHOTO_COLUMNS if column in values)
        # Hugging Face's datasets write {"bytes", "path"}.
        inner = image.get("path") if isinstance(image, dict) else None
        data = (image.get("bytes") if isinstance(image, dict) else image) or b""
        written = values.get("name") or inner or f"{Path(self.path).stem}-{self.number}-{row}"
        tags = values.get("tags")
        known = None if tags is None else tuple(tags.split(";") if isinstance(tags, str) else tags)
        place = f"{self.path}#{self.number}:{row}"
        return StoredPhoto(
            written_name(str(written)),
            shown(place),
            known and tuple(tag.strip() for tag in known if tag.strip()),
            lambda: [len(data), crc32(data)],
            lambda: data,
        )


Unit = FolderFile | StoredFile | RowGroup


def written_name(path: str) -> str:
    """Return a photo's name: its path with "/" written as "__", without a photo's suffix, safe for lists and disks."""
    stem, dot, suffix = path.rpartition(".")
    return safe_name("__".join((stem if (dot + suffix).lower() in PHOTO_SUFFIXES else path).strip("/").split("/")))


def file_system(text: str) -> tuple[fs.FileSystem, str]:
    """Return the file system that an address, or a path of a disk, belongs to, and the path there."""
    if "://" in text:
        bucket = Bucket(text)
        return bucket.files, bucket.root
    return fs.LocalFileSystem(), str(Path(text).absolute())


def parquet_files(source: str) -> list[str]:
    """Return the Parquet files that a source names: itself, or those right in that folder. Empty where there is none."""
    if "://" not in source:  # pyarrow cannot list names that are not UTF-8.
        place = Path(source).absolute()
        there = [place] if place.is_file() else sorted(place.glob("*"))
        return [str(path) for path in there if path.suffix.lower() in PARQUET and path.is_file()]
    files, root = file_system(source)
    if files.get_file_info(root).type == fs.FileType.File:
        return [root] if root.lower().endswith(PARQUET) else []
    found = files.get_file_info(fs.FileSelector(root, allow_not_found=True))
    return sorted(each.path for each in found if each.type == fs.FileType.File and each.path.lower().endswith(PARQUET))


def row_groups(source: str, paths: list[str]) -> Iterator[tuple[RowGroup, int]]:
    """Yield the row groups of Parquet files with their numbers of rows. Raises DataError where a file holds no photos."""
    files, _ = file_system(source)
    for path in paths:
        try:
            with files.open_input_file(path) as file:
                about = pq.ParquetFile(file)
                names, counts = (
                    about.schema_arrow.names,
                    [about.metadata.row_group(number).num_rows for number in range(about.num_row_groups)],
                )
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as Parquet ({error})") from None
        photos = next((column for column in PHOTO_COLUMNS if column in names), None)
        if photos is None:
            raise DataError(
                f"{path} has the columns {', '.join(names)}, none of which holds photos; call it {' or '.join(PHOTO_COLUMNS)}"
            )
        columns = (photos, *(column for column in ("name", "tags") if column in names))
        yield from ((RowGroup(source, path, number, columns), count) for number, count in enumerate(counts))


def stored_files(
    address: str, tags: Mapping[str, tuple[str, ...]] | None, refused: Callable[[str, str], None]
) -> Iterator[StoredFile]:
    """Yield the photos of an object store, by path. Of two that would share a name the first is taken, the other `refused`.

    Tags are those of a photo's path below the address. Raises DataError where tags are given and a photo has none.
    """
    bucket = Bucket(address)
    for infos in bucket.walk():
        names: dict[str, str] = {}  # Photos that share a name lie in one folder, but for rare ones that workers notice.
        for info in infos:
            path = info.path.removeprefix(f"{bucket.root}/")
            if not path.lower().endswith(PHOTO_SUFFIXES) or any(is_systems(part) for part in path.split("/")):
                continue
            name = written_name(path)
            if (first := names.setdefault(name, path)) != path:
                refused(shown(info.path), f"it would share the name {name!r} with {shown(first)}. Rename one of them.")
                continue
            row = None if tags is None else tags_of(name, Path(path).stem, False, tags)
            if tags is not None and row is None:
                raise DataError(
                    f"{shown(path)} has no row in the tags; add it by that path, or label the photos without --tags"
                )
            yield StoredFile(address, path, row)
