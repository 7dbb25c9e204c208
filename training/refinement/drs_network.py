"""Localization map refinement learning of DRS.

Kim, Han and Kim, "Discriminative Region Suppression for Weakly-Supervised Semantic Segmentation", AAAI 2021,
https://arxiv.org/abs/2103.07246. A second network learns to reproduce the maps of the first from the photo alone, which
smooths them along what photos of one class share:

    T_k = A_k where A_k = max over classes of A, else 0      `refinement_target`, A: the first network's maps in [0, 1]
    loss = mean over images, classes and pixels of (R - T)^2  R: the output, enlarged with align_corners=True

The tags are not given, so the network learns zeros for classes that are absent. R has no activation: it may leave
[0, 1]. The network is the backbone with plain ReLUs (VGG16, stride 8), `extra` 3x3 convolutions with ReLU and a 1x1
convolution with bias; the released code trains it with Adam, rate 1e-4, no weight decay.

Departures from the released code: any backbone; a score per class (there is none in the paper) so that the network can
be served: the largest value of its map, which learns to be near 1 for a class in the photo and near 0 for another.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from training.backbones import build_backbone
from training.methods.method import Classifier, Options

SCORE_MARGIN = 1e-4  # scores lie in [margin, 1 - margin], where their logits are finite
INITIAL_STD = 0.01  # of the extra convolutions


class DrsRefinement(Classifier):
    """Backbone, `extra` convolutions with ReLU, 1x1 convolution to one map per class."""

    paper = "Kim et al., Discriminative Region Suppression for WSSS, AAAI 2021, arXiv:2103.07246"

    class Options(Options):
        extra: int = Field(default=3, ge=0)

    def __init__(
        self, class_count: int, backbone: str, output_stride: int, weights: str | None, options: Options
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, output_stride, weights)
        channels = self.backbone.channels[-1]
        layers: list[nn.Module] = []
        for _ in range(options.extra):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
        self.extra = nn.Sequential(*layers)
        self.classifier = nn.Conv2d(channels, class_count, 1)
        for layer in (*self.extra, self.classifier):
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=INITIAL_STD)
                nn.init.zeros_(layer.bias)

    def maps(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) -> R (N, C, h, w), not activated, at feature resolution."""
        return self.classifier(self.extra(self.backbone(images)[-1]))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Classifier.forward`; the sigmoid of a logit is the largest value of the class's map."""
        maps = self.maps(images)
        scores = maps.amax(dim=(2, 3)).clamp(SCORE_MARGIN, 1 - SCORE_MARGIN)
        return torch.log(scores / (1 - scores)), maps.relu()

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean squared error of {"images" (N, 3, H, W), "maps" (N, C, H, W): A of the first network, in [0, 1]}."""
        maps = batch["maps"]
        refined = enlarge_maps(self.maps(batch["images"]).float(), maps.shape[2:])
        return {"loss": F.mse_loss(refined, refinement_target(maps))}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Everything at one rate and without weight decay: AdamW then is the Adam of the released code."""
        return [{"params": list(self.parameters()), "lr_scale": 1.0, "weight_decay": 0.0}]


def refinement_target(maps: Tensor) -> Tensor:
    """T of A (N, C, H, W): per pixel only the class with the largest value keeps it; ties keep all."""
    return torch.where(maps == maps.amax(dim=1, keepdim=True), maps, torch.zeros_like(maps))


def enlarge_maps(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bilinear interpolation of (N, C, h, w) to `size` with the corner pixels' centres aligned, as all of DRS does."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)


def normalize_drs_cams(cams: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Activated maps (N, C, h, w) of a DRS classifier -> localization maps (N, C, *size) in [0, 1).

    Released code: the maximum of a map, plus 1e-5, divides it after the interpolation, not before.
    """
    enlarged = enlarge_maps(cams, size)
    return enlarged / (enlarged.amax(dim=(2, 3), keepdim=True) + 1e-5)
