"""Atrous spatial pyramid pooling of DeepLabV3 (Chen et al. 2017, section 3.3, https://arxiv.org/abs/1706.05587)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn_relu(in_channels: int, channels: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """Convolution without bias, batch normalisation, ReLU; the size is kept."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


class ASPP(nn.Module):
    """It is a 1x1 convolution, 3x3 ones of each rate and the image's mean, side by side, then a 1x1 projection.

    The mean's branch has no batch normalisation: it sees one value per image, which training in small batches does not
    survive.
    """

    def __init__(self, in_channels: int, channels: int, rates: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [conv_bn_relu(in_channels, channels, 1), *(conv_bn_relu(in_channels, channels, 3, rate) for rate in rates)]
        )
        self.image_branch = nn.Sequential(nn.Conv2d(in_channels, channels, 1), nn.ReLU(inplace=True))
        self.project = nn.Sequential(conv_bn_relu((len(rates) + 2) * channels, channels, 1), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, h, w) -> (N, channels, h, w)."""
        mean = self.image_branch(x.mean(dim=(2, 3), keepdim=True))
        return self.project(torch.cat([*(branch(x) for branch in self.branches), mean.expand(-1, -1, *x.shape[2:])], 1))


def enlarge(x: Tensor, size: torch.Size) -> Tensor:
    """Return bilinear interpolation to `size` (h, w), half-pixel centres."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def resize_images(images: Tensor, scale: float) -> Tensor:
    """Return images (N, 3, H, W) at `scale` times their size, rounded down; bilinear, half-pixel centres."""
    return F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False, recompute_scale_factor=True)
