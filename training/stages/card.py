"""The cards of a run's two networks say some things alike, which stand here once."""

from typing import Any

from app.inference.model_card import ModelCard
from training.config.map_tables import ClassifierConfig
from training.config.run_config import RunConfig
from training.config.tables import SegmenterConfig


def run_card(
    config: RunConfig, network: ClassifierConfig | SegmenterConfig, classes: tuple[str, ...], **own: Any
) -> ModelCard:
    """Return the card of a network of the run, figures left out; `own` is what it says besides."""
    return ModelCard(
        backbone=network.backbone,
        classes=classes,
        output_stride=network.output_stride,
        data=config.export.data,
        data_licence=config.export.data_licence,
        **own,
    )
