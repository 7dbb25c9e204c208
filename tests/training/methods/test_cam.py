"""Plain CAM: how its head starts, and what stays as it is."""

import math

import pytest
import torch

from training.methods.amr import AmrClassifier
from training.methods.cam import CamClassifier
from training.methods.drs import DrsClassifier

CLASSES = 20


def build(**options: object) -> CamClassifier:
    torch.manual_seed(0)
    return CamClassifier(CLASSES, "small", 16, None, CamClassifier.Options(**options))


@pytest.mark.parametrize("start", ["xavier", "default", "normal"])
def test_the_head_starts_as_the_paper_has_it(start: str) -> None:
    weight = build(head_start=start).classifier.weight
    channels = weight.shape[1]
    bound = {"xavier": math.sqrt(6 / (channels + CLASSES)), "default": math.sqrt(1 / channels)}.get(start)
    deviation = 0.01 if bound is None else bound / math.sqrt(3)
    assert weight.std().item() == pytest.approx(deviation, rel=0.05)
    assert bound is None or weight.abs().max() <= bound


def test_only_drs_starts_from_kaiming() -> None:
    torch.manual_seed(0)
    network = DrsClassifier(CLASSES, "small", 16, None, DrsClassifier.Options(extra=0))
    assert network.classifier.weight.std().item() == pytest.approx(math.sqrt(2 / CLASSES), rel=0.05)


def test_both_heads_of_amr_start_as_pytorch_has_them() -> None:
    def largest(**options: object) -> list[float]:
        network = AmrClassifier(CLASSES, "small", 16, None, AmrClassifier.Options(**options))
        return [branch.classifier.weight.abs().max().item() for branch, _ in network.branches()]

    channels = build().classifier.weight.shape[1]
    assert max(largest()) <= math.sqrt(1 / channels)
    spotlight, compensation = largest(spotlight_options={"head_start": "xavier"})
    assert compensation <= math.sqrt(1 / channels) < spotlight


@pytest.mark.parametrize("affine", [False, True])
def test_what_is_frozen_stays_and_the_rest_moves(affine: bool) -> None:
    network = build(freeze=True, freeze_affine=affine).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    groups = [{"params": g["params"], "lr": 0.1 * g["lr_scale"]} for g in network.parameter_groups()]
    optimizer = torch.optim.SGD(groups, weight_decay=0.1)
    network.losses({"images": torch.rand(2, 3, 64, 64), "image_labels": torch.ones(2, CLASSES)})["loss"].backward()
    optimizer.step()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    norms = {name for name, module in network.named_modules() if module in network.backbone.batch_norms()}
    of_norms = {name for name in moved if name.rpartition(".")[0] in norms}
    assert not any(name.startswith("backbone.stem") for name in moved)
    assert not any("running" in name for name in of_norms)
    assert bool(of_norms) != affine
    assert {"classifier.weight", "backbone.stages.0.0.conv1.weight"} <= moved
