"""No mask chose this background threshold: it lies where maps agree best with what stands out.

The foreground of a photo is where the best map of its tagged classes exceeds the threshold. Over the training photos that
threshold is taken at which it overlaps most with unsupervised saliency (intersection over union, pixels pooled).
"""

import numpy as np

from app.inference.arrays import resize_bilinear
from app.inference.errors import DataError
from training.config.run_config import RunConfig
from training.data import TaggedPhotos
from training.data.sampling import evenly_spaced
from training.stages.localize import iterate_maps
from training.stages.pseudo_label import read_saliency, saliency_folder
from training.stages.ranking import THRESHOLDS

PHOTOS = 500  # So many evenly spaced photos of `train` are looked at.


def agreeing_threshold(config: RunConfig, photos: TaggedPhotos) -> float:
    """Return the threshold of `THRESHOLDS` for the run's maps `cams`, by its saliency. Raises DataError where nothing overlaps."""
    limit = 0 if config.saliency is None else config.saliency.limit
    shared, joined = (np.zeros(len(THRESHOLDS)) for _ in range(2))
    for name, stored in iterate_maps(config.out / "cams", evenly_spaced(photos.names("train"), PHOTOS), "threshold"):
        if not stored.class_indices:
            continue
        best = stored.maps().max(axis=0)
        saliency = read_saliency(saliency_folder(config) / f"{name}.png", photos.size(name))
        salient = resize_bilinear(saliency[None].astype(np.float32), *best.shape)[0] > limit
        for index, threshold in enumerate(THRESHOLDS):
            shared[index] += ((best > threshold) & salient).sum()
            joined[index] += ((best > threshold) | salient).sum()
    if not shared.any():
        raise DataError(
            f"no map under {config.out / 'cams'} meets what {saliency_folder(config)} holds to be salient; look at both, or "
            f"give export.background_threshold a number"
        )
    return THRESHOLDS[int(np.argmax(shared / np.maximum(joined, 1)))]
