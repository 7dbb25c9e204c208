"""Random views of a source's photos become tensors: the classifier and the segmenter are trained on them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from app.inference.errors import DataError
from app.inference.image.decode import decode_labels
from app.inference.labels import BACKGROUND, IGNORE_INDEX, class_index_of
from training.config.learning import ViewConfig
from training.data.augment import cut_out, generator, jitter_colours, normalize, scale_and_crop
from training.data.source import TaggedPhotos, read_grey, reading

PASTING = 1  # This number sets the random stream of pasting apart from that of the view.


class TaggedViews(Dataset):
    """It gives photos and tags: a key (epoch, index) gives {"images" (3, S, S), "image_labels" (C,)}."""

    def __init__(self, photos: TaggedPhotos, names: tuple[str, ...], views: ViewConfig, seed: int) -> None:
        self.photos, self.names, self.views, self.seed = photos, names, views, seed
        self.image_labels = np.stack([photos.image_labels(name) for name in self.names])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        image, _ = self._view(epoch, index, ())
        return {"images": image, "image_labels": torch.from_numpy(self.image_labels[index])}

    def _view(self, epoch: int, index: int, planes: tuple[Image.Image, ...]) -> tuple[Tensor, tuple[np.ndarray, ...]]:
        """Return a view of the photo (3, S, S), and the same of `planes` that belong to it, uint8 (S, S), 255 outside."""
        rng = generator(self.seed, epoch, index)
        views = self.views
        photo = Image.fromarray(self.photos.image(self.names[index]))
        if not views.keep_aspect:
            photo = photo.resize((max(photo.size), max(photo.size)), Image.Resampling.BICUBIC)
        photo, planes = scale_and_crop(photo, planes, views.long_side, views.crop, IGNORE_INDEX, rng)
        if rng.random() < 0.5:
            photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            planes = tuple(plane.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for plane in planes)
        image = normalize(np.asarray(jitter_colours(photo, views.colour_jitter, rng, views.hue_jitter)))
        for _ in range(views.cutout):
            cut_out(image, views.cutout_size, rng)
        return image, tuple(np.asarray(plane) for plane in planes)


class LabelledViews(TaggedViews):
    """It gives photos and label maps, which lie as NAME.png in `label_maps`: it adds "label_maps" (S, S) to every item.

    `planes` are folders of further PNGs, of which each adds, under its own key, bool (S, S): where the pixel is above the
    limit that stands beside the folder. With them comes "inside" (S, S), false where a view reaches over the photo.
    `corrected` is a folder whose label maps hold instead; with it come "corrected" (), true for these, and "weights" (), which is
    `corrected_weight` for these.
    `paste` is the share of the views onto which the things of another photo are pasted (`paste_things`); never onto a corrected one,
    whose pixels all count as drawn.
    """

    def __init__(
        self,
        photos: TaggedPhotos,
        names: tuple[str, ...],
        label_maps: Path,
        views: ViewConfig,
        seed: int,
        planes: Mapping[str, tuple[Path, int]] | None = None,
        corrected: Path | None = None,
        corrected_weight: float = 1.0,
        paste: float = 0.0,
    ) -> None:
        super().__init__(photos, names, views, seed)
        self.paste = paste
        self.corrected, self.corrected_weight = corrected, corrected_weight
        self.is_corrected = np.array(
            [corrected is not None and (corrected / f"{name}.png").is_file() for name in names]
        )
        self.label_maps, self.planes = label_maps, dict(planes or {})
        for folder, verb in [
            (label_maps, "pseudo-label"),
            *((folder, "saliency") for folder, _ in self.planes.values()),
        ]:
            known = self.is_corrected if folder == label_maps else np.zeros(len(self.names), bool)
            missing = [
                name
                for name, there in zip(self.names, known, strict=True)
                if not there and not (folder / f"{name}.png").is_file()
            ]
            if missing:
                raise DataError(
                    f"{len(missing)} of {len(self.names)} photos have no PNG in {folder} (first: {missing[0]}); "
                    f"write them with `python -m training {verb}`"
                )

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        item = self._labelled_view(epoch, index)
        rng = np.random.default_rng((self.seed, epoch, index, PASTING))
        if self.paste and not self.is_corrected[index] and rng.random() < self.paste:
            shown = np.flatnonzero(self.image_labels.any(axis=0))
            givers = np.flatnonzero(self.image_labels[:, rng.choice(shown)])
            paste_things(item, self._labelled_view(epoch, int(rng.choice(givers))))
        return item

    def _labelled_view(self, epoch: int, index: int) -> dict[str, Tensor]:
        name = self.names[index]
        corrected = self.corrected if self.is_corrected[index] else None
        planes = [read_plane((corrected or self.label_maps) / f"{name}.png")]
        planes += [read_plane(folder / f"{name}.png", grey=True) for folder, _ in self.planes.values()]
        if self.planes:
            planes.append(Image.new("L", planes[0].size))
        image, (label_map, *others) = self._view(epoch, index, tuple(planes))
        item = {
            "images": image,
            "image_labels": torch.from_numpy(self.image_labels[index]),
            "label_maps": torch.from_numpy(label_map.astype(np.int64)),
        }
        if self.corrected is not None:
            item["corrected"] = torch.tensor(corrected is not None)
            item["weights"] = torch.tensor(self.corrected_weight if corrected else 1.0)
        if self.planes:
            item["inside"] = torch.from_numpy(others.pop() != IGNORE_INDEX)
            for (key_, (_, limit)), plane in zip(self.planes.items(), others, strict=True):
                item[key_] = torch.from_numpy(plane > limit) & item["inside"]
        return item


def paste_things(item: dict[str, Tensor], giver: dict[str, Tensor]) -> None:
    """Copy the pixels that `giver` labels as things, and all that is known of them, onto the view `item`, in place.

    So a thing is learned apart from the ground on which it is always seen, and rare classes are seen more often:
    Ghiasi et al., "Simple Copy-Paste", CVPR 2021, https://arxiv.org/abs/2012.07177; with labels made from tags, Su et al.,
    "Context Decoupling Augmentation", ICCV 2021, https://arxiv.org/abs/2103.01795.
    """
    labels = giver["label_maps"]
    things = (labels != BACKGROUND) & (labels != IGNORE_INDEX)
    for key, values in giver.items():
        if values.ndim >= things.ndim:  # a plane, or the photo's three
            item[key][..., things] = values[..., things]
    item["image_labels"] = item["image_labels"].clone()  # It is a row of the tags of all photos.
    item["image_labels"][class_index_of(labels[things].unique())] = 1


def read_plane(path: Path, grey: bool = False) -> Image.Image:
    """Return an indexed or grey PNG as the numbers it holds, or any picture as shades of grey. Raises DataError."""
    if grey:
        return Image.fromarray(read_grey(path))
    with reading(f"label map {path}"):
        return Image.fromarray(decode_labels(path.read_bytes()))
