"""DRS (qjadud1994/DRS, 9afa7f1) is compared: the module, the classifier, the refinement network and the rules."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.inference.labels import VOC_CLASSES
from training.authors.parity.reference import Claim, Claims, Reference, fill, images, normal, tag_rows
from training.authors.parity.training_step import Training, training_claims
from training.authors.released import drs
from training.config.learning import FitConfig
from training.config.map_tables import DrsConfig
from training.label_rules.drs import drs_pseudo_label
from training.methods.drs import DrsClassifier, Suppression
from training.refinement.drs import (
    DrsRefinement,
    drs_localization_maps,
    enlarge_maps,
    normalize_drs_cams,
    refinement_target,
)

MODULE, NETWORK = 1e-5, 1e-4
ROUNDED_PIXELS = 1e-3
DELTA = 0.55
PRESENT = (0, 6, 14)
IMAGE = (1, 3, 97, 129), 1
SMALL = (60, 80)
EPOCH = 1000  # The step size of the rate is in steps; the rate does not change among the first.


@torch.no_grad()
def drs_module(reference: Reference) -> Claims:
    """Claim what suppression alone makes; its controller is filled under its own short key."""
    x = normal((2, 16, 7, 9), 2)
    learnable = Suppression(16, None)
    learnable.load_state_dict({"fc.0.weight": fill("fc.0.weight", (16, 16))})
    yield Claim("x", x.numpy(), 0)
    yield Claim("learnable", learnable(x).numpy(), MODULE)
    yield Claim("fixed055", Suppression(16, DELTA)(x).numpy(), MODULE)


def drs_learnable(reference: Reference) -> Claims:
    """Yield the classifier with learnable suppression."""
    return classifier_claims(reference, DrsClassifier.Options(learnable=True))


def drs_fixed055(reference: Reference) -> Claims:
    """Yield the classifier with delta = 0.55."""
    return classifier_claims(reference, DrsClassifier.Options(delta=DELTA))


@torch.no_grad()
def classifier_claims(reference: Reference, options: Any) -> Claims:
    """Claim logits, raw maps and normalised maps of the classifier."""
    state = drs.convert(reference.state(reference.file))
    network = DrsClassifier(len(state["classifier.bias"]), "vgg16", 8, None, options).eval()
    network.load_state_dict(state)
    image, label = images(*IMAGE), one_hot(len(state["classifier.bias"]))
    raw = network.classifier(network.extra(network.backbone(image)[-1]))
    logits, cams = network(image)
    maps = normalize_drs_cams(cams, image.shape[2:])
    gated = maps * label[:, :, None, None]
    small = normalize_drs_cams(cams, SMALL) * label[:, :, None, None]
    yield Claim("label", label.numpy(), 0)
    yield Claim("logit", logits.numpy(), NETWORK)
    yield Claim("conv_out", raw.numpy(), NETWORK)
    yield Claim("cam", gated[:, PRESENT].numpy(), NETWORK)
    yield Claim("cam_absent_max", absent_maximum(gated), 0)
    yield Claim("cam_all_s3", maps[:, :, ::3, ::3].numpy(), NETWORK)
    yield Claim("cam_size_60x80", small[:, PRESENT].numpy(), NETWORK)


@torch.no_grad()
def drs_refine(reference: Reference) -> Claims:
    """Yield the refinement network, with and without gating by the tags."""
    state = drs.convert(reference.state("drs_refine"))
    network = DrsRefinement(len(state["classifier.bias"]), "vgg16", 8, None, DrsRefinement.Options()).eval()
    network.load_state_dict(state)
    image, label = images(*IMAGE), one_hot(len(state["classifier.bias"]))
    maps = network.maps(image)
    refined = enlarge_maps(maps, image.shape[2:])
    gated = refined * label[:, :, None, None]
    yield Claim("label", label.numpy(), 0)
    yield Claim("out_s2", refined[:, :, ::2, ::2].numpy(), NETWORK)
    yield Claim("out_label_classes", gated[:, PRESENT, ::2, ::2].numpy(), NETWORK)
    yield Claim("absent_max", absent_maximum(gated), 0)
    yield Claim("out_size_60x80", enlarge_maps(maps, SMALL)[:, PRESENT].numpy(), NETWORK)


def drs_maps(reference: Reference) -> Claims:
    """Return maps of a photo for the refinement, three sizes joined, in one byte per pixel; a last bit may round
    otherwise.
    """
    state = drs.convert(reference.state("drs_learnable"))
    network = DrsClassifier(len(VOC_CLASSES), "vgg16", 8, None, DrsClassifier.Options(learnable=True)).eval()
    network.load_state_dict(state)
    image = torch.randint(0, 256, (320, 320, 3), generator=torch.Generator().manual_seed(22)).to(torch.uint8).numpy()
    maps = drs_localization_maps(network, image, PRESENT, DrsConfig())
    yield Claim("maps_s4", maps[:, ::4, ::4], ROUNDED_PIXELS, share=True)


def drs_rules(reference: Reference) -> Claims:
    """Claim pseudo-labels from refined maps and saliency, and the target of the refinement."""
    maps = reference.input("loc")
    label_map = drs_pseudo_label(maps, tuple(range(len(maps))), reference.input("saliency_uint8"))
    yield Claim("pseudo", label_map, 0)
    stored = torch.from_numpy(reference.input("refine_input_uint8").astype(np.float32) / np.iinfo(np.uint8).max)
    yield Claim("refine_target", refinement_target(stored[None])[0].numpy(), 0)


def drs_learnable_step(reference: Reference) -> Claims:
    """Claim the training of the classifier with learnable suppression."""
    return classifier_step(reference, "drs_learnable", DrsClassifier.Options(learnable=True))


def drs_fixed055_step(reference: Reference) -> Claims:
    """Claim the training of the classifier with delta = 0.55."""
    return classifier_step(reference, "drs_fixed055", DrsClassifier.Options(delta=DELTA))


def classifier_step(reference: Reference, model: str, options: Any) -> Claims:
    """Yield two steps of the released train_cls.py: Nesterov's momentum, the rate constant within an epoch."""
    network = DrsClassifier(len(VOC_CLASSES), "vgg16", 8, None, options)
    batch = {"images": images((2, 3, 64, 64), 11), "image_labels": tag_rows((0, 6), (14,))}
    fit = FitConfig(lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="step")
    return training_claims(reference, model, drs.convert, network, batch, Training(fit, EPOCH))


def drs_refine_step(reference: Reference) -> Claims:
    """Yield two steps of the released train_refine.py (Adam), from maps of random numbers."""
    network = DrsRefinement(len(VOC_CLASSES), "vgg16", 8, None, DrsRefinement.Options())
    maps = torch.rand((2, len(VOC_CLASSES), 64, 64), generator=torch.Generator().manual_seed(12))
    batch = {"images": images((2, 3, 64, 64), 11), "maps": maps}
    fit = FitConfig(optimizer="adamw", lr=1e-4, schedule="step")
    return training_claims(reference, "drs_refine", drs.convert, network, batch, Training(fit, EPOCH))


def one_hot(class_count: int) -> Tensor:
    """Return the tags of all DRS fixtures, (1, C)."""
    label = torch.zeros(1, class_count)
    label[:, PRESENT] = 1
    return label


def absent_maximum(gated: Tensor) -> np.ndarray:
    """Return the largest magnitude among the maps (1, C, H, W) of the classes that are not tagged."""
    absent = [index for index in range(gated.shape[1]) if index not in PRESENT]
    return gated[:, absent].abs().max().numpy()
