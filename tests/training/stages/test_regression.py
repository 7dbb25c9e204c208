"""A head that starts from a regression on frozen features, and what a run makes of it."""

import numpy as np
import pytest
import torch

from app.inference.errors import ConfigError
from training.backbones import build_backbone
from training.config.learning import RecognizerConfig, RegressionConfig
from training.config.map_tables import ClassifierConfig
from training.config.run_config import RunConfig
from training.config.tables import SegmenterConfig
from training.data import DataConfig, open_source
from training.methods import Classifier
from training.stages.classifier import build_classifier, fit_classifier, load_classifier, validation_map
from training.stages.regression import fit_recognizer, head_layers, regress, start_by_regression, view_of
from training.stages.segmenter import build_segmenter


def test_regression_separates_and_is_pulled_towards_its_start() -> None:
    features = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    image_labels = torch.tensor([[1.0], [0], [1], [0]])
    weight, bias = regress(features, image_labels, torch.zeros(1, 2), decay=1e-3)
    scores = features @ weight.T + bias
    assert (scores[image_labels > 0] > 2).all()
    assert (scores[image_labels == 0] < -2).all()
    start = torch.tensor([[5.0, -3.0]])
    pulled, _ = regress(features, image_labels, start, decay=1e3)
    torch.testing.assert_close(pulled, start, atol=1e-3, rtol=0)


def test_a_run_that_trains_nothing_else_learns_from_the_regression(tmp_path) -> None:
    config = RunConfig.model_validate({
        "name": "regressed",
        "out": tmp_path,
        "data": {"source": "scenes", "scenes": {"count": 40, "val_count": 12, "size": 64, "class_count": 3}},
        "classifier": {
            "backbone": "timm/tf_efficientnet_lite0",
            "weights": "pretrained",
            "options": {"bias": True},
            "regression": {"size": 96, "names": False},
            "fit": {"epochs": 0, "accelerator": "cpu"},
        },
    })  # fmt: skip
    fit_classifier(config, open_source(config.data))
    photos = open_source(config.data)
    trained = load_classifier(config, 3)
    random = build_classifier(config.classifier, 3, "pretrained").eval()
    learned = validation_map(trained, photos, "val", 96, 4)
    assert learned > validation_map(random, photos, "val", 96, 4) + 10
    untouched = random.backbone.state_dict()
    assert all(torch.equal(value, untouched[key]) for key, value in trained.backbone.state_dict().items())


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_recognizer_is_fitted_to_whole_photos_and_nothing_else_of_it_learns(power: float) -> None:
    torch.manual_seed(0)
    table = SegmenterConfig(
        backbone="small",
        weights=None,
        options={"channels": 16},
        recognizer={"backbone": "small", "output_stride": 16, "names": False, "power": power},
    )
    segmenter = build_segmenter(table, 3)
    recognizer = segmenter.recognizer
    data = {"source": "scenes", "scenes": {"count": 40, "val_count": 12, "size": 64, "class_count": 3}}
    photos = open_source(DataConfig.model_validate(data))
    names = photos.names("train")
    backbone = build_backbone("small", 16, "pretrained").state_dict()
    truth = torch.from_numpy(np.stack([photos.image_labels(name) for name in names]))
    settings = RecognizerConfig(backbone="small", output_stride=16, decay=1e-4, names=False)
    fit_recognizer(recognizer, photos, names, settings, size=64)
    logits = torch.cat([recognizer(view_of(photos.image(name), 64)) for name in names])
    assert ((logits > 0) == (truth > 0)).float().mean() > 0.85
    assert torch.equal(recognizer.tag_head.frequency, truth.mean(dim=0))
    seen = recognizer.features(view_of(photos.image(names[0]), 64))
    expected = seen.clamp(min=0).numpy().astype(float) ** power
    assert np.allclose(recognizer.pool(seen).numpy(), expected.mean(axis=(2, 3)) ** (1 / power), rtol=1e-4)
    segmenter.train()
    assert not any(parameter.requires_grad for parameter in recognizer.parameters())
    assert not any(module.training for module in recognizer.modules())
    assert all(torch.equal(value, backbone[key]) for key, value in recognizer.backbone.state_dict().items())
    with pytest.raises(ConfigError, match="set names = false"):
        fit_recognizer(recognizer, photos, names, RecognizerConfig(backbone="small", output_stride=16), size=64)


def test_both_branches_of_amr_get_their_own_head() -> None:
    torch.manual_seed(0)
    config = ClassifierConfig(method="amr", backbone="timm/resnet18", options={"bounded": True})
    model = build_classifier(config, 3)
    data = RunConfig.model_validate({
        "name": "two", "out": "unused",
        "data": {"source": "scenes", "scenes": {"count": 8, "val_count": 2, "size": 64, "class_count": 3}},
    }).data  # fmt: skip
    photos = open_source(data)
    start_by_regression(model, config.backbone, photos, photos.names("train"), RegressionConfig(size=64, names=False))
    spotlight, compensation = head_layers(model)
    assert np.abs(spotlight.weight.detach().numpy() - compensation.weight.detach().numpy()).max() > 0


def test_methods_and_backbones_that_cannot_are_refused() -> None:
    with pytest.raises(ConfigError, match="can start no layer of Classifier"):
        head_layers(Classifier())
    cam = build_classifier(ClassifierConfig(backbone="small"), 3)
    data = RunConfig.model_validate({"name": "x", "out": "x", "data": {"source": "scenes"}}).data
    with pytest.raises(ConfigError, match="set names = false"):
        start_by_regression(cam, "small", open_source(data), (), RegressionConfig())
