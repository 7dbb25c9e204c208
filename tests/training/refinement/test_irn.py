"""IRN: lines and walks on small grids, the losses by hand, what trains, and the import of its checkpoint."""

import numpy as np
import pytest
import torch
from torch import Tensor

from app.inference.errors import ConfigError, DataError
from app.inference.labels import IGNORE_INDEX
from training.authors.released import irn
from training.backbones import build_backbone
from training.config.learning import ViewConfig
from training.refinement.irn import (
    IrnConfig,
    IrnNetwork,
    affinity_label,
    at_stride,
    build_irn,
    displacement_loss,
    edge_loss,
    edge_map,
    line_affinities,
    pair_labels,
    refine_irn,
    sources,
)
from training.refinement.random_walk import affinities, neighbours, paths, random_walk, refine_walk


def network(radius: int = 3) -> IrnNetwork:
    torch.manual_seed(0)
    return IrnNetwork(build_backbone("small", 16), radius)


def random_edge(height: int = 7, width: int = 9) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (height, width))


def test_lines_to_the_neighbours() -> None:
    lines = paths(3)
    shorter = [(0, 1), (1, 0), (0, 2), (2, 0)]
    longer = [(1, -1), (1, 1), (1, -2), (1, 2), (2, -1), (2, 1), (2, -2), (2, 2)]
    assert [line[0] for line in lines] == shorter + longer
    assert lines[2] == ((0, 2), (0, 1), (0, 0))
    assert lines[7] == ((1, 2), (0, 2), (1, 1), (0, 1), (1, 0), (0, 0))
    assert all(line[-1] == (0, 0) for line in paths(5))
    assert len(paths(5)) == 34


def test_affinity_is_one_minus_the_largest_edge_on_the_line() -> None:
    edge = np.array([[0.1, 0.7, 0.2], [0.3, 0.0, 0.4]])
    offsets = [line[0] for line in paths(3)]
    result = affinities(edge, 3)
    assert result[offsets.index((0, 2)), 0, 0] == pytest.approx(1 - 0.7)
    assert result[offsets.index((1, 0)), 0, 2] == pytest.approx(1 - 0.4)
    assert result[offsets.index((2, 0))].max() == 0  # no such row
    assert result[offsets.index((0, 1)), 0, 2] == 0  # no such column


def test_affinity_is_mutual() -> None:
    edge = random_edge()
    offsets, stacked = neighbours(edge, 4)
    for offset, values in zip(offsets, stacked, strict=True):
        back = stacked[offsets.index((-offset[0], -offset[1]))]
        for y, x in np.argwhere(values > 0):
            assert back[y + offset[0], x + offset[1]] == values[y, x]


def test_walk_equals_the_squared_matrix() -> None:
    rng = np.random.default_rng(1)
    maps, edge = rng.uniform(0, 1, (2, 7, 9)), random_edge()
    stepped, squared = random_walk(maps, edge), random_walk(maps, edge, dense=True)
    np.testing.assert_allclose(stepped, squared, rtol=1e-3)
    np.testing.assert_allclose(
        random_walk(maps, edge, doublings=3), random_walk(maps, edge, doublings=3, dense=True), rtol=1e-4
    )


def test_walk_without_edges_levels_out_and_stays_inside_its_range() -> None:
    maps = np.zeros((1, 6, 6), np.float32)
    maps[0, 2, 2] = 1
    walked = random_walk(maps, np.zeros((6, 6)), doublings=12)
    assert walked.max() - walked.min() < 1e-3 * walked.max()
    assert 0 < walked.min() <= walked.max() <= 1


def test_walk_stops_at_a_wall() -> None:
    edge = np.zeros((6, 9))
    edge[:, 4] = 1
    maps = np.zeros((1, 6, 9), np.float32)
    maps[0, 3, 1] = 1
    walked = random_walk(maps, edge)
    assert walked[0, :, 5:].max() == 0
    assert walked[0, :, :4].min() > 0


def test_refinement_keeps_the_size_and_divides_by_the_common_maximum() -> None:
    maps = np.random.default_rng(2).uniform(0, 1, (2, 28, 36)).astype(np.float32)
    maps[1] /= 4
    refined = refine_walk(maps, random_edge(), doublings=2)
    assert refined.shape == maps.shape
    assert refined.max() == 1
    assert refined[1].max() < 1
    assert refine_walk(maps[:0], random_edge()).shape == (0, 28, 36)
    assert refine_walk(np.zeros((1, 8, 8), np.float32), random_edge()).max() == 0


@pytest.mark.parametrize("size", [(64, 64), (70, 98), (33, 130)])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_outputs_have_stride_four(size: tuple[int, int], output_stride: int) -> None:
    net = IrnNetwork(build_backbone("small", output_stride)).eval()
    edge, displacement = net(torch.zeros(2, 3, *size))
    assert edge.shape == (2, 1, -(-size[0] // 4), -(-size[1] // 4))
    assert displacement.shape == (2, 2, *edge.shape[2:])


@pytest.mark.parametrize("name", ["timm/tf_efficientnet_lite0", "timm/resnet18", "timm/convnext_atto"])
def test_a_network_of_timm_gives_its_four_stages(name: str) -> None:
    irn_network = IrnNetwork(build_backbone(name, 16), 3).eval()
    edge, displacement = irn_network(torch.zeros(1, 3, 64, 96))
    assert edge.shape == (1, 1, 16, 24)
    assert displacement.shape == (1, 2, 16, 24)
    assert len(irn_network.edge_layers) == 4


def test_features_are_brought_to_a_stride() -> None:
    x = torch.arange(9.0).view(1, 1, 3, 3)
    assert torch.equal(at_stride(x, 2, 4, torch.Size((2, 2))), torch.tensor([[[[2.0, 3.5], [6.5, 8.0]]]]))
    assert at_stride(x, 8, 4, torch.Size((5, 6))).shape == (1, 1, 5, 6)
    assert torch.equal(at_stride(x, 4, 4, torch.Size((3, 2))), x[..., :2])


def test_line_affinities_equal_those_of_the_walk() -> None:
    edge, radius = random_edge(), 3
    ours = line_affinities(torch.from_numpy(edge)[None], radius)[0].numpy()
    reference = sources(torch.from_numpy(affinities(edge, radius)), radius).numpy()
    np.testing.assert_allclose(ours, reference)


def test_pairs_of_confident_labels() -> None:
    labels = torch.tensor([[[0, 0, 1, 2], [1, 1, IGNORE_INDEX, 0]]])
    foreground, background, different = pair_labels(labels, 2)
    offsets = [line[0] for line in paths(2)]  # sources are the first row without its first and last pixel
    assert foreground.shape == (1, len(offsets), 1, 2)
    right, down = offsets.index((0, 1)), offsets.index((1, 0))
    assert different[0, right, 0].tolist() == [1, 1]
    assert different[0, down, 0].tolist() == [1, 0]  # the second points to an ignored pixel
    left_down = offsets.index((1, -1))
    assert foreground[0, left_down, 0].tolist() == [0, 1]
    assert background.sum() == 0
    assert pair_labels(torch.zeros(1, 2, 4, dtype=torch.long), 2)[1].min() == 1


def test_edge_loss_by_hand() -> None:
    affinity = torch.tensor([0.5, 0.25, 0.8]).view(1, 3, 1, 1)
    foreground, background, different = (torch.eye(3)[row].view(1, 3, 1, 1) for row in range(3))
    loss = edge_loss(affinity, foreground, background, different)
    expected = 0.5 * (0.5 * -np.log(0.5) + 0.5 * -np.log(0.25) - np.log(1 - 0.8))
    assert float(loss) == pytest.approx(expected, rel=1e-3)


def test_displacement_loss_by_hand() -> None:
    # a field that points to one centre: D_i - D_j = j - i for every pair, so the foreground part is 0
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    field = -torch.stack([rows, columns])[None]
    every = torch.ones(1, len(paths(2)), 3, 4)
    assert float(displacement_loss(field, every, 0 * every, 2)) == pytest.approx(0, abs=1e-6)
    offsets = np.abs(np.array([line[0] for line in paths(2)]))
    assert float(displacement_loss(field, 0 * every, every, 2)) == pytest.approx(offsets.mean() / 2, rel=1e-4)


def test_a_view_too_small_for_the_radius_is_refused() -> None:
    with pytest.raises(ConfigError, match="lower radius"):
        line_affinities(torch.zeros(1, 8, 8), 10)


def training_batch() -> dict[str, Tensor]:
    labels = torch.zeros(2, 64, 64, dtype=torch.long)
    labels[:, 16:48, 16:48] = 2
    labels[:, 12:16] = IGNORE_INDEX
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return {"images": images + labels[:, None].clamp(max=2), "label_maps": labels}


def test_gradient_reaches_the_branches_alone() -> None:
    net = network().train()
    statistics = net.backbone.stem[1].running_mean.clone()
    net.losses(training_batch())["loss"].backward()
    reached = {
        name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert reached == {
        "edge_layers",
        "edge_output",
        "displacement_layers",
        "displacement_coarse",
        "displacement_output",
    }
    assert torch.equal(net.backbone.stem[1].running_mean, statistics)
    assert net.displacement_mean.abs().sum() > 0
    grouped = [id(parameter) for group in net.parameter_groups() for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in net.parameters() if parameter.requires_grad)


def test_training_lowers_the_loss() -> None:
    net, batch = network().train(), training_batch()
    optimizer = torch.optim.SGD([{"params": g["params"], "lr": 0.05 * g["lr_scale"]} for g in net.parameter_groups()])
    losses = []
    for _ in range(12):
        loss = net.losses(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_mean_displacement_is_taken_off_in_evaluation() -> None:
    net = network().eval()
    images = torch.randn(1, 3, 64, 64)
    before = net(images)[1]
    net.displacement_mean += torch.tensor([1.0, -2.0])
    torch.testing.assert_close(before - net(images)[1], torch.tensor([1.0, -2.0]).view(1, 2, 1, 1).expand_as(before))


def test_mirrored_photo_has_mirrored_edges() -> None:
    net = network().eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        edge, _ = net.predict(torch.cat([image, image.flip(-1)]))
        mirrored, _ = net.predict(torch.cat([image.flip(-1), image]))
    torch.testing.assert_close(edge, mirrored.flip(-1))
    assert net.predict(torch.zeros(2, 3, 60, 70), padded_size=96)[0].shape == (1, 15, 18)
    with pytest.raises(ConfigError, match="padded_size"):
        net.predict(torch.zeros(2, 3, 64, 96), padded_size=80)


def test_confident_labels() -> None:
    image = np.zeros((1, 4, 3), np.uint8)
    maps = np.array([[[0.9, 0.2, 0.02, 0.0]], [[0.1, 0.25, 0.04, 0.5]]], np.float32)
    config = IrnConfig(foreground_threshold=0.3, background_threshold=0.05, refine="none")
    assert affinity_label(image, maps, (4, 7), config).tolist() == [[5, IGNORE_INDEX, 0, 8]]
    assert affinity_label(image, maps[:0], (), config).tolist() == [[0, 0, 0, 0]]


def test_confident_labels_after_refinement() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 40, 3), np.uint8)
    maps = rng.uniform(0, 1, (2, 32, 40)).astype(np.float32)
    label_map = affinity_label(image, maps, (0, 1), IrnConfig(refine="pamr"))
    assert set(np.unique(label_map)) <= {0, 1, 2, IGNORE_INDEX}


@pytest.mark.environment("crf")
def test_confident_labels_by_crf() -> None:
    pytest.importorskip("pydensecrf", reason="the extra `crf` could not be built (it needs a C++ compiler)")
    image = np.zeros((24, 24, 3), np.uint8)
    image[:, 12:] = 255
    maps = np.full((1, 24, 24), 0.01, np.float32)
    maps[:, :, 12:] = 0.9
    maps[0, 5, 15] = 0.0  # a hole that the CRF closes
    config = IrnConfig(refine="crf", foreground_threshold=0.6, background_threshold=0.33)
    label_map = affinity_label(image, maps, (3,), config)
    assert (label_map[:, 14:] == 4).all()
    assert (label_map[:, :10] == 0).all()


def test_refinement_of_a_photo() -> None:
    config = IrnConfig(radius=3, doublings=3, views=ViewConfig(crop=64))
    net = build_irn(config).eval()
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    edge = edge_map(net, image, 96)
    assert edge.shape == (16, 24)
    assert 0 < edge.min() <= edge.max() < 1
    maps = np.random.default_rng(1).uniform(0, 1, (2, 64, 96)).astype(np.float32)
    refined = refine_irn(net, image, maps, 96, config)
    assert refined.shape == maps.shape
    assert 0 <= refined.min() <= refined.max() == 1


def authors_state(net: IrnNetwork) -> dict[str, Tensor]:
    """A stand-in for IRN's checkpoint: its names and aliases, one number instead of each tensor."""
    back = {ours: theirs for theirs, ours in irn.LAYERS.items()}
    state = {}
    for number, key in enumerate(net.state_dict()):
        part, _, name = key.rpartition(".")
        if key == "displacement_mean":
            original = "dp_layers.6.4.running_mean"
        elif part in back:
            original = f"{back[part]}.{name}"
        else:
            original = key.replace("backbone.", "resnet50.", 1).replace("displacement_layers.", "dp_layers.")
        aliases = irn.backbone_aliases() | irn.branch_aliases()
        names = [original, *(a + original.removeprefix(p) for a, p in aliases.items() if original.startswith(p))]
        state |= dict.fromkeys(names, torch.tensor(float(number)))
    return state


def test_checkpoint_round_trip() -> None:
    net = IrnNetwork(build_backbone("resnet50-irn", 16))
    state = authors_state(net)
    assert len(state) == 1035
    state["path_indices0"] = torch.zeros(3)
    assert irn.convert(state) == {key: torch.tensor(float(n)) for n, key in enumerate(net.state_dict())}
    with pytest.raises(DataError, match="surplus"):
        irn.convert(state | {"surplus": torch.tensor(0.0)})
    with pytest.raises(DataError, match="one tensor"):
        irn.convert(state | {"fc_edge6.bias": torch.tensor(-1.0)})
    with pytest.raises(DataError, match="edge_layers"):
        irn.convert({key: value for key, value in state.items() if "edge6" not in key and "edge_layers.5" not in key})
