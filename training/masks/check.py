"""Whether masks can be measured against is looked at before a run starts, since they are read at its end."""

from app.inference.errors import DataError
from training.config.data import DataConfig
from training.data import TaggedPhotos
from training.masks.ground_truth import GroundTruth


def fault_of_masks(data: DataConfig, photos: TaggedPhotos) -> tuple[int, str | None]:
    """Return how many of the photos that are reported have a mask, and what is wrong with the first that cannot be
    used.
    """
    truth = GroundTruth(data, photos)
    names = [name for name in photos.splits.get(photos.report_split, ()) if truth.has(name)]
    try:
        for name in names:
            truth.mask(name)
    except DataError as error:
        return len(names), str(error)
    return len(names), None
