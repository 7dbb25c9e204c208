"""VGG16 is as the papers use it: thirteen convolutions, the last block dilated, stride 8 or 16."""

from torch import Tensor, nn
from torchvision.models import VGG16_Weights

from app.inference.errors import ConfigError
from training.backbones.backbone import Activation, Backbone, download

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(Backbone):
    """It has five blocks; the stages returned are blocks 2, 3, 4 and 5.

    After block 4 a 3x3 max-pool keeps the resolution (stride 1, padding 1) and block 5 is dilated by 2: with a 2x2
    pool of stride 2 after blocks 1 to 3 the output stride is 8 (DRS, released code). At output stride 16 the last pool
    is an ordinary one. Module names are torchvision's `features.N`, so its weight files fit.
    """

    channels = (128, 256, 512, 512)
    stride4_stage = 1
    stem_modules = ("features.0", "features.2")

    def __init__(self, output_stride: int, activation: Activation) -> None:
        super().__init__()
        if output_stride not in (8, 16):
            raise ConfigError(f"VGG16 has output stride 8 or 16, not {output_stride}")
        self.output_stride = output_stride
        layers: list[nn.Module] = []
        ends, in_channels = [], 3
        dilated = output_stride == 8
        for stage, block in enumerate(BLOCKS):
            for channels in block:
                dilation = 2 if stage == 4 and dilated else 1
                layers += [nn.Conv2d(in_channels, channels, 3, 1, dilation, dilation), activation(stage, channels)]
                in_channels = channels
            ends.append(len(layers))
            if stage < 4:
                keep = stage == 3 and dilated
                layers.append(nn.MaxPool2d(3, 1, 1) if keep else nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self._ends = tuple(ends[1:])

    def forward(self, images: Tensor) -> list[Tensor]:
        """See `Backbone.forward`; the strides are 2, 4, 8, 8 (or 16)."""
        x, features = images, []
        for index, layer in enumerate(self.features, start=1):
            x = layer(x)
            if index in self._ends:
                features.append(x)
        return features

    def pretrained_state(self) -> dict[str, Tensor]:
        """Return torchvision's IMAGENET1K_V1 weights, downloaded to torch's cache."""
        return download(VGG16_Weights.IMAGENET1K_V1)


def vgg16(output_stride: int, activation: Activation) -> Backbone:
    """Build `VGG16`."""
    return VGG16(output_stride, activation)
