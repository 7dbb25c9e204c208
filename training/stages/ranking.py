"""Figures of a classifier are computed from scores and tags."""

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve

# A map is tried at these thresholds. Maps that peak on a part are low on the rest, and their best threshold often lies below 0.05.
THRESHOLDS = (0.01, 0.02, 0.03, 0.04, *(round(0.05 * step, 2) for step in range(1, 20)))


def mean_average_precision(image_labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean over classes of the average precision, in percent; classes without a tagged photo are left out.

    Args:
        image_labels: multi-hot (N, C).
        scores: (N, C), any monotone score.
    """
    present = image_labels.any(axis=0)
    if not present.any():
        return float("nan")
    values = [average_precision_score(image_labels[:, c], scores[:, c]) for c in np.flatnonzero(present)]
    return 100 * float(np.mean(values))


def best_f1_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the score threshold with the largest F1 (`score >= threshold` means present); 0.5 where there is no positive.

    Args:
        labels: 0 or 1, (N,).
        scores: (N,) in [0, 1].
    """
    if not labels.any():
        return 0.5
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(np.clip(thresholds[f1[:-1].argmax()], 0.0, 1.0))
