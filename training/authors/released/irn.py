"""IRN's edge and displacement network (a bare state dict) becomes `IrnNetwork` on `resnet50-irn`.

IRN's classifier is read by `training.authors.released.amr.convert_cam`: the two projects share it.
"""

from torch import Tensor

from training.authors.released.amr import STEM, drop_aliases, take_resnet
from training.authors.released.psa import refuse_rest, take

# The training script keeps these beside the weights: indices of pixels on lines, and the lines' ends.
INDICES = ("path_indices", "ind_from", "ind_to", "disp_target")

# The authors call a layer so; the right side is ours.
LAYERS = {
    "edge_layers.5": "edge_output",
    "dp_layers.5.0": "displacement_coarse.0",
    "dp_layers.5.1": "displacement_coarse.1",
    "dp_layers.6.0": "displacement_output.0",
    "dp_layers.6.1": "displacement_output.1",
    "dp_layers.6.3": "displacement_output.3",
}
STAGES = range(5)  # They are the stem and four stages, whose features both branches read.


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return IRN's weights under our keys. Raises DataError for what lacks, is left over or contradicts itself."""
    rest = {key: tensor for key, tensor in state.items() if not key.startswith(INDICES)}
    drop_aliases(rest, backbone_aliases() | branch_aliases())
    ours = take_resnet(rest, "resnet50.", "backbone.")
    ours["displacement_mean"] = take(rest, "dp_layers.6.4.running_mean")
    layers = dict(LAYERS)
    for stage in STAGES:
        for part in (0, 1):
            layers[f"edge_layers.{stage}.{part}"] = f"edge_layers.{stage}.{part}"
            layers[f"dp_layers.{stage}.{part}"] = f"displacement_layers.{stage}.{part}"
    for theirs, name in layers.items():
        for kind in ("weight", "bias"):
            if kind == "weight" or f"{theirs}.bias" in rest:
                ours[f"{name}.{kind}"] = take(rest, f"{theirs}.{kind}")
    refuse_rest(rest, "IRN's resnet50_irn")
    return ours


def backbone_aliases() -> dict[str, str]:
    """Return the prefixes that name the modules of `resnet50` again."""
    aliases: dict[str, str] = {}
    for index, module in STEM.items():
        aliases |= {f"stage1.{index}.": f"resnet50.{module}.", f"backbone.0.{index}.": f"resnet50.{module}."}
    for layer in (1, 2, 3, 4):
        prefixes = (f"stage{layer + 1}.0.", f"backbone.{layer}.0.")
        aliases |= dict.fromkeys(prefixes, f"resnet50.layer{layer}.")
    return aliases


def branch_aliases() -> dict[str, str]:
    """Return the prefixes that name the layers of the two branches, and the displacement's mean, again."""
    aliases = {f"fc_edge{number}.": f"edge_layers.{number - 1}." for number in range(1, 7)}
    aliases |= {f"fc_dp{number}.": f"dp_layers.{number - 1}." for number in range(1, 8)}
    return aliases | {"mean_shift.": "dp_layers.6.4."}
