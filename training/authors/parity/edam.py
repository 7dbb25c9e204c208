"""EDAM (allenwu97/EDAM, de0af41) is compared, and PSA's ResNet-38 classifier, which InferCam (96ba7d8) uses."""

from typing import TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from app.inference.arrays import label_by_thresholds, resize_bilinear, winner
from app.inference.labels import VOC_CLASSES
from training.authors.parity.cam import join
from training.authors.parity.reference import Claim, Claims, Reference, images, tag_rows
from training.authors.parity.training_step import Training, training_claims
from training.authors.released import edam, psa
from training.config.learning import FitConfig
from training.label_rules.edam import edam_pseudo_label, normalize_edam
from training.methods.cam import CamClassifier
from training.methods.edam import EdamClassifier, sine_table

MODULE, NETWORK = 1e-5, 1e-4
PAIR = 2  # A group has this many images in the released code.

M = TypeVar("M", bound=nn.Module)


def edam_network(reference: Reference) -> EdamClassifier:
    """Return EDAM on ResNet-38 with the fill rule's weights, imported from the authors' keys; in evaluation mode."""
    state = edam.convert(reference.state("edam_net"))
    network = EdamClassifier(len(state["class_weight"]), "resnet38", 8, None, EdamClassifier.Options())
    return filled(network, state)


def filled(network: M, state: dict[str, torch.Tensor]) -> M:
    """Return the network with `state` loaded, every key used; evaluation mode."""
    network.load_state_dict(state)
    return network.eval()


@torch.no_grad()
def edam_cam(reference: Reference) -> Claims:
    """Yield masks of one image."""
    network = edam_network(reference)
    features = network.backbone(images((1, 3, 97, 129), 5))[-1]
    raw = network.mask_layer(features)
    yield Claim("mask_conv_over_rms", (raw / raw.square().mean().sqrt()).numpy(), NETWORK)
    yield Claim("mask", network.masks(features).numpy(), NETWORK)


@torch.no_grad()
def edam_train(reference: Reference) -> Claims:
    """Yield the forward pass of training on one pair at 368 x 368, dropout off."""
    network = edam_network(reference)
    classes = torch.from_numpy(reference.input("label_idx"))
    features = network.backbone(images((1, 2, 3, 368, 368), 6)[0])[-1]
    masks = network.masks(features)
    tokens = network.tokens(features, masks, PAIR)
    logits = network.classify(tokens, PAIR)
    target = torch.zeros_like(logits)
    target[:, classes] = torch.from_numpy(reference.input("label")).view(PAIR, -1)
    yield Claim("logits", logits[:, classes].flatten().numpy(), NETWORK)
    yield Claim("bce", F.binary_cross_entropy_with_logits(logits, target).numpy(), NETWORK)
    yield Claim("mask_s4", masks[:, :, ::4, ::4].numpy(), NETWORK)
    yield Claim("tin14_s61", tokens[14, :, ::61].numpy(), NETWORK)
    for index in (14, 8):
        one = torch.tensor([index])
        output = network.transformers[0](tokens[one], one)[0]
        yield Claim(f"tout{index}_s61", output[:, ::61].numpy(), NETWORK)
    positions = tokens.shape[2] // PAIR
    yield Claim("pe_s97", sine_table(positions, network.options.width, tokens.device)[None, ::97].numpy(), MODULE)


def edam_rules(reference: Reference) -> Claims:
    """Yield masks of four scales, each plain and mirrored -> normalised maps -> labels with and without saliency."""
    total = np.zeros_like(reference.array("norm_cam"))
    for index, masks in enumerate(reference.input("masks")):
        enlarged = resize_bilinear(masks, *total.shape[1:])
        total += enlarged[:, :, ::-1] if index % 2 else enlarged
    maps = normalize_edam(total)
    yield Claim("norm_cam", maps, MODULE)
    pairs = reference.array("masks").reshape(-1, 2, *reference.array("masks").shape[1:])
    joined = join(list(pairs), (maps.shape[1], maps.shape[2]))
    yield Claim("norm_cam", normalize_edam(joined.maps()), MODULE)
    present = tuple(map(int, np.flatnonzero(reference.input("label"))))
    saliency = reference.input("saliency_uint8")
    yield Claim("pred_sal", edam_pseudo_label(maps[list(present)], present, saliency), 0)
    yield Claim("pred_nosal", label_by_thresholds(present, 0.5, 0.5)(*winner(maps[list(present)])), 0)


@torch.no_grad()
def resnet38_cls(reference: Reference) -> Claims:
    """Claim what PSA's classifier gives, and the stages of its backbone."""
    state = psa.convert(reference.state("resnet38_cls"))
    class_count = len(state["classifier.weight"])
    network = filled(CamClassifier(class_count, "resnet38", 8, None, CamClassifier.Options(dropout=0.5)), state)
    image = images((1, 3, 97, 129), 7)
    logits, cams = network(image)
    yield Claim("logits", logits.numpy(), NETWORK)
    yield Claim("cam", cams.numpy(), NETWORK)
    _, conv4, conv5, conv6 = network.backbone(image)
    yield Claim("conv4_c_s16", conv4[:, ::16, ::2, ::2].numpy(), NETWORK)
    yield Claim("conv5_c_s32", conv5[:, ::32, ::2, ::2].numpy(), NETWORK)
    yield Claim("conv6_c_s64", conv6[:, ::64].numpy(), NETWORK)


def edam_step(reference: Reference) -> Claims:
    """Yield two steps of the released train_EDAM_cls.py, at the beginning of its warm-up; maps of 6 x 6 instead of 46 x 46."""
    network = EdamClassifier(
        len(VOC_CLASSES), "resnet38", 8, None, EdamClassifier.Options(dropout=0, attention_dropout=0)
    )
    batch = {"images": images((1, 2, 3, 48, 48), 16)[0], "image_labels": tag_rows((8, 14), (0, 14))}
    fit = FitConfig(lr=1e-3, momentum=0.9, nesterov=False, weight_decay=5e-4, warmup_steps=2000, warmup_start=0.1)
    return training_claims(reference, "edam_net", edam.convert, network, batch, Training(fit, 33050))


def psa_step(reference: Reference) -> Claims:
    """Yield two steps of PSA's train_cls.py with ResNet-38, whose weights CCRM uses. The optimiser's momentum is the weight
    decay; at the released rate these weights would grow without bound.
    """
    options = CamClassifier.Options(freeze=True, freeze_affine=True)
    network = CamClassifier(len(VOC_CLASSES), "resnet38", 8, None, options)
    batch = {"images": images((2, 3, 48, 48), 15), "image_labels": tag_rows((3, 14), (14,))}
    fit = FitConfig(lr=1e-5, momentum=5e-4, nesterov=False, weight_decay=5e-4)
    return training_claims(reference, "resnet38_cls", psa.convert, network, batch, Training(fit, 10))
