"""The attention modulation module of AMR weighs channels, then pixels, anew so that middling responses count most.

The equations stand in `training.methods.amr.classifier`, with the paper and where this departs from the released code.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST_DEVIATION = 1e-3
ROOT_TWO_PI = math.sqrt(2 * math.pi)
Statistics = Literal["image", "batch"]


def gaussian(v: Tensor, statistics: Statistics = "image", bounded: bool = False) -> Tensor:
    """Return the normal density of v (N, ...) under its own mean and unbiased deviation, of each image or of the whole batch.

    It is 1 where the deviation is below 1e-3, to within rounding. `bounded` leaves out the density's factor, so that it lies in (0, 1].
    """
    entries = v.detach().to(torch.promote_types(v.dtype, torch.float32))
    entries = entries.flatten(1) if statistics == "image" else entries.reshape(1, -1)
    shape = (-1,) + (1,) * (v.ndim - 1)
    mean = entries.mean(dim=1, keepdim=True)
    squares = (entries - mean).square().sum(dim=1, keepdim=True)
    deviation = (squares / (entries.shape[1] - 1)).sqrt().view(shape)
    varied = deviation > LEAST_DEVIATION  # It is false for not-a-number, the deviation of a single entry.
    deviation = torch.where(varied, deviation, 1 / ROOT_TWO_PI)  # The density is 1 at the mean then.
    gate = torch.exp(-((v - mean.view(shape)) ** 2) / (2 * deviation**2))
    return (gate if bounded else gate / (ROOT_TWO_PI * deviation)).to(v.dtype)


class ChannelModulation(nn.Module):
    """It gives x * g(v), where v is one number for each channel."""

    def __init__(self, channels: int, reduction: int, statistics: Statistics, bounded: bool) -> None:
        super().__init__()
        self.statistics, self.bounded = statistics, bounded
        self.squeeze = nn.Linear(channels, max(1, channels // reduction))
        self.excite = nn.Linear(max(1, channels // reduction), channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, h, w) of (N, C, h, w)."""
        v = self.excite(self.squeeze(x.mean(dim=(2, 3))).relu())
        return x * gaussian(v, self.statistics, self.bounded)[:, :, None, None]


class SpatialModulation(nn.Module):
    """It gives x * g(v), where v is one number for each pixel."""

    def __init__(self, statistics: Statistics, normalization: Literal["running", "batch"], bounded: bool) -> None:
        super().__init__()
        self.statistics, self.normalization, self.bounded = statistics, normalization, bounded
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1, eps=1e-5, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, h, w) of (N, C, h, w)."""
        v = self.conv(torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1))
        if self.normalization == "batch" and not self.training:
            v = F.batch_norm(v, None, None, self.norm.weight, self.norm.bias, training=True, eps=self.norm.eps)
        else:
            v = self.norm(v)
        return x * gaussian(v, self.statistics, self.bounded)


class AMM(nn.Sequential):
    """The attention modulation module modulates channels, then pixels.

    Args:
        channels: C of the input (N, C, h, w).
        reduction: C over the width of the hidden layer of the channel gate.
        statistics: what mu and s are taken of.
        normalization: statistics of the spatial gate's BatchNorm in evaluation.
        bounded: gates in (0, 1].
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        statistics: Statistics = "image",
        normalization: Literal["running", "batch"] = "running",
        bounded: bool = False,
    ) -> None:
        super().__init__()
        self.channel = ChannelModulation(channels, reduction, statistics, bounded)
        self.spatial = SpatialModulation(statistics, normalization, bounded)
