"""An output is taken out of a file's graph with what it alone needs, and nothing else changes."""

import random
from pathlib import Path

import numpy as np
import onnx

from app.inference.engine import MASK, UINT8, Engine
from app.inference.files.graph_outputs import without_output
from app.inference.label_maps.segmentation import masks_at_input_size
from tests.app.colour_models import BLACK, RED, halves, write_cam_model, write_segmentation_model

ROOT = Path(__file__).resolve().parents[3]


def nodes_for(content: bytes, outputs: list[str]) -> list[str]:
    """The names of the nodes that these outputs need, as ONNX's own tool finds them."""
    model = onnx.load_from_string(content)
    taken = [value.name for value in model.graph.input]
    return [node.name for node in onnx.utils.Extractor(model).extract_model(taken, outputs).graph.node]


def test_the_output_goes_and_the_rest_stays(tmp_path):
    content = write_segmentation_model(tmp_path).read_bytes()
    less, kind = without_output(content, MASK)
    assert kind == UINT8 == onnx.TensorProto.UINT8
    expected, found = onnx.load_from_string(content), onnx.load_from_string(less)
    assert expected.graph.output.pop().name == MASK  # the last one
    needed = nodes_for(content, [output.name for output in expected.graph.output])
    assert [node.name for node in found.graph.node] == needed
    assert len(needed) < len(expected.graph.node)
    for graph in (expected.graph, found.graph):
        del graph.node[:]
    assert found == expected


def test_the_shipped_segmenter_does_not_enlarge_its_logits():
    (path,) = (ROOT / "models" / "deeplab").glob("*/model.onnx")
    content = path.read_bytes()
    less = onnx.load_from_string(without_output(content, MASK)[0])
    onnx.checker.check_model(less)
    assert [node.name for node in less.graph.node] == nodes_for(content, ["logits", "scores"])
    whole = {node.op_type for node in onnx.load_from_string(content).graph.node}
    assert {"ArgMax", "Resize"} & whole == {"ArgMax", "Resize"}
    assert "ArgMax" not in {node.op_type for node in less.graph.node}


def test_where_a_node_holds_a_graph_all_nodes_stay(tmp_path):
    model = onnx.load(write_segmentation_model(tmp_path))
    value = onnx.helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)
    taken = onnx.helper.make_node("Identity", ["logits"], ["inner"])
    body = onnx.helper.make_graph([taken], "body", [], [value])
    model.graph.initializer.append(onnx.helper.make_tensor("always", onnx.TensorProto.BOOL, [], [True]))
    model.graph.node.append(onnx.helper.make_node("If", ["always"], ["chosen"], then_branch=body, else_branch=body))
    less = onnx.load_from_string(without_output(model.SerializeToString(), MASK)[0])
    assert len(less.graph.node) == len(model.graph.node)
    assert MASK not in [output.name for output in less.graph.output]


def test_what_lacks_it_comes_back_as_it_is(tmp_path):
    content = write_cam_model(tmp_path).read_bytes()
    assert without_output(content, MASK) == (content, None)
    chance = random.Random(0)
    for length in (0, 1, 2, 20, 300):
        noise = chance.randbytes(length)
        assert without_output(noise, MASK) == (noise, None)
    for place in range(0, len(content), 7):
        without_output(content[:place], MASK)  # a file that ends early raises nothing


def test_a_mask_of_the_logits_is_that_of_the_graph(tmp_path):
    path = write_segmentation_model(tmp_path)
    images = np.stack([halves(RED, BLACK), halves(BLACK, RED)])
    whole, less = Engine(path, device="cpu", whole=True).run(images), Engine(path, device="cpu").run(images)
    assert set(whole) - set(less) == {MASK}
    assert np.array_equal(masks_at_input_size(less["logits"], *images.shape[1:3]), whole[MASK])
