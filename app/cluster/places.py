"""Photos are read from, and data sets written to, a folder that all nodes see, or a prefix of an object store.

An object store is named by the address that pyarrow's file systems know: s3://BUCKET/PREFIX, gs://..., abfs://...; for another
S3 than Amazon's, s3://BUCKET/PREFIX?endpoint_override=HOST:PORT&scheme=http. Keys come from where that store's programs
look for them, such as AWS_ACCESS_KEY_ID or the role of the machine.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pyarrow import fs

from app.batch.data_set import files_of
from app.batch.photo_content import Content
from app.batch.yolo import write_yolo, yolo_files
from app.inference.errors import DataError
from app.inference.files.whole_file import write_whole


class Place(Protocol):
    """It is a place for files, which are named by paths below it."""

    def read(self, path: str) -> bytes: ...

    def write(self, path: str, content: bytes) -> None: ...

    def write_photo(self, name: str, content: Content) -> None:
        """Write a photo's files, each whole or not at all, the record last."""


def is_address(text: str) -> bool:
    """Tell whether a text names an object store rather than a folder."""
    return "://" in text


def place_of(text: str) -> "Place":
    """Return the place that a text names. Raises DataError for an address that no file system of pyarrow knows."""
    return Bucket(text) if is_address(text) else Folder(Path(text).absolute())


class Folder:
    """This place is a folder of a disk that every node sees under this path."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def write(self, path: str, content: bytes) -> None:
        write_whole(self.root / path, content)

    def write_photo(self, name: str, content: Content) -> None:
        copy, mask, overlaid, written = files_of(self.root, name)
        write_whole(copy, content.photo)
        write_whole(mask, content.mask)
        write_whole(overlaid, content.overlay)
        write_yolo(self.root, name, copy, content.yolo)
        write_whole(written, content.record)


class Bucket:
    """This place is a prefix of an object store, whose objects are there whole or not at all."""

    def __init__(self, address: str) -> None:
        try:
            self.files, root = fs.FileSystem.from_uri(address)
        except (pa.ArrowException, ValueError, OSError) as error:
            raise DataError(
                f"{address} is no address of an object store ({error}); write s3://BUCKET/PREFIX, for example"
            ) from None
        self.root = root.rstrip("/")

    def read(self, path: str) -> bytes:
        with self.files.open_input_stream(f"{self.root}/{path}") as stream:
            return stream.read()

    def write(self, path: str, content: bytes) -> None:
        with self.files.open_output_stream(f"{self.root}/{path}") as stream:
            stream.write(content)

    def write_photo(self, name: str, content: Content) -> None:
        copy, mask, overlaid, written = (path.as_posix() for path in files_of(Path(), name))
        text, second = (path.as_posix() for path in yolo_files(Path(), name))
        self.write(copy, content.photo)
        self.write(mask, content.mask)
        self.write(overlaid, content.overlay)
        self.write(text, content.yolo)
        self.write(second, content.photo)
        self.write(written, content.record)

    def walk(self, below: str = "") -> Iterator[list[fs.FileInfo]]:
        """Yield the files of every folder, a folder at a time, by path: no more than one folder's names are held."""
        here = f"{self.root}/{below}".rstrip("/")
        found = sorted(
            self.files.get_file_info(fs.FileSelector(here, allow_not_found=True)), key=lambda info: info.path
        )
        yield [info for info in found if info.type == fs.FileType.File]
        for info in found:
            if info.type == fs.FileType.Directory:
                yield from self.walk(info.path.removeprefix(f"{self.root}/"))


def record_at(place: Place, name: str) -> dict[str, Any]:
    """Return the record of a photo that was labelled into a place; empty where there is none, or it is none of ours."""
    try:
        record = json.loads(place.read(files_of(Path(), name)[-1].as_posix()))
        return record if {"name", "stamp", "tags", "photo"} <= set(record) else {}
    except (OSError, ValueError, TypeError):
        return {}
