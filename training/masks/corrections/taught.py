"""A run learns from some corrected masks of a folder, and others are kept aside; the masks become label maps for training.

The one way from a folder of corrections into a training: a run takes it only where its file names the folder.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.inference.class_names import find_class
from app.inference.errors import DataError
from app.inference.label_maps.corrections import LIST, Corrections, mask_file, read_corrections
from app.inference.labels import label_of
from training.config.learning import CorrectionsConfig
from training.data import TaggedPhotos
from training.data.source import nearest, rank_of
from training.masks.corrections.drawn import LABEL_VALUES
from training.stages.pseudo_label import write_label_map

CORRECTED = "corrected"  # The configuration in a card lists under this key the photos whose masks were learned.
LEARNED = "corrections"  # Under this key it tells one set of corrections from another.
LEAST_TO_KEEP_ASIDE = 5  # Of fewer corrected photos none is kept aside: each teaches more than it tells.


@dataclass(frozen=True)
class Taught:
    """It lists the corrected photos of a data set. taught: those learned from. kept_aside: those that versions are compared on."""

    corrections: Corrections
    taught: tuple[str, ...]
    kept_aside: tuple[str, ...]

    def digest(self) -> str:
        """Return what tells these masks from others, and from the same ones otherwise shared out."""
        digest = hashlib.sha256(f"{self.taught} {self.kept_aside}".encode())
        for photo in (*self.taught, *self.kept_aside):
            digest.update(mask_file(self.corrections.folder, photo).read_bytes())
        return digest.hexdigest()


def open_corrections(config: CorrectionsConfig, photos: TaggedPhotos) -> Taught:
    """Return the corrected photos of a folder, each with a photo of the data.

    Photos outside `train` are kept aside, for nobody trains on them; of `train` those whose name's hash is small, so that
    one more correction moves no other. Raises DataError where a row names no photo.
    """
    corrections = read_corrections(config.folder)
    for photo in corrections.rows:
        if photo not in photos.tag_table:
            raise DataError(
                f"{config.folder / LIST}: the data has no photo {photo!r}{nearest(photo, photos.tag_table)}. Remove the row, or "
                f"add the photo."
            )
    train = set(photos.names("train"))
    trained = [photo for photo in corrections.rows if photo in train]
    aside = [photo for photo in corrections.rows if photo not in train]
    if len(corrections.rows) >= LEAST_TO_KEEP_ASIDE and config.held_out:
        chosen = [photo for photo in trained if rank_of(photo) < config.held_out]
        aside += chosen if chosen or aside else [min(trained, key=rank_of)]
    return Taught(corrections, tuple(photo for photo in trained if photo not in aside), tuple(aside))


def corrected_mask(corrections: Corrections, photos: TaggedPhotos, photo: str) -> np.ndarray:
    """Return the corrected mask of a photo in the labels of the data's classes, uint8 (H, W). Raises DataError."""
    mask = corrections.mask(photo, photos.size(photo))
    table = np.arange(LABEL_VALUES).astype(np.uint8)
    for index, name in enumerate(corrections.classes):
        label, found = label_of(index), find_class(name, photos.classes)
        if found is not None:
            table[label] = label_of(found)
        elif (mask == label).any():
            raise DataError(
                f"{corrections.folder / LIST} ({photo!r}): its mask shows {name!r}, which is no class of the data"
                f"{nearest(name, photos.classes)}; known are: {', '.join(photos.classes)}. Remove the row, or add the class."
            )
    return table[mask]


def write_corrected(taught: Taught, photos: TaggedPhotos, out: Path) -> None:
    """Write the masks of the photos to learn from as label maps `out`/NAME.png, and no others: what lies there goes."""
    out.mkdir(parents=True, exist_ok=True)
    for path in out.glob("*.png"):
        if path.stem not in taught.taught:
            path.unlink()
    for photo in taught.taught:
        write_label_map(out / f"{photo}.png", corrected_mask(taught.corrections, photos, photo))
