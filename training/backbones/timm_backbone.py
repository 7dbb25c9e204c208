"""`timm/NAME` is any convolutional network of timm (https://github.com/huggingface/pytorch-image-models, Apache-2.0).

timm builds the network, dilates its last stages where the output stride is small, and knows its normalisation. This file
cuts the network into four stages and puts the modules of the methods into it:

    activation    every activation module that sees a map is replaced by what `activation` makes of it (DRS)
    modulation    every residual branch passes through timm's `drop_path` just before the sum; what `modulation` makes
                  stands before that (AMR)

Both places are found by watching one small forward pass, so no network needs to be known by name.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import Conv2dSame
from timm.layers import activations as timm_activations
from torch import Tensor, nn
from torch.nn import functional as F

from app.inference.errors import ConfigError
from app.inference.spelling import nearest_name
from training.backbones.backbone import Activation, Backbone, Modulation, relu, unmodulated
from training.backbones.efficientnet_lite import LITE_PACKAGES, lite_state

PREFIX = "timm/"
LAST_FOUR = (-4, -3, -2, -1)  # These feature maps are taken of those timm lists, coarsest last.
# The photo watched has this height and width in px; their ratio of 3 to 4 tells (N, C, H, W) from (N, H, W, C).
WATCHED_SIZE = (96, 128)
GATES = (nn.Sigmoid, nn.Hardsigmoid, nn.Softmax, timm_activations.Sigmoid, timm_activations.HardSigmoid)
ACTIVATION_MODULES = (nn.modules.activation.__name__, timm_activations.__name__)


@dataclass(frozen=True)
class Place:
    """It notes a module that was seen at work in a forward pass.

    Attributes:
        name: of the module, for `get_submodule`.
        stage: 0 for the stem, 1 to 4 for the four stages.
        channels: C of what came out.
        channels_last: whether that was (N, H, W, C).
    """

    name: str
    stage: int
    channels: int
    channels_last: bool


class ChannelsLast(nn.Module):
    """It lets a module for maps (N, C, H, W) work where a network holds them as (N, H, W, C)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, H, W, C) of (N, H, W, C)."""
        return self.module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class SameConv2d(nn.Conv2d):
    """It is a convolution with TensorFlow's "same" padding for even sizes, at every size: (k // 2 - 1) before, k // 2 + 1 behind.

    TensorFlow's own padding depends on whether the size is even. Here the last column of the padding is left unread by a
    stride of 2 where the size is even, and where it is odd the pixels are sampled as for the next even size. So the graph
    that is exported holds constants.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, D, ceil(H / stride), ceil(W / stride)) of (N, C, H, W)."""
        (height, width), (dilation, _) = self.kernel_size, self.dilation
        rows, columns = dilation * (height - 1) // 2, dilation * (width - 1) // 2
        padded = F.pad(x, (columns - 1, columns + 1, rows - 1, rows + 1))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class TimmBackbone(Backbone):
    """It has four stages of a timm network; the last one ends with the convolution before the average where there is one.

    Images come normalised by ImageNet's mean and deviation, as for every backbone; `gain` and `shift` turn that into the
    network's own normalisation, and are part of the exported graph.
    """

    stride4_stage = 0
    gain: Tensor
    shift: Tensor

    def __init__(
        self, name: str, output_stride: int, activation: Activation = relu, modulation: Modulation = unmodulated
    ) -> None:
        super().__init__()
        self.name, self.output_stride = name, output_stride
        self.net, self.head = create(name, output_stride)
        self.channels = channels_of(self.net, self.head)
        mean, std = normalisation(name)
        self.register_buffer("gain", column(IMAGENET_DEFAULT_STD) / column(std), persistent=False)
        self.register_buffer("shift", (column(IMAGENET_DEFAULT_MEAN) - column(mean)) / column(std), persistent=False)
        places = watch(self)
        self.stem_modules = tuple(p.name for p in places if p.stage == 0 and has_own_parameters(self, p.name))
        self.first_stage_modules = tuple(p.name for p in places if p.stage == 1 and has_own_parameters(self, p.name))
        if activation is not relu:
            for place in places:
                if is_activation(module := self.get_submodule(place.name)):
                    self._put(place, activation(place.stage, place.channels, module))
        if modulation is not unmodulated:
            branches = [place for place in places if place.name.endswith(".drop_path")]
            if not branches:
                raise ConfigError(
                    f"backbone {PREFIX}{name} has no residual branches to modulate; use one that has, such as timm/resnet18"
                )
            for place in branches:
                self._put(place, modulation(place.stage, place.channels))

    def _put(self, place: Place, module: nn.Module) -> None:
        parent, _, name = place.name.rpartition(".")
        setattr(self.get_submodule(parent), name, ChannelsLast(module) if place.channels_last else module)

    def forward(self, images: Tensor) -> list[Tensor]:
        """See `Backbone.forward`."""
        features = self.net(images * self.gain + self.shift)
        return [*features[:-1], self.head(features[-1])]

    def drop_head(self) -> None:
        """See `Backbone.drop_head`."""
        self.head = nn.Sequential()
        self.channels = channels_of(self.net, self.head)

    def pretrained_state(self) -> dict[str, Tensor]:
        """Return ImageNet weights: those of EfficientNet-Lite from the packages of the extra `training`, others from timm's hub."""
        return self.adapt_state(imagenet_state(self.name))

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the state dict of timm's whole network under this module's keys; one that has these keys comes back as it is."""
        if any(key.startswith("net.") for key in state):
            return state
        adapted = {key.replace("conv_head.", "head.0.").replace("bn2.", "head.1."): value for key, value in state.items()
                   if key.startswith(("conv_head.", "bn2."))}  # fmt: skip
        for key in self.net.state_dict():
            first, dot, rest = key.partition(".")
            # timm's lists of features write stages.0 as stages_0.
            unflattened = f"{first.replace('_', '.')}{dot}{rest}"
            for known in (key, unflattened):
                if known in state:
                    adapted[f"net.{key}"] = state[known]
        return adapted


def create(name: str, output_stride: int) -> tuple[nn.Module, nn.Sequential]:
    """Return the four stages, and the convolution and normalisation that EfficientNets have between them and the average.

    Raises ConfigError where timm has no such network, or it cannot have this output stride.
    """
    if name not in timm.list_models():
        raise ConfigError(f"timm has no network {name!r}; the nearest is {nearest_name(name, timm.list_models())!r}")
    try:
        net = timm.create_model(name, features_only=True, out_indices=LAST_FOUR, output_stride=output_stride)
    except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"timm's {name} gives no four stages at output stride {output_stride} ({error}); use output stride 32, or a "
            f"convolutional network such as timm/resnet18"
        ) from None
    for module in net.modules():
        if getattr(module, "drop_path", module) is None:  # ResNet's blocks name it and leave it out.
            module.drop_path = nn.Identity()
        if type(module) is Conv2dSame and module.stride == (2, 2) and min(module.kernel_size) > 2:
            module.__class__ = SameConv2d  # type: ignore[assignment]  # the same layer with another padding
    return net, head_of(name)


def head_of(name: str) -> nn.Sequential:
    """Return the convolution and normalisation between the last stage and the average; empty where the network has none.

    The whole network is laid out without memory; these two alone get some, and start as timm starts them.
    """
    with torch.device("meta"):
        whole: Any = timm.create_model(name, num_classes=0)
    parts = [whole.conv_head, whole.bn2] if hasattr(whole, "conv_head") and hasattr(whole, "bn2") else []
    head = nn.Sequential(*parts).to_empty(device=torch.get_default_device())
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return head


def channels_of(net: Any, head: nn.Sequential) -> tuple[int, int, int, int]:
    """Return C of the four stages, that of the last one after `head` where there is one."""
    first, second, third, last = net.feature_info.channels()
    convolution = next(iter(head), None)
    return first, second, third, convolution.out_channels if isinstance(convolution, nn.Conv2d) else last


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation, of photos in [0, 1], that the network's weights expect."""
    if name in LITE_PACKAGES:
        return (127 / 255,) * 3, (128 / 255,) * 3
    config = timm.get_pretrained_cfg(name)
    return (config.mean, config.std) if config else (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def imagenet_state(name: str) -> dict[str, Tensor]:
    """Return the state dict of the whole network with its 1000-way head. Raises ConfigError where it cannot be had."""
    if name in LITE_PACKAGES:
        return lite_state(name)
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # timm, its hub client and the network below each have errors of their own.
        raise ConfigError(
            f"ImageNet weights of timm/{name} could not be had ({str(error).splitlines()[0]}); name a file of them in "
            f"`weights`, or use {' or '.join(PREFIX + lite for lite in LITE_PACKAGES)}, whose weights are installed"
        ) from None


def imagenet_head(name: str) -> Tensor:
    """Return the rows (1000, D) by which the network names ImageNet's classes, from its averaged last features (D,)."""
    state = imagenet_state(name)
    config = timm.get_pretrained_cfg(name)
    assert config is not None  # There were no weights otherwise.
    key = config.classifier
    return state[f"{key}.weight"].flatten(1)


def column(values: tuple[float, ...]) -> Tensor:
    """Return three numbers as a tensor that is broadcast over maps (N, 3, H, W)."""
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)


def watch(backbone: TimmBackbone) -> list[Place]:
    """Return the modules that made a map in a forward pass of a blank photo, in the order of their work."""
    places: list[Place] = []
    finished: list[nn.Module] = []
    ends = [feature_module(backbone.net, name) for name in stages_of(backbone.net)]
    entered: list[nn.Module] = []
    handles = [ends[0].register_forward_pre_hook(lambda module, _: entered.append(module))]
    handles += [end.register_forward_hook(lambda module, *_: finished.append(module)) for end in ends]

    def note(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4:
            return
        stage = min(len(finished) + 1, len(ends)) if entered else 0
        height, width = WATCHED_SIZE
        last = output.shape[1] * width == output.shape[2] * height
        channels = output.shape[3] if last else output.shape[1]
        if output.shape[2:].numel() > 1:  # One number a channel is a gate's, and no map.
            places.append(Place(name, stage, channels, last))

    for name, module in backbone.named_modules():
        if has_own_parameters(backbone, name) or not list(module.children()):
            handles.append(module.register_forward_hook(partial(note, name)))
    training = backbone.training
    with torch.no_grad():
        backbone.eval()(torch.zeros(1, 3, *WATCHED_SIZE))
    backbone.train(training)
    for handle in handles:
        handle.remove()
    return places


def stages_of(net: Any) -> list[str]:
    """Return the names of the modules that end the four stages."""
    return net.feature_info.module_name()


def feature_module(net: nn.Module, name: str) -> nn.Module:
    """Return the module that ends a stage; timm's lists of features write stages.0 as stages_0."""
    return net.get_submodule(name if name.split(".")[0] in dict(net.named_children()) else name.replace(".", "_"))


def is_activation(module: nn.Module) -> bool:
    """Tell whether a module is an activation function, and not the gate of a squeeze-and-excitation."""
    return type(module).__module__.startswith(ACTIVATION_MODULES) and not isinstance(module, GATES)


def has_own_parameters(backbone: nn.Module, name: str) -> bool:
    """Tell whether a module holds parameters itself."""
    return next(backbone.get_submodule(name).parameters(recurse=False), None) is not None
