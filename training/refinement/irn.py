"""IRN is a network that finds the edges between classes, trained on the confident parts of maps.

Ahn, Cho and Kwak, "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations", CVPR 2019,
https://arxiv.org/abs/1904.05044. On a fixed backbone stand two branches at stride 4: B, the edge map in (0, 1), and D,
a displacement field (y, x) that points to the centre of a pixel's instance. For pixels i and j closer than `radius`:

    affinity   a_ij = 1 - max of B over the pixels on the line from i to j
    P+, P-     pairs of one confident label, of two; P+ in fg and bg, by the label                  `affinity_label`
    L_edge     1/2 (1/2 mean_fg -log a + 1/2 mean_bg -log a + mean_P- -log(1 - a))
    L_disp     1/2 (mean_fg |D_i - D_j - (j - i)| + mean_bg |D_i - D_j|)
    loss       L_edge + L_disp

The edge map then guides the random walk of `training.refinement.random_walk` on the maps of any method. D is trained as the paper
does; semantic labels do not use it. The authors' network is ResNet-50 without dilation (`resnet50-irn`); features of
another backbone are brought to strides 4 and 8 in the same way, finer ones by averaging; where it has no stem of its own
to read (networks of timm), the four stages are all there is.

Departures from the released code: the mean that D is freed of is a running one, there it is taken over the training set
at the end; equal maxima on a line share their gradient. Released, photos are padded to the crop size before the network
(`padded_size`), which moves its GroupNorm statistics; here they are not by default.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.inference.errors import ConfigError
from app.inference.image.preprocess import geometry_of, resize_image
from app.inference.labels import BACKGROUND, IGNORE_INDEX, label_of
from app.inference.maps.pamr import refine_pamr
from training.backbones import Backbone, ResidualBackbone, build_backbone
from training.config.map_tables import IrnConfig
from training.data.augment import normalize
from training.refinement.random_walk import paths, refine_walk
from training.smoothing.crf import SMOOTHNESS, dense_field

EDGE_STRIDE = 4
EDGE_WIDTH, EDGE_GROUPS = 32, 4
DISPLACEMENT_WIDTHS, DISPLACEMENT_GROUPS = (64, 128, 256, 256, 256), (8, 16, 16, 16, 16)
MEAN_MOMENTUM = 0.1
APPEARANCE = (10.0, 50.0, 5.0)  # It is `bilateral` of the dense CRF on confident labels.
EPSILON = 1e-5


class IrnNetwork(nn.Module):
    """It has edge and displacement branches on a backbone that is not trained.

    Args:
        backbone: `small`, `resnet50-irn`, any other residual one, or one of timm; its classifying head is taken off.
        radius: of the pairs the losses compare, in pixels at stride 4.
    """

    displacement_mean: Tensor

    def __init__(self, backbone: Backbone, radius: int = 10) -> None:
        super().__init__()
        backbone.drop_head()
        self.backbone = backbone.requires_grad_(False).eval()
        self.radius = radius
        self.strides, channels = measure_features(backbone)
        self.edge_layers = nn.ModuleList(reduction(count, EDGE_WIDTH, EDGE_GROUPS) for count in channels)
        self.edge_output = nn.Conv2d(len(channels) * EDGE_WIDTH, 1, 1)
        widths, groups = DISPLACEMENT_WIDTHS[-len(channels) :], DISPLACEMENT_GROUPS[-len(channels) :]
        self.displacement_layers = nn.ModuleList(map(reduction, channels, widths, groups))
        coarse = sum(width for width, stride in zip(widths, self.strides, strict=True) if stride > EDGE_STRIDE)
        fine = sum(widths) - coarse
        self.displacement_coarse = reduction(coarse, widths[-1], groups[-1])
        self.displacement_output = nn.Sequential(
            *reduction(fine + widths[-1], widths[-1], groups[-1]), nn.ReLU(), nn.Conv2d(widths[-1], 2, 1, bias=False)
        )
        self.register_buffer("displacement_mean", torch.zeros(2))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return edge logits (N, 1, h, w) and displacements (N, 2, h, w) in px, at stride 4, of normalised images (N, 3, H, W)."""
        with torch.no_grad():
            features = read_features(self.backbone, images)
        size = features[self.strides.index(EDGE_STRIDE)].shape[2:]
        edges = [
            at_stride(layer(feature), stride, EDGE_STRIDE, size).relu()
            for layer, feature, stride in zip(self.edge_layers, features, self.strides, strict=True)
        ]
        displacement = self._displacement(features, size)
        if self.training:
            mean = displacement.detach().float().mean(dim=(0, 2, 3))
            self.displacement_mean.lerp_(mean.to(self.displacement_mean), MEAN_MOMENTUM)
        else:
            displacement = displacement - self.displacement_mean[:, None, None]
        return self.edge_output(torch.cat(edges, dim=1)), displacement

    def _displacement(self, features: list[Tensor], size: torch.Size) -> Tensor:
        """Coarse features meet at stride 8, then all at stride 4."""
        middle = 2 * EDGE_STRIDE
        half = next(f.shape[2:] for f, stride in zip(features, self.strides, strict=True) if stride == middle)
        fine, coarse = [], []
        for layer, feature, stride in zip(self.displacement_layers, features, self.strides, strict=True):
            if stride <= EDGE_STRIDE:
                fine.append(at_stride(layer(feature), stride, EDGE_STRIDE, size).relu())
            else:
                coarse.append(at_stride(layer(feature), stride, middle, half).relu())
        joined = at_stride(self.displacement_coarse(torch.cat(coarse, dim=1)), middle, EDGE_STRIDE, size).relu()
        return self.displacement_output(torch.cat([*fine, joined], dim=1))

    def predict(self, pair: Tensor, padded_size: int | None = None) -> tuple[Tensor, Tensor]:
        """Return a normalised image and its mirror image (2, 3, H, W) -> edge map (1, h, w) in (0, 1), displacement (2,
        h, w).

        The logits of the two are averaged. With `padded_size` the images are padded by zeros to its square.
        """
        height, width = pair.shape[2:]
        if padded_size is not None:
            if padded_size < max(height, width):
                raise ConfigError(
                    f"padded_size {padded_size} is less than the image's {max(height, width)} px; raise it"
                )
            pair = F.pad(pair, (0, padded_size - width, 0, padded_size - height))
        rows, columns = -(-height // EDGE_STRIDE), -(-width // EDGE_STRIDE)
        logits, displacement = (output[:, :, :rows, :columns] for output in self(pair))
        return ((logits[0] + logits[1].flip(-1)) / 2).sigmoid(), displacement[0]

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of {"images" (N, 3, H, W), "label_maps" (N, H, W) of confident labels, 255 elsewhere}."""
        logits, displacement = self(batch["images"])
        middle = EDGE_STRIDE // 2  # Nearest-neighbour resizing takes this pixel, as released.
        labels = batch["label_maps"][:, middle::EDGE_STRIDE, middle::EDGE_STRIDE]
        affinity = line_affinities(logits[:, 0].float().sigmoid(), self.radius)
        pairs = pair_labels(labels, self.radius)
        edge = edge_loss(affinity, *pairs)
        offset = displacement_loss(displacement.float(), *pairs[:2], self.radius)
        return {"loss": edge + offset, "edge": edge, "displacement": offset}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return groups with the rates of the released code: edge layers 1x, displacement layers 10x."""
        edge = [*self.edge_layers.parameters(), *self.edge_output.parameters()]
        modules = (self.displacement_layers, self.displacement_coarse, self.displacement_output)
        displacement = [parameter for module in modules for parameter in module.parameters()]
        return [{"params": edge, "lr_scale": 1.0}, {"params": displacement, "lr_scale": 10.0}]

    def train(self, mode: bool = True) -> "IrnNetwork":
        """Do as nn.Module does; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self


def reduction(in_channels: int, width: int, groups: int) -> nn.Sequential:
    """Return a 1x1 convolution and group normalisation."""
    return nn.Sequential(nn.Conv2d(in_channels, width, 1, bias=False), nn.GroupNorm(groups, width))


def read_features(backbone: Backbone, images: Tensor) -> list[Tensor]:
    """Return features of the stem, where the backbone has one to read, and of the four stages, finest first."""
    if not isinstance(backbone, ResidualBackbone):
        return backbone(images)
    stem = backbone.stem(images)
    return [stem, *backbone.after_stem(stem)]


def measure_features(backbone: Backbone, side: int = 64) -> tuple[list[int], list[int]]:
    """Return the strides and channels of `read_features`, from one pass."""
    with torch.no_grad():
        features = read_features(backbone, torch.zeros(1, 3, side, side))
    strides = [side // feature.shape[3] for feature in features]
    return strides, [feature.shape[1] for feature in features]


def at_stride(x: Tensor, stride: int, target: int, size: torch.Size) -> Tensor:
    """Return features of one stride at another: bilinear enlargement by the factor, or averaging; cut to `size`."""
    if stride > target:
        x = F.interpolate(x, scale_factor=stride // target, mode="bilinear", align_corners=False)
    elif stride < target:
        x = F.avg_pool2d(x, target // stride, ceil_mode=True)
    return x[:, :, : size[0], : size[1]]


def sources(x: Tensor, radius: int, dy: int = 0, dx: int = 0) -> Tensor:
    """Return the pixels of (..., h, w) whose neighbours within `radius` below and beside them all exist, moved by (dy,
    dx).
    """
    margin = radius - 1
    rows, columns = x.shape[-2] - margin, x.shape[-1] - 2 * margin
    if rows < 1 or columns < 1:
        raise ConfigError(
            f"a view of {x.shape[-1] * EDGE_STRIDE} px leaves no pairs {radius} px apart at stride {EDGE_STRIDE}; "
            f"raise views.crop or lower radius"
        )
    return x[..., dy : dy + rows, margin + dx : margin + dx + columns]


def line_affinities(edge: Tensor, radius: int) -> Tensor:
    """Return affinities (N, D, rows, columns) of `sources` to the neighbours of `paths`, of edge maps (N, h, w) in [0, 1]."""
    return torch.stack(
        [1 - torch.stack([sources(edge, radius, *cell) for cell in path]).amax(dim=0) for path in paths(radius)], dim=1
    )


def pair_labels(labels: Tensor, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return which pairs of label maps (N, h, w) are foreground of one label, background, and of two labels.

    Each is float (N, D, rows, columns) of 0 and 1; pairs with an ignored pixel are in none.
    """
    start = sources(labels, radius)[:, None]
    end = torch.stack([sources(labels, radius, *path[0]) for path in paths(radius)], dim=1)
    valid = (start != IGNORE_INDEX) & (end != IGNORE_INDEX)
    equal = valid & (start == end)
    return (equal & (start != BACKGROUND)).float(), (equal & (start == BACKGROUND)).float(), (valid & ~equal).float()


def edge_loss(affinity: Tensor, foreground: Tensor, background: Tensor, different: Tensor) -> Tensor:
    """Return L_edge of affinities and pairs (N, D, rows, columns)."""
    same = -(affinity + EPSILON).log()
    apart = -(1 + EPSILON - affinity).log()
    positive = (mean_over(same, foreground) + mean_over(same, background)) / 2
    return (positive + mean_over(apart, different)) / 2


def displacement_loss(displacement: Tensor, foreground: Tensor, background: Tensor, radius: int) -> Tensor:
    """Return L_disp of displacements (N, 2, h, w) and pairs (N, D, rows, columns)."""
    ends = torch.stack([sources(displacement, radius, *path[0]) for path in paths(radius)], dim=2)
    difference = sources(displacement, radius)[:, :, None] - ends
    offsets = torch.tensor([path[0] for path in paths(radius)], device=displacement.device)
    target = offsets.T.reshape(1, 2, -1, 1, 1).to(displacement.dtype)
    foreground_loss = mean_over((difference - target).abs(), foreground[:, None].expand_as(difference))
    background_loss = mean_over(difference.abs(), background[:, None].expand_as(difference))
    return (foreground_loss + background_loss) / 2


def mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of the values where `chosen` is 1; 0 where it is nowhere."""
    return (values * chosen).sum() / (chosen.sum() + EPSILON)


def affinity_label(
    image: np.ndarray, maps: np.ndarray, class_indices: tuple[int, ...], config: IrnConfig
) -> np.ndarray:
    """Return the confident parts of maps as uint8 (H, W) labels, 255 where they are not.

    Foreground: the class that wins against a constant background of `foreground_threshold`. Background: what remains
    background against the lower `background_threshold`. Both after the configured refinement.

    Args:
        image: uint8 (H, W, 3).
        maps: (K, H, W) in [0, 1] of the classes present.
    """
    if config.refine == "pamr" and class_indices:
        maps = refine_pamr(image, maps)
    labels = np.array([BACKGROUND, *label_of(np.asarray(class_indices, int))], np.uint8)
    confident = []
    for threshold in (config.foreground_threshold, config.background_threshold):
        winners = np.concatenate([np.full((1, *image.shape[:2]), threshold, np.float32), maps]).argmax(axis=0)
        if config.refine == "crf" and class_indices:
            winners = smooth_labels(image, winners, len(labels))
        confident.append(labels[winners])
    foreground, background = confident
    unsure = (foreground == BACKGROUND) & (background != BACKGROUND)
    return np.where(unsure, IGNORE_INDEX, foreground).astype(np.uint8)


def smooth_labels(image: np.ndarray, winners: np.ndarray, count: int, certainty: float = 0.7) -> np.ndarray:
    """Smooth a map (H, W) of indices 0..count-1 by the dense CRF, as the released code takes it; return such a map.

    Args:
        image: uint8 (H, W, 3).
        count: at least 2.
        certainty: probability that a given index is right; the others share the rest.
    """
    given = winners == np.arange(count)[:, None, None]
    probabilities = np.where(given, certainty, (1 - certainty) / (count - 1))
    return dense_field(image, probabilities, 10, SMOOTHNESS, APPEARANCE).argmax(axis=0)


def build_irn(config: IrnConfig, weights: str | None = None) -> IrnNetwork:
    """Return the network of a configuration; `weights` (see `build_backbone`) fill its backbone."""
    return IrnNetwork(build_backbone(config.backbone, config.output_stride, weights), config.radius)


@torch.no_grad()
def edge_map(network: IrnNetwork, image: np.ndarray, preferred_size: int, padded_size: int | None = None) -> np.ndarray:
    """Return the edges of one uint8 (H, W, 3) photo at a quarter of the network input's size: float32 (h, w) in (0, 1)."""
    size = geometry_of(image.shape, preferred_size)
    normalized = normalize(resize_image(image, size.input_height, size.input_width))
    pair = torch.stack([normalized, normalized.flip(-1)]).to(network.displacement_mean.device)
    edge, _ = network.predict(pair, padded_size)
    return edge[0].float().cpu().numpy()


def refine_irn(
    network: IrnNetwork, image: np.ndarray, maps: np.ndarray, preferred_size: int, config: IrnConfig
) -> np.ndarray:
    """Walk the maps (K, H, W) in [0, 1] of one photo along its edges; (K, H, W) in [0, 1], see `refine_walk`."""
    edge = edge_map(network, image, preferred_size, config.padded_size)
    return refine_walk(maps, edge, config.walk_radius, config.beta, config.doublings, config.exponent)
