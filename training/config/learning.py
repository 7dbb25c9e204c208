"""The tables of learning: how a network is trained, and what it is shown. Unknown keys are refused by name."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FitConfig(Section):
    """How a module is trained (`training.fit`); several GPUs are used where torchrun starts several processes."""

    epochs: int = Field(default=10, ge=0)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=16, ge=1)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.9, gt=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(default=5e-4, ge=0)
    schedule: Literal["poly", "cosine", "step"] = "poly"
    poly_power: float = 0.9
    milestones: tuple[float, ...] = (1 / 3, 2 / 3)  # shares of the run, for "step"
    warmup_steps: int = Field(default=0, ge=0)
    warmup_start: float = Field(default=0.0, ge=0, le=1)  # share of the rate that the warm-up begins with
    clip_norm: float | None = None
    seed: int = Field(default=0, ge=0)
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    workers: int = Field(default=0, ge=0)
    log_every: int = Field(default=20, ge=1)
    checkpoint_seconds: float = 300.0


class PretrainConfig(Section):
    """`pretrain`: a backbone learns to name the classes of small photos (`root` holds train.zip and val.zip)."""

    root: Path
    out: Path
    backbone: str = "small"
    output_stride: int = 16
    weights: str | None = None  # what the backbone starts from, as in [classifier]
    size: int = Field(default=64, ge=16)
    first_size: int | None = Field(default=None, ge=16)  # training begins with photos this small; None: with `size`
    mix: float = Field(default=0.0, ge=0, le=1)  # share of the batches that CutMix or MixUp blends
    min_area: float = Field(default=0.35, gt=0, le=1)  # of a crop, as a share of the photo
    colour_jitter: float = Field(default=0.3, ge=0, le=1)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    fit: FitConfig = FitConfig()

    @model_validator(mode="after")
    def _growing(self) -> "PretrainConfig":
        if self.first_size is not None and self.first_size > self.size:
            raise ValueError("first_size must not lie above size")
        return self


class ViewConfig(Section):
    """Random views for training: the photo's long side is drawn from `long_side`, then a square of `crop` px is cut."""

    long_side: tuple[int, int] = (224, 384)
    crop: int = Field(default=256, ge=32)
    keep_aspect: bool = True  # False: the photo becomes a square first, as DRS has it
    colour_jitter: float = Field(default=0.3, ge=0, le=1)
    hue_jitter: float = Field(default=0.0, ge=0, le=0.5)  # share of the colour circle; DRS, EDAM and PSA: 0.1
    cutout: int = Field(default=0, ge=0)  # so many squares of `cutout_size` px are painted over; AMR's first stage: 3
    cutout_size: int = Field(default=128, ge=1)

    @field_validator("long_side")
    @classmethod
    def _ordered(cls, long_side: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= long_side[0] <= long_side[1]:
            raise ValueError("must be two sizes in px, the smaller one first")
        return long_side


class MosaicConfig(Section):
    """Photos of single objects as further tags (`training.data.mosaic`): `photos` is a zip of CLASS/NAME.webp (.jpg, .png),
    `classes` names, for a class of the data, those of the zip that show it; `share` of the views are made of them.
    """

    photos: Path
    share: float = Field(default=0.25, gt=0, lt=1)
    classes: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(min_length=1)


class RegressionConfig(Section):
    """The start of the head by a logistic regression on frozen features (`training.stages.regression`).

    `size` is the photos' long side in px; `decay` the pull towards the start, which with `names` is what ImageNet's head
    knows of the classes' names, else zero.
    """

    size: int = Field(default=320, ge=32)
    decay: float = Field(default=3e-3, gt=0)
    names: bool = True
