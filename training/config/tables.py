"""The tables of a run's file: frozen, checked values with their defaults. Unknown keys are refused by name."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app.inference.maps.class_conditional import ConditionalOptions
from training.label_rules import RULES, RuleOptions
from training.label_rules.edam import ALPHA, BETA

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]  # of a served model

Precision = Literal["float32", "float16", "int8"]  # of stored weights


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


class ClassifierConfig(Section):
    """The classifier: a method on a backbone, trained on tags. `options` are the method's own.

    `first_fit` is for methods of two stages (AMR): their first network is trained so alone, on `first_views` where they
    differ, then `fit` trains the whole. With `regression` the head starts from frozen features, and `fit.epochs = 0`
    leaves it at that. `held_out` is the share of `train` that it is not trained on: the thresholds above
    which a class is held to be present are fitted there (`training.stages.classifier.hold_out`).
    """

    method: str = "cam"
    backbone: str = "small"
    output_stride: int = 16
    weights: str | None = None
    held_out: float = Field(default=0.1, ge=0, le=0.5)
    repeat_threshold: float = Field(default=0.0, ge=0, le=1)  # classes rarer than this share are shown more often
    views: ViewConfig = ViewConfig()
    mosaic: MosaicConfig | None = None
    regression: RegressionConfig | None = None
    options: dict[str, Any] = {}
    first_fit: FitConfig | None = None
    first_views: ViewConfig | None = None
    fit: FitConfig = FitConfig()


class AdvcamConfig(Section):
    """How AdvCAM climbs (`training.refinement.advcam`). `short` are scales that take half the steps."""

    steps: int = Field(default=27, ge=1)
    step_size: float = Field(default=0.08, gt=0)  # xi, in units of the normalised image
    restraint: float = Field(default=7.0, ge=0)  # lambda
    discriminative_threshold: float = Field(default=0.5, ge=0, le=1)  # tau
    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field(default=(0.5, 1.0, 1.5, 2.0), min_length=1)
    short: tuple[float, ...] = (0.5,)


class LocalizeConfig(Section):
    """How maps are made: the long side the network sees, and the scales of it that are summed.

    `inference` is "plain", "class-conditional" (CCRM, `app.inference.maps.class_conditional`, with its own scales in `conditional`) or
    "advcam" (`climbing`). An exported classifier is described by the plain scales whatever it says.
    """

    preferred_size: int = Field(default=320, ge=32, le=4096)
    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field(default=(1.0,), min_length=1)
    flip: bool = True
    inference: Literal["plain", "class-conditional", "advcam"] = "plain"
    conditional: ConditionalOptions = ConditionalOptions()
    climbing: AdvcamConfig = AdvcamConfig()


class IrnConfig(Section):
    """How the edge network of IRN is trained and used (`training.refinement.irn`). Thresholds are compared with maps in [0, 1].

    The values are IRN's own; AMR takes 0.60 and 0.33 for the two thresholds and "crf" for `refine`.
    """

    backbone: str = "small"
    output_stride: int = 16
    weights: str | None = "classifier"  # "classifier" starts from the classifier's backbone
    network: Path | None = None  # a trained edge network (`import --method irn`), used as it is
    radius: int = Field(default=10, ge=2)  # px at stride 4, of the pairs trained on
    foreground_threshold: float = Field(default=0.30, ge=0, le=1)
    background_threshold: float = Field(default=0.05, ge=0, le=1)
    refine: Literal["none", "pamr", "crf"] = "pamr"  # of the confident labels
    photos: int | None = Field(default=None, ge=1)  # so many of `train`, evenly spaced; None: all
    padded_size: int | None = None
    walk_radius: int = Field(default=5, ge=2)
    beta: float = Field(default=10.0, gt=0)
    doublings: int = Field(default=8, ge=0)  # 2^doublings steps
    exponent: float = Field(default=1.5, gt=0)
    views: ViewConfig = ViewConfig()
    fit: FitConfig = FitConfig(epochs=3, lr=0.1, momentum=1e-4, weight_decay=1e-4)


class DrsConfig(Section):
    """DRS's refinement network (`training.refinement.drs`): sizes in px of the square photos, `size` for training, `scales`
    for making maps; colour_jitter in [0, 1], hue_jitter a share of the colour circle (the authors': 0.1).
    """

    backbone: str = "small"
    output_stride: int = 16
    weights: str | None = "classifier"  # "classifier" starts from the classifier's backbone
    extra: int = Field(default=3, ge=0)  # convolutions between the backbone and the last one
    photos: int | None = Field(default=None, ge=1)  # so many of `train`, evenly spaced; None: all
    size: int = Field(default=320, ge=32)
    scales: tuple[Annotated[int, Field(ge=32)], ...] = Field(default=(256, 320, 384), min_length=1)
    colour_jitter: float = Field(default=0.3, ge=0, le=1)
    hue_jitter: float = Field(default=0.0, ge=0, le=0.5)
    fit: FitConfig = FitConfig(optimizer="adamw", lr=1e-4, epochs=30, batch_size=10, schedule="step")


class RefineConfig(Section):
    """Better maps before they become labels: a random walk along learned edges, a network that learns plain maps, or the
    fusion of the run's maps with those in the folders `others`, which other runs left (`app.inference.maps.fusion`).
    """

    method: Literal["irn", "drs", "fusion"]
    irn: IrnConfig = IrnConfig()
    drs: DrsConfig = DrsConfig()
    others: tuple[Path, ...] = ()

    @model_validator(mode="after")
    def _something_to_fuse(self) -> "RefineConfig":
        if (self.method == "fusion") != bool(self.others):
            raise ValueError('`others` are folders of maps (runs/NAME/cams) for method = "fusion", and it needs one')
        return self


class SaliencyConfig(Section):
    """Where saliency comes from: `folder` of grey PNGs NAME.png, or an unsupervised `estimate` (`training.stages.saliency`).

    `limit`: a pixel is salient above it, of 255 (DRS: 50, EDAM: 20).
    """

    folder: Path | None = None
    estimate: str | None = None
    limit: int = Field(default=50, ge=0, lt=255)

    @model_validator(mode="after")
    def _one(self) -> "SaliencyConfig":
        if (self.folder is None) == (self.estimate is None):
            raise ValueError("give either `folder` or `estimate`")
        return self


class PseudoLabelConfig(Section):
    """How maps become labels.

    `rule` is a name in `training.label_rules.RULES`: "threshold", or a rule of a paper, which needs the run's [saliency];
    `options` are the rule's own. `saliency_share` is the share of [saliency] in the maps that are refined and compared with the
    thresholds (`training.stages.pseudo_label.blend_saliency`).
    `refine` is PAMR, the dense CRF, or graph cuts (`training.smoothing.grabcut`), which need OpenCV.
    """

    rule: str = "threshold"
    background_threshold: float = Field(default=0.25, ge=0, le=1)
    foreground_threshold: float | None = Field(default=None, ge=0, le=1)
    refine: Literal["none", "pamr", "crf", "grabcut"] = "none"
    saliency_share: float = Field(default=0.0, ge=0, lt=1)
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _noted_by_an_earlier_release(cls, values: Any) -> Any:
        """Read `alpha` and `beta`, which stood in the table for all rules, as the options of EDAM's rules that they are."""
        if not isinstance(values, dict) or not {"alpha", "beta"} & values.keys():
            return values
        kept = {key: value for key, value in values.items() if key not in ("alpha", "beta")}
        moved = {key: values[key] for key in ("alpha", "beta") if values.get(key) not in (None, ALPHA, BETA)}
        return kept | ({"options": moved} if moved else {})

    @property
    def reads_saliency(self) -> bool:
        """Whether labels depend on the run's saliency."""
        return RULES[self.rule].reads_saliency or self.saliency_share > 0

    @property
    def rule_options(self) -> RuleOptions:
        """The options of the rule, checked."""
        return RULES[self.rule].options.model_validate(self.options)

    @model_validator(mode="after")
    def _consistent(self) -> "PseudoLabelConfig":
        if self.rule not in RULES:
            raise ValueError(f"unknown rule {self.rule!r}; there are {', '.join(RULES)}")
        for key in RULES[self.rule].unread:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f'rule = "{self.rule}" does not read `{key}`; leave `{key}` out')
        self.rule_options  # noqa: B018  raises where an option is unknown or out of range
        if self.refine not in RULES[self.rule].refines:
            raise ValueError(f'rule = "{self.rule}" takes `refine` of {RULES[self.rule].refines}, not "{self.refine}"')
        if self.refine == "grabcut" and self.foreground_threshold is not None:
            raise ValueError('refine = "grabcut" decides each pixel; leave `foreground_threshold` out')
        if self.foreground_threshold is not None and self.foreground_threshold < self.background_threshold:
            raise ValueError("foreground_threshold must not lie below background_threshold")
        return self


class SegmenterConfig(Section):
    """The segmenter, trained on pseudo-labels.

    `weights`: "classifier" starts from the run's classifier's backbone; else as in [classifier].
    `labels = "ground-truth"` is the fully supervised upper bound; such a run has this network alone.
    `rounds`: after each but the last, the segmenter's own masks of the training photos, kept to the photos' tags, and the
    maps make the labels of the next (`training.stages.rounds`). `own_share`: of those masks.
    `presence_threshold`: a class that the tag head (`options.tag_weight`) holds to be less likely in the whole photo gets no
    pixel where nobody says that it is there.
    """

    architecture: str = "deeplabv3plus"
    backbone: str = "small"
    output_stride: int = 16
    weights: str | None = "classifier"
    labels: Literal["pseudo", "ground-truth"] = "pseudo"
    rounds: int = Field(default=1, ge=1)
    own_share: float = Field(default=0.8, ge=0, le=1)
    activated_quantile: float = Field(default=0.9, gt=0, lt=1)  # for options.saliency_weight: what counts as activated
    repeat_threshold: float = Field(default=0.0, ge=0, le=1)  # classes rarer than this share are shown more often
    crf: bool = False  # measure the masks after a dense CRF as well
    preferred_size: int | None = Field(default=None, ge=32, le=4096)  # px of the long side it sees; None: [localize]'s
    presence_threshold: float | None = Field(
        default=None, ge=0, le=1
    )  # of the tag head's probabilities; None: not asked
    views: ViewConfig = ViewConfig()
    options: dict[str, Any] = {}
    fit: FitConfig = FitConfig()

    def seed_of_round(self, number: int) -> int:
        """The seed of a round, from 1."""
        return self.fit.seed + number - 1


class ExportConfig(Section):
    """Where models go: `models`/NAME/VERSION/model.onnx.

    Without a version the next free one is taken; `segmenter_version` is the segmenter's, where it is another.
    `background_threshold` is that of the served maps: a number, "saliency" (`training.stages.threshold`), or the pseudo-label's.
    """

    models: Path = Path("models")
    classifier: Name | None = None  # the name to serve the classifier under; None: the run's name + "-" + method
    segmenter: Name | None = None
    version: int | None = Field(default=None, ge=1)
    segmenter_version: int | None = Field(default=None, ge=1)
    background_threshold: Annotated[float, Field(ge=0, le=1)] | Literal["saliency"] | None = None
    precision: Precision = "float32"  # of the stored weights
    common: tuple[str, ...] = ()  # classes for a second mean IoU
    data: str = "unnamed photos"
    data_licence: str = "not stated"

    @property
    def version_of_segmenter(self) -> int | None:
        """The segmenter's version; None for the next free one."""
        return self.segmenter_version or self.version


class NeedsConfig(Section):
    """What a run needs besides what its tables name; printed before it starts, and checked."""

    gpu_memory_gib: float | None = Field(default=None, gt=0)
