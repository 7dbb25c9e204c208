"""Small real models whose answers can be computed by hand, photos for them, and pictures to and from files."""

import io
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from app.inference.labels import VOC_CLASSES
from app.inference.model_card import ModelCard

# Class -> the weights of red, green and blue (0 to 1) in its activation: 1 for its own colour, 0 or less for black,
# white and the others.
COLOURS = {"dog": (1, -1, -1), "cat": (-1, 1, -1), "person": (-1, -1, 1)}
RED, GREEN, BLUE, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)
DOG, CAT, PERSON = (VOC_CLASSES.index(name) + 1 for name in ("dog", "cat", "person"))  # labels
SIDE = 64  # px, the models' preferred size
STRIDE = 8  # px, of the cam models


def write_cam_model(directory: Path, name: str = "drs_colours", version: int = 1, **card: object) -> Path:
    """cam = ReLU(weights . RGB), averaged over 8 x 8 pixels; score = its largest value."""
    classes = card.get("classes", VOC_CLASSES)
    nodes = [
        *_activation_nodes(),
        helper.make_node("Relu", ["activation"], ["active"]),
        helper.make_node("AveragePool", ["active"], ["cam"], kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2),
        helper.make_node("ReduceMax", ["cam", "plane"], ["scores"], keepdims=0),
    ]
    outputs = {"scores": ["N", len(classes)], "cam": ["N", len(classes), "h", "w"]}
    fields = {"task": "cam", "method": "drs", "output_stride": STRIDE, "presence_thresholds": (0.5,) * len(classes)}
    plane = numpy_helper.from_array(np.array([2, 3]), "plane")
    return _write(directory, name, version, nodes, [plane], outputs, {**fields, "classes": classes, **card})


def write_segmentation_model(directory: Path, name: str = "deeplab_colours", version: int = 1, **card: object) -> Path:
    """logits = 20 * (weights . RGB) for the classes and 10 for the background, at every pixel.

    With `presence_thresholds` also scores: ReLU(weights . RGB), averaged over the photo.
    """
    classes = card.get("classes", VOC_CLASSES)
    nodes = [
        *_activation_nodes(),
        helper.make_node("Pad", ["activation", "pads", "half"], ["all"], mode="constant"),
        helper.make_node("Mul", ["all", "twenty"], ["logits"]),
        helper.make_node("ArgMax", ["logits"], ["winner"], axis=1, keepdims=0),
        helper.make_node("Cast", ["winner"], ["mask"], to=TensorProto.UINT8),
    ]
    constants = [
        numpy_helper.from_array(np.array([0, 1, 0, 0, 0, 0, 0, 0]), "pads"),
        numpy_helper.from_array(np.float32(0.5), "half"),
        numpy_helper.from_array(np.float32(20), "twenty"),
    ]
    outputs = {"logits": ["N", len(classes) + 1, "H", "W"], "mask": ["N", "H", "W"]}
    fields = {"task": "segmentation", "method": "deeplabv3", "output_stride": 1}
    if card.get("presence_thresholds"):
        nodes.append(helper.make_node("Relu", ["activation"], ["active"]))
        nodes.append(helper.make_node("ReduceMean", ["active", "plane"], ["scores"], keepdims=0))
        constants.append(numpy_helper.from_array(np.array([2, 3]), "plane"))
        outputs["scores"] = ["N", len(classes)]
    return _write(directory, name, version, nodes, constants, outputs, {**fields, "classes": classes, **card})


def _activation_nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["channels"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels", "weights"], ["activation"]),
    ]


def _write(directory, name, version, nodes, constants, outputs, fields) -> Path:
    weights = np.array([COLOURS.get(entry, (0, 0, 0)) for entry in fields["classes"]], np.float32)[:, :, None, None]
    constants = [
        *constants,
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.float32(1 / 255), "scale"),
    ]
    types = {"mask": TensorProto.UINT8}
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [
            helper.make_tensor_value_info(key, types.get(key, TensorProto.FLOAT), shape)
            for key, shape in outputs.items()
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    card = ModelCard(
        **{
            "name": name,
            "version": version,
            "paper": "none",
            "backbone": "colours",
            "preferred_size": SIDE,
            "data": "none",
            "data_licence": "none",
            **fields,
        }
    )
    helper.set_model_props(model, card.to_metadata())
    onnx.checker.check_model(model)
    path = directory / name / str(version) / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    return path


def loop_for_ever(path: Path) -> None:
    """Put a loop into a file's graph that does not end; the runtime cannot tell before it runs."""
    model = onnx.load(path)
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["still"]), helper.make_node("Add", ["sum", "sum"], ["more"])],
        "body",
        [
            value("round", TensorProto.INT64, []),
            value("going", TensorProto.BOOL, []),
            value("sum", TensorProto.FLOAT, []),
        ],
        [value("still", TensorProto.BOOL, []), value("more", TensorProto.FLOAT, [])],
    )
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(2**62), "rounds"),
            numpy_helper.from_array(np.array(True), "go"),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
        ]
    )
    scale = next(node for node in model.graph.node if "scale" in node.input)
    scale.input[:] = ["looped" if name == "float" else name for name in scale.input]
    place = list(model.graph.node).index(scale)
    model.graph.node.insert(place, helper.make_node("Add", ["float", "end"], ["looped"]))
    model.graph.node.insert(place, helper.make_node("Loop", ["rounds", "go", "zero"], ["end"], body=body))
    onnx.checker.check_model(model)
    onnx.save(model, path)


def halves(left, right, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """A photo, uint8 (H, W, 3), of two colours side by side."""
    image = np.empty((height, width, 3), np.uint8)
    image[:, : width // 2], image[:, width // 2 :] = left, right
    return image


def to_file(image: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """A picture as file bytes; PNG by default, which keeps its pixels."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def write_photo(path: Path) -> Path:
    """Write a photo, red (dog) on the left and black (nothing) on the right."""
    path.write_bytes(to_file(halves(RED, BLACK)))
    return path


def from_file(data: bytes) -> np.ndarray:
    """Pixel values of a picture file, palette indices where it has a palette."""
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)
