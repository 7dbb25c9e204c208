"""CCRM ("InferCam", weixuansun/InferCam, 96ba7d8) is compared: inference over a stand-in classifier, the released accidents kept."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from app.inference.maps.class_conditional import Cams, ConditionalMaps, ConditionalOptions, class_conditional_maps
from training.authors.parity.reference import Claim, Claims, Reference
from training.data.augment import IMAGENET_MEAN, IMAGENET_STD

MAPS, DIFFERING_PIXELS, CENTRES = 1e-4, 1e-3, 1e-4


def ccrm_1class(reference: Reference) -> Claims:
    """Yield one class: four patches around its centre."""
    return inference_claims(reference)


def ccrm_2class(reference: Reference) -> Claims:
    """Yield two classes: four patches that overlap between the centres."""
    return inference_claims(reference)


def ccrm_3class(reference: Reference) -> Claims:
    """Yield three classes: the whole image."""
    return inference_claims(reference)


def inference_claims(reference: Reference) -> Claims:
    """Claim the boxes, the erased masks of every round, and the maps."""
    image = reference.input("image")
    classes = np.flatnonzero(reference.input("label")).tolist()
    options = ConditionalOptions(released=True)
    result = class_conditional_maps(stand_in(reference.state("ccrm_standin")), image, classes, options)
    yield Claim("classes", classes, 0)
    yield Claim("centres", result.centres, CENTRES)
    yield Claim("boxes", [(box.top, box.bottom, box.left, box.right) for box in result.boxes], 0)
    yield Claim("base", result.plain, MAPS)
    yield Claim("final", result.maps, MAPS)
    yield Claim("n_iter", [len(rounds) for rounds in result.kept], 0)
    for patch, rounds in enumerate(result.kept, start=1):
        for iteration, kept in enumerate(rounds):
            yield Claim(f"left_{patch}_{iteration}", kept, DIFFERING_PIXELS, share=True)
    yield Claim("erased_step", erased_shares(result, options.rounds), DIFFERING_PIXELS)


def erased_shares(result: ConditionalMaps, rounds: int) -> np.ndarray:
    """Return the share of each patch (4, rounds) that each round newly erased; -1 for rounds that were not run."""
    shares = np.full((len(result.kept), rounds), -1.0)
    for patch, kept in enumerate(result.kept):
        left = [1.0, *(mask.mean() for mask in kept)]
        shares[patch, : len(kept)] = -np.diff(left)
    return shares


def stand_in(state: dict[str, Tensor]) -> Cams:
    """Return relu(conv2(relu(conv1(x, stride 4, padding 2)))) of normalised images."""
    mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)

    @torch.no_grad()
    def cams(images: np.ndarray) -> np.ndarray:
        x = torch.from_numpy((images / np.float32(255) - mean) / std).permute(0, 3, 1, 2)
        features = F.conv2d(x, state["conv1.weight"], state["conv1.bias"], stride=4, padding=2).relu()
        return F.conv2d(features, state["conv2.weight"]).relu().numpy()

    return cams
