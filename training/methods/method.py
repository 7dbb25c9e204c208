"""What every classifier method has in common."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from training.backbones.backbone import Backbone, backbone_and_head

HeadStart = Literal["xavier", "default", "normal"]
NORMAL_STD = 0.01


class Options(BaseModel):
    """A method's own hyperparameters: the table [classifier.options]. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Classifier(nn.Module):
    """A network trained on tags that also says where it looks.

    Attributes:
        paper: citation for the model card.
        Options: its hyperparameters.
        group_size: photos of a batch that belong together and share a class; 1 for methods that see single photos.
    """

    paper: str
    Options: type[Options] = Options
    backbone: Backbone
    head_lr_scale: float = 10.0
    group_size: int = 1

    @classmethod
    def first_stage(cls, options: Any) -> tuple[str, dict[str, Any]] | None:
        """(method, its options) of the network that a method of two stages trains alone first; None for one stage.

        Its weights then come as the option `spotlight_weights`.
        """
        return None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (N, 3, H, W) -> logits (N, C) and cams (N, C, h, w), after the method's activation."""
        raise NotImplementedError

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses of {"images" (N, 3, H, W), "image_labels" (N, C)}; "loss" is the one to minimise."""
        logits, _ = self(batch["images"])
        return {"loss": F.multilabel_soft_margin_loss(logits.float(), batch["image_labels"])}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The backbone at the base rate, everything else at `head_lr_scale` times it."""
        return backbone_and_head(self, self.head_lr_scale)


def start_head(layer: nn.Conv2d, start: HeadStart) -> None:
    """Give a last convolution without bias the weights a paper starts from.

    "xavier": uniform, of PSA, SEAM and EDAM. "default": PyTorch's own, of IRN and AMR. "normal": N(0, 0.01^2).
    """
    if start == "xavier":
        nn.init.xavier_uniform_(layer.weight)
    elif start == "normal":
        nn.init.normal_(layer.weight, std=NORMAL_STD)
