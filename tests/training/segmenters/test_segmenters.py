"""Segmenters' losses on numbers computed by hand, DeepLab-v2's layers and learning rates, the CRF at test."""

from math import log
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from app.inference.errors import ConfigError
from training.backbones import Backbone, build_backbone
from training.config.learning import FitConfig
from training.fit.optimizer import make_optimizer
from training.segmenters import SEGMENTERS, Segmenter, SegmenterOptions
from training.segmenters.aspp import enlarge
from training.segmenters.deeplabv2 import DeepLabV2
from training.segmenters.mask_refinement_loss import mask_refinement_loss
from training.segmenters.segmenter import reduce_labels, self_training_loss, thinned
from training.segmenters.tag_head import TagHead
from training.smoothing.crf import crf_labels

LABELS = 3  # background and two classes


class Transparent(Segmenter):
    """Its features and its logits are the image."""

    def logits(self, features: list[Tensor]) -> Tensor:
        return features[-1]


class Window(Backbone):
    """Its one stage is the image."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = (LABELS,)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images]


def transparent(**options: Any) -> Segmenter:
    return Transparent(Window(), LABELS, SegmenterOptions(**options))


def deeplabv2(backbone: str = "small", output_stride: int = 8, **options: Any) -> DeepLabV2:
    torch.manual_seed(0)
    return DeepLabV2(build_backbone(backbone, output_stride), LABELS, SegmenterOptions(**options))


# one photo of 2 x 2 pixels; the mean of its logits is (log 2, 0, 0)
IMAGES = torch.tensor([[[log(4), log(4)], [0, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]])[None]
LABEL_MAPS = torch.tensor([[[0, 255], [1, 2]]])
FULL = -(log(2 / 3) + 2 * log(1 / 3)) / 3
MAXIMUM = -(log(2 / 3) + 2 * log(1 / 4)) / 3


def test_one_output_without_msc() -> None:
    losses = transparent().losses({"images": IMAGES, "label_maps": LABEL_MAPS})
    assert losses.keys() == {"loss", "cross_entropy"}
    assert losses["loss"].item() == pytest.approx(FULL)


@pytest.mark.parametrize(
    ("compare_at", "half"),
    [
        ("logits", -log(1 / 4)),  # the one pixel's label is 2
        ("labels", -(log(1 / 2) + 2 * log(1 / 4)) / 3),
    ],
)
def test_msc_sums_over_full_size_scales_and_maximum(compare_at: str, half: float) -> None:
    model = transparent(msc=(0.5,))
    model.compare_at = compare_at
    outputs, _ = model.outputs(IMAGES)
    assert [tuple(logits.shape[2:]) for logits in outputs] == [(2, 2), (1, 1), (2, 2)]
    assert torch.equal(model(IMAGES), outputs[-1])
    assert outputs[-1][0, 0].flatten().tolist() == pytest.approx([log(4), log(4), log(2), log(2)])
    loss = model.losses({"images": IMAGES, "label_maps": LABEL_MAPS})["loss"]
    assert loss.item() == pytest.approx(FULL + half + MAXIMUM)


def test_thinned_labels_are_every_nth_row_and_column_from_a_place_that_varies() -> None:
    label_maps = torch.arange(36).reshape(1, 6, 6)
    assert torch.equal(thinned(label_maps, 1), label_maps)
    seen = {tuple(thinned(label_maps, 2).flatten().tolist()) for _ in range(64)}
    assert seen == {tuple(label_maps[:, y::2, x::2].flatten().tolist()) for y in range(2) for x in range(2)}


def test_a_thinned_loss_is_that_of_the_pixels_it_looks_at() -> None:
    constant = torch.full((1, 3, 4, 4), 0.0)
    constant[:, 1] = log(2)
    labels = torch.tensor([[1, 1, 0, 0]]).repeat(4, 1)[None]
    losses = [
        transparent(loss_stride=4).losses({"images": constant, "label_maps": labels})["loss"].item() for _ in range(64)
    ]
    assert {round(loss, 5) for loss in losses} == {round(-log(1 / 2), 5), round(-log(1 / 4), 5)}


def test_early_modules_keep_what_they_start_from() -> None:
    torch.manual_seed(0)
    options = SegmenterOptions(freeze_early=True, channels=8)
    model = SEGMENTERS["deeplabv3plus"](build_backbone("timm/tf_efficientnet_lite0", 16), LABELS, options)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert {name.split(".")[2] for name in frozen} == {"conv_stem", "bn1", "blocks"}
    assert {".".join(name.split(".")[2:4]) for name in frozen if ".blocks." in name} == {"blocks.0", "blocks.1"}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = make_optimizer(model, FitConfig(lr=0.1))
    images, label_maps = torch.rand(2, 3, 64, 64), torch.randint(LABELS, (2, 64, 64))
    model.losses({"images": images, "label_maps": label_maps})["loss"].backward()
    optimizer.step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed.isdisjoint(frozen)
    assert any(name.startswith("backbone.") for name in changed)


def test_labels_are_reduced_to_those_at_the_centres() -> None:
    label_maps = torch.arange(16).reshape(1, 4, 4)
    assert reduce_labels(label_maps, torch.Size((2, 2))).tolist() == [[[5, 7], [13, 15]]]
    assert reduce_labels(label_maps, torch.Size((1, 1))).tolist() == [[[10]]]


@pytest.mark.parametrize("size", [21, 31, 41])
def test_labels_are_reduced_as_pillow_does(size: int) -> None:
    label_map = np.random.default_rng(0).integers(0, 256, (321, 321), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(label_map).resize((size, size), Image.Resampling.NEAREST))
    ours = reduce_labels(torch.from_numpy(label_map)[None].long(), torch.Size((size, size)))
    assert np.array_equal(ours[0].numpy(), expected)


def test_a_view_without_labels_costs_nothing() -> None:
    loss = transparent(msc=(0.5,)).losses({"images": IMAGES, "label_maps": torch.full((1, 2, 2), 255)})["loss"]
    assert loss.item() == 0


# one photo of 1 x 2 pixels that has the first class alone
OWN = torch.tensor([[[1.0, -1]], [[2, -2]], [[3, -5]]])[None]
PRESENT = torch.tensor([[1.0, 0]])
OWN_LABELS = (1, 2)  # of (1, 2, 0) the second; of (-1, -2, -0) the absent one, as no present logit is above 0


def test_a_photo_counts_by_its_weight() -> None:
    model = transparent()
    logits = torch.zeros(2, 3, 1, 1)
    logits[0, 0], logits[1, 0] = 2.0, -1.0
    labels = torch.zeros(2, 1, 1, dtype=torch.long)
    first, second = (-logits[i, :, 0, 0].log_softmax(0)[0] for i in range(2))
    weighted = model.cross_entropy(logits, {"label_maps": labels, "weights": torch.tensor([3.0, 1.0])})
    torch.testing.assert_close(weighted, (3 * first + second) / 4)
    plain = model.cross_entropy(logits, {"label_maps": labels})
    torch.testing.assert_close(plain, (first + second) / 2)


@pytest.mark.parametrize(("kept_of_each", "counted"), [(0.0, (0, 1, 2)), (0.5, (0, 1, 2, 4))])
def test_the_smallest_losses_count_and_a_share_of_every_label(kept_of_each: float, counted: tuple[int, ...]) -> None:
    certainty = torch.tensor(
        [3.0, 2.0, 1.0, 0.0, -4.0, -5.0]
    )  # the logit of each pixel's own label, the others' being 0
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    logits = nn.functional.one_hot(labels, LABELS).T * certainty
    losses = nn.functional.cross_entropy(logits.T, labels, reduction="none")
    model = transparent(kept_pixels=0.5, kept_of_each=kept_of_each)
    loss = model.cross_entropy(logits[None, :, None], {"label_maps": labels[None, None]})
    torch.testing.assert_close(loss, losses[list(counted)].mean())
    # The same pixels in a photo that a person corrected all count, beside the one that is not.
    both = {"label_maps": labels[None, None].repeat(2, 1, 1), "corrected": torch.tensor([False, True])}
    loss = model.cross_entropy(logits[None, :, None].repeat(2, 1, 1, 1), both)
    torch.testing.assert_close(loss, torch.cat([losses[list(counted)], losses]).mean())
    drawn = {"label_maps": labels[None, None], "corrected": torch.tensor([True])}
    torch.testing.assert_close(model.cross_entropy(logits[None, :, None], drawn), losses.mean())


def test_self_training_multiplies_absent_classes_by_zero() -> None:
    logits = OWN.clone().requires_grad_()
    loss = self_training_loss(logits, PRESENT)
    loss.backward()
    chosen = [OWN[0, :, 0, pixel].log_softmax(dim=0)[label] for pixel, label in enumerate(OWN_LABELS)]
    assert loss.item() == pytest.approx(-float(sum(chosen)) / 2)
    one_hot = torch.zeros(1, 3, 1, 2)
    one_hot[0, OWN_LABELS, 0, (0, 1)] = 1
    assert torch.allclose(logits.grad, (OWN.softmax(dim=1) - one_hot) / 2)  # y* carries none


def test_self_training_is_added_with_its_weight_for_every_output() -> None:
    batch = {
        "images": OWN.repeat(1, 1, 2, 1),
        "label_maps": torch.tensor([[[0, 1], [255, 255]]]),
        "image_labels": PRESENT,
    }
    model = transparent(self_training=0.5, msc=(0.5,))
    losses = model.losses(batch)
    enlarged = [enlarge(logits, torch.Size((2, 2))) for logits in model.outputs(batch["images"])[0]]
    expected = sum(self_training_loss(logits, PRESENT) for logits in enlarged)
    assert losses["self_training"].item() == pytest.approx(float(expected))
    assert losses["loss"].item() == pytest.approx(float(losses["cross_entropy"] + 0.5 * expected))


# exp of these gives p_bg = 1/2, 1/4, 1/2, 4/5
SALIENCY_BATCH = {
    "images": torch.log(torch.tensor([[2.0, 1, 2, 8], [1, 1, 1, 1], [1, 2, 1, 1]])).reshape(1, 3, 2, 2),
    "label_maps": torch.full((1, 2, 2), 255),
    "salient": torch.tensor([[[True, True], [False, False]]]),
    "activated": torch.tensor([[[True, False], [True, False]]]),
}


@pytest.mark.parametrize(
    ("reading", "inside", "expected"),
    [
        ("foreground", None, -(log(1 / 2) + log(3 / 4) + log(1 / 2) + log(4 / 5)) / 4),
        ("ignore", None, -(log(1 / 2) + log(3 / 4) + log(4 / 5)) / 3),
        ("foreground", [[[True, False], [False, True]]], -(log(1 / 2) + log(4 / 5)) / 2),
    ],
)
def test_mask_refinement_is_added_with_its_weight(reading: str, inside: list | None, expected: float) -> None:
    batch = SALIENCY_BATCH | ({} if inside is None else {"inside": torch.tensor(inside)})
    losses = transparent(saliency_weight=2.0, saliency_reading=reading).losses(batch)
    assert losses["mask_refinement"].item() == pytest.approx(expected)
    assert losses["loss"].item() == pytest.approx(2 * expected)  # no pixel has a label
    assert losses["cross_entropy"].item() == 0


def test_mask_refinement_compares_at_the_size_of_the_photo() -> None:
    batch = {"images": torch.randn(1, 3, 64, 96), "label_maps": torch.zeros(1, 64, 96, dtype=torch.long)}
    batch |= {key: torch.rand(1, 64, 96) > 0.5 for key in ("salient", "activated")}
    model = deeplabv2(saliency_weight=1.0, msc=(0.5,)).eval()
    enlarged = [enlarge(logits, torch.Size((64, 96))) for logits in model.outputs(batch["images"])[0]]
    expected = sum(mask_refinement_loss(logits, batch["salient"], batch["activated"]) for logits in enlarged)
    refinement = model.losses(batch)["mask_refinement"]
    assert refinement.item() == pytest.approx(expected.item())
    refinement.backward()
    assert model.backbone.stem[0].weight.grad.any()


def test_mask_refinement_without_saliency_names_the_remedy() -> None:
    batch = {key: value for key, value in SALIENCY_BATCH.items() if key != "salient"}
    with pytest.raises(ConfigError, match=r"saliency_weight = 1 .* lacks salient; add a \[saliency\] table"):
        transparent(saliency_weight=1.0).losses(batch)


def test_the_tag_head_shares_out_what_is_not_background() -> None:
    head = TagHead(channels=2, class_count=2, balance=0.5)
    head.count(torch.tensor([[1.0, 0], [1, 0], [1, 1], [1, 0]]))  # f = 1, 1/4
    assert head.frequency.tolist() == [1, 0.25]
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])  # of two pixels
    logits = probabilities.log().T[None, :, None] + 3  # of which a constant tells nothing
    tag_logits = torch.tensor([[0.0, log(3)]])  # sigmoid: 1/2, 3/4; divided by the roots of f: 1/2, 3/2
    expected = torch.tensor([[0.5, 0.5 * 0.15 / 0.45, 0.5 * 0.3 / 0.45], [0.1, 0.9 * 0.4 / 0.55, 0.9 * 0.15 / 0.55]])
    shared = head.share_out(logits, tag_logits).softmax(dim=1)[0, :, 0].T
    assert torch.allclose(shared, expected, atol=1e-6)
    head.balance = 0.0
    certain = head.share_out(logits, torch.tensor([[-200.0, 10.0]])).softmax(dim=1)[0, :, 0].T
    assert torch.allclose(certain, torch.tensor([[0.5, 0, 0.5], [0.1, 0, 0.9]]), atol=1e-6)


def test_the_tag_head_learns_the_tags_and_has_its_say_at_test_time_alone() -> None:
    model = transparent(tag_weight=2.0)
    with torch.no_grad():
        model.tag_head.linear.weight.zero_()
        model.tag_head.linear.bias.copy_(torch.tensor([0.0, log(3)]))
    batch = {"images": IMAGES, "label_maps": LABEL_MAPS, "image_labels": torch.tensor([[1.0, 0]])}
    losses = model.losses(batch)
    assert losses["cross_entropy"].item() == pytest.approx(FULL)
    assert losses["tags"].item() == pytest.approx(-(log(1 / 2) + log(1 / 4)) / 2)
    assert losses["loss"].item() == pytest.approx(FULL + 2 * losses["tags"].item())
    assert torch.equal(model.outputs(IMAGES)[0][0], IMAGES)
    assert torch.equal(model(IMAGES), model.tag_head.share_out(IMAGES, torch.tensor([[0.0, log(3)]])))
    assert transparent().tag_head is None


@pytest.mark.parametrize("architecture", SEGMENTERS)
@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_batch_norm_stays_as_it_is(architecture: str, frozen: bool) -> None:
    torch.manual_seed(0)
    options = SegmenterOptions(channels=16, freeze_batch_norm=frozen)
    model = SEGMENTERS[architecture](build_backbone("small", 16), LABELS, options).train()
    norms = {f"{name}.{key}" for name, module in model.backbone.named_modules() if isinstance(module, nn.BatchNorm2d)
             for key in module.state_dict()}  # fmt: skip
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    optimizer = make_optimizer(model, FitConfig(lr=0.1))
    model.losses({"images": torch.randn(2, 3, 64, 64), "label_maps": torch.ones(2, 64, 64).long()})["loss"].backward()
    optimizer.step()
    moved = {key for key, value in model.backbone.state_dict().items() if not torch.equal(value, before[key])}
    assert moved - norms
    assert bool(moved & norms) != frozen
    assert model.training
    assert not any(module.training for module in model.eval().modules())


def test_deeplabv2_sums_four_dilated_classifiers() -> None:
    model = deeplabv2().eval()
    assert [layer.dilation for layer in model.branches] == [(6, 6), (12, 12), (18, 18), (24, 24)]
    assert model.branches[0].weight.shape == (LABELS, model.backbone.channels[-1], 3, 3)
    assert all(0.009 < layer.weight.std() < 0.011 and not layer.bias.any() for layer in model.branches)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = model.backbone(images)[-1]
        assert model(images).shape == (1, LABELS, 8, 12)
        assert torch.allclose(model(images), sum(layer(features) for layer in model.branches), atol=1e-5)


def test_rates_see_as_far_at_every_output_stride_and_the_given_ones_count() -> None:
    assert deeplabv2(output_stride=16).rates() == (3, 6, 9, 12)
    assert deeplabv2(rates=(2, 4)).rates() == (2, 4)
    small = {output_stride: build_backbone("small", output_stride) for output_stride in (8, 16)}
    version3 = {
        stride: SEGMENTERS["deeplabv3"](small[stride], LABELS, SegmenterOptions(channels=8)) for stride in small
    }
    assert {stride: model.rates() for stride, model in version3.items()} == {8: (12, 24, 36), 16: (6, 12, 18)}


def test_deeplabv2_on_vgg16_has_hidden_layers_and_learns() -> None:
    model = deeplabv2("vgg16", channels=16).train()
    kinds = [type(layer) for layer in model.branches[1]]
    assert kinds == [nn.Conv2d, nn.ReLU, nn.Dropout, nn.Conv2d, nn.ReLU, nn.Dropout, nn.Conv2d]
    assert (model.branches[1][0].dilation, model.branches[1][2].p) == ((12, 12), 0.5)
    assert deeplabv2("vgg16").branches[0][0].out_channels == 1024
    batch = {"images": torch.randn(1, 3, 48, 64), "label_maps": torch.randint(0, LABELS, (1, 48, 64))}
    model.losses(batch)["loss"].backward()
    assert model.backbone.features[0].weight.grad.any()
    assert all(branch[0].weight.grad.any() for branch in model.branches)


@pytest.mark.parametrize("backbone", ["small", "vgg16"])
def test_deeplabv2_learning_rates(backbone: str) -> None:
    model = deeplabv2(backbone, channels=16)
    optimizer = make_optimizer(model, FitConfig(lr=1e-3, weight_decay=5e-4))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-3, 1e-2, 2e-2])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [5e-4, 5e-4, 0]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    body, weights, biases = ([names[id(p)] for p in group["params"]] for group in optimizer.param_groups)
    assert all(name.startswith("backbone.") for name in body)
    assert all(name.startswith("branches.") and name.endswith("weight") for name in weights)
    assert all(name.startswith("branches.") and name.endswith("bias") for name in biases)
    assert len(body) + len(weights) + len(biases) == len(names)


@pytest.mark.environment("crf")
def test_crf_at_test_follows_the_edge_of_the_photo() -> None:
    pytest.importorskip("pydensecrf", reason="the extra `crf` could not be built (it needs a C++ compiler)")
    image = np.full((40, 60, 3), 30, np.uint8)
    image[:, 30:] = 220
    probabilities = np.full((LABELS, 40, 60), 0.05, np.float32)
    probabilities[0], probabilities[2] = 0.7, 0.25
    probabilities[:, :, 26:] = np.array([0.3, 0.05, 0.65])[:, None, None]  # four columns too wide
    labels = crf_labels(image, probabilities)
    assert (labels.dtype, labels.shape) == (np.uint8, (40, 60))
    assert (labels == np.where(np.arange(60) < 30, 0, 2)).all()
