"""The tables of the road from maps to models are saliency, pseudo-labels, the segmenter, export, and what a run needs."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from training.config.learning import CorrectionsConfig, FitConfig, RecognizerConfig, Section, ViewConfig
from training.label_rules import RULES, RuleOptions
from training.label_rules.edam import ALPHA, BETA

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]  # A served model has such a name.

# Weights are stored so; with int8 the arithmetic is that of integers as well.
Precision = Literal["float32", "float16", "int8"]


class SaliencyConfig(Section):
    """Saliency comes either from a folder or from an estimate."""

    folder: Path | None = None
    """This folder holds grey PNGs, one NAME.png for each photo."""
    estimate: str | None = None
    """This unsupervised estimate makes them, a name in `training.stages.saliency.ESTIMATORS`."""
    limit: int = Field(default=50, ge=0, lt=255)
    """A pixel is salient above this value of 255; DRS takes 50, EDAM 20."""

    @model_validator(mode="after")
    def _one(self) -> "SaliencyConfig":
        if (self.folder is None) == (self.estimate is None):
            raise ValueError("give either `folder` or `estimate`")
        return self


class PseudoLabelConfig(Section):
    """Maps become labels by a rule, and may be smoothed before."""

    rule: str = "threshold"
    """Labels follow this rule, a name in `training.label_rules.RULES`."""
    background_threshold: float = Field(default=0.25, ge=0, le=1)
    """A pixel whose best map is not above it is background."""
    foreground_threshold: float | None = Field(default=None, ge=0, le=1)
    """A pixel whose best map lies between the two thresholds is ignored; no pixel is where it is left out."""
    refine: Literal["none", "pamr", "crf", "grabcut"] = "none"
    """The maps are smoothed before by PAMR, the dense CRF, or graph cuts, which need OpenCV."""
    saliency_share: float = Field(default=0.0, ge=0, lt=1)
    """Saliency has this share in the maps that are smoothed and compared with the thresholds."""
    options: dict[str, Any] = Field(default_factory=dict)
    """These are the rule's own options."""

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
        """It tells whether labels depend on the run's saliency."""
        return RULES[self.rule].reads_saliency or self.saliency_share > 0

    @property
    def rule_options(self) -> RuleOptions:
        """The rule has these options, which are checked."""
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
    """The segmenter is trained on pseudo-labels."""

    architecture: str = "deeplabv3plus"
    """The segmenter has this architecture, a name in `training.segmenters.SEGMENTERS`."""
    backbone: str = "small"
    """It stands on this backbone, named as in [classifier]."""
    output_stride: int = 16
    """The backbone's last stage has this stride."""
    weights: str | None = "classifier"
    """"classifier" starts from the run's classifier; else as in [classifier]."""
    labels: Literal["pseudo", "ground-truth"] = "pseudo"
    """"pseudo" trains on the run's pseudo-labels; "ground-truth" is the fully supervised upper bound."""
    corrections: CorrectionsConfig | None = None
    """Masks that people corrected teach besides the labels; the run is no longer weakly supervised alone, and says so."""
    rounds: int = Field(default=1, ge=1)
    """The segmenter is trained this many times; each time but the first its own masks help to make the labels."""
    early_epochs: int | None = Field(default=None, ge=1)
    """The rounds before the last see every photo this many times; they see it as often as the last where it is left out."""
    own_share: float = Field(default=0.8, ge=0, le=1)
    """These masks have this share in the next round's labels, less in a class in which graph cuts do not agree with them; the maps have the rest."""
    go_on: bool = False
    """A round starts from the weights of the one before; where this is false it starts where the first did."""
    earlier_share: float = Field(default=0.0, ge=0, lt=1)
    """The last round but one has this share in the weights that are kept, where rounds go on from each other."""
    activated_quantile: float = Field(default=0.9, gt=0, lt=1)
    """What lies above this quantile of a map counts as activated, for options.saliency_weight."""
    repeat_threshold: float = Field(default=0.0, ge=0, le=1)
    """Classes that fewer photos have than this share are shown more often."""
    paste: float = Field(default=0.0, ge=0, le=1)
    """Onto this share of the views the things of another photo are pasted, whose class is drawn from all alike."""
    crf: bool = False
    """The masks are measured after a dense CRF as well."""
    preferred_size: int | None = Field(default=None, ge=32, le=4096)
    """The segmenter sees photos of this long side in px; it is [localize]'s where it is left out."""
    recognizer: RecognizerConfig | None = None
    """A second network says what is in the photo; the tag head says it where it is left out."""
    presence_threshold: float | None = Field(default=None, ge=0, le=1)
    """A class that is held to be less likely in the photo gets no pixel unless it is named; any may where it is left out."""
    presence_weight: float = Field(default=0.0, ge=0, le=10)
    """A class that is unlikely in the photo loses so many times its log odds in every pixel; the limit alone counts where this is 0."""
    views: ViewConfig = ViewConfig()
    """The segmenter sees these views of a photo."""
    options: dict[str, Any] = Field(default_factory=dict)
    """These are the architecture's own options."""
    fit: FitConfig = FitConfig()
    """The segmenter is trained so."""

    @model_validator(mode="before")
    @classmethod
    def _noted_by_an_earlier_release(cls, values: Any) -> Any:
        """Leave out `tag_regression`, which said how the tag head was fitted anew: notes of runs and cards of models hold it."""
        return (
            {key: value for key, value in values.items() if key != "tag_regression"}
            if isinstance(values, dict)
            else values
        )

    @model_validator(mode="after")
    def _averaged(self) -> "SegmenterConfig":
        if self.earlier_share and not (self.go_on and self.rounds > 1):
            raise ValueError(
                "earlier_share averages the weights of two rounds, of which one goes on from the other: set go_on and rounds"
            )
        return self

    def seed_of_round(self, number: int) -> int:
        """Return the seed of a round, from 1."""
        return self.fit.seed + number - 1


class ExportConfig(Section):
    """It says where the models go, and what their cards say."""

    models: Path = Path("models")
    """NAME/VERSION/model.onnx goes into this folder."""
    classifier: Name | None = None
    """The classifier is served under this name; it is the run's name and the method where it is left out."""
    segmenter: Name | None = None
    """The segmenter is served under this name; it is the run's name and the architecture where it is left out."""
    version: int | None = Field(default=None, ge=1)
    """The models get this version; it is the next free one where it is left out."""
    segmenter_version: int | None = Field(default=None, ge=1)
    """The segmenter gets this version, where it is another."""
    background_threshold: Annotated[float, Field(ge=0, le=1)] | Literal["saliency"] | None = None
    """The served maps have this threshold: a number, "saliency", or the pseudo-labels' where it is left out."""
    precision: Precision = "float32"
    """Weights are stored in this precision, and int8 computes in integers too; a smaller one is taken back where it costs half a point."""
    common: tuple[str, ...] = ()
    """Classes for a second mean IoU, over them and the background."""
    data: str = "unnamed photos"
    """The cards of the models say that they were trained on this."""
    data_licence: str = "not stated"
    """The cards say that this is the licence of that data."""

    @property
    def version_of_segmenter(self) -> int | None:
        """The segmenter gets this version; None means the next free one."""
        return self.segmenter_version or self.version


class NeedsConfig(Section):
    """It lists what a run needs besides what its tables name. The needs are printed and checked before it starts."""

    gpu_memory_gib: float | None = Field(default=None, gt=0)
    """The run needs a GPU with this many GiB."""
