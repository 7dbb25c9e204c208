"""A file in integers answers nearly as the float file that it was made of, and gives it back."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from app.inference import engine as engines
from app.inference.engine import Engine, has_integer_instructions
from app.inference.model_card import IMAGE_INPUT, ModelCard
from tests.training.export.test_served_start import segmenter
from training.config.data import DataConfig
from training.data import open_source
from training.export.int8 import CALIBRATION_PHOTOS, calibration_images, in_floats, in_integers, inner_nodes
from training.export.onnx_file import export_model, natural_noise, shrink
from training.export.served import ServedSegmenter

CARD = ModelCard(
    name="tiny", version=1, task="segmentation", method="deeplabv3plus", paper="-", backbone="small", classes=("cat", "dog"),
    output_stride=16, preferred_size=96, scales=(1.0, 1.5), presence_thresholds=(0.3, 0.3), data="-", data_licence="-",
)  # fmt: skip


def images(count: int = 4) -> list[np.ndarray]:
    return list(natural_noise(np.random.default_rng(0), count, 96, 128)[:, None])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    path = export_model(ServedSegmenter(segmenter(), scored=True), CARD, tmp_path_factory.mktemp("models"))
    return path, shrink(path, "int8", images())


def worst(path: Path, other: Path, monkeypatch: pytest.MonkeyPatch, integers: bool) -> float:
    """How far the logits of `other` are from those of `path`, relative to the largest, in integers or in floats."""
    wanted = Engine(path).run(images()[0])["logits"]
    monkeypatch.setattr(engines, "has_integer_instructions", lambda: integers)
    return float(np.abs(Engine(other).run(images()[0])["logits"] - wanted).max() / np.abs(wanted).max())


def test_integers_and_the_floats_they_stand_for_answer_alike(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, small = files
    assert small.stat().st_size < 0.4 * path.stat().st_size
    in_ints, in_reals = (worst(path, small, monkeypatch, integers) for integers in (True, False))
    assert 0 < in_reals < in_ints < 0.1  # Rounded weights alone change less than rounded activations as well.


def test_the_float_graph_is_read_out_again(files: tuple[Path, Path]) -> None:
    path, small = files
    before, after = onnx.load(path).graph, in_floats(onnx.load(small)).graph
    assert sorted(node.op_type for node in after.node) == sorted(node.op_type for node in before.node)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in after.initializer}
    assert constants.keys() == {tensor.name for tensor in before.initializer}
    for tensor in before.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.size:
            assert np.abs(constants[tensor.name] - value).max() <= max(1e-6, np.abs(value).max() / 100)


def test_layers_that_share_a_bias_share_it_again() -> None:
    """Two layers with the same weights see values of different ranges, so that each has integers of its own for the bias."""
    rng = np.random.default_rng(0)
    names = {"first": (4, 3), "inner": (4, 4), "last": (2, 4)}
    constants = [
        onnx.numpy_helper.from_array(rng.normal(size=size).astype(np.float32), f"{layer}.{part}")
        for layer, shape in names.items()
        for part, size in (("weight", (*shape, 1, 1)), ("bias", shape[:1]))
    ]
    nodes = [onnx.helper.make_node("Transpose", [IMAGE_INPUT], ["0"], perm=(0, 3, 1, 2))]
    for number, layer in enumerate(("first", "inner", "inner", "last")):
        inputs = [str(number), f"{layer}.weight", f"{layer}.bias"]
        nodes.append(onnx.helper.make_node("Conv", inputs, [str(number + 1)]))
    image = onnx.helper.make_tensor_value_info(IMAGE_INPUT, onnx.TensorProto.FLOAT, ("N", "H", "W", 3))
    logits = onnx.helper.make_tensor_value_info("4", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph(nodes, "shared", [image], [logits], constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    made = in_integers(model, [rng.normal(size=(1, 8, 8, 3)).astype(np.float32)])
    assert {"inner.bias_quantized", "inner.bias0_quantized"} <= {tensor.name for tensor in made.graph.initializer}
    read = in_floats(made).graph
    assert [list(node.input) for node in read.node] == [list(node.input) for node in nodes]
    assert {tensor.name for tensor in read.initializer} == {tensor.name for tensor in constants}


def test_what_lies_between_the_first_and_the_last_layer_is_in_integers(files: tuple[Path, Path]) -> None:
    graph = onnx.load(files[0]).graph
    inner = set(inner_nodes(graph))
    layers = [node.name for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert layers[0] not in inner
    assert len(inner.intersection(layers)) == len(layers) - 3  # The first; the classifier; the tag head.
    made = in_integers(onnx.load(files[0]), images(1)).graph
    weights = {tensor.name: tensor.data_type for tensor in made.initializer}
    assert weights["network.classifier.weight"] == onnx.TensorProto.FLOAT
    assert weights["network.decoder.0.0.weight_quantized"] == onnx.TensorProto.INT8


def test_ranges_come_from_training_photos_at_every_scale() -> None:
    photos = open_source(DataConfig(source="scenes"))
    views = list(calibration_images(photos, CARD))
    assert len(views) == 2 * min(CALIBRATION_PHOTOS, len(photos.names("train")))
    assert [max(view.shape[1:3]) for view in views[:2]] == [96, 144]


def test_a_cpu_says_whether_integers_are_faster(tmp_path: Path) -> None:
    for flags, wanted in (
        ("flags : fpu avx2 avx512_vnni", True),
        ("Features : fp asimd asimddp", True),
        ("flags : avx2", False),
    ):
        (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
        assert has_integer_instructions(tmp_path / "cpuinfo") is wanted
