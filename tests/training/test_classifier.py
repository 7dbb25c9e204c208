"""Training a classifier from its configuration: two stages, and what takes its backbone over."""

from pathlib import Path

import pytest
import torch

from app.errors import ConfigError
from training.backbones import build_backbone
from training.checkpoint import read_state
from training.classifier import fill_backbone, first_stage, fit_classifier, load_classifier
from training.config import RunConfig, read_config

SMALL = ["data.scenes.count=8", "data.scenes.val_count=4", "classifier.fit.epochs=1", "classifier.fit.batch_size=4"]


def config_of(out: Path, *changes: str) -> RunConfig:
    return read_config(RunConfig, Path("experiments/scenes/cam.toml"), [f"out={out}", *SMALL, *changes])


def test_amr_starts_from_its_spotlight_branch_trained_alone(tmp_path: Path) -> None:
    still = "{ spotlight_lr_scale = 0.0, classifier_lr_scale = 0.0 }"
    config = config_of(tmp_path / "run", "classifier.method=amr", f"classifier.options={still}",
                       "classifier.first_fit={ epochs = 1, batch_size = 4, lr = 0.02 }",
                       "classifier.first_views={ long_side = [64, 64], crop = 64, cutout = 1, cutout_size = 16 }")  # fmt: skip
    fit_classifier(config)
    alone = read_state(tmp_path / "run" / "classifier" / "first" / "weights.pt")
    classifier = load_classifier(config, 4)
    for name, parameter in classifier.spotlight.named_parameters():
        assert torch.allclose(parameter, alone[name]), name
    assert first_stage(config.classifier).views.cutout == 1


def test_methods_of_one_stage_refuse_a_first_one(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", "classifier.first_fit={ epochs = 1 }")
    with pytest.raises(ConfigError, match="cam trains in one stage; leave out"):
        fit_classifier(config)


def test_a_plain_backbone_takes_over_the_weights_of_a_suppressed_one(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", "classifier.method=drs", "classifier.options={ learnable = true, extra = 0 }")
    fit_classifier(config)
    backbone = build_backbone("small", 16)
    fill_backbone(backbone, config, 4)
    trained = load_classifier(config, 4).backbone.state_dict()
    assert all(torch.equal(value, trained[key]) for key, value in backbone.state_dict().items())
    with pytest.raises(ConfigError, match="does not hold weights of this backbone"):
        fill_backbone(build_backbone("vgg16", 16), config, 4)
