"""A run's configuration: one TOML file -> frozen, checked values. Unknown keys are refused by name."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from app.errors import ConfigError
from training.data.config import DataConfig

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]  # of a served model


class Section(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FitConfig(Section):
    """How a module is trained (`training.fit`); several GPUs are used where torchrun starts several processes."""

    epochs: int = Field(default=10, ge=1)
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
    size: int = Field(default=64, ge=16)
    min_area: float = Field(default=0.35, gt=0, le=1)  # of a crop, as a share of the photo
    colour_jitter: float = Field(default=0.3, ge=0, le=1)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    fit: FitConfig = FitConfig()


class ViewConfig(Section):
    """Random views for training: the photo's long side is drawn from `long_side`, then a square of `crop` px is cut."""

    long_side: tuple[int, int] = (224, 384)
    crop: int = Field(default=256, ge=32)
    colour_jitter: float = Field(default=0.3, ge=0, le=1)

    @field_validator("long_side")
    @classmethod
    def _ordered(cls, long_side: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= long_side[0] <= long_side[1]:
            raise ValueError("must be two sizes in px, the smaller one first")
        return long_side


class ClassifierConfig(Section):
    """The classifier: a method on a backbone, trained on tags. `options` are the method's own."""

    method: str = "cam"
    backbone: str = "small"
    output_stride: int = 16
    weights: str | None = None
    repeat_threshold: float = Field(default=0.0, ge=0, le=1)  # classes rarer than this share are shown more often
    views: ViewConfig = ViewConfig()
    options: dict[str, Any] = {}
    fit: FitConfig = FitConfig()


class LocalizeConfig(Section):
    """How maps are made: the long side the network sees, and the scales of it that are summed."""

    preferred_size: int = Field(default=320, ge=32, le=4096)
    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field(default=(1.0,), min_length=1)
    flip: bool = True


class PseudoLabelConfig(Section):
    """How maps become labels (`app.predict.LabelRule`); `saliency` is a folder of NAME.png for the rule of DRS."""

    background_threshold: float = Field(default=0.25, ge=0, le=1)
    foreground_threshold: float | None = Field(default=None, ge=0, le=1)
    refine: Literal["none", "pamr", "crf"] = "none"
    saliency: Path | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "PseudoLabelConfig":
        if self.saliency is not None and (self.refine != "none" or self.foreground_threshold is not None):
            raise ValueError("the saliency rule knows neither `refine` nor `foreground_threshold`; leave them out")
        if self.foreground_threshold is not None and self.foreground_threshold < self.background_threshold:
            raise ValueError("foreground_threshold must not lie below background_threshold")
        return self


class SegmenterConfig(Section):
    """The segmenter, trained on pseudo-labels. `labels = "ground-truth"` is the fully supervised upper bound."""

    architecture: str = "deeplabv3plus"
    backbone: str = "small"
    output_stride: int = 16
    weights: str | None = "classifier"  # "classifier" starts from the classifier's backbone
    labels: Literal["pseudo", "ground-truth"] = "pseudo"
    views: ViewConfig = ViewConfig()
    options: dict[str, Any] = {}
    fit: FitConfig = FitConfig()


class ExportConfig(Section):
    """Where models go: `models`/NAME/VERSION/model.onnx. Without a version the next free one is taken."""

    models: Path = Path("models")
    classifier: Name | None = None  # the name to serve the classifier under; None: the run's name + "-" + method
    segmenter: Name | None = None
    version: int | None = Field(default=None, ge=1)
    precision: Literal["float32", "float16"] = "float32"  # of the stored weights
    common: tuple[str, ...] = ()  # classes for a second mean IoU
    data: str = "unnamed photos"
    data_licence: str = "not stated"


class RunConfig(Section):
    """A whole run. `out` receives everything it makes; `segmenter` may be left out."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,40}$")
    out: Path
    data: DataConfig
    classifier: ClassifierConfig = ClassifierConfig()
    localize: LocalizeConfig = LocalizeConfig()
    pseudo_label: PseudoLabelConfig = PseudoLabelConfig()
    segmenter: SegmenterConfig | None = None
    export: ExportConfig = ExportConfig()


S = TypeVar("S", bound=BaseModel)


def read_config(kind: type[S], path: Path, overrides: list[str] | None = None) -> S:
    """Read a TOML file into `kind`; `overrides` are "table.key=value" with TOML values.

    Raises ConfigError that names the key, the value and what is allowed.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"configuration {path} cannot be read ({error}); see experiments/ for ready ones") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    for override in overrides or []:
        _set(values, override)
    return validate_config(kind, values, str(path))


def validate_config(kind: type[S], values: dict[str, Any], source: str) -> S:
    """Check `values` against `kind`."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(lines)) from None


def _set(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"--set {override!r} is not table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    *tables, last = key.split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override!r}: {table} is not a table")
    values[last] = value
