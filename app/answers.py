"""The verbs of the service, done whole on one worker: decode, predict, encode."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from starlette.responses import Response

from app import encode
from app.decode import Photo
from app.describe import (
    count_labels,
    format_links,
    image_info,
    map_info,
    model_info,
    regions_of,
    result_links,
    settled,
)
from app.errors import ReplyTooLargeError
from app.labels import IGNORE_INDEX, MAX_CLASSES, label_of
from app.model_card import ModelCard
from app.parameters import ALL_CLASSES, CamParameters, LocalizationParameters, PseudoLabelParameters, SegmentParameters
from app.predict import (
    LabelRule,
    Localization,
    PseudoLabel,
    localization_map,
    localize,
    predict_pseudo_label,
)
from app.schemas import CamReply, CamsReply, IgnoredPixels, PseudoLabelReply, SegmentReply, Thresholds
from app.segmentation import segment
from app.work import Work

# The first word is what `*/*` gets.
SEGMENT_FORMATS = ("json", "png", "overlay", "gray8", "npy")
PSEUDO_LABEL_FORMATS = ("png", "overlay", "gray8", "npy", "json")
CAM_FORMATS = ("png", "overlay", "gray8", "gray16", "npy", "json")
ALL_CAMS_FORMATS = ("json", "npy")

MASK_ENCODERS: Mapping[str, Callable[[np.ndarray], bytes]] = {
    "png": encode.mask_to_png,
    "gray8": encode.labels_to_gray8,
    "npy": encode.to_npy,
}
MAP_ENCODERS: Mapping[str, Callable[[np.ndarray], bytes]] = {
    "png": encode.map_to_png,
    "gray8": encode.to_gray8,
    "gray16": encode.to_gray16,
    "npy": encode.to_npy,
}


def answer_segment(work: Work, parameters: SegmentParameters) -> Response:
    """`/segment`: the mask of a photo."""
    photo = work.decode(input_scale=None if work.format == "overlay" else 1.0)
    with work.stage("predict"):
        segmentation = segment(work.engine, photo.image, (photo.height, photo.width))
    if work.format != "json":
        return work.respond(_encode_mask(work, photo, segmentation.mask))
    with work.stage("encode"):
        regions = regions_of(work.engine, segmentation.mask, segmentation.scores)
    reply = SegmentReply(
        image=image_info(work, photo),
        model=model_info(work.engine),
        thresholds=Thresholds(),
        refinement="none",
        classes=regions,
        links={
            **format_links(work, "/segment", {}, ("png", "overlay", "gray8", "npy")),
            **result_links(work, [region.class_name for region in regions]),
        },
        timings_ms=work.timings_ms,
    )
    return work.respond(reply)


def answer_pseudo_label(work: Work, parameters: PseudoLabelParameters) -> Response:
    """`/pseudo-label`: a label map made of the maps of the classes present."""
    photo = work.decode(input_scale=None if work.format == "overlay" else _largest_scale(work, parameters))
    with work.stage("predict"):
        label = predict_pseudo_label(
            work.engine,
            photo.image,
            LabelRule(parameters.background_threshold, parameters.foreground_threshold, parameters.refine),
            tags=parameters.tag_names,
            presence_threshold=parameters.presence_threshold,
            inference=parameters.settled_inference,
            size=(photo.height, photo.width),
        )
    if work.format != "json":
        return work.respond(_encode_mask(work, photo, label.label_map))
    return work.respond(_describe_pseudo_label(work, parameters, photo, label))


def answer_cam(work: Work, parameters: CamParameters) -> Response:
    """`/cam` of one class: its heatmap."""
    class_index = work.engine.card.classes.index(parameters.class_name)
    photo = work.decode(input_scale=None if work.format == "overlay" else _largest_scale(work, parameters))
    with work.stage("predict"):
        localization = _localize(work, photo, parameters, (class_index,))
    score = {"X-Class-Score": f"{localization.scores[class_index]:.6f}"}
    if work.format != "json":
        return work.respond(_encode_map(work, photo, localization_map(localization, class_index)), score)
    info = map_info(work, parameters, localization, class_index)
    reply = CamReply(
        **info.model_dump(by_alias=False),
        image=image_info(work, photo),
        model=model_info(work.engine),
        thresholds=Thresholds(presence={info.class_name: work.engine.card.presence_thresholds[class_index]}),
        refinement="none",
        **_inference(work.engine.card, parameters),
        timings_ms=work.timings_ms,
    )
    return work.respond(reply, score)


def answer_cams(work: Work, parameters: CamParameters) -> Response:
    """`/cam` of all classes: a description, or one array (C, H, W)."""
    card = work.engine.card
    photo = work.decode(input_scale=_largest_scale(work, parameters))
    if work.format == "npy":
        _check_reply_size(work, photo)
    with work.stage("predict"):
        localization = _localize(work, photo, parameters)
    scores = {}
    if len(card.classes) <= MAX_CLASSES:  # a header of more would be refused on its way
        scores["X-Class-Score"] = ", ".join(f"{score:.6f}" for score in localization.scores)
    indices = range(len(card.classes))
    if work.format == "npy":
        return work.respond(encode.to_npy(np.stack([localization_map(localization, i) for i in indices])), scores)
    reply = CamsReply(
        image=image_info(work, photo),
        model=model_info(work.engine),
        thresholds=Thresholds(presence=dict(zip(card.classes, card.presence_thresholds, strict=True))),
        refinement="none",
        classes=[map_info(work, parameters, localization, index) for index in indices],
        links=format_links(work, "/cam", {**settled(parameters), "class": ALL_CLASSES}, ("npy",)),
        **_inference(card, parameters),
        timings_ms=work.timings_ms,
    )
    return work.respond(reply, scores)


def _localize(
    work: Work, photo: Photo, parameters: LocalizationParameters, class_indices: tuple[int, ...] | None = None
) -> Localization:
    """The maps of a photo; those of a photo decoded at reduced size still lead to the upload's own size."""
    localization = localize(work.engine, photo.image, parameters.settled_inference, class_indices)
    geometry = replace(localization.geometry, height=photo.height, width=photo.width)
    return replace(localization, geometry=geometry)


def _largest_scale(work: Work, parameters: LocalizationParameters) -> float:
    return parameters.settled_inference.largest_scale(work.engine.card)


def _inference(card: ModelCard, parameters: LocalizationParameters) -> dict[str, Any]:
    """The way of making maps, its scales and mirroring, for the reply."""
    asked = parameters.settled_inference
    if asked.conditional:
        options = asked.options()
        scales, flip = options.scales, options.flip
    else:
        scales, flip = asked.scales or card.scales, card.flip if asked.flip is None else asked.flip
    return {"inference": parameters.inference, "scales": list(scales), "flip": flip}


def _encode_mask(work: Work, photo: Photo, mask: np.ndarray) -> bytes:
    with work.stage("encode"):
        if work.format == "overlay":
            return encode.mask_to_overlay(mask, photo.image)
        return MASK_ENCODERS[work.format](mask)


def _encode_map(work: Work, photo: Photo, localization_map: np.ndarray) -> bytes:
    with work.stage("encode"):
        if work.format == "overlay":
            return encode.map_to_overlay(localization_map, photo.image)
        return MAP_ENCODERS[work.format](localization_map)


def _describe_pseudo_label(
    work: Work, parameters: PseudoLabelParameters, photo: Photo, label: PseudoLabel
) -> PseudoLabelReply:
    card, tags = work.engine.card, parameters.tag_names
    scores = [float(score) for score in label.scores]
    with work.stage("encode"):
        regions = regions_of(
            work.engine, label.label_map, {label_of(index): score for index, score in enumerate(scores)}
        )
        ignored = count_labels(label.label_map)[IGNORE_INDEX]
    presence = card.presence_thresholds
    if parameters.presence_threshold is not None:
        presence = (parameters.presence_threshold,) * len(card.classes)
    present = [card.classes[index] for index in label.class_indices]
    background, foreground = label.thresholds
    return PseudoLabelReply(
        image=image_info(work, photo),
        model=model_info(work.engine),
        thresholds=Thresholds(
            background=background,
            foreground=foreground,
            presence={} if tags else dict(zip(card.classes, presence, strict=True)),
        ),
        refinement=parameters.refine,
        tags=list(tags) if tags else None,
        present=present,
        scores=dict(zip(card.classes, scores, strict=True)),
        **_inference(card, parameters),
        classes=regions,
        ignore=IgnoredPixels(pixels=ignored, share=ignored / label.label_map.size),
        links={
            **format_links(work, "/pseudo-label", settled(parameters), ("png", "overlay", "gray8", "npy")),
            **result_links(work, present),
        },
        timings_ms=work.timings_ms,
    )


def _check_reply_size(work: Work, photo: Photo) -> None:
    count, limit = len(work.engine.card.classes), work.settings.max_reply_bytes
    size = count * photo.height * photo.width * np.dtype(np.float32).itemsize
    if size > limit:
        raise ReplyTooLargeError(
            f"{count} maps of {photo.width} x {photo.height} pixels make {size} bytes; the limit is {limit}. Ask for one "
            f"class at a time, or send a smaller photo.",
            limit=limit,
        )
