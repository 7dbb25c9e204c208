"""The verb `segment`: a DeepLab from label maps."""

from pathlib import Path

import torch

from app.errors import ConfigError
from app.labels import label_count
from app.model_card import ModelCard
from training.backbones import build_backbone
from training.checkpoint import load_weights, save_weights
from training.classifier import load_classifier
from training.config import RunConfig, SegmenterConfig, validate_config
from training.data import open_source
from training.data.views import LabelledViews
from training.fit import fit, make_fabric
from training.segmenters import SEGMENTERS, Segmenter, SegmenterOptions


def build_segmenter(config: SegmenterConfig, class_count: int, weights: str | None = None) -> Segmenter:
    """A segmenter by its configuration; `weights` (see `build_backbone`) start its backbone."""
    if config.architecture not in SEGMENTERS:
        raise ConfigError(f"unknown architecture {config.architecture!r}; there are {', '.join(SEGMENTERS)}")
    options = validate_config(SegmenterOptions, config.options, "[segmenter.options]")
    backbone = build_backbone(config.backbone, config.output_stride, weights)
    return SEGMENTERS[config.architecture](backbone, label_count(class_count), options)


def fit_segmenter(config: RunConfig, label_maps: Path) -> Path:
    """Train on the label maps `label_maps`/NAME.png of `train`; write `segmenter/weights.pt`."""
    settings = require_segmenter(config)
    out = config.out / "segmenter"
    photos = open_source(config.data)
    fabric = make_fabric(settings.fit)
    torch.manual_seed(settings.fit.seed)
    from_classifier = settings.weights == "classifier"
    segmenter = build_segmenter(settings, len(photos.classes), None if from_classifier else settings.weights)
    if from_classifier:
        start_from_classifier(segmenter, config, len(photos.classes))
    views = LabelledViews(photos, "train", label_maps, settings.views, settings.fit.seed)
    fit(fabric, segmenter, views, settings.fit, out)
    if fabric.is_global_zero:
        save_weights(out / "weights.pt", segmenter)
    return out / "weights.pt"


def start_from_classifier(segmenter: Segmenter, config: RunConfig, class_count: int) -> None:
    """Copy the run's classifier's backbone into the segmenter's."""
    if config.segmenter.backbone != config.classifier.backbone:
        raise ConfigError(
            f'[segmenter] weights = "classifier" needs the classifier\'s backbone: {config.classifier.backbone}, '
            f"not {config.segmenter.backbone}; name the same one, or give a file of weights"
        )
    plain = build_backbone(config.classifier.backbone, config.classifier.output_stride).state_dict()
    trained = load_classifier(config, class_count).backbone.state_dict()
    segmenter.backbone.load_state_dict({key: trained[key] for key in plain})  # learnable suppression stays behind


def load_segmenter(config: RunConfig, class_count: int) -> Segmenter:
    """The segmenter `fit_segmenter` trained."""
    segmenter = build_segmenter(require_segmenter(config), class_count)
    load_weights(config.out / "segmenter" / "weights.pt", segmenter)
    return segmenter.eval()


def require_segmenter(config: RunConfig) -> SegmenterConfig:
    """The [segmenter] table. Raises ConfigError where the run has none."""
    if config.segmenter is None:
        raise ConfigError(f"run {config.name} has no [segmenter] table; add one to train a segmenter")
    return config.segmenter


def segmenter_card(config: RunConfig, classes: tuple[str, ...]) -> ModelCard:
    """The card of the run's segmenter, figures left out."""
    settings = require_segmenter(config)
    return ModelCard(
        name=config.export.segmenter or f"{config.name}-{settings.architecture}",
        version=config.export.version or 1,
        task="segmentation",
        method=settings.architecture,
        paper=SEGMENTERS[settings.architecture].paper,
        backbone=settings.backbone,
        classes=classes,
        output_stride=settings.output_stride,
        preferred_size=config.localize.preferred_size,
        data=config.export.data,
        data_licence=config.export.data_licence,
        seed=settings.fit.seed,
    )
