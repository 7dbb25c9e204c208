"""The tables of the road from tags to maps say what the classifier is, how it is asked for maps, and how maps are refined."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from app.inference.maps.class_conditional import ConditionalOptions
from training.config.learning import TRIAL_SIDE, FitConfig, MosaicConfig, RegressionConfig, Section, ViewConfig


class ClassifierConfig(Section):
    """The classifier is a method on a backbone, trained on tags."""

    method: str = "cam"
    """The classifier follows this method, a name in `training.methods.METHODS`."""
    backbone: str = "small"
    """It stands on this backbone: `timm/NAME`, or a name in `training.backbones.BACKBONES`."""
    output_stride: int = 16
    """The backbone's last stage has this stride; smaller strides give finer maps and cost more."""
    fit_output_stride: int | None = None
    """It has this one while it is trained, where that is another: the weights are the same, and a step at 32 takes a third of one at 16."""
    weights: str | None = None
    """The backbone starts from this: "pretrained", a file, or random weights where it is left out."""
    held_out: float = Field(default=0.1, ge=0, le=0.5)
    """This share of `train` is kept from training; the thresholds of presence are fitted on it."""
    repeat_threshold: float = Field(default=0.0, ge=0, le=1)
    """Classes that fewer photos have than this share are shown more often."""
    views: ViewConfig = ViewConfig()
    """The classifier sees these views of a photo."""
    mosaic: MosaicConfig | None = None
    """Photos of single objects serve as further tags."""
    regression: RegressionConfig | None = None
    """The head starts from a logistic regression on frozen features."""
    options: dict[str, Any] = Field(default_factory=dict)
    """These are the method's own options."""
    first_fit: FitConfig | None = None
    """The first network of a method of two stages is trained alone so."""
    first_views: ViewConfig | None = None
    """That first network sees these views; they are the same as `views` where it is left out."""
    fit: FitConfig = FitConfig()
    """The whole is trained so."""


class AdvcamConfig(Section):
    """It says how AdvCAM climbs (`training.refinement.advcam`)."""

    trial: ClassVar[dict[str, Any]] = {"steps": 2, "scales": (1.0,)}

    steps: int = Field(default=27, ge=1)
    """A photo climbs this many steps."""
    step_size: float = Field(default=0.08, gt=0)
    """A step has this length (xi), in units of the normalised image."""
    restraint: float = Field(default=7.0, ge=0)
    """What is discriminative already is held back with this strength (lambda)."""
    discriminative_threshold: float = Field(default=0.5, ge=0, le=1)
    """A map counts as discriminative above this share of its maximum (tau)."""
    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field(default=(0.5, 1.0, 1.5, 2.0), min_length=1)
    """The photo climbs at each of these scales."""
    short: tuple[float, ...] = (0.5,)
    """These scales take half the steps."""


class LocalizeConfig(Section):
    """It says how maps are made of a photo. An exported classifier is served with these scales and plain inference."""

    trial: ClassVar[dict[str, Any]] = {
        "preferred_size": TRIAL_SIDE,
        "scales": (1.0,),
        "conditional": {"rounds": 2, "scales": (1.0,)},
    }

    preferred_size: int = Field(default=320, ge=32, le=4096)
    """The network sees photos of this long side in px; the segmenter does too unless it names its own."""
    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field(default=(1.0,), min_length=1)
    """The maps of these scales are added up."""
    flip: bool = True
    """The maps of the mirrored photo are added as well."""
    inference: Literal["plain", "class-conditional", "advcam"] = "plain"
    """"plain" reads the network's maps; "class-conditional" is CCRM's way, "advcam" AdvCAM's."""
    conditional: ConditionalOptions = ConditionalOptions()
    """Class-conditional inference works so."""
    climbing: AdvcamConfig = AdvcamConfig()
    """AdvCAM climbs so."""


class IrnConfig(Section):
    """It says how the edge network of IRN is trained and used (`training.refinement.irn`). Thresholds are compared with maps in [0, 1].

    The values are IRN's own; AMR takes 0.60 and 0.33 for the two thresholds and "crf" for `refine`.
    """

    trial: ClassVar[dict[str, Any]] = {
        "network": None,
        "photos": None,
        "radius": 3,
        "doublings": 2,
        "padded_size": None,
    }

    backbone: str = "small"
    """The edge network stands on this backbone."""
    output_stride: int = 16
    """Its last stage has this stride."""
    weights: str | None = "classifier"
    """"classifier" starts from the run's classifier; else as in [classifier]."""
    network: Path | None = None
    """This trained edge network (`import --method irn`) is used as it is."""
    radius: int = Field(default=10, ge=2)
    """Pairs of pixels closer than this many px at stride 4 are trained on."""
    foreground_threshold: float = Field(default=0.30, ge=0, le=1)
    """A pixel is confidently a thing where a map is above it."""
    background_threshold: float = Field(default=0.05, ge=0, le=1)
    """A pixel is confidently background where all maps are below it."""
    refine: Literal["none", "pamr", "crf"] = "pamr"
    """The maps are smoothed so before the confident labels are taken."""
    photos: int | None = Field(default=None, ge=1)
    """Training takes this many photos of `train`, evenly spaced; all where it is left out."""
    padded_size: int | None = None
    """Photos are padded to a square of this side in px, as the released code does."""
    walk_radius: int = Field(default=5, ge=2)
    """The walk steps to pixels closer than this many px."""
    beta: float = Field(default=10.0, gt=0)
    """Affinities are raised to this power."""
    doublings: int = Field(default=8, ge=0)
    """The walk takes 2^doublings steps."""
    exponent: float = Field(default=1.5, gt=0)
    """Maps are raised to this power before the walk (gamma)."""
    views: ViewConfig = ViewConfig()
    """The edge network sees these views of a photo."""
    fit: FitConfig = FitConfig(epochs=3, lr=0.1, momentum=1e-4, weight_decay=1e-4)
    """The edge network is trained so."""


class DrsConfig(Section):
    """It says how DRS's refinement network is trained and used (`training.refinement.drs`)."""

    trial: ClassVar[dict[str, Any]] = {"photos": None, "size": TRIAL_SIDE, "scales": (TRIAL_SIDE,)}

    backbone: str = "small"
    """The refinement network stands on this backbone."""
    output_stride: int = 16
    """Its last stage has this stride."""
    weights: str | None = "classifier"
    """"classifier" starts from the run's classifier; else as in [classifier]."""
    extra: int = Field(default=3, ge=0)
    """This many convolutions stand between the backbone and the last one."""
    photos: int | None = Field(default=None, ge=1)
    """Training takes this many photos of `train`, evenly spaced; all where it is left out."""
    size: int = Field(default=320, ge=32)
    """The square photos in training have this side in px."""
    scales: tuple[Annotated[int, Field(ge=32)], ...] = Field(default=(256, 320, 384), min_length=1)
    """Maps are made at these sides in px and joined by their maximum."""
    colour_jitter: float = Field(default=0.3, ge=0, le=1)
    """Brightness, contrast and saturation vary by up to this share."""
    hue_jitter: float = Field(default=0.0, ge=0, le=0.5)
    """The hue varies by up to this share of the colour circle; the authors take 0.1."""
    fit: FitConfig = FitConfig(optimizer="adamw", lr=1e-4, epochs=30, batch_size=10, schedule="step")
    """The refinement network is trained so."""


class RefineConfig(Section):
    """It says how maps get better before they become labels."""

    method: Literal["irn", "drs", "fusion"]
    """"irn" walks along learned edges, "drs" learns the maps by a network, "fusion" joins the maps of several runs."""
    irn: IrnConfig = IrnConfig()
    """IRN's edge network and walk."""
    drs: DrsConfig = DrsConfig()
    """DRS's refinement network."""
    others: tuple[Path, ...] = ()
    """Fusion joins the maps of these folders (runs/NAME/cams) with the run's own."""

    @model_validator(mode="after")
    def _something_to_fuse(self) -> "RefineConfig":
        if (self.method == "fusion") != bool(self.others):
            raise ValueError('`others` are folders of maps (runs/NAME/cams) for method = "fusion", and it needs one')
        return self
