"""The tables of learning say how a network is trained, and what it is shown. Unknown keys are refused by name."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

TRIAL_SIDE = 64  # The photos, views and maps of a trial have this side in px.


class Section(BaseModel):
    """It is a table of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    # A trial of the recipe on a few small scenes (`--dry-run`) sets these instead.
    trial: ClassVar[dict[str, Any]] = {}


class FitConfig(Section):
    """It says how a module is trained (`training.fit`); several GPUs are used where torchrun starts several processes."""

    epochs: int = Field(default=10, ge=0)
    """Training sees every photo this many times; 0 trains nothing."""
    max_steps: int | None = Field(default=None, ge=1)
    """Training stops after this many steps, however many epochs are left."""
    batch_size: int = Field(default=16, ge=1)
    """One step sees this many photos, over all processes together."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum is what the papers take; AdamW suits refinement networks."""
    lr: float = Field(default=0.01, gt=0)
    """This is the base learning rate; groups of parameters take a multiple of it."""
    momentum: float = Field(default=0.9, gt=0, lt=1)
    """SGD has this momentum."""
    nesterov: bool = True
    """SGD looks ahead by Nesterov's rule."""
    weight_decay: float = Field(default=5e-4, ge=0)
    """Weights are pulled towards zero by this share of the rate."""
    schedule: Literal["poly", "cosine", "step"] = "poly"
    """The rate falls by a power of the steps left, along a cosine, or by a factor of ten at each milestone."""
    poly_power: float = 0.9
    """The schedule "poly" has this power."""
    milestones: tuple[float, ...] = (1 / 3, 2 / 3)
    """The schedule "step" lowers the rate at these shares of the run."""
    warmup_steps: int = Field(default=0, ge=0)
    """The rate rises to its base over this many steps."""
    warmup_start: float = Field(default=0.0, ge=0, le=1)
    """The warm-up begins with this share of the base rate."""
    clip_norm: float | None = None
    """Gradients whose norm is larger are scaled down to it; none are where it is left out."""
    seed: int = Field(default=0, ge=0)
    """Weights, order and views follow from this number."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """"auto" takes a GPU where there is one."""
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    """Losses are computed in this precision; 16 bits save memory of a GPU."""
    workers: int = Field(default=0, ge=0)
    """This many processes load photos; 0 loads them in the training process."""
    log_every: int = Field(default=20, ge=1)
    """Losses are logged every so many steps."""
    checkpoint_seconds: float = 300.0
    """A checkpoint is written at least this often."""


class PretrainConfig(Section):
    """The verb `pretrain` reads it: a backbone learns to name the classes of small photos (`root` holds train.zip and val.zip)."""

    root: Path
    """This folder holds train.zip and val.zip of CLASS/NAME photos."""
    out: Path
    """backbone.pt and the log go into this folder."""
    backbone: str = "small"
    """The backbone of this name is trained."""
    output_stride: int = 16
    """The backbone's last stage has this stride."""
    weights: str | None = None
    """The backbone starts from this, as in [classifier]."""
    size: int = Field(default=64, ge=16)
    """The photos have this side in px."""
    first_size: int | None = Field(default=None, ge=16)
    """Training begins with photos of this side in px, which grow to `size`; they have `size` from the start where it is left out."""
    mix: float = Field(default=0.0, ge=0, le=1)
    """This share of the batches is blended by CutMix or MixUp."""
    min_area: float = Field(default=0.35, gt=0, le=1)
    """A crop covers at least this share of the photo."""
    colour_jitter: float = Field(default=0.3, ge=0, le=1)
    """Brightness, contrast and saturation vary by up to this share."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """This share of the certainty is spread over all classes."""
    fit: FitConfig = FitConfig()
    """It is trained so."""

    @model_validator(mode="after")
    def _growing(self) -> "PretrainConfig":
        if self.first_size is not None and self.first_size > self.size:
            raise ValueError("first_size must not lie above size")
        return self


class ViewConfig(Section):
    """It says how random views for training are made: a photo is resized, then a square is cut out of it."""

    long_side: tuple[int, int] = (224, 384)
    """The photo's long side is drawn between these two sizes in px."""
    crop: int = Field(default=256, ge=32)
    """A view is a square of this side in px."""
    keep_aspect: bool = True
    """The photo keeps its proportions; where this is false it becomes a square first, as DRS has it."""
    colour_jitter: float = Field(default=0.3, ge=0, le=1)
    """Brightness, contrast and saturation vary by up to this share."""
    hue_jitter: float = Field(default=0.0, ge=0, le=0.5)
    """The hue varies by up to this share of the colour circle; DRS, EDAM and PSA take 0.1."""
    cutout: int = Field(default=0, ge=0)
    """This many squares of a view are painted over; AMR's first stage takes 3."""
    cutout_size: int = Field(default=128, ge=1)
    """These squares have this side in px."""

    @field_validator("long_side")
    @classmethod
    def _ordered(cls, long_side: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= long_side[0] <= long_side[1]:
            raise ValueError("must be two sizes in px, the smaller one first")
        return long_side


class MosaicConfig(Section):
    """Photos of single objects serve as further tags (`training.data.mosaic`)."""

    photos: Path
    """This zip holds CLASS/NAME photos of single objects."""
    share: float = Field(default=0.25, gt=0, lt=1)
    """This share of the views is made of them."""
    classes: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(min_length=1)
    """For a class of the data, the classes of the zip that show it."""


class CorrectionsConfig(Section):
    """Masks that people corrected serve as further labels; it is a table, or the folder alone."""

    folder: Path = Path("corrections")
    """The service, or `corrections add`, writes this folder of corrections."""
    share: float = Field(default=0.5, gt=0, lt=1)
    """This share of what training sees is corrected photos."""
    weight: float = Field(default=1.0, gt=0)
    """A pixel of theirs counts this many times in the loss."""
    held_out: float = Field(default=0.2, ge=0, le=0.5)
    """This share of the corrections is kept from training; versions are compared on it."""

    @model_validator(mode="before")
    @classmethod
    def _folder_alone(cls, values: Any) -> Any:
        return {"folder": values} if isinstance(values, str | Path) else values


class RecognizerConfig(Section):
    """A network beside a segmenter says what is in the photo (`training.segmenters.recognizer`)."""

    backbone: str = "timm/tf_efficientnet_lite0"
    """It stands on this backbone, named as in [classifier], which stays as its weights are."""
    weights: str | None = "pretrained"
    """Its weights come from there, named as in [classifier]."""
    output_stride: int = 32
    """Its last stage has this stride; the one that it was trained with recognises best."""
    scale: float = Field(default=1.0, gt=0, le=1)
    """It sees the photo at this many times the segmenter's size."""
    power: float = Field(default=1.0, ge=1, le=8)
    """Its features are pooled by the generalised mean of this power; 1 averages them, and more of it makes small things count."""
    decay: float = Field(default=3e-3, gt=0)
    """The regression's weights are pulled towards their start with this strength."""
    names: bool = True
    """The start is what ImageNet's head knows of the classes' names; where this is false it is zero."""


class RegressionConfig(Section):
    """The head starts by a logistic regression on frozen features (`training.stages.regression`)."""

    size: int = Field(default=320, ge=32)
    """Features are taken of photos of this long side in px."""
    decay: float = Field(default=3e-3, gt=0)
    """Weights are pulled towards their start with this strength."""
    names: bool = True
    """The start is what ImageNet's head knows of the classes' names; where this is false it is zero."""
