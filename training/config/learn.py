"""`corrections learn`, by which a served segmenter goes on with corrected masks, and `simulate` have these configurations."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from training.config.data import DataConfig
from training.config.learning import CorrectionsConfig, FitConfig, Section


class LastLayersFitConfig(FitConfig):
    """The last layers of a served segmenter are trained as any module, with other defaults; the number of steps ends it.

    A network whose normalisation keeps its statistics takes gentler steps than one that normalises each batch.
    """

    epochs: int = Field(default=1000, ge=0)
    max_steps: int | None = Field(default=100, ge=1)
    batch_size: int = Field(default=8, ge=1)
    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup_steps: int = Field(default=5, ge=0)


class LearnConfig(Section):
    """It says what is learned from, by which segmenter, and where its next version goes."""

    out: Path
    """What is made on the way goes into this folder, and the report."""
    data: DataConfig
    """The photos and their tags come from here, as in the file of a run."""
    corrections: CorrectionsConfig
    """The corrected masks teach as this table says."""
    model: Path = Path("models/deeplab")
    """This segmenter goes on: the file NAME/VERSION/model.onnx, or of the folder NAME the newest version that has learned no corrections."""
    photos: int = Field(default=100, ge=1)
    """This many other photos of `train` are seen as well, of each class in turn; the segmenter shall answer there as it did."""
    trainings: int = Field(default=5, ge=1)
    """The last layers are trained this many times, each with another seed, and the mean of the weights is kept: the mean IoU that one
    training reaches moves by half a point with its seed, that of five by a fifth of a point."""
    earlier_share: float = Field(default=0.0, ge=0, lt=1)
    """The earlier weights have this share in those that are kept."""
    crop: int = Field(default=192, ge=32)
    """A view is a square of this side in px, of the photo at the size at which the model is run."""
    fit: LastLayersFitConfig = LastLayersFitConfig()
    """The last layers are trained so; all others stay as they are."""


class SimulateConfig(LearnConfig):
    """It says how to find out what corrections would be worth: true masks of the first photos of several orders stand for them."""

    cam: Path = Path("models/cam")
    """The opinion of this cam model of a photo is compared with the segmenter's, as `python -m app label` does."""
    pool: int | None = Field(default=None, ge=1)
    """The orders sort this many photos of `train`, evenly spaced; all where it is left out."""
    orders: tuple[str, ...] = ("random", "review", "balance", "typical", "disagreement", "entropy")
    """These orders are compared, names in `training.pipeline.orders.ORDERS`."""
    split: str | None = None
    """This split is measured; it is the one that is reported where it is left out."""
    counts: tuple[Annotated[int, Field(ge=1)], ...] = (10, 30, 100)
    """So many photos of each order are corrected."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    """Training, and the random order, follow from these numbers."""
