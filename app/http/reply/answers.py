"""The endpoints that take a photo are answered here, each answer worked out whole on one worker."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from starlette.responses import Response

from app.http.formats import FORMATS, Maps, Mask
from app.http.job import Job
from app.http.reply.describe import (
    as_asked,
    describe_map,
    describe_maps,
    describe_mask,
    describe_pseudo_label,
    image_info,
)
from app.http.reply.schemas import AnalyzeReply
from app.http.request.parameters import (
    AnalyzeParameters,
    CamParameters,
    PhotoParameters,
    PseudoLabelParameters,
    SegmentParameters,
)
from app.inference.errors import ReplyTooLargeError
from app.inference.image import encode
from app.inference.image.decode import whole_image
from app.inference.labels import MAX_CLASSES, label_of
from app.inference.maps.localization import Localization
from app.runtime.model_store import pin


def answer_segment(job: Job[SegmentParameters]) -> Response:
    """Answer `/segment` with the mask of a photo."""
    found = job.analysis.mask
    if job.format == "json":
        return job.respond(describe_mask(job))

    def arrays() -> dict[str, np.ndarray]:
        return {"mask": found.mask, "probabilities": found.probabilities}

    return job.respond(encode_mask(job, found.mask, lambda: found.scores, arrays))


def answer_pseudo_label(job: Job[PseudoLabelParameters]) -> Response:
    """Answer `/pseudo-label` with a label map made of the maps of the classes present."""
    label = job.analysis.pseudo_label
    if job.format == "json":
        return job.respond(describe_pseudo_label(job))

    def arrays() -> dict[str, np.ndarray]:
        indices = np.array(label.class_indices, int)
        return {"label_map": label.label_map, "maps": label.maps, "class_indices": indices, "scores": label.scores}

    def scores() -> dict[int, float]:
        return {label_of(index): float(score) for index, score in enumerate(label.scores)}

    return job.respond(encode_mask(job, label.label_map, scores, arrays))


def answer_cam(job: Job[CamParameters]) -> Response:
    """Answer `/cam` of one class with its heatmap."""
    index = job.class_index
    assert index is not None
    analysis = job.analysis
    localization = analysis.maps((index,))
    score = {"X-Class-Score": f"{analysis.scores[index]:.6f}"}
    if job.format == "json":
        return job.respond(describe_map(job, index), score)
    return job.respond(encode_maps(job, localization, (index,)), score)


def answer_cams(job: Job[CamParameters]) -> Response:
    """Answer `/cam` of all classes with a description, arrays, or the regions of the classes that are there."""
    analysis = job.analysis
    if FORMATS[job.format].at_full_size:
        check_reply_size(job)
    localization = analysis.maps()
    classes, scores = job.cams[0].card.classes, {}
    if len(classes) <= MAX_CLASSES:  # A header of more would be refused on its way.
        scores["X-Class-Score"] = ", ".join(f"{score:.6f}" for score in analysis.scores)
    if job.format == "json":
        return job.respond(describe_maps(job), scores)
    indices = analysis.present if FORMATS[job.format].of_present else tuple(range(len(classes)))
    return job.respond(encode_maps(job, localization, indices), scores)


def answer_analyze(job: Job[AnalyzeParameters]) -> Response:
    """Answer `/analyze` with mask, heatmaps and pseudo-label of one photo."""
    analysis = job.analysis
    label, found = analysis.pseudo_label, analysis.mask if job.segmenter else None
    if job.format == "npz":
        localization = analysis.maps()
        with job.stopwatch.stage("encode"):
            indices = localization.class_indices
            arrays = {
                "label_map": label.label_map,
                "scores": label.scores,
                "classes": np.array(job.cams[0].card.classes),
                "maps": localization.maps_of(indices),
                "class_indices": np.array(indices, int),
                "present": np.array(label.class_indices, int),
            }
            if found:
                arrays |= {"mask": found.mask, "probabilities": found.probabilities}
            body = encode.to_npz(arrays)
        return job.respond(body)
    reply = AnalyzeReply(
        image=image_info(job),
        segment=describe_mask(job) if found else None,
        cam=describe_maps(job),
        pseudo_label=describe_pseudo_label(job),
        timings_ms=job.stopwatch.milliseconds,
    )
    return job.respond(reply)


def encode_mask(
    job: Job[PhotoParameters],
    mask: np.ndarray,
    scores: Callable[[], Mapping[int, float]],
    arrays: Callable[[], Mapping[str, np.ndarray]],
) -> bytes:
    """Return a label map in the format asked for; what the format needs besides is worked out for it alone."""
    encode_to = FORMATS[job.format].mask
    assert encode_to is not None
    with job.stopwatch.stage("encode"):
        return encode_to(Mask(**common_of(job), mask=mask, scores=scores, arrays=arrays))


def encode_maps(job: Job[CamParameters], localization: Localization, indices: tuple[int, ...]) -> bytes:
    """Return the maps of these classes in the format asked for."""
    form, card, threshold = FORMATS[job.format], job.cams[0].card, job.parameters.threshold
    encode_to = form.map if job.class_index is not None else form.maps
    assert encode_to is not None
    with job.stopwatch.stage("encode"):
        return encode_to(
            Maps(
                **common_of(job),
                localization=localization,
                indices=indices,
                scores=job.analysis.scores,
                size=job.analysis.result_size(job.cams[0]),
                threshold=threshold,
                region_threshold=card.background_threshold if threshold is None else threshold,
            )
        )


def common_of(job: Job[PhotoParameters]) -> dict[str, Any]:
    """Return what every format is given."""
    models = [{"name": pin(engine), "sha256": engine.sha256} for engine in job.engines]
    return {
        "classes": job.engines[0].card.classes,
        "image": lambda: image_to_show(job),
        "name": job.upload.name or job.upload.id,
        "shape": job.parameters.regions,
        "info": {"image_id": job.upload.id, "models": models, "parameters": as_asked(job.parameters)},
    }


def image_to_show(job: Job[PhotoParameters]) -> np.ndarray:
    """Return the photo whose pixels are part of the answer, at its own size where that is asked for."""
    if job.analyzer.options.size == "model":
        return job.analysis.photo.image
    with job.stopwatch.stage("decode"):
        return whole_image(job.analysis.photo, job.upload.data)


def check_reply_size(job: Job[PhotoParameters]) -> None:
    """Raise ReplyTooLargeError where the maps of all classes would make too large a reply."""
    count, limit = len(job.cams[0].card.classes), job.settings.max_reply_bytes
    height, width = job.analysis.result_size(job.cams[0])
    total = count * height * width * np.dtype(np.float32).itemsize
    if total > limit:
        raise ReplyTooLargeError(
            f"{count} maps of {width} x {height} pixels make {total} bytes; the limit is {limit}. Ask for one class at a "
            f"time, for size=model or format=npz, or send a smaller photo.",
            limit=limit,
        )
