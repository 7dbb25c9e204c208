"""ResNet-38 is the wide, pre-activation residual network of PSA, EDAM, SEAM and CCRM.

Wu, Shen and van den Hengel, "Wider or Deeper: Revisiting the ResNet Model for Visual Recognition", model A1,
https://arxiv.org/abs/1611.10080, as Ahn and Kwak, "Learning Pixel-level Semantic Affinity" (PSA), CVPR 2018, use it:
two last stages dilated instead of strided (stride 8), no pooling, BatchNorm and activation before every convolution:

    a = act(bn(x))      out = shortcut(a or x) + conv(act(bn(conv(a))))

The features returned are activated ones, as the following block sees them: 256 channels at stride 4, then 512, 1024 and
4096 at stride 8 (PSA's `conv4`, `conv5`, `conv6`). PSA ends with a ReLU after its last BatchNorm; EDAM has none there:
`drop_final_activation`.

The modules keep the names that all released weight files of this network share, so those files fit as they are.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from app.inference.errors import ConfigError
from training.backbones.backbone import Activation, Backbone
from training.checkpoint import read_state

STEM = 64
# Each row gives blocks, middle and output channels, stride of the first block and dilation of b2 to b5, the stages 0 to 3.
BASIC_STAGES = ((3, 128, 128, 2, 1), (3, 256, 256, 2, 1), (6, 512, 512, 2, 1), (3, 512, 1024, 1, 2))
# Each row gives input channels, output channels and the share of channels dropped in training of b6 and b7, together stage 4.
BOTTLENECKS = ((1024, 2048, 0.3), (2048, 4096, 0.5))
WEIGHTS_FILE = "ilsvrc-cls_rna-a1_cls1000_ep-0001.pth"


class BasicBlock(nn.Module):
    """It has two 3x3 convolutions; the first is strided and, as in PSA, dilated by 1 wherever the shape changes."""

    def __init__(
        self, in_channels: int, middle: int, channels: int, stride: int, dilations: tuple[int, int],
        stages: tuple[int, int], activation: Activation,
    ) -> None:  # fmt: skip
        super().__init__()
        first, second = dilations
        self.bn_branch2a = nn.BatchNorm2d(in_channels)
        self.act_branch2a = activation(stages[0], in_channels)
        self.conv_branch2a = nn.Conv2d(in_channels, middle, 3, stride, first, first, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(middle)
        self.act_branch2b1 = activation(stages[1], middle)
        self.conv_branch2b1 = nn.Conv2d(middle, channels, 3, 1, second, second, bias=False)
        self.conv_branch1 = None
        if stride != 1 or in_channels != channels:
            self.conv_branch1 = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (N, channels, H / stride, W / stride) of (N, in_channels, H, W), and the activated input."""
        activated = self.act_branch2a(self.bn_branch2a(x))
        shortcut = x if self.conv_branch1 is None else self.conv_branch1(activated)
        y = self.act_branch2b1(self.bn_branch2b1(self.conv_branch2a(activated)))
        return shortcut + self.conv_branch2b1(y), activated


class Bottleneck(nn.Module):
    """It goes by 1x1 to a quarter, by 3x3 (dilation 4) to a half, by 1x1 to all of `channels`, and drops whole channels in between."""

    def __init__(
        self, in_channels: int, channels: int, dropout: float, stages: tuple[int, int], activation: Activation
    ) -> None:
        super().__init__()
        quarter, half = channels // 4, channels // 2
        self.bn_branch2a = nn.BatchNorm2d(in_channels)
        self.act_branch2a = activation(stages[0], in_channels)
        self.conv_branch2a = nn.Conv2d(in_channels, quarter, 1, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(quarter)
        self.act_branch2b1 = activation(stages[1], quarter)
        self.conv_branch2b1 = nn.Conv2d(quarter, half, 3, 1, 4, 4, bias=False)
        self.bn_branch2b2 = nn.BatchNorm2d(half)
        self.act_branch2b2 = activation(stages[1], half)
        self.conv_branch2b2 = nn.Conv2d(half, channels, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (N, channels, h, w) of (N, in_channels, h, w), and the activated input."""
        activated = self.act_branch2a(self.bn_branch2a(x))
        y = self.act_branch2b1(self.bn_branch2b1(self.conv_branch2a(activated)))
        y = self.act_branch2b2(self.bn_branch2b2(self.conv_branch2b1(self.dropout(y))))
        return self.conv_branch1(activated) + self.conv_branch2b2(self.dropout(y)), activated


class ResNet38(Backbone):
    """Its strides are 4, 8, 8, 8, and it has 105 million parameters."""

    channels = (256, 512, 1024, 4096)
    stride4_stage = 0
    stem_modules = ("conv1a", "b2", "b2_1", "b2_2")
    output_stride = 8

    def __init__(self, output_stride: int, activation: Activation) -> None:
        super().__init__()
        if output_stride != self.output_stride:
            raise ConfigError(f"ResNet-38 has output stride {self.output_stride}, not {output_stride}")
        self.conv1a = nn.Conv2d(3, STEM, 3, padding=1, bias=False)
        in_channels = STEM
        self._blocks: list[str] = []
        for stage, (count, middle, channels, stride, dilation) in enumerate(BASIC_STAGES):
            for index in range(count):
                first = index == 0
                dilations = (1 if first else dilation, dilation)
                stages = (max(0, stage - 1) if first else stage, stage)
                block = BasicBlock(in_channels, middle, channels, stride if first else 1, dilations, stages, activation)
                self._add(f"b{stage + 2}" if first else f"b{stage + 2}_{index}", block)
                in_channels = channels
        for name, stage, (in_channels, channels, dropout) in zip(("b6", "b7"), (3, 4), BOTTLENECKS, strict=True):
            self._add(name, Bottleneck(in_channels, channels, dropout, (stage, 4), activation))
        self.bn7 = nn.BatchNorm2d(self.channels[-1])
        self.act7 = activation(4, self.channels[-1])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _add(self, name: str, block: nn.Module) -> None:
        self.add_module(name, block)
        self._blocks.append(name)

    def drop_final_activation(self) -> None:
        """Return the last BatchNorm's output as it is, as EDAM's version of the network does."""
        self.act7 = nn.Identity()

    def forward(self, images: Tensor) -> list[Tensor]:
        """See `Backbone.forward`."""
        x, features = self.conv1a(images), []
        for name in self._blocks:
            x, activated = getattr(self, name)(x)
            if name in ("b4", "b5", "b6"):  # The stage before ends with what enters here.
                features.append(activated)
        return [*features, self.act7(self.bn7(x))]

    def pretrained_state(self) -> dict[str, Tensor]:
        """Return PSA's ImageNet weights, converted from MXNet, from torch's cache. Raises ConfigError where they are not."""
        path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE
        if not path.is_file():
            raise ConfigError(
                f"no ImageNet weights of ResNet-38 in {path}: download {WEIGHTS_FILE} (the torch file that the "
                f"repositories of PSA, SEAM and EDAM link to) and put it there, or name it in `weights`"
            )
        return read_state(path)


def resnet38(output_stride: int, activation: Activation) -> Backbone:
    """Build `ResNet38`."""
    return ResNet38(output_stride, activation)
