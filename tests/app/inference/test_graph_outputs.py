"""An output is taken out of a file's graph, and nothing else changes."""

import random

import numpy as np
import onnx

from app.inference.engine import MASK, UINT8, Engine
from app.inference.files.graph_outputs import without_output
from app.inference.label_maps.segmentation import masks_at_input_size
from tests.app.colour_models import BLACK, RED, halves, write_cam_model, write_segmentation_model


def test_the_output_goes_and_the_rest_stays(tmp_path):
    content = write_segmentation_model(tmp_path).read_bytes()
    less, kind = without_output(content, MASK)
    assert kind == UINT8 == onnx.TensorProto.UINT8
    expected = onnx.load_from_string(content)
    assert expected.graph.output.pop().name == MASK  # the last one
    assert onnx.load_from_string(less) == expected


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
