"""The battery every method, backbone and segmenter passes: forward, backward, shapes, ranges, gradients, export parity."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from app.inference.engine import Engine
from app.inference.errors import ConfigError, DataError
from app.inference.labels import label_count
from app.inference.model_card import ModelCard
from tests.training.exports import perturb
from training.backbones import BACKBONES, build_backbone, takes_modulation
from training.config.map_tables import ClassifierConfig
from training.config.tables import SegmenterConfig
from training.export.onnx_file import CHECK_SIZES, export_model, next_version, shrink
from training.export.served import ServedClassifier
from training.methods import METHODS
from training.segmenters import SEGMENTERS
from training.stages.classifier import build_classifier
from training.stages.segmenter import build_segmenter, serve_segmenter

CLASSES = ("cat", "dog", "person")
SIZES = ((64, 96), (80, 56))
METHOD_OPTIONS = {
    "cam": ("cam", {}),
    "drs-fixed": ("drs", {"stages": [3, 4], "extra": 1}),
    "drs-learnable": ("drs", {"learnable": True, "extra": 1}),
}
METHOD_OPTIONS |= {name: (name, {}) for name in METHODS if name not in ("cam", "drs", "edam")}
METHOD_OPTIONS["edam"] = ("edam", {"layers": 2})
SEGMENTER_OPTIONS = {name: (name, {"channels": 32}) for name in SEGMENTERS}
SEGMENTER_OPTIONS |= {
    "deeplabv2-msc": ("deeplabv2", {"msc": [0.5]}),
    "deeplabv3plus-tags": ("deeplabv3plus", {"channels": 32, "tag_weight": 2.0}),
    "deeplabv3plus-recognizer": ("deeplabv3plus", {"channels": 32, "tag_weight": 2.0}),
}
RECOGNIZER = {
    "backbone": "small",
    "weights": None,
    "output_stride": 16,
    "scale": 0.75,
}  # the key above has it beside it


def classifier(key: str, backbone: str = "small") -> nn.Module:
    torch.manual_seed(0)
    method, options = METHOD_OPTIONS[key]
    return build_classifier(ClassifierConfig(method=method, backbone=backbone, options=options), len(CLASSES))


def segmenter(key: str) -> nn.Module:
    torch.manual_seed(0)
    architecture, options = SEGMENTER_OPTIONS[key]
    recognizer = RECOGNIZER if key.endswith("recognizer") else None
    table = SegmenterConfig(architecture=architecture, options=options, recognizer=recognizer)
    model = build_segmenter(table, len(CLASSES))
    if (tag_head := model.deciding_tag_head()) is not None:
        tag_head.count(torch.tensor([[1.0, 1, 0], [1, 0, 0]]))
        with torch.no_grad():
            tag_head.linear.bias.copy_(
                torch.tensor([-14.0, 0, 3])
            )  # The first class is as unlikely as the tags of few photos make it.
    return model


def card(task: str, method: str) -> ModelCard:
    presence = (0.5,) * len(CLASSES) if task == "cam" else ()
    return ModelCard(
        name="tried", version=1, task=task, method=method, paper="none", backbone="small", classes=CLASSES,
        output_stride=16, preferred_size=64, presence_thresholds=presence, data="none", data_licence="none",
    )  # fmt: skip


@pytest.mark.parametrize("key", METHOD_OPTIONS)
@pytest.mark.parametrize("size", SIZES)
def test_method_gives_scores_and_maps(key: str, size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size)
    logits, cams = classifier(key).eval()(images)
    assert logits.shape == (2, len(CLASSES))
    assert cams.shape[:2] == (2, len(CLASSES))
    assert cams.shape[2] == -(-size[0] // 16)
    assert cams.min() >= 0
    assert torch.isfinite(cams).all()


@pytest.mark.parametrize("key", METHOD_OPTIONS)
def test_method_learns_and_its_gradient_reaches_the_backbone(key: str) -> None:
    model = classifier(key).train()
    batch = {"images": torch.randn(4, 3, 64, 64), "image_labels": torch.eye(4)[:, :3]}
    losses = model.losses(batch)
    losses["loss"].backward()
    reached = [name for name, p in model.backbone.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any(name.startswith("stages.3") for name in reached)
    grouped = [p for group in model.parameter_groups() for p in group["params"]]
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len({id(p) for p in grouped}) == len(grouped)
    assert {id(p) for p in trained} <= {id(p) for p in grouped}


@pytest.mark.parametrize("key", METHOD_OPTIONS)
def test_exported_method_equals_torch(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.export.onnx_file.CHECK_SIZES", (*CHECK_SIZES, (75, 50), (33, 160)))
    model = classifier(key)
    perturb(model)
    path = export_model(ServedClassifier(model), card("cam", METHOD_OPTIONS[key][0]), tmp_path)
    assert path == tmp_path / "tried" / "1" / "model.onnx"
    engine = Engine(path)
    assert max(engine.card.export_check.values()) < 1e-4


# The layers of `resnet50` are those of the other two; `small` stands above, `vgg16` in test_import.py, timm's in test_timm_backbone.py.
@pytest.mark.parametrize("name", ["resnet50-irn", "resnet38"])
def test_exported_backbone_equals_torch(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow_resnet38(monkeypatch, 8)
    torch.manual_seed(0)
    config = ClassifierConfig(method="cam", backbone=name, output_stride=8 if name == "resnet38" else 16)
    path = export_model(ServedClassifier(build_classifier(config, len(CLASSES))), card("cam", "cam"), tmp_path)
    assert max(Engine(path).card.export_check.values()) < 1e-4


def narrow_resnet38(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Divide all widths of ResNet-38, whose file has 500 MB otherwise."""
    module = importlib.import_module("training.backbones.resnet38")
    stages = tuple((count, a // times, b // times, *row) for count, a, b, *row in module.BASIC_STAGES)
    monkeypatch.setattr(module, "STEM", module.STEM // times)
    monkeypatch.setattr(module, "BASIC_STAGES", stages)
    monkeypatch.setattr(module, "BOTTLENECKS", tuple((a // times, b // times, p) for a, b, p in module.BOTTLENECKS))
    monkeypatch.setattr(module.ResNet38, "channels", tuple(wide // times for wide in module.ResNet38.channels))


def test_the_next_version_is_one_above_the_highest(tmp_path: Path) -> None:
    assert next_version(tmp_path / "tried") == 1
    for name in ("2", "10", "notes"):
        folder = tmp_path / "tried" / name
        folder.mkdir(parents=True)
        (folder / "model.onnx").touch()
    (tmp_path / "tried" / "11").mkdir()  # what an export left that was stopped
    assert next_version(tmp_path / "tried") == 11


@pytest.mark.parametrize("key", SEGMENTER_OPTIONS)
@pytest.mark.parametrize("size", SIZES)
def test_segmenter_labels_pixels_and_learns(key: str, size: tuple[int, int]) -> None:
    model = segmenter(key).train()
    label_maps = torch.randint(0, label_count(len(CLASSES)), (2, *size))
    label_maps[:, 0] = 255
    batch = {"images": torch.randn(2, 3, *size), "label_maps": label_maps, "image_labels": torch.eye(2, 3)}
    losses = model.losses(batch)
    losses["loss"].backward()
    assert losses["loss"] == losses["cross_entropy"] + model.options.tag_weight * losses.get("tags", 0)
    head = [
        p for name, p in model.named_parameters() if p.ndim > 1 and p.requires_grad and not name.startswith("backbone.")
    ]
    assert all(p.grad.isfinite().all() and p.grad.any() for p in head)
    assert model.backbone.stem[0].weight.grad.any()
    grouped = [id(p) for group in model.parameter_groups() for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert model.eval()(torch.randn(1, 3, *size)).shape[1] == label_count(len(CLASSES))


# The graph of `deeplabv2` is in that of `deeplabv2-msc`, and that of `deeplabv3plus` in that of `deeplabv3plus-tags`.
@pytest.mark.parametrize("key", sorted(set(SEGMENTER_OPTIONS) - {"deeplabv2", "deeplabv3plus"}))
def test_exported_segmenter_equals_torch_and_survives_fewer_bits(key: str, tmp_path: Path) -> None:
    network = segmenter(key)
    described = card("segmentation", key)
    if network.deciding_tag_head() is not None:  # its say is exported too
        described = described.model_copy(update={"presence_thresholds": (0.3,) * len(CLASSES)})
    served = serve_segmenter(network, described)
    path = export_model(served, described, tmp_path)  # which compares it with torch, and raises
    assert max(Engine(path).card.export_check.values()) < 1e-4
    image = np.random.default_rng(0).integers(0, 256, (1, 70, 90, 3), dtype=np.uint8)
    full = Engine(path).run(image)["logits"]
    for precision, size, error in (("float16", 0.6, 0.01), ("int8", 0.35, 0.1)):
        shrunk = shrink(path, precision, [image])
        assert shrunk.stat().st_size < size * path.stat().st_size
        assert 0 < np.abs(full - Engine(shrunk).run(image)["logits"]).max() < error * np.abs(full).max()
        assert Engine(shrunk).card.precision == precision


@pytest.mark.parametrize(
    ("name", "output_stride"),
    [
        *((name, output_stride) for name in ("small", "resnet50", "resnet101", "vgg16") for output_stride in (8, 16)),
        *(("resnet50-irn", 16), ("resnet50", 32), ("resnet101", 32)),
    ],
)
def test_backbone_strides(name: str, output_stride: int) -> None:
    backbone = build_backbone(name, output_stride).eval()
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 96, 64))
    assert tuple(feature.shape[1] for feature in features) == backbone.channels
    assert features[-1].shape[2:] == (96 // output_stride, 64 // output_stride)
    assert features[backbone.stride4_stage].shape[2:] == (24, 16)


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_backbone_takes_torchvision_files_and_refuses_others(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = models.get_model(name).eval()
    path = tmp_path / f"{name}.pth"
    torch.save(reference.state_dict(), path)
    ours = build_backbone(name, 32, str(path)).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = reference(images)
        logits = reference.fc(ours(images)[-1].mean(dim=(2, 3)))
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()
    with pytest.raises(ConfigError, match="does not hold weights of this backbone"):
        build_backbone("small", 16, str(path))
    with pytest.raises(DataError, match="does not exist"):
        build_backbone("small", 16, str(tmp_path / "nothing.pth"))


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_names_its_first_modules(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name, 8 if name == "resnet38" else 16)
    first = next(iter(backbone.parameters()))
    stem = [backbone.get_submodule(module) for module in backbone.stem_modules]
    assert any(first is parameter for module in stem for parameter in module.parameters())


@pytest.mark.parametrize("name", [name for name, build in BACKBONES.items() if takes_modulation(build)])
def test_modulated_backbone_has_a_module_in_every_residual_block(name: str) -> None:
    made: list[tuple[int, int]] = []

    def modulation(stage: int, channels: int) -> nn.Module:
        made.append((stage, channels))
        return nn.Identity()

    with torch.device("meta"):
        backbone = build_backbone(name, 16, modulation=modulation)
    blocks = {"small": 8, "resnet50": 16, "resnet50-irn": 16, "resnet101": 33}
    assert len(made) == blocks[name]
    assert {channels for _, channels in made} == set(backbone.channels)
