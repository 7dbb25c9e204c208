"""DRS on numbers computed by hand: suppression, groups, refinement, and the released files."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.inference.errors import DataError
from training.authors.released import convert_released
from training.authors.released import drs as drs_checkpoint
from training.backbones.vgg16 import BLOCKS
from training.checkpoint import read_state
from training.config.learning import FitConfig
from training.data import TaggedPhotos
from training.fit.device import make_fabric
from training.fit.loop import fit
from training.methods.drs import DrsClassifier, Suppression
from training.refinement.drs import (
    DrsConfig,
    DrsRefinement,
    MapFolder,
    RefinementViews,
    drs_localization_maps,
    enlarge_maps,
    localize_for_refinement,
    normalize_drs_cams,
    refined_maps,
    refinement_target,
)

CLASSES = ("cat", "dog", "person")
SMALL = DrsConfig(size=64, scales=(32, 64, 96), colour_jitter=0.0)


def drs(backbone: str = "small", class_count: int = len(CLASSES), **options: object) -> DrsClassifier:
    torch.manual_seed(0)
    return DrsClassifier(class_count, backbone, 8, None, DrsClassifier.Options(**options))


def refinement(**options: object) -> DrsRefinement:
    torch.manual_seed(0)
    return DrsRefinement(len(CLASSES), "small", 16, None, DrsRefinement.Options(**options)).eval()


def test_fixed_suppression_caps_at_a_fraction_of_each_channels_maximum() -> None:
    x = torch.tensor([[[[1.0, 3], [4, -2]], [[-1, -1], [-3, -1]]]])
    assert Suppression(2, 0.5)(x).tolist() == [[[[1, 2], [2, 0]], [[0, 0], [0, 0]]]]


def test_learnable_suppression_caps_at_the_sigmoid_of_the_weighted_means() -> None:
    module = Suppression(2, None)
    weight = torch.tensor([[0.0, 0.4], [0, 0]])
    module.load_state_dict({"fc.0.weight": weight})
    x = torch.tensor([[[[1.0, 3], [4, -2]], [[5, 5], [10, 0]]]])  # means after ReLU: 2 and 5
    first = 1 / (1 + math.exp(-0.4 * 5))
    capped = module(x)
    assert torch.allclose(capped[0, 0], torch.tensor([[1, 3], [4 * first, 0]]))
    assert capped[0, 1].tolist() == [[5, 5], [5, 0]]


def test_gradient_flows_through_values_and_maximum() -> None:
    x = torch.tensor([[[[1.0, 3, 4]]]], requires_grad=True)
    Suppression(1, 0.5)(x).sum().backward()  # 1 + 0.5 * 4 + 0.5 * 4
    assert x.grad.tolist() == [[[[1, 0, 1]]]]


def test_gradient_reaches_the_controller() -> None:
    module = Suppression(4, None)
    module(torch.rand(2, 4, 5, 5)).sum().backward()
    assert module.fc[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("backbone", "count"), [("small", 1 + 2 * 8), ("resnet50", 1 + 3 * 16), ("vgg16", 13)])
@pytest.mark.parametrize("learnable", [False, True])
def test_suppression_replaces_every_activation_of_any_backbone(backbone: str, count: int, learnable: bool) -> None:
    with torch.device("meta"):
        model = drs(backbone, learnable=learnable)
    assert sum(isinstance(module, Suppression) for module in model.backbone.modules()) == count
    assert sum(isinstance(module, Suppression) for module in model.extra.modules()) == 3
    assert not [module for module in model.modules() if isinstance(module, nn.ReLU)]


def test_only_the_chosen_stages_suppress() -> None:
    model = drs("vgg16", stages=(4,))
    stages = [isinstance(layer, Suppression) for layer in model.backbone.features if not is_conv_or_pool(layer)]
    assert stages == [False] * 10 + [True] * 3


def is_conv_or_pool(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d | nn.MaxPool2d)


def test_rates_are_those_of_the_released_code() -> None:
    with torch.device("meta"):
        model = drs("vgg16", learnable=True)
    scales = {id(p): group["lr_scale"] for group in model.parameter_groups() for p in group["params"]}
    by_name = {name: scales[id(p)] for name, p in model.named_parameters()}
    assert by_name["backbone.features.0.weight"] == 1
    assert by_name["backbone.features.0.bias"] == 2
    assert by_name["backbone.features.1.fc.0.weight"] == 10
    assert by_name["extra.0.weight"] == by_name["extra.1.fc.0.weight"] == by_name["classifier.weight"] == 10
    assert by_name["extra.0.bias"] == by_name["classifier.bias"] == 20


def test_target_keeps_the_winning_class_and_all_of_a_tie() -> None:
    maps = torch.tensor([[[[0.2, 0.5]], [[0.7, 0.5]], [[0.1, 0.0]]]])
    assert torch.equal(refinement_target(maps), torch.tensor([[[[0, 0.5]], [[0.7, 0.5]], [[0, 0]]]]))


def test_corners_stay_in_place_when_a_map_is_enlarged() -> None:
    assert enlarge_maps(torch.tensor([[[[0.0, 1]]]]), (1, 3)).tolist() == [[[[0, 0.5, 1]]]]


def test_maps_are_divided_by_their_maximum_after_the_interpolation() -> None:
    cams = torch.tensor([[[[0.0, 4, 0, 2]]]])
    maps = normalize_drs_cams(cams, (1, 3))  # sampled at 0, 1.5 and 3: 0, 2, 2
    assert torch.allclose(maps, torch.tensor([[[[0, 2, 2]]]]) / (2 + 1e-5))
    assert normalize_drs_cams(torch.zeros(1, 2, 3, 3), (5, 5)).max() == 0


def test_refinement_loss_is_the_mean_squared_error_over_all_classes() -> None:
    model = refinement()
    model.maps = lambda images: torch.tensor([[[[0.0, 1]], [[0.5, 0.5]]]])
    maps = torch.tensor([[[[0.0, 0.6, 1]], [[0.2, 0.4, 0]]]])  # the target drops 0.4; of column 0 it keeps 0.2
    output = torch.tensor([[0, 0.5, 1], [0.5, 0.5, 0.5]])
    target = torch.tensor([[0, 0.6, 1], [0.2, 0, 0]])
    loss = model.losses({"images": torch.zeros(1, 3, 1, 3), "maps": maps})["loss"]
    assert loss.item() == pytest.approx((output - target).square().mean().item())


def test_refinement_scores_are_the_largest_values_of_its_maps() -> None:
    model = refinement()
    model.maps = lambda images: torch.tensor([[[[0.2, -1]], [[-0.3, -0.1]], [[0.7, 1.4]]]])
    logits, cams = model(torch.zeros(1, 3, 8, 16))
    assert logits.sigmoid()[0].tolist() == pytest.approx([0.2, 1e-4, 1 - 1e-4], rel=1e-3)
    assert torch.allclose(cams, torch.tensor([[[[0.2, 0]], [[0, 0]], [[0.7, 1.4]]]]))


def test_refinement_learns_everywhere_at_one_rate_without_decay() -> None:
    model = refinement()
    model.train().losses({"images": torch.randn(2, 3, 64, 64), "maps": torch.rand(2, 3, 64, 64)})["loss"].backward()
    [group] = model.parameter_groups()
    assert group["weight_decay"] == 0
    assert {id(p) for p in group["params"]} == {id(p) for p in model.parameters()}
    assert all(p.grad is not None for p in model.parameters())
    assert model.backbone.stem[0].weight.grad.abs().sum() > 0


class Pictures:
    """One bright square on the left of grey photos."""

    def image(self, name: str) -> np.ndarray:
        image = np.full((48, 80, 3), 90, np.uint8)
        image[10:30, 5:30] = 250
        return image

    def size(self, name: str) -> tuple[int, int]:
        return 48, 80


NAMES = tuple("abcd")
PHOTOS = TaggedPhotos(
    CLASSES, {"train": NAMES}, {name: ("dog", "cat")[: 1 + i % 2] for i, name in enumerate(NAMES)}, Pictures()
)


def test_localization_maps_are_bytes_of_the_tagged_classes() -> None:
    maps = drs_localization_maps(drs(extra=1).eval(), PHOTOS.image("a"), (1, 2), SMALL)
    assert maps.shape == (2, 64, 64)
    assert maps.dtype == np.uint8
    assert maps.max(axis=(1, 2)).tolist() in ([254, 254], [254, 0], [0, 254])  # floor(255 * (1 - 1e-5)), or no map


def test_refined_maps_have_the_photos_size() -> None:
    assert refined_maps(refinement(), PHOTOS.image("a"), (0, 2), SMALL).shape == (2, 48, 80)


def test_a_photo_without_tags_has_no_maps() -> None:
    assert drs_localization_maps(drs(extra=0).eval(), PHOTOS.image("a"), (), SMALL).shape == (0, 64, 64)


def test_photo_and_maps_are_mirrored_together(tmp_path: Path) -> None:
    folder = MapFolder(tmp_path)
    square = np.zeros((1, 64, 64), np.uint8)
    square[:, 13:40, 4:24] = 255
    folder.write("a", (2,), square)
    views = RefinementViews(PHOTOS, ("a",), folder, SMALL, seed=0)
    mirrored = set()
    for epoch in range(8):
        item = views[epoch, 0]
        assert item["maps"].shape == (3, 64, 64)
        assert not item["maps"][:2].any()
        inside = item["maps"][2] == 1
        assert item["images"][0][inside].min() > item["images"][0][~inside].mean()
        mirrored.add(bool(inside[:, :32].sum() < inside[:, 32:].sum()))
    assert mirrored == {False, True}


def test_maps_of_another_size_or_none_are_an_error(tmp_path: Path) -> None:
    folder = MapFolder(tmp_path)
    folder.write("a", (2,), np.zeros((1, 32, 32), np.uint8))
    views = RefinementViews(PHOTOS, ("a", "b"), folder, SMALL, seed=0)
    with pytest.raises(DataError, match="localize the photos again"):
        views[0, 0]
    with pytest.raises(DataError, match="does not exist"):
        views[0, 1]


def test_classifier_to_maps_to_refinement(tmp_path: Path) -> None:
    folder = localize_for_refinement(drs(extra=1).eval(), PHOTOS, NAMES, tmp_path / "maps", SMALL)
    assert folder.read("b")[0] == (0, 1)
    config = FitConfig(epochs=2, batch_size=2, optimizer="adamw", lr=1e-3, log_every=1, accelerator="cpu")
    views = RefinementViews(PHOTOS, NAMES, folder, SMALL, seed=0)
    progress = fit(make_fabric(config), refinement(), views, config, tmp_path / "refinement")
    assert progress.step == 4
    losses = [line for line in (tmp_path / "refinement" / "log.csv").read_text().splitlines() if ",loss," in line]
    assert len(losses) == 4


def released_state(learnable: bool) -> dict[str, Tensor]:
    """The keys of the authors' VGG16, every tensor a number of its own."""
    state, index = {}, 0
    for block, widths in enumerate(BLOCKS, start=1):
        for layer in range(1, len(widths) + 1):
            for part in ("weight", "bias"):
                tensor = torch.tensor(float(len(state)))
                state[f"features.{index}.{part}"] = state[f"layer{block}_conv{layer}.{part}"] = tensor
            if learnable:
                state[f"layer{block}_relu{layer}.fc.0.weight"] = torch.tensor(float(len(state)))
            index += 2
        index += 1
    for layer in (1, 2, 3, 4):
        for part in ("weight", "bias"):
            state[f"extra_conv{layer}.{part}"] = torch.tensor(float(len(state)))
        if learnable and layer < 4:
            state[f"extra_relu{layer}.fc.0.weight"] = torch.tensor(float(len(state)))
    return state


@pytest.mark.parametrize(("learnable", "count"), [(True, 76), (False, 60)])
def test_released_keys_become_ours_one_to_one(learnable: bool, count: int) -> None:
    state = released_state(learnable)
    assert len(state) == count
    ours = drs_checkpoint.convert(state)
    with torch.device("meta"):
        assert set(ours) == set(drs("vgg16", learnable=learnable).state_dict())
    values = [float(tensor) for tensor in ours.values()]
    assert sorted(values) == sorted({float(tensor) for tensor in state.values()})
    assert float(ours["classifier.bias"]) == float(state["extra_conv4.bias"])
    assert float(ours["backbone.features.28.weight"]) == float(state["layer5_conv3.weight"])
    if learnable:
        assert float(ours["backbone.features.29.fc.0.weight"]) == float(state["layer5_relu3.fc.0.weight"])
        assert float(ours["extra.5.fc.0.weight"]) == float(state["extra_relu3.fc.0.weight"])


def test_a_released_file_without_suppression_fits_the_refinement_network() -> None:
    with torch.device("meta"):
        network = DrsRefinement(20, "vgg16", 8, None, DrsRefinement.Options())
    assert set(drs_checkpoint.convert(released_state(False))) == set(network.state_dict())


@pytest.mark.parametrize(
    "key", ["features.0.weight", "layer3_conv2.bias", "extra_conv4.weight", "extra_relu2.fc.0.weight"]
)
def test_a_missing_key_is_named(key: str) -> None:
    state = released_state(True)
    del state[key]
    with pytest.raises(DataError, match=key):
        drs_checkpoint.convert(state)


def test_a_key_too_many_is_named() -> None:
    with pytest.raises(DataError, match="surplus"):
        drs_checkpoint.convert(released_state(True) | {"surplus": torch.zeros(1)})


def test_two_names_with_different_tensors_are_refused() -> None:
    with pytest.raises(DataError, match="differ"):
        drs_checkpoint.convert(released_state(False) | {"layer2_conv1.bias": torch.tensor(-1.0)})


@pytest.mark.parametrize("container", [None, "model", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_containers_and_prefixes_of_released_files_are_taken_off(
    container: str | None, prefix: str, tmp_path: Path
) -> None:
    state = released_state(False)
    stored = {prefix + key: tensor for key, tensor in state.items()}
    path = tmp_path / "best.pth"
    torch.save({container: stored, "epoch": 3} if container else stored, path)
    assert read_state(path) == state
    assert set(convert_released("drs-refine", path)) == set(drs_checkpoint.convert(state))


class RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code of a weight file was run",)


@pytest.mark.parametrize("protocol", [True, False])
def test_a_file_that_would_run_code_is_refused(
    protocol: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "best.pth"
    torch.save({"model": {"a": torch.zeros(1)}, "extra": RunsCode()}, path, _use_new_zipfile_serialization=protocol)
    with pytest.raises(DataError, match="refused"):
        read_state(path)
    assert capsys.readouterr().out == ""


def test_what_is_not_a_weight_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.pth"
    with pytest.raises(DataError, match="does not exist"):
        read_state(path)
    for content in (b"", b"<html>Not found</html>", b"PK\x03\x04 and no more"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="best.pth"):
            read_state(path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(DataError, match="no state dict"):
        read_state(path)
    with pytest.raises(DataError, match="no weight files are known of 'seam'"):
        convert_released("seam", path)
