"""A network of its own that says what is in the photo as a whole.

A segmenter that learns to draw unlearns to recognise: its backbone follows labels that no person drew, and its tag head is
sure of the photos it was trained on. So the backbone, as ImageNet left it, looks at the photo a second time, smaller and at
its own stride, and a logistic regression on its pooled features (`training.stages.regression`) gives the logits of the
tags. It is trained on tags alone. No paper's step, but for the pooling, a generalised mean (Radenovic et al., "Fine-Tuning CNN
Image Retrieval with No Human Annotation", TPAMI 2019, https://arxiv.org/abs/1711.02512, equation 3, p the same for all channels):

    f_d = (mean over places x of relu(F_d(x))^p)^(1/p)       F (D, h, w) the features; p = 1 is their average

The greater p, the less the ground around a small thing counts.
"""

import torch
from torch import Tensor, nn

from app.inference.labels import class_count
from training.backbones import Backbone
from training.segmenters.aspp import resize_images
from training.segmenters.tag_head import TagHead


class Recognizer(nn.Module):
    """Normalised images (N, 3, H, W) -> logits of the tags (N, C), seen at `scale` times their size."""

    def __init__(self, backbone: Backbone, label_count: int, balance: float, scale: float, power: float = 1.0) -> None:
        super().__init__()
        self.backbone, self.scale, self.power = backbone, scale, power
        self.tag_head = TagHead(backbone.channels[-1], class_count(label_count), balance)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "Recognizer":
        """As nn.Module's, but that nothing in it learns: its normalisation keeps ImageNet's statistics."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.tag_head.linear(self.pool(self.features(images)))

    def pool(self, features: Tensor) -> Tensor:
        """Return the generalised mean (N, D) of features (N, D, h, w) over their places."""
        if self.power == 1:
            return features.mean(dim=(2, 3))
        return features.relu().pow(self.power).mean(dim=(2, 3)).pow(1 / self.power)

    def features(self, images: Tensor) -> Tensor:
        """Return what is pooled (N, D, h, w) of normalised images (N, 3, H, W)."""
        smaller = images if self.scale == 1 else resize_images(images, self.scale)
        return self.backbone(smaller)[-1]

    @torch.no_grad()
    def fill(self, weight: Tensor, bias: Tensor) -> None:
        """Take what the regression found: weights (C, D) and biases (C,)."""
        self.tag_head.linear.weight.copy_(weight)
        self.tag_head.linear.bias.copy_(bias)
