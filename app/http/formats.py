"""Results -> replies in every format but JSON (`app.http.describe`): pictures, arrays, COCO, Hugging Face's list."""

import json
from collections.abc import Callable, Mapping

import numpy as np

from app.http.describe import settled
from app.http.job import Work, pin
from app.http.parameters import CamParameters, PhotoParameters
from app.inference.image import encode
from app.inference.image.decode import Photo
from app.inference.image.preprocess import resize_image
from app.inference.label_maps.regions import (
    Region,
    coco_document,
    hugging_face_segments,
    label_masks,
    map_regions,
    regions_of,
)
from app.inference.labels import class_index_of
from app.inference.maps.localization import Localization, localization_map

MASK_ENCODERS: Mapping[str, Callable[[np.ndarray], bytes]] = {
    "png": encode.mask_to_png,
    "gray8": encode.labels_to_gray8,
    "gray16": encode.labels_to_gray16,
    "npy": encode.to_npy,
}
MAP_ENCODERS: Mapping[str, Callable[[np.ndarray], bytes]] = {
    "png": encode.map_to_png,
    "gray8": encode.to_gray8,
    "gray16": encode.to_gray16,
    "npy": encode.to_npy,
}


def cut(values: np.ndarray, threshold: float | None) -> np.ndarray:
    """A map with 0 where it does not exceed the threshold."""
    return values if threshold is None else np.where(values > threshold, values, np.float32(0))


def encode_mask(
    work: Work,
    photo: Photo,
    parameters: PhotoParameters,
    mask: np.ndarray,
    scores: Mapping[int, float],
    arrays: Mapping[str, np.ndarray],
) -> bytes:
    """A mask in every format but JSON; `arrays` are what npz holds."""
    classes = work.engine.card.classes
    with work.stage("encode"):
        if work.format == "overlay":
            return encode.mask_to_overlay(mask, resize_image(photo.image, *mask.shape))
        if work.format == "npz":
            return encode.to_npz({**arrays, "classes": np.array(classes)})
        if work.format == "coco":
            return coco(work, parameters, mask.shape, regions_of(classes, mask, scores, parameters.regions))
        if work.format == "hf":
            names = {classes[class_index_of(label)]: score for label, score in scores.items() if label}
            return json.dumps(hugging_face_segments(label_masks(classes, mask), names)).encode()
        return MASK_ENCODERS[work.format](mask)


def encode_map(work: Work, photo: Photo, parameters: CamParameters, localization: Localization, index: int) -> bytes:
    """The map of one class in every format but JSON."""
    if work.format != "overlay" and work.format not in MAP_ENCODERS:
        return encode_maps(work, photo, parameters, localization, (index,))
    values = cut(localization_map(localization, index), parameters.threshold)
    if work.format == "overlay":
        return encode.map_to_overlay(values, resize_image(photo.image, *values.shape))
    return MAP_ENCODERS[work.format](values)


def encode_maps(
    work: Work, photo: Photo, parameters: CamParameters, localization: Localization, indices: tuple[int, ...]
) -> bytes:
    """Maps as npy, as npz (at the size of the network input), as COCO or Hugging Face's list (where they exceed the
    threshold).
    """
    card = work.engine.card
    if work.format == "npy":
        return encode.to_npy(
            np.stack([cut(localization_map(localization, index), parameters.threshold) for index in indices])
        )
    if work.format == "npz":
        raw = cut(localization.maps_of(indices), parameters.threshold)
        names = np.array([card.classes[index] for index in indices])
        return encode.to_npz({"maps": raw, "scores": localization.scores[list(indices)], "classes": names})
    threshold = card.background_threshold if parameters.threshold is None else parameters.threshold
    maps = [localization_map(localization, index) for index in indices]
    if work.format == "coco":
        regions = map_regions(card.classes, indices, maps, localization.scores, threshold, parameters.regions)
        return coco(work, parameters, work.result_size(photo, parameters.size), regions)
    masks = {card.classes[i]: values > threshold for i, values in zip(indices, maps, strict=True)}
    scores = {card.classes[i]: float(localization.scores[i]) for i in indices}
    return json.dumps(hugging_face_segments({name: m for name, m in masks.items() if m.any()}, scores)).encode()


def coco(work: Work, parameters: PhotoParameters, size: tuple[int, ...], regions: list[Region]) -> bytes:
    """A COCO document whose `info` says how it came about."""
    info = {
        "image_id": work.upload.id,
        "models": [{"name": pin(engine), "sha256": engine.sha256} for engine in work.engines],
        "parameters": settled(parameters),
    }
    return json.dumps(coco_document(work.upload.id, (size[0], size[1]), regions, info)).encode()
