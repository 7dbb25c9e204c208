"""The readers of other tools' files give in this form what somebody drew over a photo."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from app.inference.class_names import find_class
from app.inference.errors import DataError
from app.inference.label_maps.corrections import Correction
from app.inference.labels import label_of
from training.data import TaggedPhotos
from training.data.source import nearest

LABEL_VALUES = 256  # A label map holds numbers of 8 bits.


@dataclass(frozen=True)
class Drawn:
    """It holds a mask, uint8 (H, W) in the labels of the data's classes, and where it comes from. where: the row, for messages.

    draft: the mask that was corrected, of the same form, where the file holds it.
    """

    where: str
    mask: np.ndarray = field(repr=False)
    correction: Correction
    draft: np.ndarray | None = field(default=None, repr=False)


Row = Callable[[], Drawn]  # It reads one mask of a source each time it is called, and raises DataError.


def known_photo(written: str, name: str, photos: TaggedPhotos, where: str) -> str:
    """Return the photo's name. Raises DataError where the data has no such photo; `written` is how the row calls it."""
    if name not in photos.tag_table:
        raise DataError(
            f"{where}: the data has no photo {written!r}{nearest(name, photos.tag_table)}. Correct the name, or add the photo."
        )
    return name


def known_label(class_name: str, photos: TaggedPhotos, where: str) -> int:
    """Return the label of a class, by its name or the usual other words for it. Raises DataError for an unknown one."""
    index = find_class(class_name, photos.classes)
    if index is None:
        raise DataError(
            f"{where}: {class_name!r} is no class of the data{nearest(class_name, photos.classes)}; known are: "
            f"{', '.join(photos.classes)}. Rename it, or add it to `classes`."
        )
    return label_of(index)
