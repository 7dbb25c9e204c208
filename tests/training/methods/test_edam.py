"""EDAM: masks, class transformers, groups, gradients; its pairing, its rules for labels, its checkpoint."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.inference.arrays import label_by_thresholds, winner
from app.inference.errors import ConfigError, DataError
from app.inference.labels import label_of
from training.authors.released import edam
from training.backbones import relu
from training.backbones.resnet38 import ResNet38
from training.data.pairing import GroupSampler
from training.label_rules.edam import edam_paper_pseudo_label, edam_pseudo_label, normalize_edam
from training.methods.edam import ClassTransformer, EdamClassifier, choose_classes, sine_table

CLASSES = 3


def classifier(**options: object) -> EdamClassifier:
    torch.manual_seed(0)
    chosen = EdamClassifier.Options(**({"width": 16} | options))
    return EdamClassifier(CLASSES, "small", 16, None, chosen)


def batch(count: int, size: int = 64) -> dict[str, Tensor]:
    labels = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1]])[torch.arange(count) % 4]
    return {"images": torch.randn(count, 3, size, size), "image_labels": labels}


# The network


def test_masks_are_the_absolute_values_of_unit_vectors() -> None:
    model = classifier()
    raw = torch.tensor([3.0, -4.0, 0.0, 12.0])[None, :, None, None]
    model.mask_layer, model.feature_mean = nn.Identity(), torch.zeros(1)
    masks = model.masks(raw)
    assert torch.allclose(masks.flatten(), torch.tensor([3.0, 4.0, 0.0, 12.0]) / 13)


def test_a_regression_starts_the_masks_at_what_a_pixel_shows_more_of_than_the_mean() -> None:
    model = classifier(background_bias=2.0)
    features = torch.rand(1, model.feature_mean.shape[0], 5, 6)
    weight, mean = torch.randn(3, features.shape[1]), features.mean(dim=(0, 2, 3))
    model.take_regression(weight, torch.zeros(3), mean)
    evidence = torch.einsum("cd,ndhw->nchw", weight, features - mean[:, None, None])
    length = (evidence.square().sum(dim=1, keepdim=True) + 2.0**2).sqrt()
    masks = model.masks(features)
    torch.testing.assert_close(masks[:, :3], (evidence / length).abs(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(masks[:, 3:], 2.0 / length, atol=1e-5, rtol=1e-4)


def test_masks_lie_in_zero_to_one_and_their_squares_sum_to_one() -> None:
    model = classifier().eval()
    features = model.backbone(torch.randn(2, 3, 64, 80))[-1]
    masks = model.masks(features)
    assert masks.shape == (2, CLASSES + 1, 4, 5)
    assert torch.allclose(masks.square().sum(dim=1), torch.ones(2, 4, 5))
    assert torch.equal(model(torch.zeros(1, 3, 64, 80))[1] >= 0, torch.ones(1, CLASSES, 4, 5, dtype=torch.bool))


def test_tokens_are_mask_times_feature_plus_position_plus_segment() -> None:
    model = classifier(width=4).eval()
    model.reduce = nn.Identity()
    features, masks = torch.randn(4, 4, 2, 3), torch.rand(4, CLASSES + 1, 2, 3)
    tokens = model.tokens(features, masks, group_size=2)
    assert tokens.shape == (CLASSES, 2, 2 * 6, 4)
    # class 1, second group, its second image (3 of the batch), row 1, column 2: token 1 * 6 + 5 of the group
    expected = masks[3, 1, 1, 2] * features[3, :, 1, 2] + sine_table(6, 4, torch.device("cpu"))[5]
    assert torch.allclose(tokens[1, 1, 11], expected + model.segment.weight[1])


def test_sine_table() -> None:
    table = sine_table(3, 4, torch.device("cpu"))
    expected = [[0, 1, 0, 1]] + [[math.sin(t), math.cos(t), math.sin(t / 100), math.cos(t / 100)] for t in (1, 2)]
    assert torch.allclose(table, torch.tensor(expected))


def one_class(layer: ClassTransformer, index: int, x: Tensor) -> Tensor:
    """The same layer, for one class, written the long way: tokens (T, width)."""

    def linear(name: str, y: Tensor) -> Tensor:
        module = getattr(layer, name)
        return y @ module.weight[index].T + module.bias[index]

    def norm(name: str, y: Tensor) -> Tensor:
        module = getattr(layer, name)
        scaled = (y - y.mean(1, keepdim=True)) / (y.std(1, keepdim=True, unbiased=True) + 1e-6)
        return module.gain[index] * scaled + module.bias[index]

    y = norm("attention_norm", x)
    heads = []
    for part in torch.arange(x.shape[1]).chunk(layer.heads):
        query, key, value = (linear(name, y)[:, part] for name in ("query", "key", "value"))
        heads.append((query @ key.T / len(part) ** 0.5).softmax(1) @ value)
    x = x + linear("attention_output", torch.cat(heads, 1))
    hidden = linear("hidden", norm("feed_forward_norm", x))
    tanh_gelu = 0.5 * hidden * (1 + torch.tanh((2 / math.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)))
    return x + linear("output", tanh_gelu)


def test_the_class_transformers_are_separate_transformers() -> None:
    torch.manual_seed(0)
    layer = ClassTransformer(CLASSES, 8, 2, 0.1, 0.1).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter))
    x = torch.randn(CLASSES, 2, 5, 8)
    out = layer(x, slice(None))
    for index in range(CLASSES):
        for group in range(2):
            assert torch.allclose(out[index, group], one_class(layer, index, x[index, group]), rtol=1e-4, atol=1e-4)
    chosen = torch.tensor([2, 0])
    assert torch.allclose(layer(x[chosen], chosen), out[chosen], rtol=1e-4, atol=1e-4)


def test_forward_is_the_group_of_one_and_knows_no_neighbours() -> None:
    model = classifier().eval()
    images = torch.randn(3, 3, 64, 48)
    with torch.no_grad():
        logits, cams = model(images)
        alone = [model(image[None]) for image in images]
        features = model.backbone(images)[-1]
        tokens = model.tokens(features, model.masks(features), 1)
    assert torch.allclose(logits, torch.cat([a[0] for a in alone]), atol=1e-5)
    assert torch.allclose(cams, torch.cat([a[1] for a in alone]), atol=1e-5)
    assert torch.equal(logits, model.classify(tokens, 1))


def test_images_of_a_group_see_each_other_and_no_other_group() -> None:
    model = classifier(group_size=2).eval()
    features = torch.randn(4, 320, 3, 3)

    def group_logits(features: Tensor) -> Tensor:
        return model.classify(model.tokens(features, model.masks(features), 2), 2)

    with torch.no_grad():
        before = group_logits(features)
        features[3] = torch.randn(320, 3, 3)
        after = group_logits(features)
    assert torch.allclose(before[:2], after[:2], atol=1e-6)
    assert not torch.allclose(before[2], after[2], atol=1e-6)


@pytest.mark.parametrize("group_size", [1, 2, 3, 6])
def test_the_loss_is_the_mean_cross_entropy_over_images_and_classes(group_size: int) -> None:
    model = classifier(group_size=group_size).eval()
    data = batch(6)
    with torch.no_grad():
        features = model.backbone(data["images"])[-1]
        masks = model.masks(features)
        logits = torch.cat(
            [
                model.classify(
                    model.tokens(features[i : i + group_size], masks[i : i + group_size], group_size), group_size
                )
                for i in range(0, 6, group_size)
            ]
        )
        loss = model.losses(data)["loss"]
    labels = data["image_labels"]
    by_hand = -(labels * F.logsigmoid(logits) + (1 - labels) * F.logsigmoid(-logits)).mean()
    assert torch.allclose(loss, by_hand, atol=1e-6)


def test_a_batch_that_is_no_multiple_of_the_group_is_refused() -> None:
    with pytest.raises(ConfigError, match="5 images cannot be cut into groups of 2"):
        classifier().losses(batch(5))


def test_the_single_image_loss_is_added_with_its_weight() -> None:
    model = classifier(single_weight=0.5).eval()
    data = batch(4)
    with torch.no_grad():
        losses = model.losses(data)
        single = F.binary_cross_entropy_with_logits(model(data["images"])[0], data["image_labels"])
    assert torch.allclose(losses["single"], single)
    assert torch.allclose(losses["loss"], losses["group"] + 0.5 * single)


def test_sampled_classes_are_those_present_then_absent_ones() -> None:
    labels = torch.tensor([[0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 1, 0]])
    assert choose_classes(labels, 1).tolist() == [1]
    assert choose_classes(labels, 2).tolist() == [1, 4]
    seen = {int(choose_classes(labels, 3)[2]) for _ in range(60)}
    assert seen == {0, 2, 3, 5}


def test_sampling_every_class_changes_nothing() -> None:
    data = batch(4)
    with torch.no_grad():
        everything = classifier().eval().losses(data)["loss"]
        labels = torch.tensor([[1.0, 1, 0], [1, 1, 1]]).repeat(2, 1)
        sampled = classifier(class_samples=2).eval()
        assert torch.allclose(classifier(class_samples=CLASSES).eval().losses(data)["loss"], everything)
        features = sampled.backbone(data["images"])[-1]
        logits = sampled.classify(sampled.tokens(features, sampled.masks(features), 2), 2)
        expected = F.binary_cross_entropy_with_logits(logits[:, :2], labels[:, :2])
        assert torch.allclose(sampled.losses({**data, "image_labels": labels})["loss"], expected, atol=1e-6)


# What trains


def test_the_gradient_reaches_everything_that_is_not_frozen() -> None:
    model = classifier().train()
    for name, parameter in model.backbone.named_parameters():
        if name.endswith("bn2.weight"):  # zero at the start, which closes the branch it ends
            nn.init.ones_(parameter)
    model.losses(batch(4))["loss"].backward()
    still = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert still <= {"transformers.0.key.bias"}  # a softmax does not change when all scores of its row grow alike


def test_the_gradient_of_one_class_reaches_its_own_weights_and_segments_alone() -> None:
    model = classifier(group_size=2).train()
    data = batch(4)
    features = model.backbone(data["images"])[-1]
    model.classify(model.tokens(features, model.masks(features), 2), 2)[:, 1].sum().backward()
    for parameter in (*model.transformers.parameters(), model.class_weight):
        others = parameter.grad[[0, 2]]
        assert others.abs().sum() == 0
    assert model.class_weight.grad[1].abs().sum() > 0
    assert model.segment.weight.grad[:2].abs().sum() > 0
    assert model.segment.weight.grad[2:].abs().sum() == 0  # the released table's rows without an image


def train_step(model: EdamClassifier, data: dict[str, Tensor]) -> set[str]:
    """Names of the parameters and statistics that a step of the optimiser changed."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    groups = [{"params": g["params"], "lr": 0.1 * g["lr_scale"]} for g in model.parameter_groups()]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    model.train().losses(data)["loss"].backward()
    optimizer.step()
    return {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}


def test_frozen_parts_stay_as_they_are() -> None:
    model = classifier(freeze=True)
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    changed = train_step(model, batch(4))
    norms = {name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert not {name for name in changed if name.rpartition(".")[0] in norms or name.startswith("backbone.stem")}
    convolutions = {n for n, p in model.backbone.named_parameters() if p.ndim == 4 and not n.startswith("stem")}
    assert {f"backbone.{name}" for name in convolutions} <= changed


def test_nothing_is_frozen_by_default_on_other_backbones() -> None:
    model = classifier()
    assert all(parameter.requires_grad for parameter in model.parameters())
    changed = train_step(model, batch(4))
    assert "backbone.stem.0.weight" in changed
    assert "backbone.stem.1.running_mean" in changed


def test_eval_and_train_reach_all_modules_but_frozen_norms() -> None:
    model = classifier(freeze=True)
    assert model.train() is model
    training = {type(m) for m in model.modules() if m.training}
    assert nn.BatchNorm2d not in training
    assert nn.Dropout in training
    assert not [m for m in model.eval().modules() if m.training]


def test_parameter_groups_are_the_released_ones() -> None:
    model = classifier(transformer_lr_scale=3.0)
    names = {id(p): n for n, p in model.named_parameters()}
    scales = {names[id(p)]: g["lr_scale"] for g in model.parameter_groups() for p in g["params"]}
    assert set(scales) == set(names.values())
    assert {n for n, scale in scales.items() if scale == 10} == {"mask_layer.weight", "reduce.weight", "class_weight"}
    assert {n.split(".")[0] for n, scale in scales.items() if scale == 3} == {"transformers", "segment"}


def test_on_resnet38_the_released_parts_are_frozen_and_the_last_activation_is_missing() -> None:
    with torch.device("meta"):
        model = EdamClassifier(CLASSES, "resnet38", 8, None, EdamClassifier.Options())
    assert isinstance(model.backbone.act7, nn.Identity)
    frozen = {n.removeprefix("backbone.") for n, p in model.named_parameters() if not p.requires_grad}
    expected = {
        n for n in dict(model.backbone.named_parameters()) if n.split(".")[0] in ("conv1a", "b2", "b2_1", "b2_2")
    }
    expected |= {n for n in dict(model.backbone.named_parameters()) if ".bn_" in n or n.startswith("bn7.")}
    assert frozen == expected
    assert not [n for n, p in model.named_parameters() if not n.startswith("backbone.") and not p.requires_grad]
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for g in model.parameter_groups() for p in g["params"]} == trained


def test_a_width_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 2 \\* heads = 6"):
        classifier(heads=3)


def test_any_crop_and_group_size_trains() -> None:
    model = classifier(group_size=6).train()
    losses = model.losses({k: v[:6] for k, v in batch(6, size=80).items()})
    assert torch.isfinite(losses["loss"])


# Pairing

TAGS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], np.float32)


@pytest.mark.parametrize("group_size", [1, 2, 4])
def test_every_group_shares_a_class(group_size: int) -> None:
    sampler = GroupSampler(TAGS, batch_size=4, group_size=group_size, seed=0)
    for epoch in range(20):
        sampler.seek(epoch)
        keys = list(sampler)
        assert len(keys) == len(sampler) == 8
        assert {key[0] for key in keys} == {epoch}
        groups = np.array([index for _, index in keys]).reshape(-1, group_size)
        for group in groups:
            assert TAGS[group].prod(axis=0).any()


def test_a_group_holds_different_photos_where_there_are_some() -> None:
    sampler = GroupSampler(TAGS, batch_size=8, group_size=2, seed=1)
    for epoch in range(20):
        sampler.seek(epoch)
        for first, second in np.array([index for _, index in sampler]).reshape(-1, 2):
            assert first != second or first == 7  # nothing else shows class 2


def test_an_epoch_visits_nearly_every_photo_and_is_a_function_of_seed_and_epoch() -> None:
    rng = np.random.default_rng(0)
    tags = np.zeros((400, 10), np.float32)
    tags[np.arange(400), rng.integers(0, 10, 400)] = 1
    tags[np.arange(400), rng.integers(0, 10, 400)] = 1
    sampler, again = (GroupSampler(tags, batch_size=20, group_size=2, seed=5) for _ in range(2))
    sampler.seek(3)
    again.seek(3)
    assert list(sampler) == list(again)
    visited = {index for _, index in sampler}
    assert len(visited) > 0.97 * len(tags)
    again.seek(4)
    assert list(sampler) != list(again)
    again.seek(3, first_batch=7)
    assert list(again) == list(sampler)[7 * 20 :]


def test_processes_take_whole_groups_and_together_what_one_takes() -> None:
    whole = np.array([i for _, i in GroupSampler(TAGS, 8, 2, seed=2)]).reshape(-1, 2)
    shares = [
        np.array([i for _, i in GroupSampler(TAGS, 8, 2, seed=2, rank=rank, world=2)]).reshape(-1, 2) for rank in (0, 1)
    ]
    assert np.array_equal(np.stack(shares, axis=1).reshape(-1, 2), whole)


def test_repeat_factors_show_rare_photos_more_often() -> None:
    repeats = np.array([1.0, 1, 1, 1, 1, 1, 1, 9])
    sampler = GroupSampler(TAGS, batch_size=4, group_size=2, seed=0, repeats=repeats)
    assert sum(index == 7 for _, index in sampler) >= 6


def test_what_cannot_be_grouped_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size 6 must be a multiple of group_size times processes, 2 x 2"):
        GroupSampler(TAGS, 6, 2, seed=0, world=2)
    with pytest.raises(ConfigError, match="1 photos have no tag .* photo 1"):
        GroupSampler(np.array([[1.0], [0.0]]), 2, 2, seed=0)


# The rules for labels

MAPS = np.array(
    [
        [[1.0, 0.3, 0.0, 0.0], [0.6, 0.2, 0.0, 0.5], [0.1, 0.2, 0.4, 0.0], [0.0, 0.0, 0.0, 0.0]],
        [[0.2, 0.4, 0.0, 0.9], [0.1, 0.2, 0.0, 0.6], [0.0, 0.0, 0.3, 1.0], [0.0, 0.0, 0.7, 0.8]],
    ]
)
SALIENCY = np.array([[255, 255, 255, 0], [20, 21, 20, 255], [0, 0, 255, 0], [255, 0, 0, 255]], np.uint8)


def test_normalising_makes_every_peak_one_and_keeps_empty_maps() -> None:
    maps = normalize_edam(np.array([[[1.0, 4.0]], [[0.0, 0.0]]]))
    assert maps.tolist() == [[[0.25, 1.0]], [[0.0, 0.0]]]


def test_the_released_rule_by_hand() -> None:
    a, b = label_of(2), label_of(5)
    assert edam_pseudo_label(MAPS, (2, 5), SALIENCY).tolist() == [
        [a, b, 0, 0],  # salient: the best class, background where every score is below alpha
        [0, a, 0, b],  # 20 is not yet salient; ties go to the lower label
        [0, 0, a, b],  # the peak of a class wins outside salient areas as well
        [0, 0, 0, b],
    ]


def test_the_papers_rule_by_hand() -> None:
    background = np.full((4, 4), 0.25)
    a, b = label_of(2), label_of(5)
    assert edam_paper_pseudo_label(MAPS, background, (2, 5), SALIENCY, alpha=0.35, beta=0.85).tolist() == [
        [a, b, 0, b],  # 0.9 > beta is kept where nothing is salient
        [a, 0, 0, b],  # 20 is salient here; (1, 1): the background's own mask is the largest
        [0, 0, a, b],
        [0, 0, 0, b],
    ]


def test_without_saliency_the_background_is_constant() -> None:
    expected = label_by_thresholds((2, 5), 0.5, 0.5)(*winner(MAPS))
    assert expected[0, 0] == label_of(2)
    assert expected[1, 3] == label_of(5)
    assert (edam_pseudo_label(MAPS, (2, 5), np.zeros((4, 4), np.uint8)) > 0).sum() == 2  # the two peaks


# The checkpoint


def edam_state(class_count: int = 2) -> dict[str, Tensor]:
    """EDAM's keys: random where we rearrange, zeros where we copy."""
    with torch.device("meta"):
        backbone = ResNet38(8, relu).state_dict()
    state = {name: torch.zeros((), dtype=value.dtype).expand(value.shape) for name, value in backbone.items()}
    state |= {
        "mask_layer.weight": torch.zeros(()).expand(class_count + 1, 4096, 3, 3),
        "d_d.weight": torch.zeros(()).expand(128, 4096, 1, 1),
        "embedding.segment.weight": torch.randn(5, 128),
        "embedding.position.pe": sine_table(2116, 128, torch.device("cpu"))[None],
    }
    for index in range(class_count):
        state[f"fc_list.{index}.weight"] = torch.randn(1, 128, 1, 1)
        for ours, theirs in edam.TRANSFORMER.items():
            wide = 512 if ours.startswith("hidden") else 128
            shape = (wide, 512 if ours.startswith("output") else 128) if ours.endswith("weight") else (wide,)
            state[f"trans_list.{index}.0.{theirs}"] = torch.randn(shape)
    return state


def test_the_checkpoint_fills_every_parameter_of_ours() -> None:
    state = edam_state()
    ours = edam.convert(state)
    with torch.device("meta"):
        model = EdamClassifier(2, "resnet38", 8, None, EdamClassifier.Options())
    assert {name: value.shape for name, value in ours.items()} == {n: v.shape for n, v in model.state_dict().items()}
    assert torch.equal(ours["class_weight"][1], state["fc_list.1.weight"].flatten())
    assert torch.equal(ours["transformers.0.value.weight"][1], state["trans_list.1.0.attention.linear_layers.2.weight"])


def test_a_checkpoint_with_keys_missing_left_over_or_another_table_is_refused() -> None:
    for change, message in (
        ({"d_d.weight": None}, r"no 'd_d\.weight'"),
        ({"trans_list.1.0.feed_forward.w_2.bias": None}, r"w_2\.bias"),
        (
            {"trans_list.2.0.feed_forward.w_2.bias": torch.zeros(128)},
            r"no 'trans_list\.2\.0\.input_sublayer\.norm\.a_2'",
        ),
        ({"embedding.position.pe": torch.zeros(1, 2116, 128)}, "sine table"),
    ):
        state = {name: value for name, value in (edam_state() | change).items() if value is not None}
        with pytest.raises(DataError, match=message):
            edam.convert(state)


def test_the_background_can_be_given_a_start() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    shares = []
    for start in (0.0, 1.0):
        options = EdamClassifier.Options(background_start=start)
        classifier = EdamClassifier(4, "small", 16, None, options).eval()
        masks = classifier.masks(classifier.backbone(images)[-1])
        shares.append(float(masks[:, -1].detach().mean()))
        assert torch.allclose(masks.square().sum(dim=1), torch.ones(()), atol=1e-5)
    assert shares[0] < 0.7 < 0.9 < shares[1]
