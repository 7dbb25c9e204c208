"""A photo of a Label Studio task gives the prediction of the task: regions in the project's labels, and a score."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.http.reply.problems import problem_of
from app.inference.analysis import Analyzer
from app.inference.arrays import resize_bilinear
from app.inference.errors import ParameterError, ServiceError
from app.inference.label_maps.brush import encode_brush
from app.inference.label_maps.regions import polygons_of, regions_in
from app.inference.labels import BACKGROUND, class_index_of
from app.inference.maps.fusion import agreement
from app.inference.options import Options
from app.protocols.label_studio.config import Tool, choose_labels, find_value
from app.runtime.loaded_model import LoadedModel
from app.runtime.model_store import Catalog, pin

logger = logging.getLogger(__name__)

ID_CHARACTERS = 8  # The ids of a photo's regions begin with this many characters of its SHA-256.
# Each method looks at the photo once: the score is not worth more.
ONE_VIEW = Options(scales=(1.0,), flip=False)


@dataclass(frozen=True)
class Plan:
    """It says how the photos of a batch are worked on.

    cams: the models whose agreement is the score; none where fewer than two are served. tools: of the label config.
    """

    segmenter: LoadedModel
    cams: tuple[LoadedModel, ...]
    tools: tuple[Tool, ...]
    max_image_pixels: int

    @classmethod
    def of(cls, catalog: Catalog, tools: Sequence[Tool], max_image_pixels: int) -> "Plan":
        """Return one with the default segmenter, and the newest version of every cam model of its classes."""
        segmenter = catalog.choose("segmentation", None)
        cams = [engine for engine in catalog.newest("cam") if engine.card.classes == segmenter.card.classes]
        return cls(segmenter, tuple(cams) if len(cams) > 1 else (), tuple(tools), max_image_pixels)

    def views(self, data: Mapping[str, Any]) -> list["View"]:
        """Return the images of a task that can be drawn on. Raises ParameterError where no label of any is a class, or
        none has a photo.
        """
        by_image: dict[str, list[Tool]] = {}
        for tool in self.tools:
            by_image.setdefault(tool.image, []).append(tool.of_task(data))
        chosen, refusals = [], []
        for tools in by_image.values():
            try:
                chosen.append((tools[0].key, choose_labels(tools, self.segmenter.card.classes)))
            except ParameterError as error:
                refusals.append(error)
        if not chosen:
            raise refusals[0]
        views = []
        for key, labels in chosen:
            named = find_value(data, key)
            pages = named if isinstance(named, list) else [named]
            for number, page in enumerate(pages):
                if isinstance(page, str) and page:
                    views.append(View(page, labels, number if len(pages) > 1 else None))
        if not views:
            raise ParameterError(
                f"the task's data has no text under {chosen[0][0][:80]!r}, its image.", parameter="data"
            )
        return views

    def check(self) -> None:
        """Raise ParameterError where no label is a class; labels that the tasks name are not known yet."""
        if not any(tool.labels_key for tool in self.tools):
            choose_labels(self.tools, self.segmenter.card.classes)


@dataclass(frozen=True)
class View:
    """It is one image of a task: where it is, class index -> tool and label it is drawn with, and which page of several it is."""

    image: str
    chosen: dict[int, tuple[Tool, str]]
    page: int | None = None


def version_of(segmenter: LoadedModel) -> str:
    """Return what Label Studio stores with a prediction: the model, and what of it."""
    return f"{pin(segmenter)}@sha256:{segmenter.sha256}"


def predict_task(plan: Plan, photos: Sequence[tuple[View, bytes]], tags: Sequence[str] | None) -> dict[str, Any]:
    """Return the prediction for the bytes of a task's photos: the regions of them all, and the mean of their scores.

    Raises UploadError for what is no photo.
    """
    predictions = [predict_photo(plan, view, data, tags) for view, data in photos]
    result = [region for regions, _ in predictions for region in regions]
    if len(photos) > 1:  # One photo may be there twice.
        for number, (regions, _) in enumerate(predictions):
            for region in regions:
                region["id"] = f"{number}-{region['id']}"
    score = float(np.mean([score for _, score in predictions]))
    return {"model_version": version_of(plan.segmenter), "score": score, "result": result}


def predict_photo(
    plan: Plan, view: View, data: bytes, tags: Sequence[str] | None
) -> tuple[list[dict[str, Any]], float]:
    """Return the regions and score of one photo. The mask is that of `GET /segment`, with the tags as its `tags=` where
    the model knows them all.
    """
    known, complete = known_tags(plan, view.chosen, tags)
    analyzer = Analyzer(Options(tags=known, complete=complete), segmenter=plan.segmenter)
    analysis = analyzer.read(data, max_image_pixels=plan.max_image_pixels)
    found = analysis.mask
    photo_id = hashlib.sha256(data).hexdigest()[:ID_CHARACTERS]
    result = []
    present = [label for label in found.scores if label != BACKGROUND]
    for label, where in regions_in(found.mask):
        index = class_index_of(label)
        if index in view.chosen:
            drawn = regions_of(*view.chosen[index], where, found.scores[label])
            for number, entries in enumerate(drawn):
                page = {} if view.page is None else {"item_index": view.page}
                result += [{"id": f"{photo_id}-{index}-{number}", **entry, **page} for entry in entries]
    score = float(np.mean([found.scores[label] for label in present] or [found.scores[BACKGROUND]]))
    if plan.cams and present:
        score = agreement_of(plan.cams, analysis.photo.image, tuple(class_index_of(label) for label in present))
    return result, score


def failed_task(plan: Plan, error: ServiceError) -> dict[str, Any]:
    """Return the empty prediction of a photo that could not be had, with the problem.

    Its version is another one: Label Studio asks again only for tasks without a prediction of the current version.
    """
    version = f"{version_of(plan.segmenter)} (failed)"
    return {"model_version": version, "score": 0.0, "result": [], "problem": problem_of(error).model_dump()}


def known_tags(
    plan: Plan, chosen: Mapping[int, tuple[Tool, str]], tags: Sequence[str] | None
) -> tuple[tuple[str, ...] | None, bool]:
    """Return class names of tags, which may be class names or the project's labels, and whether all of them are either.

    None where none of them is. One entry that is neither is read as several, separated by spaces, as in `labels.csv`.
    """
    names = {index: {name.casefold()} for index, name in enumerate(plan.segmenter.card.classes)}
    for index, (tool, label) in chosen.items():
        names[index] |= {name.casefold() for name in tool.labels[label]}
    every = set().union(*names.values())
    folded = {tag.casefold() for tag in tags or ()}
    if len(folded) == 1 and not folded & every:
        folded = set(folded.pop().split())
    classes = plan.segmenter.card.classes
    found = tuple(classes[index] for index, known in names.items() if known & folded)
    if folded - every:
        logger.warning(
            "tags of a Label Studio task that are no class of %s: %.200r", pin(plan.segmenter), folded - every
        )
    return found or None, folded <= every


def regions_of(tool: Tool, label: str, where: np.ndarray, score: float) -> list[list[dict[str, Any]]]:
    """Return the region of a class, bool (H, W) with a pixel in it, as one brush stroke or as a polygon per part: the
    entries of each, two where the label is chosen by a tool of its own.

    Polygons are in percent of the width and height, and have no holes.
    """
    height, width = where.shape
    values: list[dict[str, Any]]
    if tool.kind.startswith("brush"):
        values = [{"format": "rle", "rle": encode_brush(where)}]
    else:
        to_percent = 100 / np.array([width, height])
        outlines = [np.reshape(outline, (-1, 2)) * to_percent for outline in polygons_of(where)]
        values = [{"closed": True, "points": outline.tolist()} for outline in outlines]
    size = {"original_width": width, "original_height": height, "image_rotation": 0}

    def entry(kind: str, name: str, value: dict[str, Any]) -> dict[str, Any]:
        return {"type": kind, "from_name": name, "to_name": tool.image, **size, "score": score, "value": value}

    if tool.labels_name is None:
        return [[entry(tool.kind, tool.name, {**value, tool.kind: [label]})] for value in values]
    return [
        [entry(tool.kind, tool.name, value), entry("labels", tool.labels_name, {**value, "labels": [label]})]
        for value in values
    ]


def agreement_of(cams: Sequence[LoadedModel], image: np.ndarray, class_indices: tuple[int, ...]) -> float:
    """Return how far the methods agree on the maps of these classes: the mean of `app.inference.maps.fusion.agreement`,
    in [0, 1].
    """
    methods = [Analyzer(ONE_VIEW, (cam,)).look_at(image).maps().maps_of(class_indices) for cam in cams]
    size = methods[0].shape[1:]
    return float(agreement(np.stack([resize_bilinear(maps, *size) for maps in methods])).mean())
