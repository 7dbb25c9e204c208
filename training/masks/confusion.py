"""Pixels are counted by the label that was answered and the label that is true, at one threshold or at all of them at once."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from app.inference.arrays import resize_bilinear
from app.inference.labels import BACKGROUND, IGNORE_INDEX, label_count, label_of
from training.stages.ranking import THRESHOLDS


@dataclass
class Confusion:
    """It counts pixels (labels, labels): rows are the truth, columns the prediction."""

    counts: np.ndarray

    @classmethod
    def empty(cls, class_count: int) -> "Confusion":
        """Return one in which nothing is counted yet."""
        labels = label_count(class_count)
        return cls(np.zeros((labels, labels), np.int64))

    def add(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Count one photo: labels uint8 (H, W). Ignored truth is left out; an ignored prediction is background."""
        labels = len(self.counts)
        known = truth != IGNORE_INDEX
        predicted = np.where(predicted == IGNORE_INDEX, BACKGROUND, predicted)
        pairs = truth[known].astype(int) * labels + predicted[known]
        self.counts += np.bincount(pairs, minlength=labels * labels).reshape(labels, labels)

    def iou(self) -> np.ndarray:
        """Return intersection over union per label, in percent; NaN for a label that is neither there nor predicted."""
        hit = np.diag(self.counts).astype(float)
        union = self.counts.sum(axis=0) + self.counts.sum(axis=1) - hit
        with np.errstate(invalid="ignore"):
            return 100 * hit / union

    def miou(self, labels: Iterable[int] | None = None) -> float:
        """Return the mean IoU over `labels` (all that occur where None)."""
        iou = self.iou()
        return float(np.nanmean(iou if labels is None else iou[list(labels)]))

    def summary(self) -> dict[str, float]:
        """Return the mIoU with the mean precision and recall over the labels that occur."""
        hit = np.diag(self.counts).astype(float)
        with np.errstate(invalid="ignore"):
            precision, recall = hit / self.counts.sum(axis=0), hit / self.counts.sum(axis=1)
        return {
            "miou": self.miou(),
            "precision": float(100 * np.nanmean(precision)),
            "recall": float(100 * np.nanmean(recall)),
        }


class Sweep:
    """It counts pixels at every threshold of `THRESHOLDS` at once: (T + 1, labels, labels), by how many a pixel exceeds."""

    def __init__(self, class_count: int) -> None:
        labels = label_count(class_count)
        self.counts = np.zeros((len(THRESHOLDS) + 1, labels, labels), np.int64)

    def add(self, truth: np.ndarray, maps: np.ndarray, class_indices: tuple[int, ...]) -> None:
        """Count one photo: labels uint8 (H, W), maps (K, h, w) of its tagged classes."""
        labels = exceeded = np.zeros(truth.shape, int)
        if class_indices:
            enlarged = resize_bilinear(maps, *truth.shape)
            labels = label_of(np.asarray(class_indices))[enlarged.argmax(axis=0)]
            exceeded = np.digitize(enlarged.max(axis=0), THRESHOLDS, right=True)
        known = truth != IGNORE_INDEX
        cells = np.ravel_multi_index((exceeded[known], truth[known], labels[known]), self.counts.shape)
        self.counts += np.bincount(cells, minlength=self.counts.size).reshape(self.counts.shape)

    def best(self) -> tuple[float, float]:
        """Return the threshold with the largest mIoU, and that mIoU."""
        mious = [self.at(index).miou() for index in range(len(THRESHOLDS))]
        index = int(np.argmax(mious))
        return THRESHOLDS[index], mious[index]

    def at_threshold(self, threshold: float) -> Confusion:
        """Return the confusion at one of `THRESHOLDS`."""
        return self.at(THRESHOLDS.index(threshold))

    def at(self, index: int) -> Confusion:
        """Return the confusion at `THRESHOLDS[index]`: pixels that do not exceed it are background."""
        counts = self.counts[index + 1 :].sum(axis=0)
        counts[:, BACKGROUND] += self.counts[: index + 1].sum(axis=(0, 2))
        return Confusion(counts)
