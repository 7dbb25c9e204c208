"""What every backbone has in common."""

from collections.abc import Callable

from torch import Tensor, nn

Activation = Callable[[int, int], nn.Module]  # (stage 0..4, channels) -> module
Modulation = Callable[[int, int], nn.Module]  # (stage 1..4, channels) -> module


def relu(stage: int, channels: int) -> nn.Module:
    """The ordinary activation."""
    return nn.ReLU(inplace=True)


def unmodulated(stage: int, channels: int) -> nn.Module:
    """A residual branch that is added as it is."""
    return nn.Identity()


class Backbone(nn.Module):
    """Four stages of features.

    Attributes:
        channels: of the four stages, finest first.
        output_stride: of the last stage.
        stride4_stage: index of the stage whose features have stride 4, for decoders.
    """

    channels: tuple[int, int, int, int]
    output_stride: int
    stride4_stage: int

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (N, 3, H, W) -> features [(N, channels[i], H / stride_i, W / stride_i)], finest first."""
        raise NotImplementedError

    def imagenet_state(self) -> dict[str, Tensor]:
        """ImageNet weights under this module's keys. Raises ConfigError where there are none or they can't be had."""
        raise NotImplementedError
