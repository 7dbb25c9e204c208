"""A method, a backbone and a label rule from outside the tree: one file, which this is, and one entry each.

The run below takes all three through every stage; no file of `training` knows them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from app.inference.engine import Engine
from app.inference.labels import BACKGROUND, label_of
from training.__main__ import start_run
from training.backbones import BACKBONES, Activation, Backbone, Modulation, build_backbone
from training.backbones.backbone import unmodulated
from training.config.run_config import RunConfig, read_config
from training.label_rules import RULES, PhotoMaps, Rule, RuleOptions, Settings
from training.methods import METHODS, Classifier, FirstStage, Options
from training.pipeline.dry_run import dry


class Tiny(Backbone):
    """One convolution for the stem and each of four stages."""

    channels = (8, 8, 16, 16)
    stride4_stage = 0
    stem_modules = ("stem",)

    def __init__(self, output_stride: int, activation: Activation, modulation: Modulation) -> None:
        super().__init__()
        self.output_stride = output_stride
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), activation(0, 8))
        widths, strides = (8, *self.channels), (2, 2, 2, output_stride // 8)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride, 1), modulation(number, b), activation(number, b))
            for number, (a, b, stride) in enumerate(zip(widths[:-1], self.channels, strides, strict=True), start=1)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        x, features = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def tiny(output_stride: int, activation: Activation, modulation: Modulation = unmodulated) -> Backbone:
    return Tiny(output_stride, activation, modulation)


class PairedClassifier(Classifier):
    """A method of two stages that sees its photos in pairs and starts from the weights of another one."""

    paper = "none"

    class Options(Options):
        start: str | None = None
        pull: float = 0.1

    def __init__(
        self, class_count: int, backbone: str, output_stride: int, weights: str | None, options: Options
    ) -> None:
        super().__init__()
        self.options = options
        self.backbone = build_backbone(backbone, output_stride, options.start or weights)
        self.classifier = nn.Conv2d(self.backbone.channels[-1], class_count, 1, bias=False)

    @classmethod
    def photos_per_group(cls, options: Options) -> int:
        return 2

    @classmethod
    def first_stage(cls, options: Options) -> FirstStage:
        return FirstStage("cam", {}, "start")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.classifier(self.backbone(images)[-1])
        return maps.mean(dim=(2, 3)), maps.relu()

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        labels = batch["image_labels"]
        assert ((labels[::2] * labels[1::2]).sum(dim=1) > 0).all()  # the two photos of a pair share a class
        logits, _ = self(batch["images"])
        loss = F.multilabel_soft_margin_loss(logits, labels)
        return {"loss": loss + self.options.pull * (logits[::2] - logits[1::2]).square().mean()}


class HalvesOptions(RuleOptions):
    """Up to where the left half reaches."""

    share: float = 0.5


def label_halves(photo: PhotoMaps, settings: Settings, options: HalvesOptions) -> np.ndarray:
    """The first class on the left of a photo, background on the right."""
    labels = np.full(photo.image.shape[:2], BACKGROUND, np.uint8)
    labels[:, : int(options.share * labels.shape[1])] = label_of(photo.class_indices[0])
    return labels


def refuse_flips(run: Any) -> str | None:
    return None if run.localize.flip else "halves need mirrored views"


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "tiny", tiny)
    monkeypatch.setitem(METHODS, "paired", PairedClassifier)
    rule = Rule(label_halves, HalvesOptions, reads_saliency=False, check=refuse_flips)
    monkeypatch.setitem(RULES, "halves", rule)


CHANGES = [
    "classifier.method=paired", "classifier.backbone=tiny", "classifier.first_fit={ batch_size = 4 }",
    "segmenter.backbone=tiny", "segmenter.options={ channels = 8 }", "pseudo_label.rule=halves",
    "pseudo_label.options={ share = 0.25 }", "classifier.options={ pull = 0.2 }",
]  # fmt: skip


def test_a_method_a_backbone_and_a_label_rule_from_outside_make_a_run(plugged: None, tmp_path: Path) -> None:
    config = dry(read_config(RunConfig, Path("experiments/scenes/cam.toml"), CHANGES), tmp_path)
    assert start_run(config).is_file()
    assert (tmp_path / "classifier" / "first" / "weights.pt").is_file()
    for path in (tmp_path / "pseudo_labels").glob("*.png"):
        with Image.open(path) as stored:
            labels = np.asarray(stored)
        edge = int(0.25 * labels.shape[1])
        assert (labels[:, :edge] > 0).all()
        assert not labels[:, edge:].any()
    cards = {path.parts[-3]: Engine(path).card for path in (tmp_path / "models").glob("*/*/model.onnx")}
    assert {card.method for card in cards.values()} == {"paired", "deeplabv3plus"}
    assert {card.backbone for card in cards.values()} == {"tiny"}


def test_methods_that_build_on_others_take_one_from_outside(plugged: None) -> None:
    options = METHODS["amr"].Options(spotlight="paired", spotlight_options={"pull": 0.3})
    assert METHODS["amr"].photos_per_group(options) == 2
    model = METHODS["amr"](3, "tiny", 16, None, options)
    assert isinstance(model.spotlight, PairedClassifier)
    with pytest.raises(ValueError, match="unknown method 'amr'; there are cam, drs, edam, paired"):
        METHODS["amr"].Options(spotlight="amr")


def test_a_rule_from_outside_has_its_own_say_in_the_configuration(plugged: None) -> None:
    with pytest.raises(Exception, match="halves need mirrored views"):
        read_config(RunConfig, Path("experiments/scenes/cam.toml"), [*CHANGES, "localize.flip=false"])
    with pytest.raises(Exception, match="share"):
        read_config(RunConfig, Path("experiments/scenes/cam.toml"), [*CHANGES, "pseudo_label.options={ share = 'a' }"])
