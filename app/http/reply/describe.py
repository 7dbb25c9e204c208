"""Results become JSON replies: masks, maps and pseudo-labels are described, and models and classes listed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from app.http.formats import all_maps_words, map_words, mask_words
from app.http.job import Job
from app.http.reply.schemas import (
    CamReply,
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
from app.http.request.parameters import (
    AnalyzeParameters,
    CamParameters,
    LocalizationParameters,
    PhotoParameters,
    PseudoLabelParameters,
    SegmentParameters,
    every_class,
)
from app.http.request.query import Parameters
from app.inference.display import css_colour, display_colours
from app.inference.label_maps.regions import mask_to_rle, regions_of
from app.inference.labels import BACKGROUND, IGNORE_INDEX, MAX_CLASSES, label_of, voc_colours
from app.inference.maps.localization import presence_thresholds
from app.inference.model_card import ModelCard
from app.runtime.loaded_model import LoadedModel
from app.runtime.model_files import is_version
from app.runtime.model_store import Catalog, Task, pin

Links = dict[str, str | dict[str, str]]


def image_info(job: Job[PhotoParameters]) -> ImageInfo:
    """Return the id and size of the upload."""
    return ImageInfo(id=job.upload.id, width=job.analysis.width, height=job.analysis.height, note=job.analysis.note)


def model_info(engine: LoadedModel) -> ModelInfo:
    """Return what a reply says of the model that answered."""
    card = engine.card
    return ModelInfo(name=card.name, version=card.version, sha256=engine.sha256, method=card.method)


def map_info(job: Job[LocalizationParameters], class_index: int) -> MapInfo:
    """Return what a reply says of the map of one class."""
    card, score, analyzer = job.cams[0].card, float(job.analysis.scores[class_index]), job.analyzer
    kept = {**as_asked(job.parameters, CamParameters), "class": card.classes[class_index]}
    return MapInfo(
        class_name=card.classes[class_index],
        label=label_of(class_index),
        score=score,
        presence_threshold=None if analyzer.options.tags else float(analyzer.presence_thresholds[class_index]),
        present=class_index in job.analysis.present,
        links=format_links(job, "/cam", "cam", kept, map_words()),
    )


def as_asked(parameters: Parameters, endpoint: type[Parameters] | None = None) -> dict[str, Any]:
    """Return the parameters a request gave, as they stand in its query, without those a link sets anew.

    Only those the endpoint of a link knows, where it is another one.
    """
    given = parameters.model_dump(by_alias=True, exclude_unset=True, exclude={"image", "model", "fuse", "format"})
    known = [field.alias or name for name, field in (endpoint or type(parameters)).model_fields.items()]
    return {
        name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items() if name in known
    }


def format_links(
    job: Job[PhotoParameters], path: str, task: Task, parameters: Mapping[str, object], words: Iterable[str]
) -> dict[str, str]:
    """Return the same result, of the models of this task, in other formats."""
    return {word: job.link(path, job.pins[task], {**parameters, "format": word}) for word in words}


def result_links(job: Job[PhotoParameters], class_names: Sequence[str]) -> Links:
    """Return the other results of the photo: its mask, its pseudo-label, and the heatmaps of the classes found.

    The models that answered are pinned, each for its own task; a task for which none answered has the default one.
    """
    pins = job.pins
    links: Links = {}
    if "segmentation" in pins:
        links["segment"] = job.link("/segment", pins["segmentation"], {})
    if "cam" in pins:
        known = (job.cams[0] if job.cams else job.defaults["cam"]).card.classes
        if len(known) <= MAX_CLASSES:  # A model of more classes has no label map.
            links["pseudo_label"] = job.link("/pseudo-label", pins["cam"], {})
        links["cam"] = {name: job.link("/cam", pins["cam"], {"class": name}) for name in class_names if name in known}
    return links


def provenance(job: Job[PhotoParameters], engines: tuple[LoadedModel, ...]) -> dict[str, Any]:
    """Return what every reply says of how it came about."""
    options = job.analyzer.options
    return {
        "image": image_info(job),
        "model": model_info(engines[0]),
        "fused_with": [model_info(engine) for engine in engines[1:]],
        "left_out": [pin(engine) for engine in job.left_out],
        "tags": None if options.tags is None else list(options.tags),
        "refinement": options.refine,
    }


def inference(job: Job[LocalizationParameters]) -> dict[str, Any]:
    """Return the way of making maps, its scales and mirroring, for the reply."""
    scales, flip = job.analyzer.map_views
    return {"inference": job.parameters.inference, "scales": list(scales), "flip": flip}


def describe_mask(job: Job[SegmentParameters] | Job[AnalyzeParameters]) -> SegmentReply:
    """Return a mask in JSON."""
    segmenter, found, asked = job.segmenter, job.analysis.mask, job.parameters
    assert segmenter is not None
    card, class_scores, options = segmenter.card, found.class_scores, job.analyzer.options
    with job.stopwatch.stage("encode"):
        regions = regions_of(card.classes, found.mask, found.scores, asked.regions)
    scales, flip = job.analyzer.mask_views
    judged = card.presence_thresholds and not options.tags
    presence = by_class(card, presence_thresholds([card], options.presence_threshold)) if judged else {}
    return SegmentReply(
        **provenance(job, (segmenter,)),
        thresholds=Thresholds(probability=asked.threshold, presence=presence),
        scores={} if class_scores is None else by_class(card, class_scores),
        classes=regions,
        scales=list(scales),
        flip=flip,
        links={
            **format_links(job, "/segment", "segmentation", as_asked(asked, SegmentParameters), mask_words()),
            **result_links(job, [region.class_name for region in regions]),
        },
        timings_ms=job.stopwatch.milliseconds,
    )


def by_class(card: ModelCard, values: np.ndarray) -> dict[str, float]:
    """Return values (C,) by class name."""
    return dict(zip(card.classes, values.tolist(), strict=True))


def presence_of(job: Job[LocalizationParameters]) -> dict[str, float]:
    """Return the score by class name from which the models of the maps hold a class to be in the photo; empty where tags say
    what is there.
    """
    return {} if job.analyzer.options.tags else by_class(job.cams[0].card, job.analyzer.presence_thresholds)


def describe_map(job: Job[CamParameters], class_index: int) -> CamReply:
    """Return the map of one class in JSON."""
    info = map_info(job, class_index)
    threshold = info.presence_threshold
    return CamReply(
        **info.model_dump(by_alias=False),
        **provenance(job, job.cams),
        thresholds=Thresholds(presence={} if threshold is None else {info.class_name: threshold}),
        **inference(job),
        timings_ms=job.stopwatch.milliseconds,
    )


def describe_maps(job: Job[CamParameters] | Job[AnalyzeParameters]) -> CamsReply:
    """Return the maps of all classes in JSON, or of those CCRM was asked for."""
    card = job.cams[0].card
    kept = {**as_asked(job.parameters, CamParameters), "class": every_class(card)}
    plain = job.parameters.inference == "plain"
    return CamsReply(
        **provenance(job, job.cams),
        thresholds=Thresholds(presence=presence_of(job)),
        classes=[map_info(job, index) for index in job.analysis.maps().class_indices],
        links=format_links(job, "/cam", "cam", kept, all_maps_words()) if plain else {},
        **inference(job),
        timings_ms=job.stopwatch.milliseconds,
    )


def describe_pseudo_label(job: Job[PseudoLabelParameters]) -> PseudoLabelReply:
    """Return a pseudo-label in JSON."""
    card, label = job.cams[0].card, job.analysis.pseudo_label
    scores = [float(score) for score in label.scores]
    with job.stopwatch.stage("encode"):
        by_label = {label_of(index): score for index, score in enumerate(scores)}
        regions = regions_of(card.classes, label.label_map, by_label, job.parameters.regions)
        ignored = ignored_pixels(label.label_map)
    present = [card.classes[index] for index in label.class_indices]
    background, foreground = label.thresholds
    return PseudoLabelReply(
        **provenance(job, job.cams),
        thresholds=Thresholds(
            background=background,
            foreground=foreground,
            presence=presence_of(job),
        ),
        present=present,
        scores=dict(zip(card.classes, scores, strict=True)),
        **inference(job),
        classes=regions,
        ignore=ignored,
        links={
            **format_links(job, "/pseudo-label", "cam", as_asked(job.parameters, PseudoLabelParameters), mask_words()),
            **result_links(job, present),
        },
        timings_ms=job.stopwatch.milliseconds,
    )


def ignored_pixels(label_map: np.ndarray) -> IgnoredPixels:
    """Return the part of a uint8 (H, W) label map that is labelled "ignore"."""
    pixels = int(np.count_nonzero(label_map == IGNORE_INDEX))
    rle = mask_to_rle(label_map == IGNORE_INDEX) if pixels else None
    return IgnoredPixels(pixels=pixels, share=pixels / label_map.size, rle=rle)


def models_reply(catalog: Catalog) -> ModelsReply:
    """Return every model with its card, sorted by name and version."""
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


def classes_reply(engine: LoadedModel) -> ClassesReply:
    """Return the classes of one model with their labels and colours."""
    names, classes = engine.card.classes, []
    labels = label_of(np.arange(len(names)))
    colours = zip(voc_colours(labels), display_colours(labels), strict=True)
    for index, (name, (stored, shown)) in enumerate(zip(names, colours, strict=True)):
        info = {"color": css_colour(stored), "display_color": css_colour(shown)}
        classes.append(ClassInfo(class_name=name, label=label_of(index), **info))
    return ClassesReply(model=model_info(engine), classes=classes, background=BACKGROUND, ignore=IGNORE_INDEX)
