"""Two versions of a segmenter are compared on corrected masks that neither was trained on; a page shows where it got worse."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.inference.analysis import Analyzer
from app.inference.engine import Engine
from app.inference.files.whole_file import write_whole
from app.inference.options import Options
from training.data import TaggedPhotos
from training.masks.confusion import Confusion
from training.masks.corrections.taught import Taught, corrected_mask
from training.masks.page import render
from training.masks.report import legend, overlay, shown_size
from training.masks.review import photo_iou

SHOWN = 60  # The page shows this many photos at most, those that changed most.


@dataclass(frozen=True)
class Comparison:
    """It holds mean IoU in percent of both versions over the photos, and each photo's own, in [0, 1]."""

    before: float
    after: float
    photos: dict[str, tuple[float, float]]

    @property
    def is_worse(self) -> bool:
        """It tells whether the later version has the lower mean IoU."""
        return self.after < self.before

    def said(self) -> str:
        """Return it in a sentence."""
        worse = sum(after < before for before, after in self.photos.values())
        return (
            f"mean IoU on {len(self.photos)} kept-aside corrections: {self.before:.1f} before, {self.after:.1f} after; "
            f"{worse} of them got worse"
        )


def compare_versions(before: Path, after: Path, taught: Taught, photos: TaggedPhotos, out: Path) -> Comparison:
    """Measure two files on the kept-aside corrections, no tags given, and write the page `out`."""
    engines = [Engine(path, device="cpu", intra_op_threads=0) for path in (before, after)]
    confusions = [Confusion.empty(len(photos.classes)) for _ in engines]
    ious: dict[str, tuple[float, float]] = {}
    shown = []
    for name in taught.kept_aside:
        image, truth = photos.image(name), corrected_mask(taught.corrections, photos, name)
        masks = [Analyzer(Options(), segmenter=engine).look_at(image).mask.mask for engine in engines]
        for confusion, mask in zip(confusions, masks, strict=True):
            confusion.add(truth, mask)
        first, second = (photo_iou(truth, mask) for mask in masks)
        ious[name] = first, second
        small = shown_size(image)
        pictures = [overlay(shown_size(mask), small) for mask in (*masks, truth)]
        shown.append((second - first, name, f"{first:.2f}", f"{second:.2f}", pictures))
    means = [confusion.miou() if confusion.counts.any() else float("nan") for confusion in confusions]
    comparison = Comparison(means[0], means[1], ious)
    shown.sort(key=lambda row: (row[0] >= 0, -abs(row[0])))
    rows = list(zip(("background", *photos.classes), *(np.round(each.iou(), 1) for each in confusions), strict=True))
    labels = [row for row in rows if not np.isnan(row[1:]).all()]
    page = render(
        "corrections/report.html",
        cards=[engine.card for engine in engines],
        comparison=comparison,
        labels=labels,
        photos=shown[:SHOWN],
        legend=legend(photos.classes),
        corrections=taught.corrections.rows,
        taught=taught.taught,
    )
    write_whole(out, page)
    return comparison
