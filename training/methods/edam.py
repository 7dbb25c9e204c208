"""EDAM: embedded discriminative attention mechanism.

Wu et al., "Embedded Discriminative Attention Mechanism for Weakly Supervised Semantic Segmentation", CVPR 2021,
https://openaccess.thecvf.com/content/CVPR2021/html/Wu_Embedded_Discriminative_Attention_Mechanism_for_Weakly_Supervised_Semantic_Segmentation_CVPR_2021_paper.html
The class masks are made inside the classifier, and what is classified is mask times feature, by one transformer per
class that sees a group of images together. With X the backbone's features (N, D, h, w):

    DA layer    M = |L2 normalisation over channels of conv3x3(X)|     `masks` (N, C and the background, h, w)
    tokens      T_k = M_k * conv1x1(X) + sine(position) + segment(image) `tokens` (C, groups, images * h * w, width)
    CMA         x = T_k + W_o softmax(Q K^T / sqrt(d)) V on norm(T_k)    `ClassTransformer`, one for each class k
                x = x + W_2 gelu(W_1 norm(x))
    logit       of class k and an image = w_k . mean of x over the image's own tokens
    loss        binary cross-entropy with logits, over all images and classes

norm is a LayerNorm with the unbiased deviation, eps added to the deviation. The background's mask is the last channel;
no loss reaches it but through the normalisation. Maps are the masks of the classes; they need no ReLU.

Where the released code knows 46 x 46 maps and two images alone, any map size and group size >= 1 work here: the sine of
a token is that of its index y * w + x, and the segment table has a row for each image of a group. The two agree at the
released sizes. `forward` gives every image as a group of one, which is what serving needs; the released code has no
scores at inference. `single_weight` adds the loss of these single-image scores to the training, the paper does not.

Departures from the released code: its 20 transformers are one with a class dimension. `class_samples` (`sample_num`)
takes the classes present in a group first, then absent ones at random; by default all classes are used, as released
(its unused transformers would skip a step, ours decay by weight_decay).
Nothing tells the background's channel from the others: where training is short, a class may take its place, and that
class's map then covers everything but things. With `background_start` the weights of that channel start positive, this
many times their random size, so that on features >= 0 it wins at first and the classes have to earn their pixels.

On features >= 0 a class's mask also grows everywhere at once, with what all pixels have in common. A regression on tags
([classifier.regression]; no step of the paper) starts the DA layer in another way. With w_c its weights and m the mean of
its features, which stays as it is,

    M = |L2 normalisation over channels of conv3x3(X - m) + (0, ..., 0, background_bias)|

where w_c is the middle of the kernel of class c at first, and the background has the constant `background_bias` alone: what
shows no more of any class than photos do on the mean is background.
Frozen in the released code: conv1a and b2* of ResNet-38, and every BatchNorm (`freeze`); that BatchNorm's parameters are
in none of its optimiser's groups has the same effect.
"""

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from app.inference.errors import ConfigError
from app.inference.labels import label_count
from training.backbones import build_backbone
from training.backbones.resnet38 import ResNet38
from training.methods.method import Classifier, Options

SEGMENTS = 5  # The released segment table has this many rows, of which two are used.
NORM_EPSILON = 1e-6


class ClassLinear(nn.Module):
    """It is one linear layer for each of C classes: Xavier-uniform weights, biases as nn.Linear has them."""

    def __init__(self, class_count: int, in_width: int, out_width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(class_count, out_width, in_width))
        self.bias = nn.Parameter(torch.empty(class_count, out_width))
        for weight in self.weight.unbind():
            nn.init.xavier_uniform_(weight)
        nn.init.uniform_(self.bias, -(in_width**-0.5), in_width**-0.5)

    def forward(self, x: Tensor, classes: Tensor | slice) -> Tensor:
        """Return (K, G, T, out_width) of (K, G, T, in_width); K = C, or the length of `classes`."""
        flat = x.flatten(1, 2)
        y = torch.baddbmm(self.bias[classes, None], flat, self.weight[classes].transpose(1, 2))
        return y.unflatten(1, x.shape[1:3])


class ClassNorm(nn.Module):
    """It gives gain * (x - mean) / (unbiased deviation + eps) + bias, with a gain and a bias for each class."""

    def __init__(self, class_count: int, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(class_count, width))
        self.bias = nn.Parameter(torch.zeros(class_count, width))

    def forward(self, x: Tensor, classes: Tensor | slice) -> Tensor:
        """Return the same shape, (K, G, T, width)."""
        gain, bias = self.gain[classes, None, None], self.bias[classes, None, None]
        deviation, mean = torch.std_mean(x, dim=-1, keepdim=True)
        return gain * (x - mean) / (deviation + NORM_EPSILON) + bias


class ClassTransformer(nn.Module):
    """It is a transformer layer for each of C classes, computed side by side."""

    def __init__(self, class_count: int, width: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.heads, self.attention_dropout = heads, attention_dropout
        self.attention_norm = ClassNorm(class_count, width)
        self.query = ClassLinear(class_count, width, width)
        self.key = ClassLinear(class_count, width, width)
        self.value = ClassLinear(class_count, width, width)
        self.attention_output = ClassLinear(class_count, width, width)
        self.feed_forward_norm = ClassNorm(class_count, width)
        self.hidden = ClassLinear(class_count, width, 4 * width)
        self.output = ClassLinear(class_count, 4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, classes: Tensor | slice) -> Tensor:
        """Return tokens of the same shape, (K, G, T, width); a class's tokens of a group attend to each other alone."""
        x = x + self.dropout(self._attend(self.attention_norm(x, classes), classes))
        hidden = F.gelu(self.hidden(self.feed_forward_norm(x, classes), classes), approximate="tanh")
        x = x + self.dropout(self.output(self.dropout(hidden), classes))
        return self.dropout(x)

    def _attend(self, x: Tensor, classes: Tensor | slice) -> Tensor:
        def split(y: Tensor) -> Tensor:  # (K, G, T, width) -> (K, G, heads, T, width / heads)
            return y.unflatten(-1, (self.heads, -1)).transpose(2, 3)

        parts = [split(layer(x, classes)) for layer in (self.query, self.key, self.value)]
        # It goes class after class: ONNX Runtime would hold all classes' scores, gigabytes.
        if torch.compiler.is_exporting():
            rows = zip(*(part.unbind() for part in parts), strict=True)
            y = torch.stack([F.scaled_dot_product_attention(*row) for row in rows])
        else:
            dropout = self.attention_dropout if self.training else 0.0
            query, key, value = (part.flatten(0, 1) for part in parts)
            y = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
            y = y.unflatten(0, x.shape[:2])
        return self.attention_output(y.transpose(2, 3).flatten(3), classes)


class EdamClassifier(Classifier):
    """It is a backbone, the DA layer (`mask_layer`), 1x1 convolution (`reduce`), embedding, class transformers, class weights."""

    paper = "Wu et al., Embedded Discriminative Attention Mechanism for WSSS, CVPR 2021"
    feature_mean: Tensor
    mask_bias: Tensor

    class Options(Options):
        group_size: int = Field(default=2, ge=1)  # This many images are classified together in training.
        # This many classes of each group are used; None means all.
        class_samples: int | None = Field(default=None, ge=1)
        single_weight: float = Field(default=0.0, ge=0)  # It weighs the loss of every image as a group of one.
        width: int = Field(default=128, ge=2)
        heads: int = Field(default=2, ge=1)
        layers: int = Field(default=1, ge=1)
        dropout: float = Field(
            default=0.1, ge=0, lt=1
        )  # The embedding, residual branches and hidden layer drop this share.
        attention_dropout: float = Field(default=0.1, ge=0, lt=1)
        transformer_lr_scale: float = Field(default=1.0, ge=0)
        # The DA layer learns at this many times the base rate; None means that of the other new layers, as released.
        mask_lr_scale: float | None = Field(default=None, ge=0)
        background_start: float = Field(default=0.0, ge=0)  # The module's text explains it; 0 is as released.
        # The background's channel has this beside its convolution, in units of a class's logit; 0 is as released.
        background_bias: float = Field(default=0.0, ge=0)
        freeze: bool | None = None  # The first modules and all BatchNorm stay; None means on ResNet-38 alone.

    def __init__(
        self, class_count: int, backbone: str, output_stride: int, weights: str | None, options: Options
    ) -> None:
        super().__init__()
        if options.width % (2 * options.heads):
            raise ConfigError(f"width {options.width} must be a multiple of 2 * heads = {2 * options.heads}")
        self.options, self.class_count = options, class_count
        self.backbone = build_backbone(backbone, output_stride, weights)
        if isinstance(self.backbone, ResNet38):
            self.backbone.drop_final_activation()
        channels, width = self.backbone.channels[-1], options.width
        self.mask_layer = nn.Conv2d(channels, label_count(class_count), 3, padding=1, bias=False)
        self.register_buffer("feature_mean", torch.zeros(channels, 1, 1))
        background = F.pad(torch.zeros(class_count), (0, 1), value=options.background_bias)
        self.register_buffer("mask_bias", background[:, None, None], persistent=False)
        self.reduce = nn.Conv2d(channels, width, 1, bias=False)
        self.segment = nn.Embedding(max(SEGMENTS, options.group_size), width)
        self.embedding_dropout = nn.Dropout(options.dropout)
        self.transformers = nn.ModuleList(
            ClassTransformer(class_count, width, options.heads, options.dropout, options.attention_dropout)
            for _ in range(options.layers)
        )
        self.class_weight = nn.Parameter(torch.empty(class_count, width))
        for weight in (self.mask_layer.weight, self.reduce.weight, self.segment.weight):
            nn.init.xavier_uniform_(weight)
        for weight in self.class_weight.split(1):
            nn.init.xavier_uniform_(weight)
        if options.background_start:
            with torch.no_grad():
                self.mask_layer.weight[-1].abs_().mul_(options.background_start)
        if isinstance(self.backbone, ResNet38) if options.freeze is None else options.freeze:
            self.backbone.keeps_statistics = True
            self.backbone.freeze_stem()
            for module in self.backbone.batch_norms():
                module.requires_grad_(False)

    @classmethod
    def photos_per_group(cls, options: Options) -> int:
        """See `Classifier.photos_per_group`."""
        return options.group_size

    def head(self) -> nn.Conv2d:
        """See `Classifier.head`: the DA layer."""
        return self.mask_layer

    @torch.no_grad()
    def take_regression(self, weight: Tensor, bias: Tensor, mean: Tensor) -> None:
        """See `Classifier.take_regression`, and the module's text."""
        self.mask_layer.weight.zero_()
        self.mask_layer.weight[: self.class_count, :, 1, 1] = weight
        self.feature_mean.copy_(mean[:, None, None])

    def masks(self, features: Tensor) -> Tensor:
        """Return the DA layer's masks (N, C and the background last, h, w) in [0, 1] of (N, channels, h, w); squares sum to 1 per pixel."""
        evidence = self.mask_layer(features - self.feature_mean) + self.mask_bias
        return F.normalize(evidence, dim=1).abs()

    def tokens(self, features: Tensor, masks: Tensor, group_size: int) -> Tensor:
        """Return embedded tokens (C, N / group_size, group_size * h * w, width), image after image, row after row."""
        reduced = self.reduce(features).flatten(2).transpose(1, 2)  # (N, h w, width)
        attention = masks[:, : self.class_count].flatten(2).transpose(0, 1)  # (C, N, h w)
        position = sine_table(reduced.shape[1], self.options.width, reduced.device)
        embedded = attention[..., None] * reduced + position
        embedded = embedded.unflatten(1, (-1, group_size)) + self.segment.weight[:group_size, None]
        return self.embedding_dropout(embedded.flatten(2, 3))

    def classify(self, tokens: Tensor, group_size: int, classes: Tensor | slice = slice(None)) -> Tensor:
        """Return logits (G * group_size, K) of tokens (K, G, group_size * h * w, width) of `classes`."""
        for transformer in self.transformers:
            tokens = transformer(tokens, classes)
        pooled = tokens.unflatten(2, (group_size, -1)).mean(dim=3).flatten(1, 2)  # (K, N, width)
        return (pooled * self.class_weight[classes, None]).sum(dim=-1).transpose(0, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Classifier.forward`: every image is a group of one; maps are its classes' masks, in [0, 1]."""
        features = self.backbone(images)[-1]
        masks = self.masks(features)
        return self.classify(self.tokens(features, masks, 1), 1), masks[:, : self.class_count]

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of a batch in which every `group_size` consecutive images form a group (`training.data.pairing`)."""
        images, image_labels = batch["images"], batch["image_labels"]
        size = self.options.group_size
        if len(images) % size:
            raise ConfigError(
                f"a batch of {len(images)} images cannot be cut into groups of {size}; make fit.batch_size a multiple "
                f"of it on every device, or change the option group_size"
            )
        features = self.backbone(images)[-1]
        masks = self.masks(features)
        tokens = self.tokens(features, masks, size)
        losses = {"group": self._group_loss(tokens, image_labels, size)}
        losses["loss"] = losses["group"]
        if self.options.single_weight:
            single = self.classify(self.tokens(features, masks, 1), 1)
            losses["single"] = F.binary_cross_entropy_with_logits(single.float(), image_labels)
            losses["loss"] = losses["group"] + self.options.single_weight * losses["single"]
        return losses

    def _group_loss(self, tokens: Tensor, image_labels: Tensor, size: int) -> Tensor:
        samples = self.options.class_samples
        if samples is None or samples >= self.class_count:
            return F.binary_cross_entropy_with_logits(self.classify(tokens, size).float(), image_labels)
        losses = []
        for group, labels in enumerate(image_labels.split(size)):
            classes = choose_classes(labels, samples)
            logits = self.classify(tokens[classes, group : group + 1], size, classes)
            losses.append(F.binary_cross_entropy_with_logits(logits.float(), labels[:, classes]))
        return torch.stack(losses).mean()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return groups with the rates of the released code: backbone 1x; DA layer, 1x1 convolution, class weights 10x; embedding, transformers 1x."""
        mask_layer, heads = [self.mask_layer.weight], [self.reduce.weight, self.class_weight]
        own_rate = self.options.mask_lr_scale
        groups = [
            {"params": [p for p in self.backbone.parameters() if p.requires_grad], "lr_scale": 1.0},
            {"params": heads if own_rate is not None else mask_layer + heads, "lr_scale": self.head_lr_scale},
            {
                "params": [self.segment.weight, *self.transformers.parameters()],
                "lr_scale": self.options.transformer_lr_scale,
            },
        ]
        return groups if own_rate is None else [*groups, {"params": mask_layer, "lr_scale": own_rate}]


def sine_table(length: int, width: int, device: torch.device) -> Tensor:
    """Return (length, width) with sin(t / 10000^(2i / width)) in column 2i and its cosine in 2i + 1 (Vaswani et al. 2017, 3.5).

    The released code's float32, save that exp is rounded from float64: float32 exp differs in its last bit from machine
    to machine, which two thousand positions magnify to 6e-5.
    """
    exponent = torch.arange(0, width, 2, device=device).float() * (-math.log(10000.0) / width)
    frequency = exponent.double().exp().float()
    angle = torch.arange(length, device=device).float()[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def choose_classes(labels: Tensor, samples: int) -> Tensor:
    """Return `samples` class indices (samples,): those any image of the group has, by index, then absent ones at random.

    Args:
        labels: multi-hot (group_size, C).
    """
    present = labels.amax(dim=0) > 0
    chance = torch.rand(len(present), device=labels.device)  # It lies below 1, so that every class present comes first.
    first = torch.arange(len(present), 0, -1, device=labels.device)
    return torch.where(present, first, chance).topk(samples).indices
