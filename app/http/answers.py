"""The verbs of the service, done whole on one worker: decode, predict, encode."""

from dataclasses import replace

import numpy as np
from starlette.responses import Response

from app.http.describe import (
    describe_maps,
    describe_mask,
    describe_pseudo_label,
    image_info,
    inference,
    map_info,
    provenance,
)
from app.http.formats import encode_map, encode_maps, encode_mask
from app.http.job import Work
from app.http.parameters import (
    AnalyzeParameters,
    CamParameters,
    LocalizationParameters,
    PhotoParameters,
    PseudoLabelParameters,
    SegmentParameters,
)
from app.http.schemas import (
    AnalyzeReply,
    CamReply,
    Thresholds,
)
from app.inference.errors import ParameterError, ReplyTooLargeError
from app.inference.image import encode
from app.inference.image.decode import Photo
from app.inference.label_maps.pseudo_label import LabelRule, PseudoLabel, predict_pseudo_label
from app.inference.label_maps.segmentation import Segmentation, segment
from app.inference.label_maps.small_regions import without_small_regions
from app.inference.labels import MAX_CLASSES, label_of
from app.inference.maps.localization import Localization, localize, present_classes, tagged_classes


def answer_segment(work: Work, parameters: SegmentParameters) -> Response:
    """`/segment`: the mask of a photo."""
    photo = decode(work, parameters, max(parameters.scale_factors or (1.0,)))
    found = segment_photo(work, photo, parameters)
    if work.format == "json":
        return work.respond(describe_mask(work, photo, parameters, found))
    arrays = {"mask": found.mask, "probabilities": found.probabilities}
    return work.respond(encode_mask(work, photo, parameters, found.mask, found.scores, arrays))


def answer_pseudo_label(work: Work, parameters: PseudoLabelParameters) -> Response:
    """`/pseudo-label`: a label map made of the maps of the classes present."""
    photo = decode(work, parameters, largest_scale(work, parameters))
    label = label_photo(work, photo, parameters)
    if work.format == "json":
        return work.respond(describe_pseudo_label(work, parameters, photo, label))
    arrays = {
        "label_map": label.label_map,
        "maps": label.maps,
        "class_indices": np.array(label.class_indices, int),
        "scores": label.scores,
    }
    scores = {label_of(index): float(score) for index, score in enumerate(label.scores)}
    return work.respond(encode_mask(work, photo, parameters, label.label_map, scores, arrays))


def answer_cam(work: Work, parameters: CamParameters) -> Response:
    """`/cam` of one class: its heatmap."""
    card = work.engine.card
    index = card.classes.index(parameters.class_name)
    photo = decode(work, parameters, largest_scale(work, parameters))
    with work.stage("predict"):
        localization = localize_photo(work, photo, parameters, (index,))
    score = {"X-Class-Score": f"{localization.scores[index]:.6f}"}
    if work.format == "json":
        info = map_info(work, parameters, localization, index)
        reply = CamReply(
            **info.model_dump(by_alias=False),
            **provenance(work, photo, parameters),
            thresholds=Thresholds(presence={info.class_name: card.presence_thresholds[index]}),
            **inference(card, parameters),
            timings_ms=work.timings_ms,
        )
        return work.respond(reply, score)
    with work.stage("encode"):
        body = encode_map(work, photo, parameters, localization, index)
    return work.respond(body, score)


def answer_cams(work: Work, parameters: CamParameters) -> Response:
    """`/cam` of all classes: a description, arrays, or the regions of the classes that are there."""
    photo = decode(work, parameters, largest_scale(work, parameters))
    if work.format == "npy":
        check_reply_size(work, work.result_size(photo, parameters.size))
    with work.stage("predict"):
        localization = localize_photo(work, photo, parameters)
    card, scores = work.engine.card, {}
    if len(card.classes) <= MAX_CLASSES:  # a header of more would be refused on its way
        scores["X-Class-Score"] = ", ".join(f"{score:.6f}" for score in localization.scores)
    if work.format == "json":
        return work.respond(describe_maps(work, photo, parameters, localization), scores)
    indices = tuple(range(len(card.classes)))
    with work.stage("encode"):
        here = present_classes(card, localization.scores, parameters.tag_names)
        body = encode_maps(work, photo, parameters, localization, here if work.format in ("coco", "hf") else indices)
    return work.respond(body, scores)


def answer_analyze(work: Work, parameters: AnalyzeParameters) -> Response:
    """`/analyze`: mask, heatmaps and pseudo-label of one photo."""
    photo = decode(work, parameters, max(largest_scale(work, parameters), *(parameters.scale_factors or (1.0,))))
    label = label_photo(work, photo, parameters)
    found = None
    if work.segmenter:
        found = segment_photo(work.beside(work.segmenter), photo, parameters)
    localization = at_size(Localization(label.sources, label.sources[0].geometry, photo.image), work, photo, parameters)
    if work.format == "npz":
        with work.stage("encode"):
            arrays = {
                "label_map": label.label_map,
                "scores": label.scores,
                "classes": np.array(work.engine.card.classes),
            }
            indices = localization.class_indices
            arrays |= {"maps": localization.maps_of(indices), "class_indices": np.array(indices, int)}
            arrays["present"] = np.array(label.class_indices, int)
            if found:
                arrays |= {"mask": found.mask, "probabilities": found.probabilities}
            body = encode.to_npz(arrays)
        return work.respond(body)
    mask = None
    if work.segmenter and found:
        mask = describe_mask(work.beside(work.segmenter), photo, parameters, found)
    reply = AnalyzeReply(
        image=image_info(work, photo),
        segment=mask,
        cam=describe_maps(work, photo, parameters, localization),
        pseudo_label=describe_pseudo_label(work, parameters, photo, label),
        timings_ms=work.timings_ms,
    )
    return work.respond(reply)


def decode(work: Work, parameters: PhotoParameters, largest: float) -> Photo:
    """The photo, no larger than its largest view needs where its own pixels are not part of the answer."""
    shown = work.format == "overlay" and parameters.size == "image"
    return work.decode(input_scale=None if shown else largest)


def segment_photo(work: Work, photo: Photo, parameters: SegmentParameters | AnalyzeParameters) -> Segmentation:
    """The mask of a photo as asked for."""
    card, tags = work.engine.card, parameters.tag_names
    with work.stage("predict"):
        found = segment(
            work.engine,
            photo.image,
            work.result_size(photo, parameters.size),
            scales=parameters.scale_factors or (1.0,),
            flip=bool(parameters.flip),
            class_indices=None if tags is None else tagged_classes(card, tags),
            threshold=parameters.threshold,
            refine=parameters.refine,
        )
        return replace(found, mask=without_small_regions(found.mask, parameters.smallest_region))


def label_photo(work: Work, photo: Photo, parameters: PseudoLabelParameters) -> PseudoLabel:
    """The pseudo-label of a photo as asked for."""
    rule = LabelRule(parameters.background_threshold, parameters.foreground_threshold, parameters.refine)
    background, foreground = rule.thresholds(work.engine.card)
    if foreground < background:
        raise ParameterError(
            f"foreground_threshold={foreground:g} lies below the background threshold of {background:g}; raise it, or lower "
            f"background_threshold.",
            parameter="foreground_threshold",
        )
    with work.stage("predict"):
        label = predict_pseudo_label(
            work.engine,
            photo.image,
            rule,
            tags=parameters.tag_names,
            presence_threshold=parameters.presence_threshold,
            inference=parameters.settled_inference,
            size=work.result_size(photo, parameters.size),
            others=work.engines[1:],
        )
        return replace(label, label_map=without_small_regions(label.label_map, parameters.smallest_region))


def localize_photo(
    work: Work, photo: Photo, parameters: LocalizationParameters, class_indices: tuple[int, ...] | None = None
) -> Localization:
    """The maps of a photo as asked for."""
    found = localize(
        work.engine, photo.image, parameters.settled_inference, class_indices, others=work.engines[1:],
        refine=parameters.refine,
    )  # fmt: skip
    return at_size(found, work, photo, parameters)


def at_size(localization: Localization, work: Work, photo: Photo, parameters: LocalizationParameters) -> Localization:
    """Maps that lead to the size asked for, gated by the tags."""
    height, width = work.result_size(photo, parameters.size)
    tags = parameters.tag_names
    return replace(
        localization,
        geometry=replace(localization.geometry, height=height, width=width),
        refine=parameters.refine,
        allowed=None if tags is None else tagged_classes(work.engine.card, tags),
    )


def largest_scale(work: Work, parameters: LocalizationParameters) -> float:
    """Of the preferred size, that any of the models looks at."""
    return max(parameters.settled_inference.largest_scale(engine.card) for engine in work.engines)


def check_reply_size(work: Work, size: tuple[int, int]) -> None:
    """Raise ReplyTooLargeError where the maps of all classes would make too large a reply."""
    count, limit = len(work.engine.card.classes), work.settings.max_reply_bytes
    height, width = size
    total = count * height * width * np.dtype(np.float32).itemsize
    if total > limit:
        raise ReplyTooLargeError(
            f"{count} maps of {width} x {height} pixels make {total} bytes; the limit is {limit}. Ask for one class at a "
            f"time, for size=model or format=npz, or send a smaller photo.",
            limit=limit,
        )
