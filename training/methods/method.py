"""Every classifier method has this in common."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from training.backbones.backbone import Backbone, backbone_and_head

METHODS: dict[
    str, type["Classifier"]
] = {}  # `training.methods` fills it; methods that build on others look them up here.
HeadStart = Literal["xavier", "default", "normal"]
NORMAL_STD = 0.01


class Options(BaseModel):
    """They are a method's own hyperparameters: the table [classifier.options]. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class FirstStage:
    """It is the network that a method of two stages trains alone first.

    Attributes:
        method: its name in `METHODS`.
        options: its own options.
        weights_option: the option of the whole method that names the file of its weights.
    """

    method: str
    options: dict[str, Any]
    weights_option: str


class Classifier(nn.Module):
    """It is a network trained on tags that also says where it looks.

    Attributes:
        paper: citation for the model card.
        Options: its hyperparameters.
    """

    paper: str
    Options: type[Options] = Options
    backbone: Backbone
    head_lr_scale: float = 10.0
    reads_features: bool = False  # The maps need more than the trained weights: `learn_maps`.

    @classmethod
    def photos_per_group(cls, options: Any) -> int:
        """Return how many consecutive photos of a batch belong together and share a class; 1 where every photo is seen alone."""
        return 1

    @classmethod
    def first_stage(cls, options: Any) -> FirstStage | None:
        """Return the network that a method of two stages trains alone first; None for a method of one stage."""
        return None

    def branches(self) -> "list[tuple[Classifier, float]]":
        """Return the networks that make the maps, each with the share of its maps in the result."""
        return [(self, 1.0)]

    def head(self) -> nn.Conv2d | None:
        """Return the convolution that makes the maps from the last features, where a regression on tags can start it; None where
        it cannot.
        """
        layer = getattr(self, "classifier", None)
        return layer if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) else None

    def features(self, images: Tensor) -> Tensor:
        """Return what `head` reads (N, D, h, w) of normalised images (N, 3, H, W)."""
        return self.backbone(images)[-1]

    @torch.no_grad()
    def take_regression(self, weight: Tensor, bias: Tensor, mean: Tensor) -> None:
        """Start `head` with the weights (C, D) and biases (C,) of a regression on averaged features, whose mean is `mean` (D,)."""
        head = self.head()
        assert head is not None
        head.weight.copy_(weight[:, :, None, None])
        if head.bias is not None:
            head.bias.copy_(bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, C) and cams (N, C, h, w), after the method's activation, of normalised images (N, 3, H, W)."""
        raise NotImplementedError

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of {"images" (N, 3, H, W), "image_labels" (N, C)}; "loss" is the one to minimise."""
        logits, _ = self(batch["images"])
        return {"loss": F.multilabel_soft_margin_loss(logits.float(), batch["image_labels"])}

    def learn_maps(self, photos: Iterable[tuple[Tensor, tuple[int, ...]]]) -> None:
        """Take what the maps need from the last features (D, h, w) and the class indices of every training photo, once the network
        is trained. Nothing where `reads_features` is false.
        """

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the backbone at the base rate, everything else at `head_lr_scale` times it."""
        return backbone_and_head(self, self.head_lr_scale)


def start_head(layer: nn.Conv2d, start: HeadStart) -> None:
    """Give a last convolution without bias the weights a paper starts from.

    "xavier": uniform, of PSA, SEAM and EDAM. "default": PyTorch's own, of IRN and AMR. "normal": N(0, 0.01^2).
    """
    if start == "xavier":
        nn.init.xavier_uniform_(layer.weight)
    elif start == "normal":
        nn.init.normal_(layer.weight, std=NORMAL_STD)
