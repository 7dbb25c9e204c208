"""PSA's ResNet-38 classifier (`resnet38_cls`, a bare state dict), which CCRM uses unchanged, becomes `CamClassifier`."""

import torch
from torch import Tensor

from app.inference.errors import DataError
from training.backbones import relu
from training.backbones.resnet38 import ResNet38

CLASSIFIER = "fc8.weight"


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return PSA's weights under the keys of `CamClassifier` on `resnet38`. Raises DataError that names what lacks or is left over."""
    rest = dict(state)
    ours = take_backbone(rest)
    ours["classifier.weight"] = take(rest, CLASSIFIER)
    refuse_rest(rest, "PSA's resnet38_cls")
    return ours


def take_backbone(rest: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move ResNet-38's tensors from `rest` to a new dict, under `backbone.`; counters that old files lack become 0."""
    with torch.device("meta"):
        names = ResNet38(ResNet38.output_stride, relu).state_dict()
    for name in names:
        if name.endswith("num_batches_tracked"):
            rest.setdefault(name, torch.tensor(0))
    return {f"backbone.{name}": take(rest, name) for name in names}


def take(rest: dict[str, Tensor], key: str) -> Tensor:
    """Remove and return `rest[key]`. Raises DataError where the file lacks it."""
    if key not in rest:
        found = ", ".join(sorted(rest)[:3])
        raise DataError(
            f"the checkpoint has no {key!r} (of what was not used, it has: {found}); is it another model's?"
        )
    return rest.pop(key)


def refuse_rest(rest: dict[str, Tensor], model: str) -> None:
    """Raise DataError where tensors are left that `model` does not have."""
    if rest:
        first = ", ".join(sorted(rest)[:5])
        raise DataError(f"the checkpoint holds {len(rest)} tensors that {model} does not have: {first}")
