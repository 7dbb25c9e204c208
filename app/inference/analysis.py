"""One photo, and what is asked of it, gives its maps, its pseudo-label, its mask, and the time they took.

    analyzer = Analyzer(Options(tags=("dog",)), cams=(cam,), segmenter=deeplab)
    analysis = analyzer.read(data)
    analysis.pseudo_label.label_map, analysis.mask.mask, analysis.stopwatch.milliseconds

The HTTP endpoints, `python -m app label`, Label Studio's predictions, the CVAT function and the training's measuring all
answer from here. Nothing else chooses the views of a photo, the size at which it is decoded, the classes that are held to be
in it, or the thresholds of a label.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from app.inference.errors import ParameterError
from app.inference.image.decode import EncodedPhoto, Photo
from app.inference.image.preprocess import geometry_of
from app.inference.label_maps.pseudo_label import PseudoLabel, Thresholds, check_labels, label_from_maps
from app.inference.label_maps.segmentation import Segmentation, segment
from app.inference.label_maps.small_regions import without_small_regions
from app.inference.maps.localization import (
    Inference,
    Localization,
    Model,
    ScaleCams,
    conditional_cams,
    presence_thresholds,
    present_classes,
    scale_cams,
    tagged_classes,
)
from app.inference.model_card import ModelCard
from app.inference.options import Options
from app.inference.stopwatch import Stopwatch


@dataclass(frozen=True)
class Analyzer:
    """It holds the models that answer, and what is asked of them. Everything that can be refused without a photo is refused here.

    cams: the model that makes the maps, and those whose maps are fused with its own: models of the same classes. segmenter:
    the model that makes the mask.

    Raises UnknownClassError for a tag that a model does not know, ParameterError for thresholds in the wrong order.
    """

    options: Options
    cams: tuple[Model, ...] = ()
    segmenter: Model | None = None

    def __post_init__(self) -> None:
        for model in self.models:
            self.known_classes(model.card)
        if self.cams:
            background, foreground = self.thresholds
            if foreground < background:
                raise ParameterError(
                    f"foreground_threshold={foreground:g} lies below the background threshold of {background:g}; raise it, "
                    f"or lower background_threshold.",
                    parameter="foreground_threshold",
                )

    def asking(self, **changes: Any) -> "Analyzer":
        """Return the same models with some options changed."""
        return replace(self, options=replace(self.options, **changes))

    @property
    def models(self) -> tuple[Model, ...]:
        """All these models look at the photo."""
        return (*self.cams, *([self.segmenter] if self.segmenter else ()))

    @cached_property
    def _known(self) -> dict[tuple[str, ...], tuple[int, ...]]:
        return {}

    def known_classes(self, card: ModelCard) -> tuple[int, ...] | None:
        """Return the class indices of the tags in this model; None where nothing is known of the photo."""
        if self.options.tags is None:
            return None
        if card.classes not in self._known:
            self._known[card.classes] = tagged_classes(card, self.options.tags)
        return self._known[card.classes]

    @property
    def thresholds(self) -> Thresholds:
        """The pseudo-label is made with these thresholds: (background, foreground)."""
        options = self.options
        background = options.background_threshold
        if background is None:
            background = self.cams[0].card.background_threshold
        return background, background if options.foreground_threshold is None else options.foreground_threshold

    @cached_property
    def presence_thresholds(self) -> np.ndarray:
        """The classes whose score reaches these values (C,) are held to be in a photo of which no tags are known."""
        return presence_thresholds([cam.card for cam in self.cams], self.options.presence_threshold)

    @property
    def map_views(self) -> tuple[tuple[float, ...], bool]:
        """The photo is looked at for its maps at these scales, and mirrored too where the second value says so."""
        return self.options.inference.views(self.cams[0].card)

    def plain_views(self, cam: Model) -> tuple[tuple[float, ...], bool]:
        """Return the scales and the mirroring at which a cam model sees the whole photo. They are the card's where CCRM, which has views
        of its own, makes the maps.
        """
        inference = Inference() if self.options.conditional else self.options.inference
        return inference.views(cam.card)

    @property
    def mask_views(self) -> tuple[tuple[float, ...], bool]:
        """The photo is looked at for its mask at these scales, and mirrored too where the second value says so."""
        assert self.segmenter is not None
        card, flip = self.segmenter.card, self.options.flip
        return self.options.scales or card.scales, card.flip if flip is None else flip

    @property
    def input_long_side(self) -> int:
        """The largest network input that any of the models may be given has this long side, in pixels."""
        scales = [max(self.options.inference.views(cam.card)[0]) for cam in self.cams]
        if self.segmenter:
            scales.append(max(self.mask_views[0]))
        return round(max(model.card.preferred_size for model in self.models) * max(scales))

    def read(
        self,
        data: bytes,
        *,
        max_image_pixels: int | None = None,
        stopwatch: Stopwatch | None = None,
        known: Sequence[ScaleCams | None] = (),
    ) -> "Analysis":
        """Return the analysis of a picture file. The file is decoded no larger than the models need it, once its pixels are.

        `known` is what the cam models said of the photo before, of each in turn (`plain_views`). Raises UploadError for
        what is no photo, here or where its pixels are needed.
        """
        stopwatch = stopwatch or Stopwatch()
        with stopwatch.stage("decode"):
            file = EncodedPhoto(data, max_image_pixels=max_image_pixels, input_long_side=self.input_long_side)
        return Analysis(self, file, stopwatch, tuple(known))

    def look_at(self, image: np.ndarray) -> "Analysis":
        """Return the analysis of a photo that is decoded already, uint8 (H, W, 3)."""
        return Analysis(self, Photo(image, *image.shape[:2]), Stopwatch())


class Analysis:
    """It holds the results of one photo. Each is worked out when it is first read, and once."""

    def __init__(
        self,
        analyzer: Analyzer,
        photo: Photo | EncodedPhoto,
        stopwatch: Stopwatch,
        known: tuple[ScaleCams | None, ...] = (),
    ) -> None:
        self.analyzer = analyzer
        self.stopwatch = stopwatch
        self.height, self.width = photo.height, photo.width
        self._photo = photo
        self._known = known

    def asking(self, **changes: Any) -> "Analysis":
        """Return the same photo with some options changed. What the networks said is kept where they would say the same
        again.
        """
        kept = () if {"scales", "flip", "conditional"} & set(changes) else self._known
        return Analysis(self.analyzer.asking(**changes), self._photo, self.stopwatch, kept)

    @property
    def photo(self) -> Photo:
        """The photo, decoded when it is first read. Raises UploadError."""
        if isinstance(self._photo, EncodedPhoto):
            with self.stopwatch.stage("decode"):
                self._photo = self._photo.decode()
        return self._photo

    @property
    def note(self) -> str | None:
        """The note says what is wrong with the file, as far as its pixels were needed."""
        return None if isinstance(self._photo, EncodedPhoto) else self._photo.note

    def result_size(self, model: Model) -> tuple[int, int]:
        """Return (height, width) of the results of a model."""
        shape = self.height, self.width
        if self.analyzer.options.size == "image":
            return shape
        geometry = geometry_of(shape, model.card.preferred_size)
        return geometry.input_height, geometry.input_width

    @property
    def views(self) -> tuple[ScaleCams, ...]:
        """They hold what every cam model said of the whole photo."""
        cams = self.analyzer.cams
        known = self._known or (None,) * len(cams)
        with self.stopwatch.stage("predict"):
            views = tuple(
                view or scale_cams(cam, self.photo.image, *self.analyzer.plain_views(cam))
                for cam, view in zip(cams, known, strict=True)
            )
        self._known = views
        return views

    @property
    def found_out(self) -> tuple[ScaleCams | None, ...]:
        """They hold what is known of the plain views by now, of each cam model in turn; a photo whose file is damaged has none."""
        return () if self.note else self._known

    @cached_property
    def scores(self) -> np.ndarray:
        """The probabilities of the classes (C,) are the mean over the cam models."""
        return np.mean([view.scores for view in self.views], axis=0)

    @cached_property
    def present(self) -> tuple[int, ...]:
        """These class indices are held to be in the photo: those of the tags, else those whose score is high enough."""
        known = self.analyzer.known_classes(self._card)
        if known is not None:
            return known
        return present_classes(self.scores, self.analyzer.presence_thresholds)

    def maps(self, class_indices: tuple[int, ...] | None = None) -> Localization:
        """Return the maps of these classes at the size asked for, gated by the tags and refined as asked for.

        None means all classes, for CCRM those that are present: it erases what it found of one to find more of the others.
        """
        sources = self._sources(self.present if class_indices is None else class_indices)
        height, width = self.result_size(self.analyzer.cams[0])
        geometry = replace(sources[0].geometry, height=height, width=width)
        options = self.analyzer.options
        allowed = self.analyzer.known_classes(self._card)
        return Localization(sources, geometry, self._image_to_refine, options.refine, allowed)

    @cached_property
    def pseudo_label(self) -> PseudoLabel:
        """The label map is made of the maps of the classes present, against a constant background.

        Raises TooManyClassesError where the model has more classes than a label map can name.
        """
        check_labels(len(self._card.classes))
        with self.stopwatch.stage("predict"):
            thresholds, sources = self.analyzer.thresholds, self._sources(self.present)
            maps = Localization(sources, sources[0].geometry).maps_of(self.present)
            size = self.result_size(self.analyzer.cams[0])
            refine, smallest = self.analyzer.options.refine, self.analyzer.options.smallest_region
            label_map = label_from_maps(self._image_to_refine, maps, self.present, thresholds, refine, size)
            label_map = without_small_regions(label_map, smallest)
        return PseudoLabel(label_map, maps, self.scores, self.present, thresholds)

    @cached_property
    def mask(self) -> Segmentation:
        """The segmenter makes the mask."""
        segmenter, options = self.analyzer.segmenter, self.analyzer.options
        assert segmenter is not None
        scales, flip = self.analyzer.mask_views
        with self.stopwatch.stage("predict"):
            found = segment(
                segmenter,
                self.photo.image,
                self.result_size(segmenter),
                scales=scales,
                flip=flip,
                class_indices=self.analyzer.known_classes(segmenter.card),
                complete=options.complete,
                presence_threshold=options.presence_threshold,
                threshold=options.threshold,
                refine=options.refine,
            )
            return found.with_mask(without_small_regions(found.mask, options.smallest_region))

    @property
    def _image_to_refine(self) -> np.ndarray | None:
        return None if self.analyzer.options.refine == "none" else self.photo.image

    @property
    def _card(self) -> ModelCard:
        """Where maps are fused, the classes and the background threshold of this card count: it is the first model's."""
        return self.analyzer.cams[0].card

    def _sources(self, class_indices: tuple[int, ...]) -> tuple[ScaleCams, ...]:
        """Return what every cam model said: of all classes, or by CCRM of these."""
        options = self.analyzer.options
        if not options.conditional:
            return self.views
        if class_indices not in self._conditional:
            pairs = zip(self.analyzer.cams, self.views, strict=True)
            with self.stopwatch.stage("predict"):
                self._conditional[class_indices] = tuple(
                    conditional_cams(cam, self.photo.image, class_indices, options.inference.options(), view.scores)
                    for cam, view in pairs
                )
        return self._conditional[class_indices]

    @cached_property
    def _conditional(self) -> dict[tuple[int, ...], tuple[ScaleCams, ...]]:
        return {}
