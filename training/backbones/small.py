"""`small` is a residual network of 4.2 million parameters that trains on two cores.

Plain 3x3 convolutions in basic blocks (He et al., "Deep Residual Learning", CVPR 2016), which a CPU runs at a far better
rate than depthwise ones. The stem is one convolution of stride 2 without pooling, so that 64 px photos, on which it is
pre-trained, still leave a 4 x 4 map.
"""

from pathlib import Path

from torch import Tensor, nn

from app.inference.errors import ConfigError
from training.backbones.backbone import Activation, Backbone, Modulation, ResidualBackbone, unmodulated
from training.checkpoint import read_state

STEM = 32
WIDTHS = (32, 64, 128, 320)
DEPTHS = (1, 2, 3, 2)


class BasicBlock(nn.Module):
    """It has two 3x3 convolutions and a shortcut."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, dilation: int, stage: int, activation: Activation
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = activation(stage, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.modulation: nn.Module = nn.Identity()
        self.act2 = activation(stage, channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, channels, H / stride, W / stride) of (N, in_channels, H, W)."""
        y = self.act1(self.bn1(self.conv1(x)))
        return self.act2(self.modulation(self.bn2(self.conv2(y))) + self.shortcut(x))


class Small(ResidualBackbone):
    """It has a stem of stride 2 and four stages of basic blocks; its strides are 2, 4, 8, 16 at output stride 16."""

    channels = WIDTHS
    stride4_stage = 1
    stem_modules = ("stem",)
    first_stage_modules = ("stages.0",)

    def __init__(self, output_stride: int, activation: Activation, modulation: Modulation = unmodulated) -> None:
        super().__init__()
        if output_stride not in (8, 16):
            raise ConfigError(f"the small backbone has output stride 8 or 16, not {output_stride}")
        self.output_stride = output_stride
        self.stem = nn.Sequential(nn.Conv2d(3, STEM, 3, 2, 1, bias=False), nn.BatchNorm2d(STEM), activation(0, STEM))
        last = (2, 1) if output_stride == 16 else (1, 2)
        stages, in_channels = [], STEM
        for stage, (width, depth, (stride, dilation)) in enumerate(
            zip(WIDTHS, DEPTHS, ((1, 1), (2, 1), (2, 1), last), strict=True), start=1
        ):
            blocks = []
            for block in range(depth):
                blocks.append(BasicBlock(in_channels, width, stride if block == 0 else 1, dilation, stage, activation))
                in_channels = width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, BasicBlock):  # Every block starts as its shortcut (Goyal et al. 2017, 5.1).
                nn.init.zeros_(module.bn2.weight)
        for number, (width, residuals) in enumerate(zip(WIDTHS, stages, strict=True), start=1):
            for residual in residuals:
                residual.modulation = modulation(number, width)

    def forward(self, images: Tensor) -> list[Tensor]:
        """See `Backbone.forward`."""
        return self.after_stem(self.stem(images))

    def after_stem(self, x: Tensor) -> list[Tensor]:
        """Return what `forward` gives, from `stem(images)` (N, 32, H / 2, W / 2)."""
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def pretrained_state(self) -> dict[str, Tensor]:
        """Return the weights learned on 50,000 small photos of 200 classes (experiments/photos/pretrain.toml), beside this file."""
        return read_state(Path(__file__).with_suffix(".pt"))


def small(output_stride: int, activation: Activation, modulation: Modulation = unmodulated) -> Backbone:
    """Build `Small`."""
    return Small(output_stride, activation, modulation)
