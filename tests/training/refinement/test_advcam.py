"""AdvCAM: the region against hand-computed numbers, the climb's direction and bounds, and what comes out of it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.inference.arrays import resize_bilinear
from app.inference.maps.localization import ScaleCams
from training.methods import METHODS
from training.methods.amr import AmrClassifier
from training.methods.cam import CamClassifier
from training.refinement.advcam import AdvcamConfig, Step, advcam, climb, image_pair, region, step_up

CLASSES = 3


def build(method: str = "cam", **options: object) -> nn.Module:
    torch.manual_seed(0)
    return METHODS[method](CLASSES, "small", 16, None, METHODS[method].Options(**options)).eval()


def photo(height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_region_of_known_features() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]], [[[0.0, 1.0]], [[1.0, 1.0]]]], requires_grad=True)
    weights = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1)
    merged = region((weights * features).sum(), features)
    # gradient 2 and -1 at each of 2 pixels: sums 4 and -2; 4 of the 8 entries, both images together, are positive
    first = [max(0, 1 * 1 - 0.5 * 3), 1 * 2 - 0.5 * 0]
    second = [max(0, 1 * 0 - 0.5 * 1), 1 * 1 - 0.5 * 1]
    assert merged.tolist() == [pytest.approx([first[0] + second[1], first[1] + second[0]])]
    assert merged.requires_grad  # through the features; the weights are constants


def test_step_stays_inside_the_images_range() -> None:
    images = torch.tensor([[-1.0, 0.0, 2.0]])
    moved = step_up(images, torch.tensor([[-4.0, 2.0, 4.0]]), 0.5)
    assert moved.tolist() == [[-1.0, 0.25, 2.0]]
    assert torch.equal(step_up(images, torch.zeros(1, 3), 0.5), images)


def test_objective_and_masks_of_each_step() -> None:
    network, pair = build(), image_pair(photo(), 96, 1.0)
    steps: list[Step] = []
    total = climb(network, pair, 1, AdvcamConfig(), 3, steps.append)
    torch.testing.assert_close(total, sum(step.region for step in steps))
    assert torch.equal(steps[0].discriminative, (steps[0].region > 0.5 * steps[0].region.max()).float())
    images = pair
    for step in steps:
        _, cams = network(images)
        means = cams.mean(dim=(2, 3)).sum(dim=0)
        restraint = ((step.region - steps[0].region).abs() * step.discriminative).sum()
        torch.testing.assert_close(step.objective, 2 * means[1] - means.sum() - 7 * restraint)
        images = step.images
        assert pair.min() <= images.min() <= images.max() <= pair.max()


def test_climbing_raises_the_class() -> None:
    network, pair = build(), image_pair(photo(), 96, 1.0)
    steps: list[Step] = []
    climb(network, pair, 2, AdvcamConfig(restraint=0), 6, steps.append)
    assert steps[-1].objective > steps[0].objective


def test_the_restraint_holds_back_what_is_discriminative() -> None:
    network, pair = build(), image_pair(photo(), 96, 1.0)

    def change(restraint: float) -> float:
        steps: list[Step] = []
        climb(network, pair, 0, AdvcamConfig(restraint=restraint), 8, steps.append)
        return float(((steps[-1].region - steps[0].region).abs() * steps[0].discriminative).sum())

    assert change(1000) < change(0)


def test_nothing_is_left_behind() -> None:
    network = build()
    advcam(network, photo(), (0,), 64, AdvcamConfig(steps=2, scales=(1.0,)))
    assert not network.backbone._forward_hooks
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_hook_is_removed_after_an_error() -> None:
    class Failing(CamClassifier):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            super().forward(images)
            raise RuntimeError("stop")

    network = Failing(CLASSES, "small", 16, None, CamClassifier.Options()).eval()
    with pytest.raises(RuntimeError, match="stop"):
        climb(network, torch.zeros(2, 3, 64, 64), 0, AdvcamConfig(), 1)
    assert not network.backbone._forward_hooks


@pytest.mark.parametrize("method", ["cam", "drs", "amr", "edam"])
def test_maps_of_every_method(method: str) -> None:
    climbing = AdvcamConfig(steps=2, scales=(0.5, 1.0))
    with torch.no_grad():  # as evaluation and localization run
        result = advcam(build(method), photo(), (0, 2), 96, climbing)
    assert isinstance(result, ScaleCams)
    assert result.cams[0].shape == (2, 18, 24)
    assert result.scores.shape == (CLASSES,)
    maps = result.maps()
    assert maps.shape == (2, 72, 96)
    assert 0 <= maps.min() <= maps.max() <= 1


def test_branches_are_averaged_over_their_maxima() -> None:
    network = build("amr", weight=0.25)
    assert isinstance(network, AmrClassifier)
    climbing = AdvcamConfig(steps=2, scales=(1.0,), short=())
    joined = advcam(network, photo(), (1,), 96, climbing).cams[0]
    spotlight, compensation = (advcam(branch, photo(), (1,), 96, climbing).cams[0] for branch, _ in network.branches())
    np.testing.assert_allclose(joined, 0.25 * spotlight + 0.75 * compensation, atol=1e-6)


def test_photo_without_classes() -> None:
    assert advcam(build(), photo(), (), 64).cams[0].shape == (0, 12, 16)


def test_short_scales_take_half_the_steps_and_count_once() -> None:
    network = build()

    def sum_of(scale: float, steps: int) -> np.ndarray:
        cam = climb(network, image_pair(photo(), 64, scale), 0, AdvcamConfig(), steps)
        return resize_bilinear(cam.numpy()[None], 12, 16)[0]

    joined = advcam(network, photo(), (0,), 64, AdvcamConfig(steps=5, scales=(0.5, 1.0), short=(0.5,))).cams[0][0]
    expected = sum_of(0.5, 2) + sum_of(1.0, 5)
    np.testing.assert_allclose(joined, expected / (expected.max() + 1e-5), rtol=1e-4, atol=1e-6)
