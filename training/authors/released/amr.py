"""AMR's network (a bare state dict of 2,392 keys, 1,594 of them aliases) becomes `AmrClassifier` on `resnet50-irn`.

The plain CAM network of its first stage, which is IRN's `resnet50_cam`, becomes a `CamClassifier`.
"""

import torch
from torch import Tensor

from app.inference.errors import DataError
from training.authors.released.psa import refuse_rest, take

STEM = {"0": "conv1", "1": "bn1"}

# The authors call an AMM's tensors so; the right side is ours.
GATES = {
    "amm.ChannelAMM.mlp.1.": "modulation.channel.squeeze.",
    "amm.ChannelAMM.mlp.3.": "modulation.channel.excite.",
    "amm.SpatialAMM.spatial.conv.": "modulation.spatial.conv.",
    "amm.SpatialAMM.spatial.bn.": "modulation.spatial.norm.",
}


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return AMR's weights under the keys of `AmrClassifier`. Raises DataError for what lacks, is left over or contradicts itself."""
    rest = dict(state)
    drop_aliases(rest, branch_aliases("resnet50", "stage", "backbone"))
    drop_aliases(rest, branch_aliases("resnet50_2", "stage2_", "backbone2"))
    drop_aliases(rest, {"newly_added.0.": "classifier.", "newly_added.1.": "classifier2."})
    ours = take_resnet(rest, "resnet50.", "spotlight.backbone.")
    ours |= take_resnet(rest, "resnet50_2.", "compensation.backbone.")
    ours["spotlight.classifier.weight"] = take(rest, "classifier.weight")
    ours["compensation.classifier.weight"] = take(rest, "classifier2.weight")
    refuse_rest(rest, "AMR's resnet50_amr")
    return ours


def convert_cam(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of AMR's and IRN's `resnet50_cam` under the keys of `CamClassifier`. Raises DataError as `convert` does."""
    rest = dict(state)
    drop_aliases(rest, branch_aliases("resnet50", "stage", "backbone") | {"newly_added.0.": "classifier."})
    ours = take_resnet(rest, "resnet50.", "backbone.")
    ours["classifier.weight"] = take(rest, "classifier.weight")
    refuse_rest(rest, "IRN's resnet50_cam")
    return ours


def branch_aliases(network: str, stage: str, group: str) -> dict[str, str]:
    """Return the prefixes that name the modules of `network` again: `STAGEn.` and, inside a list of the stages, `GROUP.n.`."""
    aliases: dict[str, str] = {}
    for prefix in (f"{stage}1.", f"{group}.0."):
        aliases |= {f"{prefix}{index}.": f"{network}.{module}." for index, module in STEM.items()}
        aliases[f"{prefix}4."] = f"{network}.layer1."
    for layer in (2, 3, 4):
        aliases |= {
            f"{prefix}0.": f"{network}.layer{layer}." for prefix in (f"{stage}{layer}.", f"{group}.{layer - 1}.")
        }
    return aliases


def drop_aliases(rest: dict[str, Tensor], aliases: dict[str, str]) -> None:
    """Remove the keys that name another key's tensor. Raises DataError where the two hold different values."""
    for key in list(rest):
        prefix = next((alias for alias in aliases if key.startswith(alias)), None)
        if prefix is None:
            continue
        original = aliases[prefix] + key.removeprefix(prefix)
        if original not in rest:
            rest[original] = rest[key]  # A file that was thinned out still names each tensor once.
        elif not torch.equal(rest[key], rest[original]):
            raise DataError(f"the checkpoint's {key!r} and {original!r} are one tensor in the network, but differ")
        del rest[key]


def take_resnet(rest: dict[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    """Move everything under the prefix `theirs` to a new dict, under `ours`, AMMs by our names."""
    taken = {}
    for key in [key for key in rest if key.startswith(theirs)]:
        name = key.removeprefix(theirs)
        for gate, modulation in GATES.items():
            name = name.replace(gate, modulation)
        taken[ours + name] = rest.pop(key)
    return taken
