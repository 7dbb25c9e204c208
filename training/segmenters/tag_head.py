"""What is in the photo as a whole, and its say in the class of every pixel.

Whether a pixel belongs to a thing is seen in its surroundings; which thing it is, the whole photo tells better. A linear
layer on the averaged features gives logits t of the tags, trained by binary cross-entropy with them. At test time

    p'_c(x) = (1 - p_0(x)) * w_c p_c(x) / sum_k w_k p_k(x),    w_c = sigmoid(t_c) / f_c^balance,    p'_0(x) = p_0(x)

with p the pixel's probabilities, 0 the background and f_c the share of training photos that have class c (each counted
once, however often `repeat_threshold` shows it). The loss is that of Zhang et al., "Context Encoding for Semantic
Segmentation", CVPR 2018, https://arxiv.org/abs/1803.08904, section 2; the exponent is the post-hoc logit adjustment of
Menon et al., "Long-Tail Learning via Logit Adjustment", ICLR 2021, https://arxiv.org/abs/2007.07314, equation 9, among the
classes alone. That the tags share out what is not background, and leave the background as it is, is our own.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.inference.labels import label_of


class TagHead(nn.Module):
    """Features (N, D, h, w) -> logits of the tags (N, C)."""

    frequency: Tensor

    def __init__(self, channels: int, class_count: int, balance: float) -> None:
        super().__init__()
        self.linear, self.balance = nn.Linear(channels, class_count), balance
        self.register_buffer("frequency", torch.ones(class_count))

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return self.linear(features.mean(dim=(2, 3)))

    def count(self, image_labels: Tensor) -> None:
        """Take the classes' frequencies from the tags (M, C) of the training photos; one photo where there is none."""
        self.frequency.copy_(image_labels.sum(dim=0).clamp(min=1) / len(image_labels))

    def share_out(self, logits: Tensor, tag_logits: Tensor) -> Tensor:
        """Logits (N, C + 1, h, w), background first, and those of the tags (N, C) -> logits of p'."""
        background, things = logits.split((label_of(0), tag_logits.shape[1]), dim=1)
        log_sigmoid = -F.softplus(
            -tag_logits
        )  # exact in ONNX too, where the other is the logarithm of a rounded sigmoid
        weights = log_sigmoid - self.balance * self.frequency.log()
        weighted = things + weights[:, :, None, None]
        lost = things.logsumexp(dim=1, keepdim=True) - weighted.logsumexp(dim=1, keepdim=True)
        return torch.cat([background, weighted + lost], dim=1)
