"""The verb `evaluate` takes the figures of an exported model through ONNX Runtime, on photos with masks.

All figures are percentages. IoU of a label is intersection over union of its pixels over the whole split (VOC); mIoU is
its mean over the background and all classes that occur in the masks or the answers; pixels of 255 do not count. The figures of a cam model:

    map                   mean average precision of `scores` against the tags
    cam_miou              arg-max of the tagged classes' maps against the card's background threshold (the papers' figure)
    cam_miou_best         the same at the best of `THRESHOLDS`, 0.01 to 0.95, which is `cam_threshold_best` (in percent)
    cam_miou_untagged     classes by the card's presence thresholds instead of the tags
    pseudo_label_miou     the card's rule with the tags, refined by PAMR

Those of a segmenter: `miou` of the served mask, no tags given, `scales_miou` of the mean over `TEST_SCALES` and mirroring,
and `tagged_miou` of the served mask where the photo's tags are given.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from app.inference.analysis import Analyzer
from app.inference.arrays import resize_bilinear, softmax
from app.inference.engine import Engine
from app.inference.errors import DataError
from app.inference.label_maps.segmentation import TEST_SCALES, run_views
from app.inference.labels import BACKGROUND, label_of
from app.inference.maps.localization import Model
from app.inference.model_card import ModelCard
from app.inference.options import Options
from training.data import DataConfig, TaggedPhotos, open_source
from training.data.sampling import evenly_spaced
from training.masks.confusion import Confusion, Sweep
from training.masks.ground_truth import GroundTruth, read_mask
from training.smoothing.crf import crf_labels
from training.stages.ranking import mean_average_precision


@dataclass(frozen=True)
class Evaluation:
    """It holds the figures of one model on one split. iou: label name -> percent of the model's main answer."""

    model: str
    version: int
    task: str
    method: str
    sha256: str
    split: str
    photos: int
    photos_with_mask: int
    figures: dict[str, float]
    iou: dict[str, float]

    @property
    def measured_on(self) -> str:
        """These words say what was measured on."""
        return f"{self.photos} photos of {self.split}"


def evaluate_file(
    path: Path,
    data: DataConfig,
    split: str | None = None,
    common: tuple[str, ...] = (),
    crf: bool = False,
    scales: bool = False,
    photos: TaggedPhotos | None = None,
) -> Evaluation:
    """Measure an ONNX file on a split (None: `TaggedPhotos.report_split`); without masks only what tags can tell ("map") is measured.

    `common` are classes for a second mean, over them and the background ("..._common"). `crf` measures a segmenter's masks
    after a dense CRF as well ("crf_miou"), `scales` those of several views ("scales_miou"). `photos` is the opened data of the
    model's classes, where the caller has it already.
    """
    engine = Engine(path, device="auto", intra_op_threads=0)
    data = data.model_copy(update={"classes": engine.card.classes})
    photos = photos or open_source(data)
    truth = GroundTruth(data, photos)
    split = split or photos.report_split
    names = photos.names(split)
    if engine.card.task == "cam":
        figures, confusion = measure_classifier(engine, photos, names, truth, common)
    else:
        figures, confusion = measure_segmenter(engine, photos, names, truth, common, crf, scales)
    card = engine.card
    labels = ("background", *card.classes)
    iou = {name: round(float(value), 2) for name, value in zip(labels, confusion.iou(), strict=True) if value == value}
    with_mask = sum(truth.has(name) for name in names)
    return Evaluation(
        card.name, card.version, card.task, card.method, engine.sha256, split, len(names), with_mask, figures, iou
    )


Measured = tuple[dict[str, float], Confusion]


def measure_segmenter(
    model: Model,
    photos: TaggedPhotos,
    names: tuple[str, ...],
    truth: GroundTruth,
    common: tuple[str, ...],
    crf: bool,
    scales: bool,
) -> Measured:
    """Measure the mIoU of the served mask at the photos' own size, without and with their tags; with `scales` of several views, with
    `crf` of its dense CRF besides.
    """
    confusion, tagged, scaled, smoothed = (Confusion.empty(len(model.card.classes)) for _ in range(4))
    served = Analyzer(Options(), segmenter=model)
    for name in tqdm(names, desc=f"evaluate {model.card.name}", unit="photo", mininterval=5):
        if truth.has(name):
            image, mask = photos.image(name), truth.mask(name)
            analysis = served.look_at(image)
            confusion.add(mask, analysis.mask.mask)
            tagged.add(mask, analysis.asking(tags=photos.tags(name)).mask.mask)
            if scales:
                scaled.add(mask, analysis.asking(scales=TEST_SCALES, flip=True).mask.mask)
            if crf:
                smoothed.add(mask, crf_mask(model, image))
    if not confusion.counts.any():
        return {}, confusion
    figures = confusion.summary() | common_figures("", confusion, model.card, common)
    figures |= {"tagged_miou": tagged.miou(), **common_figures("tagged_", tagged, model.card, common)}
    if scales:
        figures |= {"scales_miou": scaled.miou(), **common_figures("scales_", scaled, model.card, common)}
    if crf:
        figures["crf_miou"] = smoothed.miou()
    return rounded(figures), confusion


def measure_served(model: Model, data: DataConfig, photos: TaggedPhotos, names: tuple[str, ...]) -> Measured:
    """Measure the served masks of photos that have a true one, without and with their tags."""
    return measure_segmenter(model, photos, names, GroundTruth(data, photos), common=(), crf=False, scales=False)


def crf_mask(model: Model, image: np.ndarray) -> np.ndarray:
    """Return the mask of a segmenter's probabilities at the photo's own size after a dense CRF."""
    logits = run_views(model, image, 1.0, mirror=False)["logits"][0]
    return crf_labels(image, softmax(resize_bilinear(logits, *image.shape[:2])))


def measure_classifier(
    model: Model, photos: TaggedPhotos, names: tuple[str, ...], truth: GroundTruth, common: tuple[str, ...]
) -> Measured:
    """Return the figures of a cam model; the confusion is that of tag-gated maps at the card's threshold."""
    card = model.card
    at_card, untagged, labels = (Confusion.empty(len(card.classes)) for _ in range(3))
    sweep = Sweep(len(card.classes))
    scores = []
    for name in tqdm(names, desc=f"evaluate {card.name}", unit="photo", mininterval=5):
        analysis = Analyzer(Options(tags=photos.tags(name)), (model,)).look_at(photos.image(name))
        scores.append(analysis.scores)
        if not truth.has(name):
            continue
        mask = truth.mask(name)
        sweep.add(mask, analysis.pseudo_label.maps, analysis.present)
        at_card.add(mask, analysis.pseudo_label.label_map)
        labels.add(mask, analysis.asking(refine="pamr").pseudo_label.label_map)
        untagged.add(mask, analysis.asking(tags=None).pseudo_label.label_map)
    image_labels = np.stack([photos.image_labels(name) for name in names])
    figures = {"map": mean_average_precision(image_labels, np.stack(scores))}
    if not at_card.counts.any():
        return rounded(figures), at_card
    threshold, best = sweep.best()
    figures |= {
        **{f"cam_{name}": value for name, value in at_card.summary().items()},
        "cam_miou_best": best,
        "cam_threshold_best": 100 * threshold,
        "cam_miou_untagged": untagged.miou(),
        "pseudo_label_miou": labels.miou(),
        **common_figures("cam_", at_card, card, common),
        **common_figures("pseudo_label_", labels, card, common),
    }
    return rounded(figures), at_card


def sweep_maps(
    data: DataConfig,
    photos: TaggedPhotos,
    split: str,
    maps_of: Callable[[str, np.ndarray, tuple[int, ...]], dict[str, np.ndarray]],
    count: int | None = None,
) -> dict[str, Sweep]:
    """Count several kinds of maps of every photo that has a mask, or of `count` of them, evenly spaced.

    `maps_of` gives, for a photo's name, its pixels and its tagged classes, kind -> maps (K, h, w).
    """
    truth = GroundTruth(data, photos)
    names = tuple(name for name in photos.names(split) if truth.has(name))
    if not names:
        raise DataError(f"no photo of {split!r} has a mask; maps can only be measured against masks")
    sweeps: dict[str, Sweep] = {}
    for name in tqdm(evenly_spaced(names, count), desc=f"maps of {split}", unit="photo", mininterval=5):
        class_indices = photos.class_indices(name)
        for kind, maps in maps_of(name, photos.image(name), class_indices).items():
            sweep = sweeps.setdefault(kind, Sweep(len(photos.classes)))
            sweep.add(truth.mask(name), maps, class_indices)
    return sweeps


def label_figures(data: DataConfig, photos: TaggedPhotos, directory: Path) -> dict[str, dict[str, float]]:
    """Return the figures of the label maps `directory`/NAME.png, beside those of an answer that is background everywhere.

    Over the photos of `train` and of the report split that have a mask; a split without one is left out.
    """
    truth = GroundTruth(data, photos)
    figures = {}
    for split in ("train", photos.report_split):
        labels, constant = Confusion.empty(len(photos.classes)), Confusion.empty(len(photos.classes))
        for name in photos.names(split):
            if truth.has(name):
                mask = truth.mask(name)
                labels.add(mask, read_mask(directory / f"{name}.png"))
                constant.add(mask, np.full_like(mask, BACKGROUND))
        if labels.counts.any():
            figures[f"pseudo_label_{split}"] = rounded(labels.summary())
            figures[f"constant_background_{split}"] = rounded(constant.summary())
    return figures


def common_figures(prefix: str, confusion: Confusion, card: ModelCard, common: tuple[str, ...]) -> dict[str, float]:
    """Return `{prefix}miou_common` over the background and the classes of `common` that the model knows."""
    known = [label_of(card.classes.index(name)) for name in common if name in card.classes]
    return {f"{prefix}miou_common": confusion.miou([BACKGROUND, *known])} if known else {}


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Return figures with two decimals, as they go into the card; what could not be measured is left out."""
    return {name: round(float(value), 2) for name, value in figures.items() if np.isfinite(value)}
