"""The verb `review` says how well the quality estimate of `python -m app label` ranks photos by their true IoU.

Measuring only; it reads masks.
"""

import csv
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from app.inference.errors import DataError
from app.inference.files.file_names import of_cell
from app.inference.label_maps.quality import foreground_labels
from app.inference.labels import IGNORE_INDEX
from training.data import DataConfig, open_source
from training.masks.ground_truth import GroundTruth, read_mask

SIGNS = ("quality", "agreement", "consistency", "margin")


def review(labelled: Path, data: DataConfig) -> str:
    """Return Spearman's rank correlation of every sign in `labelled`/review.csv with the photos' true IoU, as a table.

    Raises DataError where no labelled photo has a mask.
    """
    photos = open_source(data)
    truth = GroundTruth(data, photos)
    path = labelled / "review.csv"
    if not path.is_file():
        raise DataError(f"{path} does not exist; `python -m app label` writes it")
    with path.open(newline="", encoding="utf-8") as file:
        every = [row | {"name": of_cell(row["name"])} for row in csv.DictReader(file)]
    rows = [row for row in every if row["name"] in photos.tag_table and truth.has(row["name"])]
    if not rows:
        raise DataError(f"no photo of {path} has a mask in {data.root}")
    ious = [
        photo_iou(truth.mask(row["name"]), read_mask(labelled / "SegmentationClass" / f"{row['name']}.png"))
        for row in rows
    ]
    lines = [f"{len(rows)} photos, mean IoU {100 * np.mean(ious):.1f}; Spearman's rank correlation with it:"]
    for sign in SIGNS:
        known = [(float(row[sign]), iou) for row, iou in zip(rows, ious, strict=True) if row[sign]]
        if len(known) > 1:
            lines.append(f"{sign:12} {spearmanr(*zip(*known, strict=True)).statistic:6.3f}  ({len(known)} photos)")
    worst = np.array(ious)[: max(1, len(ious) // 4)]  # review.csv is sorted, worst first.
    lines.append(f"mean IoU of the quarter listed first {100 * worst.mean():.1f}")
    return "\n".join(lines)


def photo_iou(truth: np.ndarray, label: np.ndarray) -> float:
    """Return the mean IoU over the classes in either map (H, W), background left out; pixels of unknown truth do not
    count.
    """
    known = truth != IGNORE_INDEX
    ious = []
    for value in foreground_labels(truth) | foreground_labels(label[known]):
        a, b = (truth == value) & known, (label == value) & known
        ious.append((a & b).sum() / (a | b).sum())
    return float(np.mean(ious)) if ious else 1.0
