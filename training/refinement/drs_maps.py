"""DRS's refinement of maps from photo to photo: maps of the classifier -> the refinement network -> refined maps.

The network, its target and its loss are in `training.refinement.drs_network`. As in the released code photos are
resized to a square (aspect ratio lost), maps come from three sizes of it by pixel-wise maximum, without mirroring, and
are kept in one byte per pixel. Any classifier's maps can be refined: those of DRS are normalised in its own way.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from tqdm import tqdm

from app.inference.errors import DataError
from app.inference.whole_file import whole_file
from training.config.tables import RefinementConfig
from training.data import TaggedPhotos
from training.data.augment import generator, jitter_colours, normalize
from training.methods import Classifier
from training.refinement.drs_network import DrsRefinement, enlarge_maps, normalize_drs_cams

LEVELS = np.iinfo(np.uint8).max  # a map of 1 as it is stored


@torch.inference_mode()
def drs_localization_maps(
    classifier: Classifier, image: np.ndarray, class_indices: tuple[int, ...], config: RefinementConfig
) -> np.ndarray:
    """Maps of a photo (H, W, 3) for refinement: uint8 (K, size, size), 255 meaning 1; maximum over the scales."""
    size = (config.size, config.size)
    maps = [
        normalize_drs_cams(classifier(view)[1].float(), size)[:, list(class_indices)]
        for view in square_views(image, config, next(classifier.parameters()).device)
    ]
    return (LEVELS * torch.cat(maps).amax(dim=0)).floor().to(torch.uint8).cpu().numpy()


@torch.inference_mode()
def refined_maps(
    network: DrsRefinement, image: np.ndarray, class_indices: tuple[int, ...], config: RefinementConfig
) -> np.ndarray:
    """Refined maps of a photo (H, W, 3) at its own size: float32 (K, H, W), about [0, 1]; maximum over the scales."""
    maps = [
        enlarge_maps(network.maps(view).float(), image.shape[:2])[:, list(class_indices)]
        for view in square_views(image, config, next(network.parameters()).device)
    ]
    return torch.cat(maps).amax(dim=0).cpu().numpy()


def square_views(image: np.ndarray, config: RefinementConfig, device: torch.device) -> list[Tensor]:
    """The photo as `size` x `size`, then as normalised (1, 3, s, s) for every scale s."""
    square = normalize(np.asarray(resize_square(image, config.size)))[None].to(device)
    return [F.interpolate(square, size=(s, s), mode="bilinear", align_corners=False) for s in config.scales]


def resize_square(image: np.ndarray, size: int) -> Image.Image:
    """Resize (H, W, 3) uint8 to `size` x `size`."""
    return Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)


def localize_for_refinement(
    classifier: Classifier, photos: TaggedPhotos, names: tuple[str, ...], out: Path, config: RefinementConfig
) -> "MapFolder":
    """Write the maps of every photo's tagged classes to `out`/NAME.npz; photos that have a file are left."""
    folder = MapFolder(out)
    for name in tqdm(names, desc="localize for refinement", unit="photo", mininterval=5):
        if not folder.path(name).is_file():
            class_indices = photos.class_indices(name)
            folder.write(
                name, class_indices, drs_localization_maps(classifier, photos.image(name), class_indices, config)
            )
    return folder


@dataclass(frozen=True)
class MapFolder:
    """Maps of photos, one NAME.npz each: class_indices (K,) and maps uint8 (K, S, S)."""

    directory: Path

    def path(self, name: str) -> Path:
        """The file of a photo."""
        return self.directory / f"{name}.npz"

    def write(self, name: str, class_indices: tuple[int, ...], maps: np.ndarray) -> None:
        """Keep one photo's maps, whole or not at all."""
        with whole_file(self.path(name)) as partial, partial.open("wb") as file:
            np.savez_compressed(file, class_indices=np.array(class_indices, int), maps=maps)

    def read(self, name: str) -> tuple[tuple[int, ...], np.ndarray]:
        """(class_indices, maps) of one photo. Raises DataError where it has none."""
        if not self.path(name).is_file():
            raise DataError(f"{self.path(name)} does not exist; localize the photos for refinement first")
        with np.load(self.path(name)) as stored:
            return tuple(map(int, stored["class_indices"])), stored["maps"]


class RefinementViews(Dataset):
    """Photos and maps: a key (epoch, index) gives {"images" (3, S, S), "maps" (C, S, S) in [0, 1]}, both mirrored or not."""

    def __init__(
        self, photos: TaggedPhotos, names: tuple[str, ...], folder: MapFolder, config: RefinementConfig, seed: int
    ) -> None:
        self.photos, self.names, self.folder, self.config, self.seed = photos, names, folder, config, seed

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        rng = generator(self.seed, epoch, index)
        name, size = self.names[index], self.config.size
        square = resize_square(self.photos.image(name), size)
        photo = jitter_colours(square, self.config.colour_jitter, rng, self.config.hue_jitter)
        class_indices, stored = self.folder.read(name)
        if stored.shape[1:] != (size, size):
            raise DataError(
                f"the maps of {name} are {stored.shape[1:]} px, not {(size, size)}: localize the photos again"
            )
        maps = torch.zeros(len(self.photos.classes), size, size)
        maps[list(class_indices)] = torch.from_numpy(stored.astype(np.float32) / LEVELS)
        image = normalize(np.asarray(photo))
        if rng.random() < 0.5:
            image, maps = image.flip(-1), maps.flip(-1)
        return {"images": image, "maps": maps}
