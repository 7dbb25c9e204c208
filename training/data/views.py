"""Random views of a source's photos as tensors: what the classifier and the segmenter are trained on."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from app.errors import DataError
from app.labels import IGNORE_INDEX
from training.config import ViewConfig
from training.data.augment import generator, jitter_colours, normalize, scale_and_crop
from training.data.source import TaggedPhotos


class TaggedViews(Dataset):
    """Photos and tags: a key (epoch, index) gives {"images" (3, S, S), "image_labels" (C,)}."""

    def __init__(self, photos: TaggedPhotos, split: str, views: ViewConfig, seed: int) -> None:
        self.photos, self.names, self.views, self.seed = photos, photos.names(split), views, seed
        self.image_labels = np.stack([photos.image_labels(name) for name in self.names])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        image, _ = self._view(epoch, index, None)
        return {"images": image, "image_labels": torch.from_numpy(self.image_labels[index])}

    def _view(self, epoch: int, index: int, label_map: Image.Image | None) -> tuple[Tensor, Image.Image | None]:
        rng = generator(self.seed, epoch, index)
        views = self.views
        photo = Image.fromarray(self.photos.image(self.names[index]))
        photo, label_map = scale_and_crop(photo, label_map, views.long_side, views.crop, IGNORE_INDEX, rng)
        if rng.random() < 0.5:
            photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            label_map = label_map and label_map.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return normalize(np.asarray(jitter_colours(photo, views.colour_jitter, rng))), label_map


class LabelledViews(TaggedViews):
    """Photos and label maps written as NAME.png into `label_maps`: adds "label_maps" (S, S) to every item."""

    def __init__(self, photos: TaggedPhotos, split: str, label_maps: Path, views: ViewConfig, seed: int) -> None:
        super().__init__(photos, split, views, seed)
        self.label_maps = label_maps
        missing = [name for name in self.names if not (label_maps / f"{name}.png").is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(self.names)} photos have no label map in {label_maps} (first: {missing[0]}); "
                f"write them with `python -m training pseudo-label`"
            )

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        with Image.open(self.label_maps / f"{self.names[index]}.png") as stored:
            label_map = Image.fromarray(np.asarray(stored))
        image, label_map = self._view(epoch, index, label_map)
        return {
            "images": image,
            "image_labels": torch.from_numpy(self.image_labels[index]),
            "label_maps": torch.from_numpy(np.asarray(label_map, np.int64)),
        }
