"""Training a classifier from its configuration: two stages, and what takes its backbone over."""

from pathlib import Path

import numpy as np
import pytest
import torch

from app.inference.errors import ConfigError
from training.backbones import build_backbone
from training.checkpoint import read_state
from training.config.run_config import RunConfig, read_config
from training.data import TaggedPhotos, open_source
from training.data.source import split_by_hash
from training.data.views import TaggedViews
from training.methods import Classifier
from training.stages import classifier as stage
from training.stages.classifier import (
    fill_backbone,
    first_stage,
    fit_classifier,
    fit_presence_thresholds,
    hold_out,
    load_classifier,
    torch_classifier,
)

SMALL = ["data.scenes.count=8", "data.scenes.val_count=4", "classifier.fit.epochs=1", "classifier.fit.batch_size=4"]


def config_of(out: Path, *changes: str) -> RunConfig:
    return read_config(RunConfig, Path("experiments/scenes/cam.toml"), [f"out={out}", *SMALL, *changes])


def test_amr_starts_from_its_spotlight_branch_trained_alone(tmp_path: Path) -> None:
    still = "{ spotlight_lr_scale = 0.0, classifier_lr_scale = 0.0 }"
    config = config_of(tmp_path / "run", "classifier.method=amr", f"classifier.options={still}",
                       "classifier.first_fit={ epochs = 1, batch_size = 4, lr = 0.02 }",
                       "classifier.first_views={ long_side = [64, 64], crop = 64, cutout = 1, cutout_size = 16 }")  # fmt: skip
    fit_classifier(config, open_source(config.data))
    alone = read_state(tmp_path / "run" / "classifier" / "first" / "weights.pt")
    classifier = load_classifier(config, 4)
    for name, parameter in classifier.spotlight.named_parameters():
        assert torch.allclose(parameter, alone[name]), name
    first, weights_option = first_stage(config.classifier)
    assert (first.method, first.views.cutout, weights_option) == ("cam", 1, "spotlight_weights")


def test_methods_of_one_stage_refuse_a_first_one(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", "classifier.first_fit={ epochs = 1 }")
    with pytest.raises(ConfigError, match="cam trains in one stage; leave out"):
        fit_classifier(config, open_source(config.data))


def test_a_plain_backbone_takes_over_the_weights_of_a_suppressed_one(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", "classifier.method=drs", "classifier.options={ learnable = true, extra = 0 }")
    fit_classifier(config, open_source(config.data))
    backbone = build_backbone("small", 16)
    fill_backbone(backbone, config, 4)
    trained = load_classifier(config, 4).backbone.state_dict()
    assert all(torch.equal(value, trained[key]) for key, value in backbone.state_dict().items())
    with pytest.raises(ConfigError, match="does not hold weights of this backbone"):
        fill_backbone(build_backbone("vgg16", 16), config, 4)


def test_a_network_may_be_trained_at_a_coarser_stride_than_it_is_asked_for_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strides = []
    fit = stage.fit

    def noted(fabric: object, module: Classifier, *arguments: object, **named: object) -> None:
        strides.append(module.backbone.output_stride)
        fit(fabric, module, *arguments, **named)

    monkeypatch.setattr(stage, "fit", noted)
    config = config_of(tmp_path / "run", "classifier.fit_output_stride=16")
    fit_classifier(config, open_source(config.data))
    assert strides == [16]
    assert load_classifier(config, 4).backbone.output_stride == 8


class Blank:
    """A reader of black photos, which notes which ones were read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def image(self, name: str) -> np.ndarray:
        self.read.append(name)
        return np.zeros((32, 32, 3), np.uint8)

    def size(self, name: str) -> tuple[int, int]:
        return 32, 32


def photos_of(names: tuple[str, ...], rare: int = 0) -> TaggedPhotos:
    """Photos of a dog in `train`; the first `rare` are also the only ones of a cat."""
    tags = {name: ("cat", "dog") if index < rare else ("dog",) for index, name in enumerate(names)}
    return TaggedPhotos(("cat", "dog", "bird", "cow"), {"train": names}, tags, Blank())


def test_what_is_held_out_moves_no_other_photo() -> None:
    names = tuple(f"p{index}" for index in range(400))
    trained, held = hold_out(photos_of(names), 0.1)
    assert 25 <= len(held) <= 55
    assert sorted((*trained, *held)) == sorted(names)
    fewer_trained, fewer_held = hold_out(photos_of(names[:300]), 0.1)
    assert set(fewer_held) <= set(held)
    assert set(fewer_trained) <= set(trained)
    assert hold_out(photos_of(names), 0.0) == (names, ())


def test_what_a_hash_split_off_for_validation_leaves_enough_to_hold_out() -> None:
    names = split_by_hash([f"p{index}" for index in range(400)], 0.1)["train"]
    assert len(hold_out(photos_of(names), 0.1)[1]) > 20


@pytest.mark.parametrize(("count", "expected"), [(24, 0), (25, 5), (30, 5)])
def test_five_photos_are_held_out_where_they_can_be_spared(count: int, expected: int) -> None:
    names = tuple(f"p{index}" for index in range(count))
    assert len(hold_out(photos_of(names), 0.01)[1]) == expected


def test_the_last_photo_of_a_class_is_trained_on() -> None:
    names = tuple(f"p{index}" for index in range(40))
    _, held = hold_out(photos_of(names), 0.5)
    photos = photos_of((*held, *(name for name in names if name not in held)), rare=2)
    trained, _ = hold_out(photos, 0.5)
    assert any("cat" in photos.tags(name) for name in trained)


def test_thresholds_are_fitted_on_what_is_held_out(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run", "classifier.fit.accelerator=cpu")
    fit_classifier(config, open_source(config.data))
    model = torch_classifier(config, open_source(config.data).classes, load_classifier(config, 4))
    names = tuple(f"p{index}" for index in range(30))
    for share in (0.1, 0.0):
        photos = photos_of(names)
        fit_presence_thresholds(model, photos, share)
        assert set(photos.reader.read) == set(hold_out(photos, share)[1] or names)


def test_the_classifier_learns_nothing_of_what_is_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, seen = config_of(tmp_path / "run", "data.scenes.count=30"), []
    photos = open_source(config.data)

    class Watched(TaggedViews):
        def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
            seen.append(self.names[key[1]])
            return super().__getitem__(key)

    monkeypatch.setattr("training.stages.classifier.TaggedViews", Watched)
    fit_classifier(config, open_source(config.data))
    trained, held = hold_out(photos, config.classifier.held_out)
    assert len(held) == 5
    assert set(seen) <= set(trained)
