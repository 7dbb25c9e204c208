"""A model file is held against the contract before it serves: at the start and while the service runs, in the same words."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.inference.errors import ModelCardError
from app.runtime.model_store import ModelStore
from app.runtime.settings import Settings
from tests.app.colour_models import write_cam_model, write_segmentation_model


def set_dimension(value: onnx.ValueInfoProto, axis: int, size: int) -> None:
    value.type.tensor_type.shape.dim[axis].dim_value = size


def fix_sizes(model: onnx.ModelProto) -> None:
    for axis in (1, 2):
        set_dimension(model.graph.input[0], axis, 64)


def fix_batch(model: onnx.ModelProto) -> None:
    set_dimension(model.graph.input[0], 0, 1)


def fix_sizes_inside(model: onnx.ModelProto) -> None:
    """Sizes that the header does not state: a reshape to those of one photo."""
    shape = numpy_helper.from_array(np.array([-1, 48, 64, 3]), "fixed")
    model.graph.initializer.append(shape)
    model.graph.node[0].input[0] = "reshaped"
    model.graph.node.insert(0, helper.make_node("Reshape", ["image", "fixed"], ["reshaped"]))


def grow_channels(model: onnx.ModelProto) -> None:
    """Maps of a class that the card does not list."""
    weights = next(entry for entry in model.graph.initializer if entry.name == "weights")
    values = numpy_helper.to_array(weights)
    weights.CopyFrom(numpy_helper.from_array(np.concatenate([values, values[:1]]), "weights"))
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = "C"


def divide_by_itself(model: onnx.ModelProto) -> None:
    """0 / 0 where the photo is black."""
    rename(model, "cam", "raw")
    model.graph.node.append(helper.make_node("Div", ["raw", "raw"], ["cam"]))


def multiply_scores(model: onnx.ModelProto) -> None:
    rename(model, "scores", "raw")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(100), "hundred"))
    model.graph.node.append(helper.make_node("Mul", ["raw", "hundred"], ["scores"]))


def compute_in_double(model: onnx.ModelProto) -> None:
    rename(model, "cam", "raw")
    model.graph.node.append(helper.make_node("Cast", ["raw"], ["cam"], to=TensorProto.DOUBLE))
    next(
        output for output in model.graph.output if output.name == "cam"
    ).type.tensor_type.elem_type = TensorProto.DOUBLE


def rename(model: onnx.ModelProto, old: str, new: str) -> None:
    """Let a node write another name than the output's; the nodes that read it follow."""
    for node in model.graph.node:
        node.output[:] = [new if name == old else name for name in node.output]
        node.input[:] = [new if name == old else name for name in node.input]


FAULTS = {
    fix_sizes: r"shape \['N', 64, 64, 3\].*N, H and W dynamic",
    fix_batch: r"shape \[1, 'H', 'W', 3\]",
    fix_sizes_inside: r"fails at images of shape \(2, .*dynamic sizes",
    grow_channels: r"'scores' has shape \(1, 21\).*for 20 classes \(1, 20\)",
    divide_by_itself: "'cam' holds values that are not finite",
    multiply_scores: "'scores' go from 0 to .*from 0 to 1",
    compute_in_double: r"'cam': 'tensor\(double\)'",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_faulty_file_is_refused_by_name_and_the_others_serve(fault, tmp_path):
    good, path = write_cam_model(tmp_path, "a", 1), write_cam_model(tmp_path, "b", 1)
    model = onnx.load(path)
    fault(model)
    onnx.save(model, path)
    catalog = ModelStore(Settings(models=tmp_path, device="cpu")).load()
    assert list(catalog.engines) == [("a", 1)]
    assert str(path) in catalog.refused["b", 1]
    faulty = path.read_bytes()
    path.unlink()
    store = ModelStore(Settings(models=tmp_path, device="cpu"))
    store.load()
    path.write_bytes(faulty)
    store.refresh(only_unchanged=False)
    assert store.catalog.refused == catalog.refused
    good.unlink()
    with pytest.raises(ModelCardError, match=FAULTS[fault]):
        ModelStore(Settings(models=tmp_path, device="cpu")).load()


def test_a_mask_of_another_type_is_refused(tmp_path):
    path = write_segmentation_model(tmp_path, "a", 1)
    model = onnx.load(path)
    next(node for node in model.graph.node if node.output[0] == "mask").attribute[0].i = TensorProto.INT32
    next(
        output for output in model.graph.output if output.name == "mask"
    ).type.tensor_type.elem_type = TensorProto.INT32
    onnx.save(model, path)
    with pytest.raises(ModelCardError, match=r"'mask': 'tensor\(uint8\)'.* gives .*'mask': 'tensor of another type'"):
        ModelStore(Settings(models=tmp_path, device="cpu")).load()


def test_weights_in_a_file_beside_it_are_refused_with_the_remedy(tmp_path):
    path = write_cam_model(tmp_path, "a", 1)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(ModelCardError, match="Save it as one file, with its weights inside"):
        ModelStore(Settings(models=tmp_path, device="cpu")).load()


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path):
    write_cam_model(tmp_path, "a", 1)
    (tmp_path / "b" / "1" / "model.onnx").mkdir(parents=True)
    catalog = ModelStore(Settings(models=tmp_path, device="cpu")).load()
    assert "b/1/model.onnx" in catalog.refused["b", 1]
