"""It is estimated how good a label is, without knowing the truth: an annotator should look at the worst first.

Three signs, each in [0, 1], and their mean:

    agreement     mean IoU of the segmenter's mask and the pseudo-label, over the classes that either holds
    consistency   Jaccard index of the classes in the label and the classes known (tags), or believed (scores), to be there
    margin        mean, over the label's foreground, of the best probability minus the second
"""

from dataclasses import dataclass

import numpy as np

from app.inference.arrays import resize_bilinear
from app.inference.label_maps.regions import count_labels
from app.inference.labels import BACKGROUND, IGNORE_INDEX

TOP = 2  # The margin lies between the best and the second.


@dataclass(frozen=True)
class Quality:
    """It holds the signs of one label; `margin` and `agreement` are None where there is no segmenter to give them."""

    agreement: float | None
    consistency: float
    margin: float | None

    @property
    def estimate(self) -> float:
        """The estimate is the mean of the signs there are."""
        known = [sign for sign in (self.agreement, self.consistency, self.margin) if sign is not None]
        return float(np.mean(known))


def quality_of(
    label: np.ndarray, other: np.ndarray | None, probabilities: np.ndarray | None, expected: frozenset[int]
) -> Quality:
    """Return the signs of a label, uint8 (H, W).

    Args:
        other: a second opinion of the same size, None where there is none.
        probabilities: (C + 1, h, w) of all labels, background first.
        expected: the labels known or believed to be in the photo.
    """
    found = foreground_labels(label)
    return Quality(
        agreement=None if other is None else agreement_of(label, other),
        consistency=jaccard(found, expected),
        margin=None if probabilities is None else margin_of(label, probabilities),
    )


def foreground_labels(label: np.ndarray) -> frozenset[int]:
    """Return the classes' labels in a label map."""
    return frozenset(np.flatnonzero(count_labels(label)).tolist()) - {BACKGROUND, IGNORE_INDEX}


def jaccard(found: frozenset[int], expected: frozenset[int]) -> float:
    """Return the share of the members of either set that are in both; 1 where both are empty."""
    return len(found & expected) / len(found | expected) if found | expected else 1.0


def agreement_of(label: np.ndarray, other: np.ndarray) -> float:
    """Return the mean IoU of two label maps (H, W) over the classes in either; 1 where neither holds one."""
    ious = []
    for value in foreground_labels(label) | foreground_labels(other):
        a, b = label == value, other == value
        ious.append((a & b).sum() / (a | b).sum())
    return float(np.mean(ious)) if ious else 1.0


def margin_of(label: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean of best minus second probability over the label's foreground, over everything where it has none."""
    best = np.partition(probabilities, -TOP, axis=0)[-TOP:]
    margin = resize_bilinear((best[1] - best[0])[None], *label.shape)[0]
    where = (label != BACKGROUND) & (label != IGNORE_INDEX)
    return float(margin[where].mean() if where.any() else margin.mean())
