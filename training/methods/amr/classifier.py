"""AMR: activation modulation and recalibration.

Qin et al., "Activation Modulation and Recalibration Scheme for Weakly Supervised Semantic Segmentation", AAAI 2022,
https://arxiv.org/abs/2112.08996. Beside the ordinary classifier (spotlight branch) stands a second network whose
features are re-weighted so that middling responses count most (compensation branch); the two maps are averaged.

    modulation    g(v) = exp(-(v - mu)^2 / (2 s^2)) / (sqrt(2 pi) s)        `gaussian`; mu, s: mean, unbiased deviation
    channel       v = FC2(relu(FC1(gap(x)))) (N, C),  x <- x * g(v)           `ChannelModulation`
    spatial       v = BN(conv7x7([max_c x, mean_c x])) (N, 1, h, w),  x <- x * g(v)   `SpatialModulation`
    AMM           both, one after the other, on every residual branch of the compensation branch   `AMM`
    loss          1/2 Z(logits_s) + 1/2 Z(logits_c) + lambda mean |C_s - C_c|,  lambda = 0.05 (`agreement_weight`)
                  Z: multilabel soft margin; C: class maps after their ReLU; the last term is cross pseudo supervision
    map           xi C_s + (1 - xi) C_c,  xi = 0.5 (`weight`), each divided by its maximum

mu and s carry no gradient. The spotlight branch may be any classifier here (`spotlight`): the scheme is plug-and-play.
Training has two stages: the spotlight branch alone, then both from its weights (`spotlight_weights`).

Departures from the released code, each with a switch that restores what it does:
- mu and s are taken of each image, so that an image's maps do not depend on its neighbours; released: of the whole
  batch, also at inference (`statistics = "batch"`).
- In evaluation the spatial gate normalises with running statistics; released: with those of the batch, because `eval()`
  reaches no layer (`gate_normalization = "batch"`).
- Every layer trains. Released: the spotlight branch is detached but for its last layer, which the agreement alone moves,
  and so are stem and first stage of the compensation branch, AMMs included (`detached`).
- C is the map of one image. Released: written for a batch of an image and its mirror image, C adds the first image's
  map to the second's mirrored one and ignores the rest; in training these are two different photos (`pair_first_two`).
- A deviation below 1e-3 means nothing to tell apart: the gate is 1. Released: not a number for a constant v.
- `bounded` leaves out the factor 1 / (sqrt(2 pi) s), so that a gate lies in (0, 1]; no paper's variant, off.
- `freeze` keeps running statistics in all BatchNorm but the AMMs', and the stems; released: on. Weights and biases of the
  BatchNorm after the stems train.
- Maps are divided by their maximum at each scale, released: once after adding up the scales (`training.refinement.advcam` does).
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from app.inference.errors import ConfigError
from training.backbones import Backbone, build_backbone, relu
from training.checkpoint import read_state
from training.config.run_config import validate_config
from training.methods.amr.modulation import AMM, SpatialModulation, Statistics
from training.methods.method import METHODS, Classifier, FirstStage, Options

NORMALIZE_EPSILON = 1e-5


class CompensationBranch(Classifier):
    """It is a backbone with an AMM on every residual branch, and a 1x1 convolution."""

    def __init__(
        self, class_count: int, backbone: str, output_stride: int, weights: str | None, options: "AmrClassifier.Options"
    ) -> None:
        super().__init__()

        def modulation(stage: int, channels: int) -> nn.Module:
            return AMM(channels, options.reduction, options.statistics, options.gate_normalization, options.bounded)

        self.backbone = build_backbone(backbone, output_stride, weights, relu, modulation)
        self.classifier = nn.Conv2d(self.backbone.channels[-1], class_count, 1, bias=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Classifier.forward`."""
        maps = self.classifier(self.backbone(images)[-1])
        return maps.mean(dim=(2, 3)), maps.relu()


class AmrClassifier(Classifier):
    """It has a spotlight branch (`spotlight`, any classifier) and a compensation branch (`compensation`)."""

    paper = "Qin et al., Activation Modulation and Recalibration Scheme for WSSS, AAAI 2022, arXiv:2112.08996"

    class Options(Options):
        spotlight: str = "cam"
        spotlight_options: dict[str, Any] = Field(default_factory=dict)
        # It names a file with the weights of that classifier, trained alone before.
        spotlight_weights: str | None = None
        weight: float = Field(default=0.5, ge=0, le=1)  # The spotlight branch has this share in map and score.
        agreement_weight: float = Field(default=0.05, ge=0)
        # "normalized" divides by the maxima, and takes the classes present alone.
        agreement: Literal["raw", "normalized"] = "raw"
        reduction: int = Field(default=16, ge=1)
        bounded: bool = False  # A gate lies in (0, 1]: the factor of the normal density is left out.
        freeze: bool = False
        statistics: Statistics = "image"
        gate_normalization: Literal["running", "batch"] = "running"
        detached: bool = False
        pair_first_two: bool = False
        spotlight_lr_scale: float = Field(default=1.0, ge=0)  # It scales the rate of the spotlight's backbone.
        # It scales the rate of the second backbone and its AMMs.
        compensation_lr_scale: float = Field(default=10.0, ge=0)
        classifier_lr_scale: float = Field(default=1.0, ge=0)  # It scales the rate of what follows the backbones.

        @field_validator("spotlight")
        @classmethod
        def _known(cls, spotlight: str) -> str:
            known = [name for name, method in METHODS.items() if not issubclass(method, AmrClassifier)]
            if spotlight not in known:
                raise ValueError(f"unknown method {spotlight!r}; there are {', '.join(known)}")
            return spotlight

    def __init__(
        self, class_count: int, backbone: str, output_stride: int, weights: str | None, options: Options
    ) -> None:
        super().__init__()
        self.options = options
        method, own = spotlight_of(options)
        self.spotlight = method(class_count, backbone, output_stride, weights, own)
        if options.spotlight_weights:
            load_spotlight(self.spotlight, options.spotlight_weights)
        self.compensation = CompensationBranch(class_count, backbone, output_stride, weights, options)
        for module in self._untrained():
            module.requires_grad_(False)

    @classmethod
    def photos_per_group(cls, options: Options) -> int:
        """See `Classifier.photos_per_group`: what the spotlight branch asks for."""
        method, own = spotlight_of(options)
        return method.photos_per_group(own)

    @classmethod
    def first_stage(cls, options: Options) -> FirstStage:
        """See `Classifier.first_stage`: the spotlight branch."""
        alone = spotlight_table(options)
        if options.spotlight == "cam" and options.freeze:
            alone = alone | {"freeze": True}
        return FirstStage(options.spotlight, alone, "spotlight_weights")

    @property
    def backbone(self) -> Backbone:  # type: ignore[override]
        """The backbone is the spotlight branch's, which is an ordinary one: a segmenter can start from it."""
        return self.spotlight.backbone

    def branches(self) -> list[tuple[Classifier, float]]:
        """Return the two classifiers, and the shares of their maps in the result."""
        return [(self.spotlight, self.options.weight), (self.compensation, 1 - self.options.weight)]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Classifier.forward`: weighted means of logits, and of maps over their maxima, which lie in [0, 1]."""
        spotlight_logits, spotlight_cams = self.spotlight(images)
        compensation_logits, compensation_cams = self.compensation(images)
        share = self.options.weight
        logits = share * spotlight_logits + (1 - share) * compensation_logits
        return logits, share * normalize(spotlight_cams) + (1 - share) * normalize(compensation_cams)

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss and its three parts, of {"images" (N, 3, H, W), "image_labels" (N, C)}."""
        images, image_labels = batch["images"], batch["image_labels"]
        logits, spotlight_cams = self.spotlight(images)
        if type(self.spotlight).losses is Classifier.losses:
            spotlight = F.multilabel_soft_margin_loss(logits.float(), image_labels)
        else:  # It has a loss of its own.
            spotlight = self.spotlight.losses(batch)["loss"]
        if self.options.detached:
            spotlight = spotlight.detach()
        logits, compensation_cams = self.compensation(images)
        compensation = F.multilabel_soft_margin_loss(logits.float(), image_labels)
        agreement = self._agreement(spotlight_cams.float(), compensation_cams.float(), image_labels)
        loss = 0.5 * spotlight + 0.5 * compensation + self.options.agreement_weight * agreement
        return {"loss": loss, "spotlight": spotlight, "compensation": compensation, "agreement": agreement}

    def _agreement(self, spotlight_cams: Tensor, compensation_cams: Tensor, image_labels: Tensor) -> Tensor:
        """Return the loss of cross pseudo supervision: the mean distance of the branches' maps (N, C, h, w)."""
        if self.options.pair_first_two:
            return (merge_pair(spotlight_cams) - merge_pair(compensation_cams)).abs().mean()
        if self.options.agreement == "raw":
            return (spotlight_cams - compensation_cams).abs().mean()
        distance = (normalize(spotlight_cams) - normalize(compensation_cams)).abs().mean(dim=(2, 3))
        return (distance * image_labels).sum() / image_labels.sum().clamp(min=1)

    def _untrained(self) -> list[nn.Module]:
        """Return the modules whose parameters the options keep as they are."""
        spotlight, compensation = self.spotlight.backbone, self.compensation.backbone
        modules: list[nn.Module] = []
        if self.options.freeze or self.options.detached:
            modules += map(compensation.get_submodule, compensation.stem_modules)
        if self.options.freeze:
            modules += map(spotlight.get_submodule, spotlight.stem_modules)
        if self.options.detached:
            modules += [spotlight, *map(compensation.get_submodule, compensation.first_stage_modules)]
        return modules

    def train(self, mode: bool = True) -> "AmrClassifier":
        """Do as nn.Module does; with `freeze` the backbones' BatchNorm keeps its running statistics."""
        super().train(mode)
        if self.options.freeze:
            gates = {module.norm for module in self.modules() if isinstance(module, SpatialModulation)}
            for module in [*self.spotlight.backbone.batch_norms(), *self.compensation.backbone.batch_norms()]:
                if module not in gates:
                    module.eval()
        return self

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return groups with the rates of the released code: the spotlight's backbone 1x, the compensation branch's 10x, both classifiers 1x."""
        scales = ((self.spotlight, self.options.spotlight_lr_scale),
                  (self.compensation, self.options.compensation_lr_scale))  # fmt: skip
        groups: list[dict[str, Any]] = []
        heads: list[nn.Parameter] = []
        for branch, scale in scales:
            backbone = {id(p) for p in branch.backbone.parameters()}
            trained = [p for p in branch.parameters() if p.requires_grad]
            groups.append({"params": [p for p in trained if id(p) in backbone], "lr_scale": scale})
            heads += [p for p in trained if id(p) not in backbone]
        groups.append({"params": heads, "lr_scale": self.options.classifier_lr_scale})
        return [group for group in groups if group["params"]]


def spotlight_of(options: AmrClassifier.Options) -> tuple[type[Classifier], Options]:
    """Return the method of the spotlight branch and its options. Raises ConfigError for an option that it does not know."""
    method = METHODS[options.spotlight]
    return method, validate_config(method.Options, spotlight_table(options), "options.spotlight_options")


def spotlight_table(options: AmrClassifier.Options) -> dict[str, Any]:
    """Return the options of the spotlight branch; plain CAM starts its head as the compensation branch does its own."""
    start = {"head_start": "default"} if options.spotlight == "cam" else {}
    return start | options.spotlight_options


def normalize(cams: Tensor) -> Tensor:
    """Return the maps (N, C, h, w) >= 0, each divided by its own maximum (plus 1e-5)."""
    return cams / (cams.amax(dim=(2, 3), keepdim=True) + NORMALIZE_EPSILON)


def merge_pair(cams: Tensor) -> Tensor:
    """Return the maps (2 or more, C, h, w) of an image and its mirror image -> (C, h, w): the second turned back and added."""
    if len(cams) < 2:
        raise ConfigError("pair_first_two needs a batch of at least 2 images; raise fit.batch_size")
    return cams[0] + cams[1].flip(-1)


def load_spotlight(classifier: Classifier, path: str) -> None:
    """Fill the spotlight branch from the weights of a classifier trained alone. Raises ConfigError where they differ."""
    try:
        classifier.load_state_dict(read_state(Path(path)))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ConfigError(
            f"spotlight_weights {path} are not those of a {type(classifier).__name__} with these options: {reason}"
        ) from None
