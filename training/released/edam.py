"""EDAM's network (`resnet38_EDAM_cls`, a bare state dict) -> `EdamClassifier` on `resnet38`."""

import torch
from torch import Tensor

from app.errors import DataError
from training.methods.edam import sine_table
from training.released.psa import refuse_rest, take, take_backbone

SINE = "embedding.position.pe"
SINE_TOLERANCE = 1e-3  # a table of 2,116 positions in float32, made by whatever libm the authors had

# ours, of one layer -> the authors' name inside `trans_list.CLASS.LAYER`
TRANSFORMER = {
    "attention_norm.gain": "input_sublayer.norm.a_2",
    "attention_norm.bias": "input_sublayer.norm.b_2",
    "query.weight": "attention.linear_layers.0.weight",
    "query.bias": "attention.linear_layers.0.bias",
    "key.weight": "attention.linear_layers.1.weight",
    "key.bias": "attention.linear_layers.1.bias",
    "value.weight": "attention.linear_layers.2.weight",
    "value.bias": "attention.linear_layers.2.bias",
    "attention_output.weight": "attention.output_linear.weight",
    "attention_output.bias": "attention.output_linear.bias",
    "feed_forward_norm.gain": "output_sublayer.norm.a_2",
    "feed_forward_norm.bias": "output_sublayer.norm.b_2",
    "hidden.weight": "feed_forward.w_1.weight",
    "hidden.bias": "feed_forward.w_1.bias",
    "output.weight": "feed_forward.w_2.weight",
    "output.bias": "feed_forward.w_2.bias",
}


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """EDAM's keys -> ours; a class's own tensors become rows of one. Raises DataError for what lacks or is left over."""
    rest = dict(state)
    check_sine(rest.pop(SINE, None))
    ours = take_backbone(rest)
    ours["mask_layer.weight"] = take(rest, "mask_layer.weight")
    ours["reduce.weight"] = take(rest, "d_d.weight")
    ours["segment.weight"] = take(rest, "embedding.segment.weight")
    classes = range(sum(key.startswith("fc_list.") for key in rest))
    layers = range(sum(key.startswith("trans_list.0.") and key.endswith("w_1.weight") for key in rest))
    for layer in layers:
        for name, theirs in TRANSFORMER.items():
            rows = [take(rest, f"trans_list.{index}.{layer}.{theirs}") for index in classes]
            ours[f"transformers.{layer}.{name}"] = torch.stack(rows)
    ours["class_weight"] = torch.stack([take(rest, f"fc_list.{index}.weight").flatten() for index in classes])
    refuse_rest(rest, "EDAM's resnet38_EDAM_cls")
    return ours


def check_sine(table: Tensor | None) -> None:
    """Raise DataError unless the fixed position table (1, positions, width) is the one that our code computes."""
    if table is None:
        return
    positions, width = table.shape[1:]
    difference = (sine_table(positions, width, table.device) - table[0]).abs().max()
    if difference > SINE_TOLERANCE:
        raise DataError(
            f"the checkpoint's {SINE} differs by {difference:.3g} from the sine table of Vaswani et al. 2017"
        )
