"""DeepLab, version 2: ASPP as a sum of dilated classifiers on the last stage.

Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully Connected
CRFs", TPAMI 2018, https://arxiv.org/abs/1606.00915: the segmenter of the four methods' papers. The field-of-view of its
branches is that of ASPP-L, rates 6, 12, 18 and 24 at output stride 8. With X the last stage's features:

    residual network   logits = sum over rates r of conv3x3_r(X)
    VGG16              logits = sum over rates r of fc8_r(fc7_r(fc6_r(X))), fc6 a 3x3 convolution of rate r, the others 1x1

fc6 and fc7 end with ReLU and dropout. The papers set `msc = [0.5, 0.75]` and `freeze_batch_norm = true`.

Learning rates are the authors' too: backbone 1x, head weights 10x, head biases 20x without weight decay. Departures: fc6
and fc7 are not cut out of the ImageNet classifier's, so they start at random and learn at the head's rates; VGG16 ends
without the pooling after its last block; ResNet is torchvision's, dilated by 2 and 4 from the second block of a stage on.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from training.backbones import Backbone
from training.backbones.backbone import backbone_and_head
from training.backbones.vgg16 import VGG16
from training.segmenters.segmenter import Segmenter, SegmenterOptions

INITIAL_DEVIATION = 0.01


class DeepLabV2(Segmenter):
    """Backbone and branches whose logits are summed; VGG16's branches have hidden layers, every other's have none."""

    paper = "Chen et al., DeepLab, TPAMI 2018, arXiv:1606.00915"
    defaults: ClassVar[dict[str, Any]] = {"channels": 1024, "rates": (6, 12, 18, 24), "dropout": 0.5}
    rates_stride = 8
    compare_at = "logits"

    def __init__(self, backbone: Backbone, label_count: int, options: SegmenterOptions) -> None:
        super().__init__(backbone, label_count, options)
        width, channels, dropout = backbone.channels[-1], self.options.channels, self.options.dropout
        hidden = isinstance(backbone, VGG16)
        self.branches = nn.ModuleList(
            hidden_branch(width, channels, label_count, rate, dropout)
            if hidden
            else classifier(width, label_count, 3, rate)
            for rate in self.rates()
        )

    def trunk(self, features: list[Tensor]) -> Tensor:
        """See `Segmenter.trunk`; (h, w) is that of the last stage."""
        return features[-1]

    def last(self, before: Tensor) -> Tensor:
        """See `Segmenter.last`."""
        return torch.stack([branch(before) for branch in self.branches]).sum(dim=0)

    def last_modules(self) -> tuple[nn.Module, ...]:
        """See `Segmenter.last_modules`."""
        return (self.branches,)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the backbone at the base rate, head weights at `head_lr_scale` times it, head biases at twice that,
        undecayed.
        """
        backbone, head = backbone_and_head(self, self.head_lr_scale)
        weights = [p for p in head["params"] if p.ndim > 1]
        biases = [p for p in head["params"] if p.ndim == 1]
        return [
            backbone,
            head | {"params": weights},
            {"params": biases, "lr_scale": 2 * self.head_lr_scale, "weight_decay": 0.0},
        ]


def classifier(in_channels: int, label_count: int, kernel: int, rate: int = 1) -> nn.Conv2d:
    """Convolution to logits that keeps the size; weights N(0, 0.01^2), no bias at first."""
    layer = nn.Conv2d(in_channels, label_count, kernel, padding=rate * (kernel // 2), dilation=rate)
    nn.init.normal_(layer.weight, std=INITIAL_DEVIATION)
    start_biases(layer)
    return layer


def start_biases(layer: nn.Conv2d) -> None:
    """Start with zero biases."""
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def hidden_branch(in_channels: int, channels: int, label_count: int, rate: int, dropout: float) -> nn.Sequential:
    """Return fc6, fc7 and fc8 of one rate; the hidden ones start from He's initialisation."""
    hidden = [nn.Conv2d(in_channels, channels, 3, padding=rate, dilation=rate), nn.Conv2d(channels, channels, 1)]
    layers: list[nn.Module] = []
    for layer in hidden:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        start_biases(layer)
        layers += [layer, nn.ReLU(inplace=True), nn.Dropout(dropout)]
    return nn.Sequential(*layers, classifier(channels, label_count, 1))
