"""What every segmenter has in common."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from app.labels import IGNORE_INDEX
from training.backbones.backbone import Backbone, backbone_and_head
from training.segmenters.aspp import ASPP, enlarge


class SegmenterOptions(BaseModel):
    """A segmenter's own hyperparameters: the table [segmenter.options]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: int = Field(default=256, ge=1)  # of ASPP and decoder
    rates: tuple[Annotated[int, Field(ge=1)], ...] = (6, 12, 18)  # of ASPP at output stride 16; twice that at 8
    dropout: float = Field(default=0.1, ge=0, lt=1)


class Segmenter(nn.Module):
    """A network that labels every pixel."""

    paper: str
    backbone: Backbone
    head_lr_scale: float = 10.0

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) -> logits (N, C + 1, h, w), background first."""
        raise NotImplementedError

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy at the size of "label_maps" (N, H, W), pixels of 255 left out."""
        logits = self(batch["images"]).float()
        targets = batch["label_maps"]
        enlarged = enlarge(logits, targets.shape[1:])
        total = F.cross_entropy(enlarged, targets, ignore_index=IGNORE_INDEX, reduction="sum")
        return {"loss": total / (targets != IGNORE_INDEX).sum().clamp(min=1)}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The backbone at the base rate, the head at `head_lr_scale` times it."""
        return backbone_and_head(self, self.head_lr_scale)


def build_aspp(backbone: Backbone, options: SegmenterOptions) -> ASPP:
    """ASPP on a backbone's last stage; its rates are those at output stride 16, doubled at 8."""
    factor = max(1, 16 // backbone.output_stride)
    rates = tuple(rate * factor for rate in options.rates)
    return ASPP(backbone.channels[-1], options.channels, rates, options.dropout)
