"""DRS: discriminative region suppression.

Kim, Han and Kim, "Discriminative Region Suppression for Weakly-Supervised Semantic Segmentation", AAAI 2021,
https://arxiv.org/abs/2103.07246. Every channel of a feature map is capped at a fraction of its own maximum, so that
the class map has to spread past the most discriminative part. With y = relu(x), m_c = max of y_c over space:

    fixed:      out_c = min(y_c, delta * m_c)                          delta = 0.55 in the paper
    learnable:  out_c = min(y_c, k_c * m_c),  k = sigmoid(W gap(y))    W (C, C) without bias, drawn from N(0, 0.01^2)

Gradients flow through y, m_c and k. The classifier is the backbone with suppression in place of its ReLUs, `extra`
more 3x3 convolutions with suppression, and a 1x1 convolution with bias to F; logits are the average of F, maps relu(F).

Departures from the released code: `learnable` is said in words, there `delta == 0` means it; the suppressed stages can
be chosen, the paper's network is VGG16 with all of them and three extra convolutions. `bias` can be left out: where a
class is rare its bias learns that it is, sinks below zero, and takes the weaker half of every map with it.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from training.backbones import build_backbone, relu
from training.methods.method import Classifier, Options


def initialize_convolutions(module: nn.Module) -> None:
    """Start with Kaiming-normal weights (fan out), zero biases: the start of all layers that no pre-trained file holds."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Suppression(nn.Module):
    """It is a ReLU, or the network's own activation, after which every channel is capped at a fraction of its spatial maximum.

    Args:
        channels: C of the input (N, C, H, W).
        delta: the fixed fraction in (0, 1]; None makes it learnable, per channel and image.
        own: the activation that a network has in the place of ReLU.
    """

    def __init__(self, channels: int, delta: float | None, own: nn.Module | None = None) -> None:
        super().__init__()
        self.delta, self.own = delta, own
        self.fc: nn.Module = nn.Identity()
        if delta is None:
            controller = nn.Linear(channels, channels, bias=False)
            nn.init.normal_(controller.weight, std=0.01)
            self.fc = nn.Sequential(controller, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W) of (N, C, H, W), with values in [0, fraction * maximum]."""
        y = x.relu() if self.own is None else self.own(x)
        fraction = self.delta if self.delta is not None else self.fc(y.mean(dim=(2, 3)))[:, :, None, None]
        return torch.minimum(y, fraction * y.amax(dim=(2, 3), keepdim=True))


class DrsClassifier(Classifier):
    """It is a backbone with suppressed activations, `extra` convolutions, 1x1 convolution."""

    paper = "Kim et al., Discriminative Region Suppression for WSSS, AAAI 2021, arXiv:2103.07246"

    class Options(Options):
        learnable: bool = False
        delta: float = Field(
            default=0.55, gt=0, le=1
        )  # The fixed setting suppresses above this share of a channel's maximum.
        stages: tuple[Annotated[int, Field(ge=0, le=4)], ...] = (
            0,
            1,
            2,
            3,
            4,
        )  # The activations of these stages suppress; 0 is the stem.
        # So many 3x3 convolutions stand before the last one, and suppress whatever `stages` says.
        extra: int = Field(default=3, ge=0)
        bias: bool = True  # The last convolution has one.
        # The first modules, and the statistics of all BatchNorm, stay; the paper's VGG16 has none.
        freeze: bool = False

    def __init__(
        self, class_count: int, backbone: str, output_stride: int, weights: str | None, options: Options
    ) -> None:
        super().__init__()
        delta = None if options.learnable else options.delta

        def activation(stage: int, channels: int, own: nn.Module | None = None) -> nn.Module:
            return Suppression(channels, delta, own) if stage in options.stages else relu(stage, channels, own)

        self.backbone = build_backbone(backbone, output_stride, weights, activation)
        self.backbone.keeps_statistics = options.freeze
        if options.freeze:
            self.backbone.freeze_stem()
        channels = self.backbone.channels[-1]
        layers: list[nn.Module] = []
        for _ in range(options.extra):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), Suppression(channels, delta)]
        self.extra = nn.Sequential(*layers)
        self.classifier = nn.Conv2d(channels, class_count, 1, bias=options.bias)
        initialize_convolutions(self.extra)
        initialize_convolutions(self.classifier)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Classifier.forward`."""
        maps = self.classifier(self.features(images))
        return maps.mean(dim=(2, 3)), maps.relu()

    def features(self, images: Tensor) -> Tensor:
        """See `Classifier.features`."""
        return self.extra(self.backbone(images)[-1])

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return groups with the rates of the released code: backbone weights 1x, biases 2x; new weights and all controllers 10x, new biases 20x."""
        controllers = {
            id(p) for m in self.modules() if isinstance(m, Suppression) for p in m.parameters()
        }  # fmt: skip
        groups: dict[float, list[nn.Parameter]] = {1.0: [], 2.0: [], 10.0: [], 20.0: []}
        for name, parameter in self.named_parameters():
            new = not name.startswith("backbone.") or id(parameter) in controllers
            groups[(20.0 if new else 2.0) if name.endswith("bias") else (10.0 if new else 1.0)].append(parameter)
        return [{"params": params, "lr_scale": scale} for scale, params in groups.items() if params]
