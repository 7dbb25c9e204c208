"""A segmenter read back from its ONNX file answers as the file does, whatever its precision."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from app.inference.errors import DataError
from app.inference.model_card import ModelCard
from tests.training.exports import vary_statistics
from training.backbones import build_backbone
from training.export.onnx_file import card_of, export_model, natural_noise, shrink
from training.export.served import ServedSegmenter
from training.export.served_start import fill_from_served, normalised_convolutions, write_last_layers
from training.segmenters import SEGMENTERS, Recognizer, Segmenter, SegmenterOptions

CLASSES = ("cat", "dog")


def segmenter(channels: int = 16, seed: int = 0, recognizer: bool = False) -> Segmenter:
    """A network whose normalisation has statistics of its own, as a trained one has."""
    torch.manual_seed(seed)
    options = SegmenterOptions(channels=channels, tag_weight=1.0, tag_balance=0.5)
    network = SEGMENTERS["deeplabv3plus"](build_backbone("small", 16, None), len(CLASSES) + 1, options)
    if recognizer:
        network.recognizer = Recognizer(build_backbone("small", 16, None), len(CLASSES) + 1, 0.5, scale=0.75)
    vary_statistics(network)
    network.deciding_tag_head().frequency.copy_(torch.tensor([0.2, 0.6]))
    return network.eval()


def noise() -> list[np.ndarray]:
    return list(natural_noise(np.random.default_rng(0), 2, 96, 128)[:, None])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelCard]:
    card = ModelCard(
        name="tiny", version=1, task="segmentation", method="deeplabv3plus", paper="-", backbone="small", classes=CLASSES,
        output_stride=16, preferred_size=96, presence_thresholds=(0.3, 0.3), data="-", data_licence="-",
    )  # fmt: skip
    return export_model(ServedSegmenter(segmenter(), scored=True), card, tmp_path_factory.mktemp("models")), card


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_the_network_that_is_read_answers_as_the_file(exported: tuple[Path, ModelCard], precision: str) -> None:
    path, card = exported
    file = path if precision == "float32" else shrink(path, precision, noise())
    read = segmenter(seed=1)
    fill_from_served(read, file, card)  # compares the two itself
    torch.testing.assert_close(read.tag_head.frequency, torch.tensor([0.2, 0.6]), rtol=1e-4, atol=1e-5)
    if precision == "float32":
        images = torch.rand(2, 3, 64, 96)
        with torch.no_grad():
            torch.testing.assert_close(read(images), segmenter()(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_what_the_last_layers_learned_is_written_into_the_file(
    exported: tuple[Path, ModelCard], precision: str, tmp_path: Path
) -> None:
    path, card = exported
    file = path if precision == "float32" else shrink(path, precision, noise())
    network = segmenter()
    fill_from_served(network, file, card)
    for module in network.last_modules():
        for parameter in module.parameters():
            parameter.data += 0.1
    write_last_layers(network, file, card_of(file).model_copy(update={"version": 7}), tmp_path / "model.onnx", noise())
    read = segmenter(seed=1)
    fill_from_served(read, tmp_path / "model.onnx", card)
    tolerance = {"float32": 1e-5, "float16": 1e-2, "int8": 5e-2}[precision]
    with torch.no_grad():
        images = torch.rand(1, 3, 64, 96)
        difference = (read(images) - network(images)).abs().max() / network(images).abs().max()
    assert difference < tolerance
    assert card_of(tmp_path / "model.onnx").version == 7


def test_every_normalisation_follows_a_convolution() -> None:
    network = segmenter()
    names = {name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert set(normalised_convolutions(network).values()) == names
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_network_beside_which_another_recognises_is_read(exported: tuple[Path, ModelCard], tmp_path: Path) -> None:
    _, card = exported
    network = segmenter(recognizer=True)
    first = (
        network.recognizer.backbone.stem
    )  # It is as in the other network, and the file holds its small constants once.
    first.load_state_dict(network.backbone.stem.state_dict())
    path = export_model(ServedSegmenter(network, scored=True), card, tmp_path)
    read = segmenter(seed=1, recognizer=True)
    fill_from_served(read, path, card)
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(read(images), network(images), rtol=1e-4, atol=1e-4)
    with pytest.raises(DataError, match="cannot be gone on from"):
        fill_from_served(segmenter(recognizer=True), exported[0], card)


def test_a_file_of_another_network_is_refused(exported: tuple[Path, ModelCard], tmp_path: Path) -> None:
    path, card = exported
    with pytest.raises(DataError, match="cannot be gone on from"):
        fill_from_served(segmenter(channels=8), path, card)
    model = onnx.load(path)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "network.classifier.weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 2, "elsewhere"))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(DataError, match=r"no weights classifier\.weight"):
        fill_from_served(segmenter(), tmp_path / "model.onnx", card)
