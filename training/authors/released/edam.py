"""EDAM's network (`resnet38_EDAM_cls`, a bare state dict) becomes `EdamClassifier` on `resnet38`."""

import torch
from torch import Tensor

from app.inference.errors import DataError
from training.authors.released.psa import refuse_rest, take, take_backbone
from training.methods.edam import sine_table

SINE = "embedding.position.pe"
SINE_TOLERANCE = 1e-3  # The table has 2,116 positions in float32, made by whatever libm the authors had.

# The left side is our name of a tensor of one layer, the right the authors' inside `trans_list.CLASS.LAYER`.
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
    """Return EDAM's weights under our keys; a class's own tensors become rows of one. Raises DataError for what lacks or is left over."""
    rest = dict(state)
    check_sine(rest.pop(SINE, None))
    ours = take_backbone(rest)
    ours["mask_layer.weight"] = take(rest, "mask_layer.weight")
    channels = ours["mask_layer.weight"].shape[1]
    ours["feature_mean"] = torch.zeros(channels, 1, 1)  # The released network centres nothing.
    ours["reduce.weight"] = take(rest, "d_d.weight")
    ours["segment.weight"] = take(rest, "embedding.segment.weight")
    numbers = {key.split(".")[1] for key in rest if key.startswith(("fc_list.", "trans_list."))}
    classes = range(max(1, len(numbers)))
    layers = range(sum(key.startswith("trans_list.0.") and key.endswith("w_1.weight") for key in rest))
    for layer in layers:
        for name, theirs in TRANSFORMER.items():
            keys = [f"trans_list.{index}.{layer}.{theirs}" for index in classes]
            ours[f"transformers.{layer}.{name}"] = take_rows(rest, keys)
    ours["class_weight"] = take_rows(rest, [f"fc_list.{index}.weight" for index in classes]).flatten(1)
    refuse_rest(rest, "EDAM's resnet38_EDAM_cls")
    return ours


def take_rows(rest: dict[str, Tensor], keys: list[str]) -> Tensor:
    """Remove and stack one tensor per class. Raises DataError where one lacks or has another shape than the first."""
    rows = [take(rest, key) for key in keys]
    for key, row in zip(keys, rows, strict=True):
        if row.shape != rows[0].shape:
            raise DataError(
                f"the checkpoint's {key!r} has the shape {tuple(row.shape)}, {keys[0]!r} {tuple(rows[0].shape)}; all "
                f"classes have layers of one shape in EDAM's code"
            )
    return torch.stack(rows)


def check_sine(table: Tensor | None) -> None:
    """Raise DataError unless the fixed position table (1, positions, width) is the one that our code computes."""
    if table is None:
        return
    if table.ndim != 3:
        raise DataError(f"the checkpoint's {SINE} has the shape {tuple(table.shape)}, not (1, positions, width)")
    positions, width = table.shape[1:]
    difference = (sine_table(positions, width, table.device) - table[0]).abs().max()
    if difference > SINE_TOLERANCE:
        raise DataError(
            f"the checkpoint's {SINE} differs by {difference:.3g} from the sine table of Vaswani et al. 2017"
        )
