"""Results -> the parts of a JSON reply: regions of a mask, classes of a map, links, model and class lists."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from app.decode import Photo
from app.encode import box_of, mask_to_rle
from app.engine import Engine
from app.labels import BACKGROUND, IGNORE_INDEX, MAX_CLASSES, class_index_of, label_of, voc_colours
from app.model_store import Catalog
from app.parameters import LocalizationParameters, Parameters
from app.predict import Localization
from app.schemas import (
    ClassesReply,
    ClassInfo,
    ImageInfo,
    MapInfo,
    ModelInfo,
    ModelsReply,
    RefusedModel,
    Region,
    RunLengths,
    ServedModel,
)
from app.work import Work

Links = dict[str, str | dict[str, str]]


def image_info(work: Work, photo: Photo) -> ImageInfo:
    """Id and size of the upload."""
    return ImageInfo(id=work.upload.id, width=photo.width, height=photo.height)


def model_info(engine: Engine) -> ModelInfo:
    """What a reply says of the model that answered."""
    card = engine.card
    return ModelInfo(name=card.name, version=card.version, sha256=engine.sha256, method=card.method)


def count_labels(mask: np.ndarray) -> list[int]:
    """Pixels of each label 0..255 in a uint8 (H, W) mask."""
    return Image.fromarray(mask).histogram()  # numpy's bincount would copy the mask to 8 bytes a pixel


def regions_of(engine: Engine, mask: np.ndarray, scores: Mapping[int, float]) -> list[Region]:
    """The classes of a uint8 (H, W) mask, largest first. `scores`: label -> score."""
    regions = []
    for label, pixels in enumerate(count_labels(mask)):
        if pixels and label not in (BACKGROUND, IGNORE_INDEX):
            region = Region(
                class_name=engine.card.classes[class_index_of(label)],
                label=label,
                score=scores[label],
                pixels=pixels,
                share=pixels / mask.size,
                box=box_of(mask == label),
                rle=RunLengths(**mask_to_rle(mask, label)),
            )
            regions.append(region)
    return sorted(regions, key=lambda region: -region.pixels)


def map_info(work: Work, parameters: LocalizationParameters, localization: Localization, class_index: int) -> MapInfo:
    """What a reply says of the map of one class."""
    card, score = work.engine.card, float(localization.scores[class_index])
    kept = {**settled(parameters), "class": card.classes[class_index]}
    return MapInfo(
        class_name=card.classes[class_index],
        label=label_of(class_index),
        score=score,
        present=score >= card.presence_thresholds[class_index],
        links=format_links(work, "/cam", kept, ("png", "overlay", "gray8", "gray16", "npy")),
    )


def settled(parameters: Parameters) -> dict[str, Any]:
    """The parameters a request gave, as they stand in its query, without those a link sets anew."""
    given = parameters.model_dump(by_alias=True, exclude_unset=True, exclude={"image", "model", "format"})
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}


def format_links(work: Work, path: str, parameters: Mapping[str, object], words: Iterable[str]) -> dict[str, str]:
    """The same result in other formats."""
    return {word: work.link(path, work.engine, {**parameters, "format": word}) for word in words}


def result_links(work: Work, class_names: Sequence[str]) -> Links:
    """The other results of the photo: its mask, its pseudo-label, and the heatmaps of the classes found.

    A model of the other task is the default one; the model that answered is pinned for its own task.
    """
    engines = {**work.catalog.defaults, work.engine.card.task: work.engine}
    links: Links = {}
    if "segmentation" in engines:
        links["segment"] = work.link("/segment", engines["segmentation"], {})
    if "cam" in engines:
        cam = engines["cam"]
        if len(cam.card.classes) <= MAX_CLASSES:  # more have no label map
            links["pseudo_label"] = work.link("/pseudo-label", cam, {})
        links["cam"] = {
            name: work.link("/cam", cam, {"class": name}) for name in class_names if name in cam.card.classes
        }
    return links


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
    return ModelsReply(models=models, refused=refused)


def classes_reply(engine: Engine) -> ClassesReply:
    """The classes of one model with their labels and colours."""
    names, classes = engine.card.classes, []
    colours = voc_colours(label_of(np.arange(len(names))))
    for index, (name, (red, green, blue)) in enumerate(zip(names, colours, strict=True)):
        classes.append(ClassInfo(class_name=name, label=label_of(index), color=f"#{red:02x}{green:02x}{blue:02x}"))
    return ClassesReply(model=model_info(engine), classes=classes, background=BACKGROUND, ignore=IGNORE_INDEX)
