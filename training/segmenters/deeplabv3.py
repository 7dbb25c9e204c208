"""DeepLabV3: ASPP on the last stage, one classifier at its stride.

Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017, https://arxiv.org/abs/1706.05587.
"""

from torch import Tensor, nn

from training.backbones import Backbone
from training.segmenters.aspp import ASPP, conv_bn_relu
from training.segmenters.segmenter import Segmenter, SegmenterOptions


class DeepLabV3(Segmenter):
    """It is a backbone, ASPP, a 3x3 convolution and a 1x1 classifier."""

    paper = "Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017, arXiv:1706.05587"

    def __init__(self, backbone: Backbone, label_count: int, options: SegmenterOptions) -> None:
        super().__init__(backbone, label_count, options)
        self.aspp = ASPP(backbone.channels[-1], options.channels, self.rates(), options.dropout)
        self.head = conv_bn_relu(options.channels, options.channels, 3)
        self.classifier = nn.Conv2d(options.channels, label_count, 1)

    def trunk(self, features: list[Tensor]) -> Tensor:
        """See `Segmenter.trunk`; (h, w) is that of the last stage."""
        return self.aspp(features[-1])

    def last(self, before: Tensor) -> Tensor:
        """See `Segmenter.last`."""
        return self.classifier(self.head(before))

    def last_modules(self) -> tuple[nn.Module, ...]:
        """See `Segmenter.last_modules`."""
        return self.head, self.classifier
