"""Photos of single objects serve as further tags: four of them side by side make one view with all their classes.

For classes of which the tagged photos show few. The four lie in quarters of the view, so that they are as small as things
in a photo, and each has its place in the map.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from app.inference.errors import ConfigError
from training.config.learning import MosaicConfig
from training.data.augment import normalize
from training.data.class_zip import ClassZip
from training.data.views import TaggedViews

STORED = 64  # Photos are held in memory at this side in px.
AREA = (0.5, 1.0)  # A photo's crop takes a share between these of it, and fills its quarter.
STREAM = 1  # Mosaics draw from this stream of random numbers, besides that of the view itself.


class MosaicViews(Dataset):
    """It gives `views`, of which a share are mosaics instead: a key (epoch, index) gives {"images" (3, S, S), "image_labels" (C,)}.

    A quarter's class is drawn evenly from those of `config.classes`, then one of its photos.
    """

    def __init__(self, views: TaggedViews, config: MosaicConfig) -> None:
        """Open the zip. Raises ConfigError for a class that the data does not know, DataError for one that the zip lacks, or no zip."""
        self.views, self.share = views, config.share
        numbers = {name: number for number, name in enumerate(views.photos.classes)}
        if unknown := sorted(set(config.classes) - set(numbers)):
            raise ConfigError(
                f"[classifier.mosaic] classes: the data has no {unknown[0]!r}; it has {', '.join(numbers)}"
            )
        wanted = {source for sources in config.classes.values() for source in sources}
        jitter, hue = views.views.colour_jitter, views.views.hue_jitter
        self.objects = ClassZip(config.photos, STORED, views.seed, AREA, jitter, None, only=wanted, hue=hue)
        rows = {
            source: np.flatnonzero(self.objects.class_indices == row) for row, source in enumerate(self.objects.classes)
        }
        self.rows = {
            numbers[name]: np.concatenate([rows[s] for s in sources]) for name, sources in config.classes.items()
        }

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.views.seed, *key, STREAM))
        return self._mosaic(rng) if rng.random() < self.share else self.views[key]

    def _mosaic(self, rng: np.random.Generator) -> dict[str, Tensor]:
        side = self.views.views.crop
        half = (side + 1) // 2
        canvas = Image.new("RGB", (side, side))
        image_labels = np.zeros_like(self.views.image_labels[0])
        for corner in [(0, 0), (side - half, 0), (0, side - half), (side - half, side - half)]:
            class_index = list(self.rows)[rng.integers(len(self.rows))]
            canvas.paste(self.objects.view(rng.choice(self.rows[class_index]), half, rng), corner)
            image_labels[class_index] = 1
        return {"images": normalize(np.asarray(canvas)), "image_labels": torch.from_numpy(image_labels)}
