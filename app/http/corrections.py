"""`PUT /correction` puts a mask that somebody corrected into the folder of corrections, and its photo beside it.

    FOLDER/masks, classes.txt, corrections.csv     as `app.inference.label_maps.corrections` has them
    FOLDER/photos/NAME.jpg                         the photo as it came, with the suffix of its kind
    FOLDER/photos/labels.csv                       the classes of each corrected mask (`app.inference.files.tags`)

It is PUT because pages of other sites cannot send that: a browser asks the service first, which allows them no such method.
"""

import contextlib
import csv
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.http.api_docs import operations
from app.http.reply.describe import model_info
from app.http.reply.schemas import CorrectionReply, ImageInfo
from app.http.request.parameters import KeptImage, ModelParameters
from app.http.request.photos import kept_upload
from app.http.request.query import refuse_repeated
from app.http.request.receive import receive_body, wait_for_disconnect
from app.inference.errors import (
    CorrectionError,
    DataError,
    NameTakenError,
    NotStoredError,
    ParameterError,
    SwitchedOffError,
)
from app.inference.files.file_names import normalized
from app.inference.files.tags import name_of, read_tags
from app.inference.files.whole_file import whole_file, write_whole
from app.inference.image.decode import decode, decode_labels
from app.inference.image.kinds import READ
from app.inference.label_maps.corrections import WRITING, Correction, check_photo_name, write_correction
from app.inference.label_maps.pseudo_label import check_labels
from app.inference.label_maps.regions import count_labels
from app.inference.labels import label_of
from app.runtime.loaded_model import LoadedModel
from app.runtime.model_store import pin
from app.runtime.service import service_of
from app.runtime.upload_store import Upload

PHOTOS, LABELS = "photos", "labels.csv"
SUFFIXES = {kind: ".jpg" if kind == "JPEG" else f".{kind.lower()}" for kind in READ}
SOURCE = "page"
SMALL = 64  # A photo of whose pixels nothing but the size is needed is decoded for an input of this many.

router = APIRouter(dependencies=[Depends(refuse_repeated)])


class CorrectionParameters(ModelParameters, KeptImage):
    """These come with a corrected mask."""

    model: str | None = Field(
        default=None,
        max_length=100,
        description="This model, NAME/VERSION, made the mask or pseudo-label that was corrected; its classes are those of the "
        "labels. Without it the default segmentation model is meant.",
    )
    name: str | None = Field(
        default=None,
        max_length=255,
        description="The photo has this file name in its data set; without it the one it was posted under is taken.",
    )
    pixels_changed: int | None = Field(
        default=None, ge=0, description="This many pixels differ from the model's draft, as the client counts them."
    )


def check_folder(folder: Path | None) -> None:
    """Raise DataError where corrections are to be kept in a folder that cannot be written."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise DataError(
            f"TAG2MASK_CORRECTIONS={folder} cannot be written ({error.strerror}). Name a folder of your own, or leave it out: "
            f"then the service takes no corrections."
        ) from None


@router.put("/correction", **operations.PUT_CORRECTION)
async def put_correction(request: Request, parameters: Annotated[CorrectionParameters, Query()]) -> CorrectionReply:
    service = service_of(request)
    if service.settings.corrections is None:
        raise SwitchedOffError(
            "this service takes no corrections. Start it with TAG2MASK_CORRECTIONS=DIR, a folder that it may write."
        )
    catalog = service.models.catalog
    engine = catalog.find(parameters.model) if parameters.model else catalog.choose("segmentation", None)
    check_labels(label_of(len(engine.card.classes) - 1))
    upload = await kept_upload(request, parameters)
    request.state.model, request.state.image = pin(engine), upload.id
    name = name_for(parameters, upload)
    mask = await receive_body(request, service.settings.max_upload_bytes)
    made_by = getattr(request.state, "key", "")
    correction = Correction(name, made_by, pin(engine), engine.sha256, parameters.pixels_changed, source=SOURCE)
    read = await service.pool.run(
        read_mask, upload.data, mask, service.settings.max_image_pixels, gone=lambda: wait_for_disconnect(request)
    )
    return await run_in_threadpool(keep, service.settings.corrections, upload, read, engine, correction)


@dataclass(frozen=True)
class Read:
    """It holds what was sent, as a worker reads it: the photo's kind and size (height, width), and the mask, uint8 (H, W)."""

    kind: str
    size: tuple[int, int]
    mask: np.ndarray


def read_mask(photo: bytes, mask: bytes, max_image_pixels: int) -> Read:
    """Read a photo and its mask. Raises UploadError, CorrectionError."""
    whole = decode(photo, max_image_pixels=max_image_pixels, input_long_side=SMALL)
    try:
        return Read(whole.kind, (whole.height, whole.width), decode_labels(mask, max_image_pixels))
    except DataError as error:
        raise CorrectionError(f"the mask cannot be read: {error}") from None


def name_for(parameters: CorrectionParameters, upload: Upload) -> str:
    """Return what the photo is called in its data set. Raises ParameterError where nobody says it, or no photo has such a
    name.
    """
    named = parameters.name or upload.name
    if not named:
        raise ParameterError(
            "the photo was posted without a file name. Add name=beach.jpg, its name in the data set.", parameter="name"
        )
    name = normalized(name_of(named))
    try:
        check_photo_name(name)
    except DataError as error:
        raise ParameterError(str(error), parameter="name") from None
    return name


def keep(folder: Path, upload: Upload, read: Read, engine: LoadedModel, correction: Correction) -> CorrectionReply:
    """Write a mask and its photo, in the one process of the service: savings wait for one another there.

    Raises ServiceError where the mask does not fit, or the disk refuses it.
    """
    path = photo_file(folder, read.kind, upload, correction.photo)
    try:
        write_correction(folder, read.mask, read.size, engine.card.classes, correction)
        names = names_in(read.mask, engine.card.classes)
        with WRITING:
            keep_photo(path, upload.data, correction.photo, names)
    except DataError as error:
        raise CorrectionError(f"{error}") from None
    except OSError as error:
        raise NotStoredError(
            f"the correction of {correction.photo!r} cannot be written ({error.strerror}). Send it again once there is room in "
            f"the folder of TAG2MASK_CORRECTIONS, and the right to write."
        ) from None
    height, width = read.size
    return CorrectionReply(
        image=ImageInfo(id=upload.id, width=width, height=height),
        name=correction.photo,
        model=model_info(engine),
        classes=names,
        pixels_changed=correction.pixels_changed,
    )


def photo_file(folder: Path, kind: str, upload: Upload, name: str) -> Path:
    """Return where the photo is kept. Raises NameTakenError where another one of that name is."""
    for suffix in SUFFIXES.values():
        with contextlib.suppress(FileNotFoundError):
            if (folder / PHOTOS / f"{name}{suffix}").read_bytes() != upload.data:
                raise NameTakenError(
                    f"a correction of another photo named {name!r} is there. Give this one another name=, or rename its file.",
                    parameter="name",
                )
    return folder / PHOTOS / f"{name}{SUFFIXES[kind]}"


def names_in(mask: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """Return the classes of a label map that have a pixel."""
    pixels = count_labels(mask)
    return [name for index, name in enumerate(classes) if pixels[label_of(index)]]


def keep_photo(path: Path, data: bytes, name: str, names: list[str]) -> None:
    """Write a photo and its classes. Raises DataError where the list there is none."""
    with whole_file(path) as partial:
        partial.write_bytes(data)
    labels = path.with_name(LABELS)
    tags = {**(read_tags(labels) if labels.is_file() else {}), name: tuple(names)}
    text = io.StringIO(newline="")
    # A semicolon behind every class tells readers that none ends at a space.
    rows = [(photo, "".join(f"{tag};" for tag in each)) for photo, each in tags.items()]
    csv.writer(text).writerows([("name", "classes"), *rows])
    write_whole(labels, text.getvalue())
