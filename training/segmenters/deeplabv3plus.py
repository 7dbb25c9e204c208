"""DeepLabV3+: DeepLabV3 with a decoder that sees features of stride 4.

Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", ECCV 2018,
https://arxiv.org/abs/1802.02611, section 3.1: ASPP's output is enlarged, joined to 48 channels of a low-level feature,
and passed through two 3x3 convolutions. Departure: ordinary instead of separable convolutions (a CPU runs them faster).
"""

import torch
from torch import Tensor, nn

from training.backbones import Backbone
from training.segmenters.aspp import ASPP, conv_bn_relu, enlarge
from training.segmenters.segmenter import Segmenter, SegmenterOptions

LOW_LEVEL_CHANNELS = 48


class DeepLabV3Plus(Segmenter):
    """It is a backbone, ASPP, and a decoder on the backbone's stride-4 stage."""

    paper = "Chen et al., Encoder-Decoder with Atrous Separable Convolution, ECCV 2018, arXiv:1802.02611"

    def __init__(self, backbone: Backbone, label_count: int, options: SegmenterOptions) -> None:
        super().__init__(backbone, label_count, options)
        self.aspp = ASPP(backbone.channels[-1], options.channels, self.rates(), options.dropout)
        self.reduce = conv_bn_relu(backbone.channels[backbone.stride4_stage], LOW_LEVEL_CHANNELS, 1)
        self.decoder = nn.Sequential(
            conv_bn_relu(options.channels + LOW_LEVEL_CHANNELS, options.channels, 3),
            conv_bn_relu(options.channels, options.channels, 3),
        )
        self.classifier = nn.Conv2d(options.channels, label_count, 1)

    def trunk(self, features: list[Tensor]) -> Tensor:
        """See `Segmenter.trunk`; (h, w) is that of the stride-4 stage."""
        low = self.reduce(features[self.backbone.stride4_stage])
        high = enlarge(self.aspp(features[-1]), low.shape[2:])
        return self.decoder[0](torch.cat([high, low], 1))

    def last(self, before: Tensor) -> Tensor:
        """See `Segmenter.last`."""
        return self.classifier(self.decoder[1](before))

    def last_modules(self) -> tuple[nn.Module, ...]:
        """See `Segmenter.last_modules`."""
        return self.decoder[1], self.classifier
