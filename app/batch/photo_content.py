"""One labelled photo becomes the content of files: its copy, its masks and its record."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from app.batch.labellers import SHOWN_SIDE, Labelled, Labeller
from app.batch.review import outlines_of
from app.batch.yolo import yolo_text
from app.inference.image import encode
from app.inference.image.decode import Photo, whole_image
from app.inference.image.preprocess import resize_image
from app.inference.label_maps.quality import Quality, quality_of
from app.inference.label_maps.regions import regions_of
from app.inference.labels import label_of

JPEG_QUALITY = 95  # A photo that is no whole and upright JPEG is copied as one of this quality.


@dataclass(frozen=True)
class Content:
    """It holds the content of a photo's files, of which the record is written last. photo: the upright JPEG. mask: the PNG."""

    photo: bytes
    mask: bytes
    overlay: bytes
    yolo: bytes
    record: bytes


def content_of(
    name: str, shown_path: str, stamp: list[int], tags: tuple[str, ...] | None, data: bytes, labeller: Labeller
) -> Content:
    """Label a photo. Raises ServiceError or DataError where it cannot be labelled.

    Args:
        shown_path: where the photo is, as the record says it.
        stamp: what the photo's file looks like from outside; another stamp means another photo.
        data: the photo's file.
    """
    result = labeller.label(data, tags)
    photo, label = result.photo, result.label_map if result.mask is None else result.mask
    known = result.present if tags is None else [labeller.classes.index(tag) for tag in tags]
    quality = estimate(result, label, known)
    scores = {label_of(index): float(score) for index, score in enumerate(result.scores)}
    record = {
        "name": name,
        "photo": shown_path,
        "stamp": stamp,
        "width": photo.width,
        "height": photo.height,
        "tags": tags,
        "present": [labeller.classes[index] for index in known],
        "quality": {"estimate": quality.estimate, **vars(quality)},
        "regions": [region.model_dump(by_alias=False) for region in regions_of(labeller.classes, label, scores)],
        "outlines": outlines_of(label),
    }
    as_it_is = photo.kind == "JPEG" and photo.upright and photo.note is None
    return Content(
        data if as_it_is else encode.to_jpeg(whole_image(photo, data), JPEG_QUALITY),
        encode.mask_to_png(label),
        overlay(photo, label),
        yolo_text(label).encode(),
        json.dumps(record).encode(),
    )


def estimate(result: Labelled, label: np.ndarray, known: Sequence[int]) -> Quality:
    """Return the quality of a label: against the pseudo-label as a second opinion, and the class indices `known` from the tags, or
    from the scores.
    """
    other = None if result.mask is None else result.label_map
    return quality_of(label, other, result.probabilities, frozenset(label_of(index) for index in known))


def overlay(photo: Photo, label: np.ndarray) -> bytes:
    """Return the label map over the photo, no side longer than `SHOWN_SIDE`."""
    factor = min(1.0, SHOWN_SIDE / max(label.shape))
    height, width = (max(1, round(side * factor)) for side in label.shape)
    small = np.asarray(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST))
    return encode.mask_to_overlay(small, resize_image(photo.image, height, width))
