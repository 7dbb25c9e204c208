"""Activation-aware mask refinement: a saliency loss for a segmenter that does not suppress objects nobody looks at.

Sun, Zhang and Barnes, "Inferring the Class Conditional Response Map for Weakly Supervised Semantic Segmentation"
(CCRM), WACV 2022, https://arxiv.org/abs/2110.14309, use saliency while the segmenter is trained, refine foreground
masks with it and do not suppress objects that are not salient. THIS IS A READING OF THE PAPER: the released repository
does not hold the loss, in none of its commits. The paper's own text was looked for in vain: stored pages of arXiv and its
mirrors, CVF, the university, Papers with Code and digests of papers hold the abstract alone, which has no formula, and no
public code or issue thread that could be searched quotes one. The formula below follows the closest text of the same first
author (GETAM, https://arxiv.org/abs/2112.02841, its optional saliency loss).

    tau_k = 0.9-quantile of the positive values of A_k            A: maps of the tagged classes
    H     = union over the tagged k of [A_k >= tau_k]              `activated`
    S     = the saliency map, binary                               `salient`
    p_bg  = softmax of the segmenter's output, background channel, at full size
    reading "foreground":  L = mean over pixels of BCE(1 - p_bg, S or H)
    reading "ignore":      the same with S alone, over the pixels outside H \\ S

Both agree with "without suppressing": activated pixels that are not salient become foreground, or say nothing. It is
added to the cross-entropy with a weight (lambda), 1 from the first step. GETAM as released divides a saliency map of
{0, 1, 255} by 255 and truncates it, which turns salient pixels into background; here saliency is binary.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from app.inference.labels import BACKGROUND, label_of

Reading = Literal["foreground", "ignore"]


def activated_region(maps: np.ndarray, quantile: float = 0.9) -> np.ndarray:
    """H of a photo: bool (H, W), from the maps (K, H, W) of its tagged classes alone."""
    region = np.zeros(maps.shape[1:], bool)
    for each in maps:
        positive = each[each > 0]
        if positive.size:
            region |= (each >= np.quantile(positive, quantile)) & (each > 0)
    return region


def mask_refinement_loss(
    logits: Tensor, salient: Tensor, activated: Tensor, reading: Reading = "foreground", valid: Tensor | None = None
) -> Tensor:
    """L, a scalar; zero where no pixel counts.

    Args:
        logits: (N, C + 1, H, W), background first, enlarged to the size of the photos.
        salient: bool (N, H, W), S.
        activated: bool (N, H, W), H.
        reading: what becomes of activated pixels that are not salient.
        valid: bool (N, H, W), False for pixels that belong to no photo (the padding of a crop); all by default.
    """
    foreground = salient | activated if reading == "foreground" else salient
    counts = torch.ones_like(salient) if valid is None else valid
    if reading == "ignore":
        counts = counts & (salient | ~activated)
    total = logits.logsumexp(dim=1)
    log_background = logits[:, BACKGROUND] - total  # log p_bg
    log_foreground = logits[:, label_of(0) :].logsumexp(dim=1) - total  # log(1 - p_bg), exact where p_bg is near 1
    losses = -torch.where(foreground, log_foreground, log_background)
    return (losses * counts).sum() / counts.sum().clamp(min=1)
