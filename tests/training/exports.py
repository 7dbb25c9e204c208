"""Stand-ins for exported networks, because most of a small run's time would go into tracing what other tests trace; and networks
that are as if they were trained.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from app.inference.engine import Engine
from app.inference.files.whole_file import write_whole
from app.inference.model_card import ModelCard
from training.export.onnx_file import OPSET, next_version, with_card
from training.export.served import ServedClassifier, ServedSegmenter

# A network and its stand-in must answer photos of this shape alike; every stride divides its sides.
EXAMPLE = (2, 96, 64, 3)


@contextmanager
def stand_ins() -> Iterator[None]:
    """Within the block a run exports small files that answer in the shapes of its networks: for tests of what a run does.

    That every method, backbone and segmenter can be exported is proved by `test_networks.py` and `test_timm_backbone.py`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.pipeline.run.export_model", write_stand_in)
        yield


def write_stand_in(
    module: ServedClassifier | ServedSegmenter, card: ModelCard, models: Path, version: int | None = None
) -> Path:
    """Write a file in the place that `export_model` would take; it asks the network itself for the shapes of its outputs."""
    card = card.model_copy(update={"version": version or next_version(models / card.name)})
    path = models / card.name / str(card.version) / "model.onnx"
    images = np.zeros(EXAMPLE, np.uint8)
    with torch.no_grad():
        answers = dict(zip(module.outputs, module.eval().cpu()(torch.from_numpy(images)), strict=True))
    coarse = answers["cam" if "cam" in answers else "logits"]
    stride = EXAMPLE[1] // coarse.shape[2]
    write_whole(path, with_card(graph_of(tuple(answers), coarse.shape[1], stride), card))
    stands = Engine(path, device="cpu", whole=True).run(images)
    assert {name: array.shape for name, array in stands.items()} == {key: tuple(a.shape) for key, a in answers.items()}
    return path


def graph_of(outputs: tuple[str, ...], channels: int, stride: int) -> onnx.ModelProto:
    """Return a graph whose maps are weighted sums of the colours, averaged over squares of `stride` pixels."""
    weights = np.linspace(-1, 1, 3 * channels, dtype=np.float32).reshape(channels, 3, 1, 1)
    square = {"kernel_shape": [stride] * 2, "strides": [stride] * 2, "ceil_mode": 1}
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["colours"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["colours"], ["means"], **square),
        helper.make_node("Conv", ["means", "weights"], ["logits"]),
        helper.make_node("Relu", ["logits"], ["cam"]),
        helper.make_node("Slice", ["logits", "first", "end", "one"], ["classes"]),
        helper.make_node("ReduceMean", ["classes", "plane"], ["means_of_classes"], keepdims=0),
        helper.make_node("Sigmoid", ["means_of_classes"], ["scores"]),
        helper.make_node("Shape", ["colours"], ["size"], start=2),
        helper.make_node("Shape", ["logits"], ["batch"], end=2),
        helper.make_node("Concat", ["batch", "size"], ["full"], axis=0),
        helper.make_node("Resize", ["logits", "", "", "full"], ["enlarged"], mode="linear"),
        helper.make_node("ArgMax", ["enlarged"], ["winner"], axis=1, keepdims=0),
        helper.make_node("Cast", ["winner"], ["mask"], to=TensorProto.UINT8),
    ]
    constants = {
        "scale": np.float32(1 / 255), "weights": weights, "plane": np.array([2, 3]),
        "first": np.array([int("mask" in outputs)]), "end": np.array([channels]), "one": np.array([1]),
    }  # fmt: skip
    kinds = {name: TensorProto.UINT8 if name == "mask" else TensorProto.FLOAT for name in outputs}
    ranks = {"scores": 2, "mask": 3}
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info(name, kind, [None] * ranks.get(name, 4)) for name, kind in kinds.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def vary_statistics(network: nn.Module) -> None:
    """Give every batch normalisation numbers of its own, as training does; the exporter writes equal ones once."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            places = ((module.running_var, 0.5), (module.weight, 0.5), (module.running_mean, 0), (module.bias, 0))
            for values, least in places:
                values.data.uniform_(least, 1.5)


def perturb(network: nn.Module) -> None:
    """Leave the start of `small`, where every block is its shortcut, and AMR has nothing to modulate."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
