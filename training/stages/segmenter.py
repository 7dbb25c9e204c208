"""The verb `segment` trains a DeepLab from label maps."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from app.inference.errors import ConfigError
from app.inference.files.whole_file import write_whole
from app.inference.image.encode import NO_FILTER, png_file
from app.inference.labels import label_count
from app.inference.model_card import ModelCard
from training.backbones import build_backbone
from training.checkpoint import load_weights, read_state, save_weights
from training.config.run_config import RunConfig, validate_config
from training.config.tables import SegmenterConfig
from training.data import TaggedPhotos
from training.data.sampling import EpochSampler, repeat_factors, with_share
from training.data.views import LabelledViews
from training.export.served import ServedSegmenter
from training.fit.device import make_fabric
from training.fit.loop import fit
from training.segmenters import SEGMENTERS, Recognizer, Segmenter, SegmenterOptions
from training.segmenters.mask_refinement_loss import activated_region
from training.stages.card import run_card
from training.stages.classifier import fill_backbone, require_photos
from training.stages.localize import final_maps, iterate_maps
from training.stages.pseudo_label import saliency_folder
from training.stages.regression import fit_recognizer

SEGMENTER = "segmenter"  # A run's (last) segmenter has this folder.


def build_segmenter(config: SegmenterConfig, class_count: int, weights: str | None = None) -> Segmenter:
    """Return a segmenter by its configuration; `weights` (see `build_backbone`) start its backbone."""
    options = check_segmenter(config)
    backbone, labels = build_backbone(config.backbone, config.output_stride, weights), label_count(class_count)
    segmenter = SEGMENTERS[config.architecture](backbone, labels, options)
    if (asked := config.recognizer) is not None:
        seeing = build_backbone(asked.backbone, asked.output_stride)
        segmenter.recognizer = Recognizer(seeing, labels, options.tag_balance, asked.scale, asked.power)
    return segmenter


def check_segmenter(config: SegmenterConfig) -> SegmenterOptions:
    """Return the options. Raises ConfigError where there is no such architecture, or no such option."""
    if config.architecture not in SEGMENTERS:
        raise ConfigError(f"unknown architecture {config.architecture!r}; there are {', '.join(SEGMENTERS)}")
    return validate_config(SegmenterOptions, config.options, "[segmenter.options]")


def fit_segmenter(
    config: RunConfig,
    photos: TaggedPhotos,
    label_maps: Path,
    out: Path,
    start: Path | None = None,
    corrected: Path | None = None,
) -> Path:
    """Train on the label maps `label_maps`/NAME.png of `train`; write `out`/weights.pt.

    `start` is a file of the whole segmenter's weights to go on from; without one its backbone starts as configured.
    `corrected` is a folder whose label maps hold instead of those of the same name, with the share and the weight of
    [segmenter.corrections].
    """
    settings = require_segmenter(config)
    require_photos(photos, ("train", photos.report_split))
    fabric = make_fabric(settings.fit)
    torch.manual_seed(settings.fit.seed)
    from_classifier = settings.weights == "classifier"
    first = None if from_classifier or start else settings.weights
    segmenter = build_segmenter(settings, len(photos.classes), first)
    if start:
        load_weights(start, segmenter)
    elif from_classifier:
        fill_backbone(segmenter.backbone, config, len(photos.classes))
    names = photos.names("train")
    planes = {}
    if settings.options.get("saliency_weight"):
        activated = out / "activated"
        if fabric.is_global_zero:
            write_activated(config, names, activated)
        fabric.barrier()
        limit = 0 if config.saliency is None else config.saliency.limit
        planes = {"salient": (saliency_folder(config), limit), "activated": (activated, 0)}
    corrections = settings.corrections
    weight, share = (corrections.weight, corrections.share) if corrections else (1.0, 0.0)
    views = LabelledViews(
        photos, names, label_maps, settings.views, settings.fit.seed, planes, corrected, weight, settings.paste
    )
    if segmenter.tag_head is not None and not start:
        segmenter.tag_head.count(torch.from_numpy(views.image_labels))
    repeats = with_share(repeat_factors(views.image_labels, settings.repeat_threshold), views.is_corrected, share)
    place = (settings.fit.seed, fabric.global_rank, fabric.world_size)
    sampler = EpochSampler(len(names), settings.fit.batch_size, *place, repeats)
    fit(fabric, segmenter, views, settings.fit, out, sampler=sampler)
    if fabric.is_global_zero:
        if start:
            average_weights(segmenter, read_state(start), settings.earlier_share)
        if settings.recognizer is not None and not start:
            assert segmenter.recognizer is not None  # `build_segmenter` made it.
            fit_recognizer(segmenter.recognizer, photos, names, settings.recognizer, segmenter_size(config))
        save_weights(out / "weights.pt", segmenter)
    fabric.barrier()
    return out / "weights.pt"


@torch.no_grad()
def average_weights(segmenter: Segmenter, earlier: Mapping[str, Tensor], share: float) -> None:
    """Replace the weights by (1 - share) of them and `share` of `earlier`, a state dict from which they went on.

    Such networks lie in one basin, and the mean of their weights generalises better than either: Izmailov et al.,
    "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018, https://arxiv.org/abs/1803.05407.
    """
    for key, value in segmenter.state_dict().items():
        if value.is_floating_point():
            value.lerp_(earlier[key].to(value), share)


def write_activated(config: RunConfig, names: tuple[str, ...], out: Path) -> None:
    """Write where the run's maps are high (`activated_region`) as `out`/NAME.png, 255 there, else 0."""
    quantile = require_segmenter(config).activated_quantile
    for name, stored in iterate_maps(final_maps(config), names, "activated regions"):
        path = out / f"{name}.png"
        if not path.is_file():
            region = activated_region(stored.maps(), quantile)
            write_whole(path, png_file(region.astype(np.uint8) * np.iinfo(np.uint8).max, NO_FILTER))


def load_segmenter(config: RunConfig, class_count: int, folder: str = SEGMENTER) -> Segmenter:
    """Return the segmenter `fit_segmenter` trained into this folder of the run."""
    segmenter = build_segmenter(require_segmenter(config), class_count)
    load_weights(config.out / folder / "weights.pt", segmenter)
    return segmenter.eval()


def require_segmenter(config: RunConfig) -> SegmenterConfig:
    """Return the [segmenter] table. Raises ConfigError where the run has none."""
    if config.segmenter is None:
        raise ConfigError(f"run {config.name} has no [segmenter] table; add one to train a segmenter")
    return config.segmenter


def presence_thresholds_of(settings: SegmenterConfig, class_count: int) -> tuple[float, ...]:
    """Return one for each class, or none where the network is not asked. Raises ConfigError where it cannot tell."""
    if settings.presence_threshold is None:
        return ()
    if settings.recognizer is None and not check_segmenter(settings).tag_weight:
        raise ConfigError(
            "[segmenter] presence_threshold asks what is in the photo; add a [segmenter.recognizer], set options.tag_weight, "
            "or leave it out"
        )
    return (settings.presence_threshold,) * class_count


def segmenter_size(config: RunConfig) -> int:
    """Return the long side in px at which the run's segmenter sees a photo."""
    return require_segmenter(config).preferred_size or config.localize.preferred_size


def serve_segmenter(segmenter: Segmenter, card: ModelCard) -> ServedSegmenter:
    """Return the network with the outputs that its card names."""
    return ServedSegmenter(segmenter, scored=bool(card.presence_thresholds))


def segmenter_card(config: RunConfig, classes: tuple[str, ...]) -> ModelCard:
    """Return the card of the run's segmenter, figures left out."""
    settings = require_segmenter(config)
    return run_card(
        config,
        settings,
        classes,
        name=config.export.segmenter or f"{config.name}-{settings.architecture}",
        version=config.export.version_of_segmenter or 1,
        task="segmentation",
        method=settings.architecture,
        paper=SEGMENTERS[settings.architecture].paper,
        preferred_size=segmenter_size(config),
        presence_thresholds=presence_thresholds_of(settings, len(classes)),
        presence_weight=settings.presence_weight,
        seed=settings.seed_of_round(settings.rounds),
    )
