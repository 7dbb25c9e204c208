"""AMR: the modulation against hand-computed values, the switches, and what gradients reach. Its exported graph is the battery's (`test_networks.py`)."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from app.inference.errors import ConfigError, DataError
from tests.training.exports import perturb
from training.authors.released import amr
from training.backbones import build_backbone
from training.checkpoint import save_weights
from training.methods import METHODS
from training.methods.amr import AMM, AmrClassifier, gaussian, merge_pair, normalize
from training.methods.cam import CamClassifier
from training.methods.drs import DrsClassifier

CLASSES = 3


def build(**options: Any) -> AmrClassifier:
    torch.manual_seed(0)
    return AmrClassifier(CLASSES, "small", 16, None, AmrClassifier.Options(**options))


def batch(count: int = 2, size: int = 64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.zeros(count, CLASSES)
    labels[torch.arange(count), torch.arange(count) % CLASSES] = 1
    return {"images": torch.randn(count, 3, size, size, generator=generator), "image_labels": labels}


def test_gaussian_of_known_numbers() -> None:
    # mean 2, unbiased deviation sqrt((4 + 0 + 4) / 2) = 2
    gate = gaussian(torch.tensor([[0.0, 2.0, 4.0]]))
    peak = 1 / (math.sqrt(2 * math.pi) * 2)
    assert gate[0].tolist() == pytest.approx([peak * math.exp(-0.5), peak, peak * math.exp(-0.5)], rel=1e-6)


def test_gaussian_is_of_one_image_or_of_the_batch() -> None:
    v = torch.tensor([[0.0, 2.0, 4.0], [100.0, 300.0, 500.0]])
    assert torch.equal(gaussian(v)[:1], gaussian(v[:1]))
    torch.testing.assert_close(gaussian(v, "batch").flatten(), gaussian(v.view(1, 6)).flatten())


def test_bounded_gaussian_peaks_at_one() -> None:
    gate = gaussian(torch.tensor([[0.0, 2.0, 4.0]]), bounded=True)
    assert gate[0].tolist() == pytest.approx([math.exp(-0.5), 1, math.exp(-0.5)], rel=1e-6)


@pytest.mark.parametrize("v", [torch.full((2, 5), 3.0), torch.zeros(1, 1, 1, 1)])
def test_gate_of_equal_numbers_is_one(v: Tensor) -> None:
    v.requires_grad_()
    gate = gaussian(v)
    gate.sum().backward()
    torch.testing.assert_close(gate, torch.ones_like(gate))
    assert torch.isfinite(v.grad).all()


def test_mean_and_deviation_carry_no_gradient() -> None:
    v = torch.tensor([[0.0, 2.0, 4.0]], requires_grad=True)
    gaussian(v).sum().backward()
    expected = gaussian(v.detach()) * -(v.detach() - 2) / 4  # dg/dv with mu = 2 and s = 2 held
    torch.testing.assert_close(v.grad, expected)


def test_amm_by_hand() -> None:
    torch.manual_seed(0)
    module, x = AMM(8, reduction=4).eval(), torch.randn(3, 8, 5, 6)
    v = module.channel.excite(module.channel.squeeze(x.mean(dim=(2, 3))).relu())
    gated = x * gaussian(v)[:, :, None, None]
    q = torch.stack([gated.amax(dim=1), gated.mean(dim=1)], dim=1)
    spatial = F.conv2d(q, module.spatial.conv.weight, padding=3) / math.sqrt(1 + 1e-5)
    torch.testing.assert_close(module(x), gated * gaussian(spatial))


def test_batch_normalization_of_the_spatial_gate_can_use_the_batch_in_evaluation() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 6)
    module = AMM(8, 4, "batch", "batch").eval()
    before = module.spatial.norm.running_var.clone()
    evaluated = module(x)
    assert torch.equal(module.spatial.norm.running_var, before)
    torch.testing.assert_close(evaluated, module.train()(x))
    assert not torch.allclose(evaluated, AMM(8, 4, "batch", "running").eval()(x))


@pytest.mark.parametrize("name", ["small", "resnet50"])
def test_backbones_are_as_before_without_modulation(name: str) -> None:
    assert not [key for key in build_backbone(name, 16).state_dict() if "modulation" in key]


@pytest.mark.parametrize("name", ["vgg16", "resnet38"])
def test_a_backbone_without_residual_blocks_is_refused(name: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match="no residual branches"):
        AmrClassifier(CLASSES, name, 8, None, AmrClassifier.Options())


def test_every_residual_block_is_modulated() -> None:
    counts = {"small": 8, "resnet50-irn": 16}
    for name, count in counts.items():
        network = AmrClassifier(CLASSES, name, 16, None, AmrClassifier.Options())
        assert sum(isinstance(module, AMM) for module in network.compensation.modules()) == count
        assert not any(isinstance(module, AMM) for module in network.spotlight.modules())


@pytest.mark.parametrize("size", [(64, 64), (70, 96)])
@pytest.mark.parametrize("spotlight", ["cam", "drs", "edam"])
def test_forward_and_gradient(spotlight: str, size: tuple[int, int]) -> None:
    network = build(spotlight=spotlight, agreement="normalized")
    perturb(network)
    example = batch() | {"images": torch.randn(2, 3, *size)}
    logits, cams = network.eval()(example["images"])
    assert logits.shape == (2, CLASSES)
    assert cams.shape == (2, CLASSES, -(-size[0] // 16), -(-size[1] // 16))
    assert 0 <= cams.min() <= cams.max() <= 1
    network.train().losses(example)["loss"].backward()
    for backbone in (network.spotlight.backbone, network.compensation.backbone):
        weight = backbone.stages[0][0].conv1.weight
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0


def test_a_fresh_network_trains() -> None:
    network = build()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for _ in range(4):
        losses = network.losses(batch(4))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
    assert torch.isfinite(network.losses(batch(4))["loss"])


def test_the_image_does_not_see_its_neighbours() -> None:
    network, images = build(), batch(3)["images"]
    perturb(network)
    network.eval()
    released = build(statistics="batch", gate_normalization="batch").eval()
    released.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(network(images)[1][:1], network(images[:1])[1])
        assert not torch.allclose(released(images)[1][:1], released(images[:1])[1], atol=1e-3)


def test_map_and_score_are_weighted_means() -> None:
    network, images = build(weight=0.3), batch()["images"]
    perturb(network)
    network.eval()
    with torch.no_grad():
        (logits_s, cams_s), (logits_c, cams_c) = network.spotlight(images), network.compensation(images)
        logits, cams = network(images)
    torch.testing.assert_close(logits, 0.3 * logits_s + 0.7 * logits_c)
    torch.testing.assert_close(cams, 0.3 * normalize(cams_s) + 0.7 * normalize(cams_c))
    assert [share for _, share in network.branches()] == pytest.approx([0.3, 0.7])


def test_loss_is_the_sum_of_its_parts() -> None:
    network, example = build().eval(), batch()
    perturb(network)
    losses = network.losses(example)
    (logits_s, cams_s), (logits_c, cams_c) = (
        network.spotlight(example["images"]),
        network.compensation(example["images"]),
    )
    spotlight = F.multilabel_soft_margin_loss(logits_s, example["image_labels"])
    compensation = F.multilabel_soft_margin_loss(logits_c, example["image_labels"])
    agreement = (cams_s - cams_c).abs().mean()
    torch.testing.assert_close(losses["loss"], 0.5 * spotlight + 0.5 * compensation + 0.05 * agreement)


def test_agreement_of_normalized_maps_counts_present_classes() -> None:
    network = build(agreement="normalized")
    first = torch.tensor([[[[0.0, 2.0]], [[5.0, 5.0]], [[1.0, 0.0]]]])
    second = torch.tensor([[[[4.0, 4.0]], [[0.0, 1.0]], [[1.0, 0.0]]]])
    measured = network._agreement(first, second, torch.tensor([[1.0, 0.0, 1.0]]))
    # class 0: |0 - 1| and |1 - 1|, half on average; class 1 is absent; class 2 agrees
    assert float(measured) == pytest.approx((0.5 + 0) / 2, abs=1e-4)


def test_released_pairing_uses_the_first_two_images() -> None:
    cams = torch.arange(12.0).view(2, 1, 2, 3)
    assert torch.equal(merge_pair(cams)[0], torch.tensor([[0.0 + 8, 1 + 7, 2 + 6], [3 + 11, 4 + 10, 5 + 9]]))
    network = build(pair_first_two=True)
    first, second = torch.rand(4, CLASSES, 2, 2), torch.rand(4, CLASSES, 2, 2)
    expected = (merge_pair(first) - merge_pair(second)).abs().mean()
    torch.testing.assert_close(network._agreement(first, second, torch.ones(4, CLASSES)), expected)
    with pytest.raises(ConfigError, match="at least 2"):
        merge_pair(cams[:1])


def test_detached_layers_get_no_gradient() -> None:
    network = build(detached=True)
    perturb(network)
    network.losses(batch())["loss"].backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert not [name for name in reached if name.startswith("spotlight.backbone")]
    assert "spotlight.classifier.weight" in reached  # by the agreement alone
    untouched = ("compensation.backbone.stem", "compensation.backbone.stages.0.")
    assert not [name for name in reached if name.startswith(untouched)]
    assert any(name.startswith("compensation.backbone.stages.1.0.modulation") for name in reached)
    without = build(detached=True, agreement_weight=0)
    without.losses(batch())["loss"].backward()
    assert without.spotlight.classifier.weight.grad.abs().sum() == 0


def test_freeze_keeps_running_statistics_but_the_gates() -> None:
    network = build(freeze=True).train()
    before = {name: value.clone() for name, value in network.named_buffers() if name.endswith("running_mean")}
    network.losses(batch())
    changed = {
        name for name, value in network.named_buffers() if name in before and not torch.equal(value, before[name])
    }
    assert not [name for name in changed if "modulation" not in name]
    assert not network.spotlight.backbone.stem[0].weight.requires_grad
    assert network.spotlight.backbone.stages[0][0].bn1.weight.requires_grad


def test_parameter_groups_hold_every_trained_parameter_once() -> None:
    network = build()
    groups = network.parameter_groups()
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in network.parameters())
    assert [group["lr_scale"] for group in groups] == [1, 10, 1]
    assert len(groups[2]["params"]) == 2


def test_spotlight_starts_from_a_classifier_trained_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    plain = DrsClassifier(CLASSES, "small", 16, None, DrsClassifier.Options(delta=0.4))
    save_weights(tmp_path / "drs.pt", plain)
    options = {"spotlight": "drs", "spotlight_options": {"delta": 0.4}}
    network = build(**options, spotlight_weights=str(tmp_path / "drs.pt"))
    for key, value in plain.state_dict().items():
        assert torch.equal(network.spotlight.state_dict()[key], value)
    assert network.backbone is network.spotlight.backbone
    with pytest.raises(ConfigError, match="not those of a CamClassifier"):
        build(spotlight_weights=str(tmp_path / "drs.pt"))
    with pytest.raises(ConfigError, match="delta"):
        build(spotlight="drs", spotlight_options={"delta": 3})


def test_the_state_holds_every_tensor_once() -> None:
    assert {key.split(".")[0] for key in build().state_dict()} == {"spotlight", "compensation"}
    assert METHODS["amr"] is AmrClassifier


def authors_state(network: torch.nn.Module) -> dict[str, Tensor]:
    """A stand-in for AMR's checkpoint: its names and aliases, one number instead of each tensor."""
    back = {ours: theirs for theirs, ours in amr.GATES.items()}
    branches = {"spotlight": ("resnet50", "stage", "backbone"), "compensation": ("resnet50_2", "stage2_", "backbone2")}
    state = {}
    for number, key in enumerate(network.state_dict()):
        branch, part, name = key.split(".", 2)
        if part == "classifier":
            head, index = ("classifier", 0) if branch == "spotlight" else ("classifier2", 1)
            names = [f"{head}.{name}", f"newly_added.{index}.{name}"]
        else:
            for ours, theirs in back.items():
                name = name.replace(ours, theirs)
            aliases = amr.branch_aliases(*branches[branch])
            original = f"{branches[branch][0]}.{name}"
            names = [original]
            names += [a + original.removeprefix(p) for a, p in aliases.items() if original.startswith(p)]
        state |= dict.fromkeys(names, torch.tensor(float(number)))
    return state


def test_checkpoint_round_trip() -> None:
    with torch.device("meta"):
        network = AmrClassifier(20, "resnet50-irn", 16, None, AmrClassifier.Options())
    state = authors_state(network)
    assert len(state) == 2392
    ours = amr.convert(state)
    assert ours == {key: torch.tensor(float(number)) for number, key in enumerate(network.state_dict())}


def test_checkpoint_that_contradicts_itself_is_refused() -> None:
    with torch.device("meta"):
        network = AmrClassifier(20, "resnet50-irn", 16, None, AmrClassifier.Options())
    state = authors_state(network)
    with pytest.raises(DataError, match="one tensor"):
        amr.convert(state | {"newly_added.1.weight": torch.tensor(-1.0)})
    with pytest.raises(DataError, match="surplus"):
        amr.convert(state | {"surplus": torch.tensor(-1.0)})
    del state["classifier2.weight"], state["newly_added.1.weight"]
    with pytest.raises(DataError, match="classifier2"):
        amr.convert(state)


def test_first_stage_checkpoint() -> None:
    with torch.device("meta"):
        network = AmrClassifier(20, "resnet50-irn", 16, None, AmrClassifier.Options())
        plain = CamClassifier(20, "resnet50-irn", 16, None, CamClassifier.Options())
    first = ("resnet50.", "stage1.", "stage2.", "stage3.", "stage4.", "backbone.", "classifier.", "newly_added.0.")
    state = {key: value for key, value in authors_state(network).items() if key.startswith(first)}
    assert set(amr.convert_cam(state)) == set(plain.state_dict())


def test_photos_come_in_the_groups_of_the_spotlight_branch() -> None:
    options = AmrClassifier.Options(spotlight="edam", spotlight_options={"width": 16, "group_size": 3})
    assert AmrClassifier.photos_per_group(options) == 3
    assert AmrClassifier.photos_per_group(AmrClassifier.Options()) == 1


def test_its_first_stage_freezes_what_it_freezes() -> None:
    first = AmrClassifier.first_stage(AmrClassifier.Options(freeze=True))
    assert (first.method, first.options) == ("cam", {"freeze": True, "head_start": "default"})
    classifier = CamClassifier(2, "small", 16, None, CamClassifier.Options(**first.options)).train()
    assert not any(module.training for module in classifier.backbone.batch_norms())
    assert not any(parameter.requires_grad for parameter in classifier.backbone.stem.parameters())
    assert classifier.backbone.stages[0][0].bn1.weight.requires_grad
