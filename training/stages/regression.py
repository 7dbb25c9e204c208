"""A classifier's head starts from a logistic regression on what the backbone already sees.

A random head tears at pre-trained features until it has learned; one that is fitted to them first does not. The backbone
is run once on every training photo, its last features f are averaged over the photo, and for every class c

    minimise over (w_c, b_c)   mean over photos of BCE(w_c . f + b_c, tag_c) + decay |w_c - p_c|^2

is solved by L-BFGS. p_c is zero, or what ImageNet's own head knows of the class's name (`imagenet_names`): for a class of
thirty photos that is worth many more. Averaging and weighting commute, so that w_c is the start of the 1x1 convolution
that makes the class's map. No paper's step; every method whose maps are a convolution of the last features can have it
(`Classifier.head`).
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from app.inference.errors import ConfigError
from app.inference.image.preprocess import geometry_of, resize_image
from training.backbones import build_backbone
from training.backbones.imagenet_names import name_rows
from training.backbones.timm_backbone import PREFIX, imagenet_head
from training.config.learning import RecognizerConfig, RegressionConfig
from training.data import TaggedPhotos
from training.data.augment import normalize
from training.methods import Classifier
from training.segmenters import Recognizer

ITERATIONS = 60  # L-BFGS takes this many; the loss has settled after some forty.


def start_by_regression(
    classifier: Classifier, backbone: str, photos: TaggedPhotos, names: tuple[str, ...], config: RegressionConfig
) -> None:
    """Fill the head of every branch of `classifier` from the tags of the photos `names`.

    Raises ConfigError where the method has no head that a regression can start, or names shall help and the backbone has no
    ImageNet head.
    """
    heads = head_layers(classifier)
    start = torch.zeros(len(photos.classes), heads[0].in_channels)
    if config.names:
        start = known_rows(backbone, photos.classes, start.shape[1])
    image_labels = torch.from_numpy(np.stack([photos.image_labels(name) for name in names]))
    branches = [branch for branch, _ in classifier.branches()]
    for branch, features in zip(branches, averaged_features(branches, photos, names, config.size), strict=True):
        branch.take_regression(*regress(features, image_labels, start, config.decay), features.mean(dim=0))


def fit_recognizer(
    recognizer: Recognizer, photos: TaggedPhotos, names: tuple[str, ...], config: RecognizerConfig, size: int
) -> None:
    """Give a recognizer the weights that its table names, and fill its tag head from the tags of the photos `names`, whole, at a
    long side of `size` px.

    The regression reads the pooled features divided by how much larger they are than averages, for which both its strength and the
    names' rows are meant. Raises ConfigError where names shall help and the backbone has no ImageNet head.
    """
    seeing = build_backbone(config.backbone, config.output_stride, config.weights)
    recognizer.backbone.load_state_dict(seeing.state_dict())
    head = recognizer.tag_head
    (both,) = averaged_features(
        [recognizer], photos, names, size, lambda seen: torch.cat([seen.mean(dim=(2, 3)), recognizer.pool(seen)], dim=1)
    )
    averages, pooled = both.chunk(2, dim=1)
    larger = pooled.mean() / averages.mean()
    features = pooled / larger
    image_labels = torch.from_numpy(np.stack([photos.image_labels(name) for name in names]))
    start = torch.zeros(len(photos.classes), features.shape[1])
    if config.names:
        start = known_rows(config.backbone, photos.classes, start.shape[1])
    weight, bias = regress(features, image_labels, start, config.decay)
    recognizer.fill(weight / larger, bias)
    head.count(image_labels)


def head_layers(classifier: Classifier) -> list[nn.Conv2d]:
    """Return the convolutions that make the class maps (`Classifier.head`), one for each branch. Raises ConfigError where a
    branch has none.
    """
    layers = [branch.head() for branch, _ in classifier.branches()]
    heads = [layer for layer in layers if layer is not None]
    if len(heads) < len(layers):
        raise ConfigError(
            f"a regression on tags can start no layer of {type(classifier).__name__}; leave out [classifier.regression]"
        )
    return heads


def known_rows(backbone: str, classes: tuple[str, ...], width: int) -> Tensor:
    """Return what ImageNet's head of a timm network knows of the classes' names, (C, D). Raises ConfigError where it has none."""
    rows = imagenet_head(backbone.removeprefix(PREFIX)) if backbone.startswith(PREFIX) else torch.zeros(0, 0)
    if rows.shape[1] != width:
        raise ConfigError(
            f"regression.names needs a timm backbone whose ImageNet head reads the same {width} features, and {backbone} "
            f"is none; set names = false"
        )
    return name_rows(rows, classes)


@torch.no_grad()
def last_features(
    classifier: Classifier, photos: TaggedPhotos, names: tuple[str, ...], size: int
) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
    """Yield the last features (D, h, w) of the backbone and the class indices of every photo, at a long side of `size` px."""
    device = next(classifier.parameters()).device
    classifier.eval()
    for name in tqdm(names, desc="features", unit="photo", mininterval=5):
        view = view_of(photos.image(name), size)
        yield classifier.backbone(view.to(device))[-1][0].cpu(), photos.class_indices(name)


def view_of(image: np.ndarray, size: int) -> Tensor:
    """Return a photo, uint8 (H, W, 3), whole and normalised at a long side of `size` px: (1, 3, h, w)."""
    geometry = geometry_of(image.shape, size)
    return normalize(resize_image(image, geometry.input_height, geometry.input_width))[None]


@torch.no_grad()
def averaged_features(
    networks: Sequence[Classifier | Recognizer],
    photos: TaggedPhotos,
    names: tuple[str, ...],
    size: int,
    pool: Callable[[Tensor], Tensor] = lambda features: features.mean(dim=(2, 3)),
) -> list[Tensor]:
    """Return what every network's head reads of every photo, (1, D, h, w), averaged over it, or what `pool` makes of it: one
    (N, D) a network. `size` is the long side in px.
    """
    device = next(networks[0].parameters()).device
    seen: list[list[Tensor]] = [[] for _ in networks]
    training = [network.training for network in networks]
    for network in networks:
        network.eval().to(memory_format=torch.channels_last)
    for name in tqdm(names, desc="regression", unit="photo", mininterval=5):
        view = view_of(photos.image(name), size).to(device, memory_format=torch.channels_last)
        for network, rows in zip(networks, seen, strict=True):
            rows.append(pool(network.features(view))[0].cpu())
    for network, before in zip(networks, training, strict=True):
        network.train(before)
    return [torch.stack(rows) for rows in seen]


def regress(features: Tensor, image_labels: Tensor, start: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Return logistic regressions pulled towards `start`.

    Args:
        features: (N, D).
        image_labels: multi-hot (N, C).
        start: (C, D), p of the module's docstring.
        decay: weight of the squared distance from `start`.

    Returns:
        Weights (C, D) and biases (C,).
    """
    weight = start.clone().requires_grad_()
    bias = torch.zeros(len(start)).requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = F.linear(features, weight, bias)
        value = F.binary_cross_entropy_with_logits(logits, image_labels, reduction="none").mean(dim=0).sum()
        value = value + decay * (weight - start).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach(), bias.detach()
