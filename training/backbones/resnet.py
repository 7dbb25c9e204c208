"""ResNet-50 and ResNet-101 of torchvision are cut before their pooling, with a module of its own for every activation."""

from typing import Any

from torch import Tensor
from torchvision import models
from torchvision.models import ResNet50_Weights, ResNet101_Weights
from torchvision.models.resnet import Bottleneck

from app.inference.errors import ConfigError
from training.backbones.backbone import Activation, Backbone, Modulation, ResidualBackbone, download, unmodulated

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# The papers take V1; V2 blends photos.
WEIGHTS = {50: ResNet50_Weights.IMAGENET1K_V1, 101: ResNet101_Weights.IMAGENET1K_V1}
# For each output stride, these of the last three stages are dilated instead of strided.
DILATED = {32: (False, False, False), 16: (False, False, True), 8: (False, True, True)}


class ResNet(ResidualBackbone):
    """Its strides are 4, 8, 16, 32 at output stride 32; below that the last stages are dilated instead of strided.

    The modules keep torchvision's names, so torchvision's weight files fit. With `dilate_last=False`, at output stride
    16, the last stage has stride 1 and no dilation: what IRN, AdvCAM and AMR use.
    """

    channels = (256, 512, 1024, 2048)
    stride4_stage = 0
    stem_modules = ("conv1", "bn1")
    first_stage_modules = ("layer1",)

    def __init__(
        self,
        depth: int,
        output_stride: int,
        activation: Activation,
        modulation: Modulation = unmodulated,
        dilate_last: bool = True,
    ) -> None:
        super().__init__()
        if output_stride not in DILATED:
            raise ConfigError(f"ResNet-{depth} has output stride 8, 16 or 32, not {output_stride}")
        if not dilate_last and output_stride != 16:
            raise ConfigError(
                f"ResNet-{depth} without dilation in its last stage has output stride 16, not {output_stride}"
            )
        self.depth, self.output_stride = depth, output_stride
        net = models.ResNet(Bottleneck, list(BLOCKS[depth]), replace_stride_with_dilation=list(DILATED[output_stride]))
        self.conv1, self.bn1, self.maxpool = net.conv1, net.bn1, net.maxpool
        self.act1 = activation(0, 64)
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        for stage, layer in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=1):
            for block in layer:
                _separate_activations(block, stage, activation)
                block.modulation = modulation(stage, block.conv3.out_channels)
                if not dilate_last:
                    block.conv2.dilation = block.conv2.padding = (1, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        """See `Backbone.forward`."""
        return self.after_stem(self.stem(images))

    def stem(self, images: Tensor) -> Tensor:
        """Return what precedes the four stages: (N, 64, H / 4, W / 4)."""
        return self.maxpool(self.act1(self.bn1(self.conv1(images))))

    def after_stem(self, x: Tensor) -> list[Tensor]:
        """Return what `forward` gives, from `stem(images)`."""
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in layer:
                x = _bottleneck(block, x)
            features.append(x)
        return features

    def pretrained_state(self) -> dict[str, Tensor]:
        """Return torchvision's IMAGENET1K_V1 weights, downloaded to torch's cache."""
        return download(WEIGHTS[self.depth])


def _separate_activations(block: Bottleneck, stage: int, activation: Activation) -> None:
    """Give each of a bottleneck's three activations a module: torchvision shares one ReLU among them."""
    width, out = block.conv1.out_channels, block.conv3.out_channels
    del block.relu
    block.act1, block.act2, block.act3 = activation(stage, width), activation(stage, width), activation(stage, out)


def _bottleneck(block: Any, x: Tensor) -> Tensor:
    y = block.act1(block.bn1(block.conv1(x)))
    y = block.act2(block.bn2(block.conv2(y)))
    y = block.modulation(block.bn3(block.conv3(y)))
    shortcut = x if block.downsample is None else block.downsample(x)
    return block.act3(y + shortcut)


def resnet50(output_stride: int, activation: Activation, modulation: Modulation = unmodulated) -> Backbone:
    """Build `ResNet` of 50 layers."""
    return ResNet(50, output_stride, activation, modulation)


def resnet50_irn(output_stride: int, activation: Activation, modulation: Modulation = unmodulated) -> Backbone:
    """Build `ResNet` of 50 layers with strides (2, 2, 2, 1) and no dilation."""
    return ResNet(50, output_stride, activation, modulation, dilate_last=False)


def resnet101(output_stride: int, activation: Activation, modulation: Modulation = unmodulated) -> Backbone:
    """Build `ResNet` of 101 layers."""
    return ResNet(101, output_stride, activation, modulation)
