"""LPCAM: class activation maps of local prototypes, in the place of a classifier's weights.

Chen and Sun, "Extracting Class Activation Maps from Non-Discriminative Features as well", CVPR 2023,
https://arxiv.org/abs/2303.10334. What a classifier needs to tell a class from others is a part of it; its features hold the rest
too. With f the features of a pixel, w and b the classifier's weights of a class:

    P_1 .. P_K  means of the clusters of f / |f| over photos of the class, by k-means         `prototypes`, PROTOTYPES
    p_k         sigmoid(w . P_k + b), P_k as the mean of f itself
    FG, BG      the prototypes with p_k > FOREGROUND, and those with p_k < BACKGROUND
    map         relu(mean over FG of cos(f, P_k) - mean over BG of cos(f, P_k))                `prototype_maps`

A mean of cosines is one product of f / |f| with the mean of the prototypes of length one: K prototypes of each of C classes
become one 1x1 convolution, `direction_of`.

Departures: features of a frozen backbone are clustered, without the paper's own training; BACKGROUND is 0.3, where the paper takes
0.5 of a network that is less sure of itself.
"""

import warnings

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn import functional as F

PROTOTYPES = 12  # A class has so many; so the paper has it.
# These bound probabilities. On 114 photos (0.9, 0.5), (0.7, 0.3) and (0.5, 0.3) gave maps other by +0.2, -1.8 and -1.9 points.
FOREGROUND, BACKGROUND = 0.9, 0.3
PHOTOS = 40  # So many photos of a class are clustered, drawn by chance; the paper takes all.
PLACES = 200  # So many pixels of each are: neighbours say nearly the same.
ITERATIONS = 30


def direction_of(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return what the features of length one of a pixel are multiplied by for a class's map: (D,), of features (n, D) of its photos."""
    clusters = KMeans(min(PROTOTYPES, len(features)), n_init=1, max_iter=ITERATIONS, random_state=0)
    with warnings.catch_warnings():
        # Photos of one colour have fewer kinds of pixels than that.
        warnings.simplefilter("ignore", ConvergenceWarning)
        member = torch.from_numpy(clusters.fit_predict(F.normalize(features, dim=1).numpy()).astype(np.int64))
    prototypes = torch.stack([features[member == index].mean(dim=0) for index in member.unique()])
    sure = (prototypes @ weight + bias).sigmoid()
    foreground, background = sure > FOREGROUND, sure < BACKGROUND
    foreground[sure.argmax()] = True  # A class that is hard to tell may have none above the limit.
    unit = F.normalize(prototypes, dim=1)
    direction = unit[foreground].mean(dim=0)
    return direction - unit[background].mean(dim=0) if background.any() else direction


def prototype_maps(features: Tensor, directions: Tensor) -> Tensor:
    """Return maps (N, C, h, w) >= 0 of features (N, D, h, w) and directions (C, D, 1, 1)."""
    return F.conv2d(F.normalize(features, dim=1), directions).relu()
