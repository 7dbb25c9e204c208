"""DRS (qjadud1994/DRS) becomes ours: the classifier `DrsClassifier`, the refinement network `DrsRefinement`, both on `vgg16`.

Their files are dicts with the weights under "model". Every convolution of the backbone occurs twice, as `features.N` and
as `layerX_convY`: one tensor, and one here.
"""

import torch
from torch import Tensor

from app.inference.errors import DataError
from training.authors.released.psa import refuse_rest, take
from training.backbones.vgg16 import BLOCKS

EXTRA = 3  # These are 3x3 convolutions after the backbone.
CONTROLLER = "fc.0.weight"  # Learnable suppression has one; plain ReLUs and fixed suppression have none.


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return DRS's weights, with learnable suppression or without, under the keys of `DrsClassifier` or `DrsRefinement`.

    Raises DataError for a key that lacks or is left over, and where the two names of one tensor differ.
    """
    rest, ours = dict(state), {}
    learnable = is_learnable(state)
    index = 0
    for block, widths in enumerate(BLOCKS, start=1):
        for layer in range(1, len(widths) + 1):
            for part in ("weight", "bias"):
                name = f"features.{index}.{part}"
                ours[f"backbone.{name}"] = take_twice(rest, name, f"layer{block}_conv{layer}.{part}")
            if learnable:
                controller = take(rest, f"layer{block}_relu{layer}.{CONTROLLER}")
                ours[f"backbone.features.{index + 1}.{CONTROLLER}"] = controller
            index += 2  # It is a convolution with its activation.
        index += 1  # This is the pool.
    for layer in range(EXTRA):
        for part in ("weight", "bias"):
            ours[f"extra.{2 * layer}.{part}"] = take(rest, f"extra_conv{layer + 1}.{part}")
        if learnable:
            ours[f"extra.{2 * layer + 1}.{CONTROLLER}"] = take(rest, f"extra_relu{layer + 1}.{CONTROLLER}")
    for part in ("weight", "bias"):
        ours[f"classifier.{part}"] = take(rest, f"extra_conv{EXTRA + 1}.{part}")
    refuse_rest(rest, "DRS's VGG16")
    return ours


def is_learnable(state: dict[str, Tensor]) -> bool:
    """Tell whether a state dict of DRS's classifier has learnable suppression."""
    return any(key.endswith(f".{CONTROLLER}") for key in state)


def take_twice(rest: dict[str, Tensor], key: str, alias: str) -> Tensor:
    """Remove and return a tensor that has two names. Raises DataError where the two differ."""
    tensor, same = take(rest, key), take(rest, alias)
    if not torch.equal(tensor, same):
        raise DataError(f"the checkpoint's {key!r} and {alias!r} name one tensor in DRS's code but differ")
    return tensor
