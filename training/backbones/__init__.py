"""Backbones turn a photo into feature maps of four stages.

`timm/NAME` is any convolutional network of timm; the others, one file and one entry each, have the layers and names of
the papers' released weights.
"""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor

from app.inference.errors import ConfigError
from training.backbones.backbone import Activation, Backbone, Modulation, ResidualBackbone, relu, unmodulated
from training.backbones.resnet import resnet50, resnet50_irn, resnet101
from training.backbones.resnet38 import resnet38
from training.backbones.small import small
from training.backbones.timm_backbone import PREFIX, TimmBackbone
from training.backbones.vgg16 import vgg16
from training.checkpoint import read_state

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "small": small,
    "resnet38": resnet38,
    "resnet50": resnet50,
    "resnet50-irn": resnet50_irn,
    "resnet101": resnet101,
    "vgg16": vgg16,
}
PRETRAINED = "pretrained"
OWNED = "backbone."  # It stands before a backbone's keys in a network's state dict.

__all__ = ["BACKBONES", "Activation", "Backbone", "Modulation", "ResidualBackbone", "build_backbone", "relu"]


def build_backbone(
    name: str,
    output_stride: int,
    weights: str | None = None,
    activation: Activation = relu,
    modulation: Modulation = unmodulated,
) -> Backbone:
    """Build the backbone `name`.

    Args:
        output_stride: of the last stage (8, 16 or 32; VGG16 knows 8 and 16).
        weights: "pretrained" for the network's own (timm's, torchvision's and PSA's ImageNet weights; those beside
            `small.py`), a file written by `python -m training pretrain` or holding such a state dict, a classifier's or segmenter's
            weights, whose backbone is taken, or None for a random start.
        activation: called with (stage 0..4, channels, own activation) for every activation of the network.
        modulation: called with (stage 1..4, channels) for every residual block; the module is applied to the branch
            after its last normalisation, before the sum.
    """
    build = backbone_builder(name)
    if modulation is not unmodulated and not takes_modulation(build):
        others = [other for other, builder in BACKBONES.items() if takes_modulation(builder)]
        raise ConfigError(
            f"backbone {name!r} has no residual branches to modulate; use timm/NAME, or one of {', '.join(others)}"
        )
    options = {} if modulation is unmodulated else {"modulation": modulation}
    backbone = build(output_stride, activation, **options)
    if weights:
        plain = build(output_stride, relu)
        expected = plain.state_dict()
        state = plain.pretrained_state() if weights == PRETRAINED else backbone_state(read_state(Path(weights)))
        state = plain.adapt_state(state)
        check_weights(state, expected, weights)
        backbone.load_state_dict({key: state[key] for key in expected if key in state}, strict=False)
    return backbone


def backbone_builder(name: str) -> Callable[..., Backbone]:
    """Return what builds the backbone `name` from an output stride, an activation and a modulation. Raises ConfigError."""
    if name.startswith(PREFIX):
        return partial(TimmBackbone, name.removeprefix(PREFIX))
    if name not in BACKBONES:
        raise ConfigError(f"unknown backbone {name!r}; there are {', '.join(BACKBONES)}, and timm/NAME")
    return BACKBONES[name]


def takes_modulation(build: Callable[..., Backbone]) -> bool:
    """Tell whether a backbone has residual branches that can be modulated: its builder then has a parameter for it."""
    return "modulation" in inspect.signature(build).parameters


def backbone_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the (first) backbone's part of a whole network's state dict; a backbone's own comes back as it is."""
    prefix = next((key[: key.index(OWNED) + len(OWNED)] for key in state if OWNED in key), "")
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def check_weights(state: dict[str, Tensor], expected: dict[str, Tensor], source: str) -> None:
    """Raise ConfigError unless `state` holds every tensor of `expected` in its shape (counters may lack)."""
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    wrong = [key for key in expected if key in state and expected[key].shape != state[key].shape]
    if missing or wrong:
        raise ConfigError(
            f"{source} does not hold weights of this backbone: {len(missing)} of {len(expected)} tensors are missing "
            f"(first: {missing[:1]}), {len(wrong)} have another shape (first: {wrong[:1]})"
        )
