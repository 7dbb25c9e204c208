"""The rules "edam" and "edam-paper" make pseudo-labels of EDAM from class masks and a saliency map.

Wu et al., "Embedded Discriminative Attention Mechanism for Weakly Supervised Semantic Segmentation", CVPR 2021. The
released code and the paper give different rules; both are here. s is the saliency, v_k the score of class k, M the
masks with the background's:

    code    v_0 = [s <= limit];  v_k = -2 below alpha, 2 above beta, else itself;  label = argmax of v
    paper   P = argmax of M;  S = [s >= limit];  label = 0 where S = 1 and M_P < alpha,
            P where S = 0 and M_P > beta, else P * S

In words: a salient pixel takes its best class, one that is not salient is background unless a class is all but certain.
Without saliency the released code compares with a constant background of 0.5, which is the rule "threshold".
The released code's second script (eval.py) applies its rule to scores after the CRF as well; so can `edam_pseudo_label`.
"""

from typing import Any

import numpy as np
from pydantic import Field

from app.inference.arrays import resize_bilinear
from app.inference.labels import BACKGROUND, label_of
from training.label_rules.rule import PhotoMaps, Rule, RuleOptions, Settings
from training.smoothing.crf import PSA_APPEARANCE, SMOOTHNESS, dense_field

SALIENCY_LIMIT = 20  # The released code has theta = 0.2, and multiplies it by 100, of values up to 255.
ALPHA, BETA = 1e-6, 0.99999
CERTAIN, IMPOSSIBLE = 2.0, -2.0
CRF_STEPS = 3  # The released code takes this many steps.


class EdamOptions(RuleOptions):
    """Between these two thresholds a score counts as it is."""

    alpha: float = Field(default=ALPHA, ge=0, le=1)
    beta: float = Field(default=BETA, ge=0, le=1)


def label_as_released(photo: PhotoMaps, settings: Settings, options: EdamOptions) -> np.ndarray:
    """Return the uint8 (H, W) label map by the released code's rule, of maps that may be refined before."""
    maps = normalize_edam(photo.full_size(settings.refine))
    if settings.refine == "crf" and photo.class_indices:
        maps = smooth_edam(photo.image, maps)
    limit = photo.saliency_limit
    return edam_pseudo_label(maps, photo.class_indices, photo.salience, limit, options.alpha, options.beta)


def label_as_in_the_paper(photo: PhotoMaps, settings: Settings, options: EdamOptions) -> np.ndarray:
    """Return the uint8 (H, W) label map by the paper's rule.

    Masks of untagged classes count as the background's, for the squares of a pixel's masks sum to 1.
    """
    views = len(photo.cams) * (2 if photo.mirrored else 1)
    added = np.sum([resize_bilinear(cam, *photo.image.shape[:2]) for cam in photo.cams], axis=0)
    masks = added / views
    background = np.sqrt(np.clip(1 - np.square(masks).sum(axis=0), 0, 1))
    limit = photo.saliency_limit
    return edam_paper_pseudo_label(
        masks, background, photo.class_indices, photo.salience, limit, options.alpha, options.beta
    )


def check_masks(run: Any) -> str | None:
    """Refuse a run whose maps are not the masks that EDAM's network gives."""
    if run.classifier.method == "edam" and not run.refine and run.localize.inference == "plain":
        return None
    return 'pseudo_label.rule = "edam-paper" reads the masks of EDAM: plain inference, no [refine]'


def smooth_edam(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Return maps (K, H, W) after the dense CRF of EDAM's released code: the background's score is 1 - their maximum."""
    scores = np.concatenate([1 - maps.max(axis=0, keepdims=True), maps])
    return dense_field(image, scores / scores.sum(axis=0, keepdims=True), CRF_STEPS, SMOOTHNESS, PSA_APPEARANCE)[1:]


def normalize_edam(maps: np.ndarray) -> np.ndarray:
    """Divide every map (K, H, W) >= 0 by its own maximum, without an epsilon: the peak is exactly 1. Zeros stay zeros."""
    peak = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.where(peak > 0, peak, 1)


def edam_pseudo_label(
    maps: np.ndarray,
    class_indices: tuple[int, ...],
    saliency: np.ndarray,
    saliency_limit: float = SALIENCY_LIMIT,
    alpha: float = ALPHA,
    beta: float = BETA,
) -> np.ndarray:
    """Label by the released code's rule; ties go to the background, then to the lowest label.

    Args:
        maps: (K, H, W) in [0, 1], of the classes present, by `normalize_edam` (so that the peak exceeds beta).
        class_indices: the classes of the maps, ascending.
        saliency: uint8 (H, W); background where <= `saliency_limit`.

    Returns:
        uint8 (H, W): 0 for background or `label_of(class_index)`.
    """
    labels = np.concatenate([[BACKGROUND], label_of(np.asarray(class_indices, int))]).astype(np.uint8)
    background = (saliency <= saliency_limit).astype(maps.dtype)
    scores = np.where(maps < alpha, IMPOSSIBLE, np.where(maps > beta, CERTAIN, maps))
    return labels[np.concatenate([background[None], scores]).argmax(axis=0)]


def edam_paper_pseudo_label(
    maps: np.ndarray,
    background_map: np.ndarray,
    class_indices: tuple[int, ...],
    saliency: np.ndarray,
    saliency_limit: float = SALIENCY_LIMIT,
    alpha: float = ALPHA,
    beta: float = BETA,
) -> np.ndarray:
    """Label by the paper's rule, on masks as the DA layer gives them: not divided by their maxima, the background's among them.

    The paper leaves the unit of its saliency threshold open; here it is the released code's.

    Args:
        maps: (K, H, W) in [0, 1], masks of the classes present. background_map: (H, W), that of the background.
        saliency: uint8 (H, W); salient where >= `saliency_limit`.

    Returns:
        uint8 (H, W) as `edam_pseudo_label`.
    """
    labels = np.concatenate([[BACKGROUND], label_of(np.asarray(class_indices, int))]).astype(np.uint8)
    masks = np.concatenate([background_map[None], maps])
    best, value = labels[masks.argmax(axis=0)], masks.max(axis=0)
    salient = saliency >= saliency_limit
    kept = np.where(salient, value >= alpha, value > beta)
    return np.where(kept, best, BACKGROUND).astype(np.uint8)


EDAM = Rule(label_as_released, EdamOptions)
EDAM_PAPER = Rule(
    label_as_in_the_paper,
    EdamOptions,
    refines=("none",),
    check=check_masks,
)
