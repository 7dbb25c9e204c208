"""Results -> replies in every format but JSON (`app.http.describe`): pictures, arrays, COCO, Hugging Face's list."""

import json
from collections.abc import Callable, Mapping

import numpy as np

from app.http.describe import as_asked
from app.http.job import Job
from app.http.parameters import CamParameters, PhotoParameters
from app.inference.analysis import Analysis
from app.inference.image import encode
from app.inference.image.preprocess import resize_image
from app.inference.label_maps.regions import (
    CocoImage,
    Region,
    coco_document,
    hugging_face_segment,
    region_of,
    regions_in,
    regions_of,
)
from app.inference.labels import class_index_of, label_of
from app.inference.maps.localization import Localization, localization_map
from app.runtime.model_store import pin

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
    job: Job,
    analysis: Analysis,
    parameters: PhotoParameters,
    mask: np.ndarray,
    scores: Mapping[int, float],
    arrays: Mapping[str, np.ndarray],
) -> bytes:
    """A mask in every format but JSON; `arrays` are what npz holds."""
    classes = job.engines[0].card.classes
    with job.stopwatch.stage("encode"):
        if job.format == "overlay":
            return encode.mask_to_overlay(mask, resize_image(analysis.photo.image, *mask.shape))
        if job.format == "npz":
            return encode.to_npz({**arrays, "classes": np.array(classes)})
        if job.format == "coco":
            return coco(job, parameters, mask.shape, regions_of(classes, mask, scores, parameters.regions))
        if job.format == "hf":
            found = regions_in(mask)
            segments = [
                hugging_face_segment(classes[class_index_of(label)], scores[label], where) for label, where in found
            ]
            return json.dumps(segments).encode()
        return MASK_ENCODERS[job.format](mask)


def encode_map(
    job: Job, analysis: Analysis, parameters: CamParameters, localization: Localization, index: int
) -> bytes:
    """The map of one class in every format but JSON."""
    if job.format != "overlay" and job.format not in MAP_ENCODERS:
        return encode_maps(job, analysis, parameters, localization, (index,))
    with job.stopwatch.stage("encode"):
        values = cut(localization_map(localization, index), parameters.threshold)
        if job.format == "overlay":
            return encode.map_to_overlay(values, resize_image(analysis.photo.image, *values.shape))
        return MAP_ENCODERS[job.format](values)


def encode_maps(
    job: Job, analysis: Analysis, parameters: CamParameters, localization: Localization, indices: tuple[int, ...]
) -> bytes:
    """Maps as npy, as npz (at the size of the network input), as COCO or Hugging Face's list (where they exceed the
    threshold).

    COCO and Hugging Face's list hold regions: of the maps at the photo's size one at a time is in memory.
    """
    card = job.cams[0].card
    with job.stopwatch.stage("encode"):
        if job.format == "npy":
            return encode.to_npy(
                np.stack([cut(localization_map(localization, index), parameters.threshold) for index in indices])
            )
        if job.format == "npz":
            raw = cut(localization.maps_of(indices), parameters.threshold)
            names = np.array([card.classes[index] for index in indices])
            return encode.to_npz({"maps": raw, "scores": analysis.scores[list(indices)], "classes": names})
        threshold = card.background_threshold if parameters.threshold is None else parameters.threshold
        exceeding = ((index, localization_map(localization, index) > threshold) for index in indices)
        there = ((index, where) for index, where in exceeding if where.any())
        if job.format == "coco":
            regions = [
                region_of(
                    card.classes[index], label_of(index), where, float(analysis.scores[index]), parameters.regions
                )
                for index, where in there
            ]
            return coco(job, parameters, analysis.result_size(job.cams[0]), regions)
        segments = [
            hugging_face_segment(card.classes[index], float(analysis.scores[index]), where) for index, where in there
        ]
        return json.dumps(segments).encode()


def coco(job: Job, parameters: PhotoParameters, size: tuple[int, ...], regions: list[Region]) -> bytes:
    """A COCO document whose `info` says how it came about."""
    info = {
        "image_id": job.upload.id,
        "models": [{"name": pin(engine), "sha256": engine.sha256} for engine in job.engines],
        "parameters": as_asked(parameters),
    }
    image = CocoImage(job.upload.name or job.upload.id, (size[0], size[1]), regions)
    categories = {region.label: region.class_name for region in regions}
    return json.dumps(coco_document([image], categories, info)).encode()
