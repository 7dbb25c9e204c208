"""A network's convolutions are worked out in eight-bit integers, which takes half the time of float32 on a CPU that has
instructions for them (VNNI, AMX).

    x ~ s (q - z),   q in 0..255          an activation: one scale s and one zero point z for each tensor
    w ~ s_c q,       q in -127..127       a weight: a scale for each output channel c
    s = (max - min) / 255                 over the activations of some training photos, of which no mask is read

(Jacob et al., CVPR 2018, https://arxiv.org/abs/1712.05877, equation 1). ONNX Runtime's own tool writes this as pairs of QuantizeLinear and
DequantizeLinear between the nodes of the float graph, so that the graph in floats can be read out of it again (`in_floats`).
"""

import logging
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from app.inference.image.preprocess import geometry_of, resize_image
from app.inference.model_card import IMAGE_INPUT, ModelCard
from training.data import TaggedPhotos
from training.data.sampling import evenly_spaced

# The ranges of activations of this many photos have settled: with 48 masks agree with those in floats as well (99.2 % of the pixels).
CALIBRATION_PHOTOS = 64
LAYERS = ("Conv", "Gemm")
BETWEEN = ("Add", "Clip", "Relu", "Concat")  # They pass on integers where their neighbours do.
STORED = "_quantized"  # The tool calls the integers of a weight or bias so, after its own name.
# Layers that share a bias have a copy each, with a number behind its name: the scale is that of the layer's input.
COPY = re.compile(rf"(.*bias)\d+{STORED}")


class _Views(CalibrationDataReader):
    """It hands images (N, H, W, 3) to ONNX Runtime's tool, one after the other."""

    def __init__(self, images: Iterable[np.ndarray]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next input by its name; None after the last."""
        image = next(self._images, None)
        return None if image is None else {IMAGE_INPUT: image}


def calibration_images(photos: TaggedPhotos, card: ModelCard) -> Iterator[np.ndarray]:
    """Yield training photos, evenly spaced, as the service gives them to the network: uint8 (1, H, W, 3) at each of the card's scales."""
    for name in evenly_spaced(photos.names("train"), CALIBRATION_PHOTOS):
        image = photos.image(name)
        for scale in card.scales:
            geometry = geometry_of(image.shape, card.preferred_size, scale)
            yield resize_image(image, geometry.input_height, geometry.input_width)[None]


def in_integers(model: onnx.ModelProto, images: Iterable[np.ndarray]) -> onnx.ModelProto:
    """Return the float32 graph `model` with its layers in integers, whose ranges are those of `images`, uint8 (N, H, W, 3) each.

    What lies before the first layer and after the last stays in float32: photos have three channels, which integers are no
    faster for, and the evidence of classes is compared by small differences.
    """
    chosen = inner_nodes(model.graph)
    if not chosen:  # To the tool that would mean all of them.
        return model
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # The tool advises every graph to be prepared by another one.
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            quantize_static(
                model, path, _Views(images), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=[*LAYERS, *BETWEEN],
                nodes_to_quantize=chosen, extra_options={"QDQKeepRemovableActivations": True},
            )  # fmt: skip
            return onnx.load(path)
    finally:
        logging.root.setLevel(level)


def inner_nodes(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the nodes that have a layer before them and another behind them. Nodes without a name are given one."""
    for index, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    fed: set[str] = set()  # Tensors that a layer lies before.
    for node in graph.node:
        if node.op_type in LAYERS or fed.intersection(node.input):
            fed.update(node.output)
    feeding: set[str] = set()  # Tensors that a layer lies behind.
    inner = []
    for node in reversed(graph.node):
        if fed.intersection(node.input) and feeding.intersection(node.output):
            inner.append(node.name)
        if node.op_type in LAYERS or feeding.intersection(node.output):
            feeding.update(node.input)
    return inner


def in_floats(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the float32 graph that `in_integers` made `model` of, with the weights that its integers stand for.

    Layers that shared a bias share it again: a network that is read from the graph has one, too.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    # The name of what QuantizeLinear and DequantizeLinear give -> that of what it stands for.
    plain: dict[str, str] = {}
    kept: list[onnx.NodeProto] = []
    left_out: set[str] = set()
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            kept.append(node)
            continue
        source = node.input[0]
        plain[node.output[0]] = plain.get(source, source)
        if source in constants:
            copy = COPY.fullmatch(source)
            shared = copy is not None and copy[1] + STORED in constants
            name = plain[node.output[0]] = copy[1] if copy and shared else source.removesuffix(STORED)
            if not shared:
                parts = (numpy_helper.to_array(constants[part]) for part in node.input)
                constants[name] = numpy_helper.from_array(real_values(*parts), name)
        left_out.update(part for part in node.input if part in constants)
    for node in kept:
        for index, name in enumerate(node.input):
            node.input[index] = plain.get(name, name)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensor for name, tensor in constants.items() if name not in left_out)
    return model


def real_values(integers: np.ndarray, scales: np.ndarray, zero_points: np.ndarray) -> np.ndarray:
    """Return the float32 values (N, ...) that integers stand for, whose scales and zero points are (N,) or ()."""
    shape = scales.shape + (1,) * (integers.ndim - scales.ndim)
    return (scales.reshape(shape) * (integers.astype(np.float32) - zero_points.reshape(shape))).astype(np.float32)
