"""Results -> JSON replies: masks, maps and pseudo-labels described, links, model and class lists."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from app.http.job import Work, pin
from app.http.negotiate import ALL_CAMS_FORMATS, BINARY
from app.http.parameters import (
    ALL_CLASSES,
    AnalyzeParameters,
    CamParameters,
    LocalizationParameters,
    Parameters,
    PhotoParameters,
    PseudoLabelParameters,
    SegmentParameters,
)
from app.http.schemas import (
    CamsReply,
    ClassesReply,
    ClassInfo,
    IgnoredPixels,
    ImageInfo,
    MapInfo,
    ModelInfo,
    ModelsReply,
    PseudoLabelReply,
    RefusedModel,
    SegmentReply,
    ServedModel,
    Thresholds,
)
from app.inference.display import css_colour, display_colours
from app.inference.engine import Engine
from app.inference.image.decode import Photo
from app.inference.image.encode import mask_to_rle
from app.inference.label_maps.pseudo_label import PseudoLabel
from app.inference.label_maps.regions import RunLengths, count_labels, regions_of
from app.inference.label_maps.segmentation import Segmentation
from app.inference.labels import BACKGROUND, IGNORE_INDEX, MAX_CLASSES, label_of, voc_colours
from app.inference.maps.localization import Localization
from app.inference.model_card import ModelCard
from app.runtime.model_files import is_version
from app.runtime.model_store import Catalog

Links = dict[str, str | dict[str, str]]


def image_info(work: Work, photo: Photo) -> ImageInfo:
    """Id and size of the upload."""
    return ImageInfo(id=work.upload.id, width=photo.width, height=photo.height, note=photo.note)


def model_info(engine: Engine) -> ModelInfo:
    """What a reply says of the model that answered."""
    card = engine.card
    return ModelInfo(name=card.name, version=card.version, sha256=engine.sha256, method=card.method)


def map_info(work: Work, parameters: LocalizationParameters, localization: Localization, class_index: int) -> MapInfo:
    """What a reply says of the map of one class."""
    card, score = work.engine.card, float(localization.scores[class_index])
    kept = {**settled(parameters, CamParameters), "class": card.classes[class_index]}
    return MapInfo(
        class_name=card.classes[class_index],
        label=label_of(class_index),
        score=score,
        present=score >= card.presence_thresholds[class_index],
        links=format_links(work, "/cam", kept, BINARY),
    )


def settled(parameters: Parameters, endpoint: type[Parameters] | None = None) -> dict[str, Any]:
    """The parameters a request gave, as they stand in its query, without those a link sets anew.

    Only those the endpoint of a link knows, where it is another one.
    """
    given = parameters.model_dump(by_alias=True, exclude_unset=True, exclude={"image", "model", "fuse", "format"})
    known = [field.alias or name for name, field in (endpoint or type(parameters)).model_fields.items()]
    return {
        name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items() if name in known
    }


def format_links(work: Work, path: str, parameters: Mapping[str, object], words: Iterable[str]) -> dict[str, str]:
    """The same result in other formats."""
    return {word: work.link(path, work.pinned, {**parameters, "format": word}) for word in words}


def result_links(work: Work, class_names: Sequence[str]) -> Links:
    """The other results of the photo: its mask, its pseudo-label, and the heatmaps of the classes found.

    A model of the other task is the default one; the model that answered is pinned for its own task.
    """
    defaults, own = work.catalog.defaults, work.engine.card.task
    pins = {task: {"model": pin(engine)} for task, engine in defaults.items()} | {own: work.pinned}
    links: Links = {}
    if "segmentation" in pins:
        links["segment"] = work.link("/segment", pins["segmentation"], {})
    if "cam" in pins:
        known = (work.engine if own == "cam" else defaults["cam"]).card.classes
        if len(known) <= MAX_CLASSES:  # more have no label map
            links["pseudo_label"] = work.link("/pseudo-label", pins["cam"], {})
        links["cam"] = {name: work.link("/cam", pins["cam"], {"class": name}) for name in class_names if name in known}
    return links


def provenance(work: Work, photo: Photo, parameters: PhotoParameters) -> dict[str, Any]:
    """What every reply says of how it came about."""
    tags = parameters.tag_names
    return {
        "image": image_info(work, photo),
        "model": model_info(work.engine),
        "fused_with": [model_info(engine) for engine in work.engines[1:]],
        "tags": None if tags is None else list(tags),
        "refinement": parameters.refine,
    }


def inference(card: ModelCard, parameters: LocalizationParameters) -> dict[str, Any]:
    """The way of making maps, its scales and mirroring, for the reply."""
    asked = parameters.settled_inference
    if asked.conditional:
        options = asked.options()
        scales, flip = options.scales, options.flip
    else:
        scales, flip = asked.scales or card.scales, card.flip if asked.flip is None else asked.flip
    return {"inference": parameters.inference, "scales": list(scales), "flip": flip}


def describe_mask(
    work: Work, photo: Photo, parameters: SegmentParameters | AnalyzeParameters, found: Segmentation
) -> SegmentReply:
    """A mask in JSON."""
    with work.stage("encode"):
        regions = regions_of(work.engine.card.classes, found.mask, found.scores, parameters.regions)
    return SegmentReply(
        **provenance(work, photo, parameters),
        thresholds=Thresholds(probability=parameters.threshold),
        classes=regions,
        scales=list(parameters.scale_factors or (1.0,)),
        flip=bool(parameters.flip),
        links={
            **format_links(work, "/segment", settled(parameters, SegmentParameters), BINARY),
            **result_links(work, [region.class_name for region in regions]),
        },
        timings_ms=work.timings_ms,
    )


def describe_maps(
    work: Work, photo: Photo, parameters: CamParameters | AnalyzeParameters, localization: Localization
) -> CamsReply:
    """The maps of all classes in JSON, or of those CCRM was asked for."""
    card = work.engine.card
    kept = {**settled(parameters, CamParameters), "class": ALL_CLASSES}
    return CamsReply(
        **provenance(work, photo, parameters),
        thresholds=Thresholds(presence=dict(zip(card.classes, card.presence_thresholds, strict=True))),
        classes=[map_info(work, parameters, localization, index) for index in localization.class_indices],
        links=format_links(work, "/cam", kept, ALL_CAMS_FORMATS[1:]) if parameters.inference == "plain" else {},
        **inference(card, parameters),
        timings_ms=work.timings_ms,
    )


def describe_pseudo_label(
    work: Work, parameters: PseudoLabelParameters, photo: Photo, label: PseudoLabel
) -> PseudoLabelReply:
    """A pseudo-label in JSON."""
    card, tags = work.engine.card, parameters.tag_names
    scores = [float(score) for score in label.scores]
    with work.stage("encode"):
        by_label = {label_of(index): score for index, score in enumerate(scores)}
        regions = regions_of(card.classes, label.label_map, by_label, parameters.regions)
        ignored = ignored_pixels(label.label_map)
    presence = card.presence_thresholds
    if parameters.presence_threshold is not None:
        presence = (parameters.presence_threshold,) * len(card.classes)
    present = [card.classes[index] for index in label.class_indices]
    background, foreground = label.thresholds
    return PseudoLabelReply(
        **provenance(work, photo, parameters),
        thresholds=Thresholds(
            background=background,
            foreground=foreground,
            presence={} if tags else dict(zip(card.classes, presence, strict=True)),
        ),
        present=present,
        scores=dict(zip(card.classes, scores, strict=True)),
        **inference(card, parameters),
        classes=regions,
        ignore=ignored,
        links={
            **format_links(work, "/pseudo-label", settled(parameters, PseudoLabelParameters), BINARY),
            **result_links(work, present),
        },
        timings_ms=work.timings_ms,
    )


def ignored_pixels(label_map: np.ndarray) -> IgnoredPixels:
    """The part of a uint8 (H, W) label map that is labelled "ignore"."""
    pixels = count_labels(label_map)[IGNORE_INDEX]
    rle = RunLengths(**mask_to_rle(label_map == IGNORE_INDEX)) if pixels else None
    return IgnoredPixels(pixels=pixels, share=pixels / label_map.size, rle=rle)


def models_reply(catalog: Catalog) -> ModelsReply:
    """Every model with its card, sorted by name and version."""
    models = []
    for _, engine in sorted(catalog.engines.items()):
        card = engine.card.model_dump(mode="json")
        own = {"default": catalog.defaults[engine.card.task] is engine, "sha256": engine.sha256}
        models.append(ServedModel(**card, **own, providers=engine.providers))
    refused = [
        RefusedModel(name=name, version=version, reason=reason)
        for (name, version), reason in sorted(catalog.refused.items())
    ]
    for name, reasons in catalog.misplaced.items():
        for folder, reason in reasons.items():
            version = int(folder) if is_version(folder) else None
            refused.append(RefusedModel(name=name, version=version, reason=reason))
    return ModelsReply(models=models, refused=refused)


def classes_reply(engine: Engine) -> ClassesReply:
    """The classes of one model with their labels and colours."""
    names, classes = engine.card.classes, []
    labels = label_of(np.arange(len(names)))
    colours = zip(voc_colours(labels), display_colours(labels), strict=True)
    for index, (name, (stored, shown)) in enumerate(zip(names, colours, strict=True)):
        info = {"color": css_colour(stored), "display_color": css_colour(shown)}
        classes.append(ClassInfo(class_name=name, label=label_of(index), **info))
    return ClassesReply(model=model_info(engine), classes=classes, background=BACKGROUND, ignore=IGNORE_INDEX)
