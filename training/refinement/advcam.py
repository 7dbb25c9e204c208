"""AdvCAM takes the maps of an image that climbs towards its class.

Lee, Kim and Yoon, "Anti-Adversarially Manipulated Attributions for Weakly and Semi-Supervised Semantic Segmentation",
CVPR 2021, https://arxiv.org/abs/2103.08896; in the form of AMR's released code, which uses it to read its maps. The
image is changed step by step so that the network sees more of class c, and the maps on the way are added up:

    region       R = relu(sum_k w_k f_k), one map for an image and its mirror image together       `region`
    weights      w_k = (sum over space of dS/df_k) / (number of positive entries of dS/df),  S = sum relu(F_c)  (Grad-CAM)
    climb up     J = 2 y_c - sum_k y_k - lambda sum M |R - R_0|,  y_k: mean of relu(F_k)            `objective`
                 M = [R / max R > tau]: what is discriminative already shall not grow                `discriminative`
    step         image <- clamp(image + xi dJ/dimage / max |dJ/dimage|) to the image's own range
    map          sum of the R of all steps

f: features of the backbone's last stage; F: class maps; lambda = 7, tau = 0.5, xi = 0.08, 27 steps (`AdvcamConfig`). y is
added over the image and its mirror image. Works with every classifier: it needs the class maps after their ReLU, and the
backbone's features. A classifier of several branches (`branches()`, AMR) gives the weighted mean of their maps.

All scales count alike, and one of `short` takes half the steps, so half as much enters the sum. Released: the factor of 2
meant for scale 0.5 is set when that scale begins, which comes before all others, and is never taken back; it then stands before
every scale and goes with the division by the maximum.

Departure from the released code: sizes are this project's (`app.inference.image.preprocess`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from app.inference.arrays import resize_bilinear
from app.inference.image.preprocess import geometry_of, resize_image
from app.inference.maps.localization import ScaleCams
from training.config.map_tables import AdvcamConfig
from training.data.augment import normalize
from training.methods import Classifier

MAP_STRIDE = 4  # Maps are kept at this stride, in pixels of the network input.
TINY = 1e-12


@dataclass(frozen=True)
class Step:
    """It records one step, for those who want to look: region (h, w), objective (), gradient (2, 3, H, W), discriminative (h, w)
    of 0 and 1, and the images (2, 3, H, W) it ends with.
    """

    region: Tensor
    objective: Tensor
    gradient: Tensor
    discriminative: Tensor
    images: Tensor


def climb(
    classifier: Classifier,
    pair: Tensor,
    class_index: int,
    climbing: AdvcamConfig,
    steps: int,
    watch: Callable[[Step], None] | None = None,
) -> Tensor:
    """Return the sum of the regions (h, w) of one class over `steps` steps.

    Args:
        pair: a normalised image and its mirror image (2, 3, H, W).
        watch: called with every `Step`.
    """
    images, regions = pair.detach(), []
    with torch.enable_grad(), last_features(classifier.backbone) as captured:
        for _ in range(steps):
            images = images.clone().requires_grad_()
            _, cams = classifier(images)
            merged = region(cams[:, class_index].sum(), captured[-1])
            regions.append(merged.detach())
            discriminative = (regions[-1] / regions[-1].max() > climbing.discriminative_threshold).float()
            means = cams.mean(dim=(2, 3)).sum(dim=0)
            restraint = ((merged - regions[0]).abs() * discriminative).sum()
            objective = 2 * means[class_index] - means.sum() - climbing.restraint * restraint
            (gradient,) = torch.autograd.grad(objective, images)
            images = step_up(images.detach(), gradient, climbing.step_size)
            if watch is not None:
                watch(Step(regions[-1], objective.detach(), gradient, discriminative, images))
    return torch.stack(regions).sum(dim=0)


def region(score: Tensor, features: Tensor) -> Tensor:
    """Return Grad-CAM of `score` on the features (2, K, h, w) of an image and its mirror image, merged: (h, w)."""
    (gradient,) = torch.autograd.grad(score, features, retain_graph=True)
    weights = gradient.sum(dim=(2, 3), keepdim=True) / ((gradient > 0).sum() + TINY)
    maps = (weights * features).sum(dim=1).relu()
    return maps[0] + maps[1].flip(-1)


def step_up(images: Tensor, gradient: Tensor, size: float) -> Tensor:
    """Return the images a step further along the gradient, inside their own range of values."""
    moved = images + size * gradient / (gradient.abs().max() + TINY)
    return moved.clamp(images.min(), images.max())


@contextmanager
def last_features(backbone: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list that receives the last stage's features of every forward pass inside the block."""
    captured: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], features: list[Tensor]) -> None:
        captured[:] = [features[-1]]

    handle = backbone.register_forward_hook(keep)
    try:
        yield captured
    finally:
        handle.remove()


def advcam(
    classifier: Classifier,
    image: np.ndarray,
    class_indices: tuple[int, ...],
    preferred_size: int,
    climbing: AdvcamConfig | None = None,
) -> ScaleCams:
    """Return the maps of the classes `class_indices` of one uint8 (H, W, 3) photo, by climbing at every scale.

    The classifier must be in evaluation mode. Returns one map (K, h, w) per class at a quarter of the network input's
    size, scales and branches already joined, in the container that plain maps come in; scores are those of the photo.
    """
    climbing = climbing or AdvcamConfig()
    weights = next(classifier.parameters())  # The photo takes their device and precision.
    geometry = geometry_of(image.shape, preferred_size)
    size = -(-geometry.input_height // MAP_STRIDE), -(-geometry.input_width // MAP_STRIDE)
    joined = np.zeros((len(class_indices), *size), np.float32)
    for branch, share in classifier.branches():
        total = np.zeros_like(joined)
        for scale in climbing.scales:
            pair = image_pair(image, preferred_size, scale).to(weights)
            steps = climbing.steps // 2 if scale in climbing.short else climbing.steps
            for row, class_index in enumerate(class_indices):
                cam = climb(branch, pair, class_index, climbing, max(1, steps), None).float().cpu().numpy()
                total[row] += resize_bilinear(cam[None], *size)[0]
        joined += share * total / (total.max(axis=(1, 2), keepdims=True, initial=0) + 1e-5)
    with torch.no_grad():
        logits, _ = classifier(image_pair(image, preferred_size, 1.0).to(weights))
    return ScaleCams(logits.sigmoid().mean(dim=0).cpu().numpy(), (joined,), geometry)


def image_pair(image: np.ndarray, preferred_size: int, scale: float) -> Tensor:
    """Return a photo at a scale, normalised, and its mirror image: (2, 3, h, w)."""
    size = geometry_of(image.shape, preferred_size, scale)
    normalized = normalize(resize_image(image, size.input_height, size.input_width))
    return torch.stack([normalized, normalized.flip(-1)])
