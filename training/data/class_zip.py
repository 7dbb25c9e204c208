"""A zip of CLASS/NAME.webp (or .jpg, .png) holds photos of single objects, for pre-training and for mosaics."""

import zipfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from app.inference.errors import DataError
from app.inference.files.file_names import is_systems
from app.inference.files.tags import name_of
from app.inference.image.decode import decode
from training.data.augment import generator, jitter_colours, normalize, random_resized_crop
from training.data.source import reading

EXAMPLES = 5  # An error names this many classes.


def classes_by_entry(entries: Iterable[str]) -> dict[str, str]:
    """Return, for each photo among the entries of a zip, its class: the first folder, or the second where all lie in one folder.

    What systems put beside photos is left alone, and so are files without a photo's suffix. Windows writes backslashes.
    """
    found = {}
    for entry in entries:
        parts = PurePosixPath(entry.replace("\\", "/")).parts
        if len(parts) > 1 and name_of(parts[-1]) != parts[-1] and not any(map(is_systems, parts)):
            found[entry] = parts
    packed_whole = len({parts[0] for parts in found.values()}) == 1 and all(len(parts) > 2 for parts in found.values())
    return {entry: parts[int(packed_whole)] for entry, parts in found.items()}


class ClassZip(Dataset):
    """It holds all photos of one zip, or those of the classes in `only`, decoded once and kept in memory as uint8 (N, size, size, 3).

    An item for the key (epoch, index) is {"images": float32 (3, size, size), "class_indices": int64 ()}: a
    random view of `view_size(epoch)` px a side, or, where that is None, the photo as it is.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        seed: int,
        area: tuple[float, float],
        jitter: float,
        view_size: Callable[[int], int] | None,
        only: Collection[str] | None = None,
        hue: float = 0.0,
    ) -> None:
        if not path.is_file():
            raise DataError(f"{path} does not exist; it should be a zip holding CLASS/NAME.webp (or .jpg, .png)")
        self.seed, self.area, self.jitter, self.hue, self.view_size = seed, area, jitter, hue, view_size
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path} is not a zip file; write it again")
        with zipfile.ZipFile(path) as archive:
            class_of = classes_by_entry(archive.namelist())
            names = sorted(class_of)
            if not names:
                raise DataError(
                    f"{path} holds no CLASS/NAME.webp (or .jpg, .png); write it again with a folder for each class"
                )
            self.classes = tuple(sorted(set(class_of.values())))
            if only is not None:
                if unknown := sorted(set(only) - set(self.classes)):
                    known = ", ".join(self.classes[:EXAMPLES])
                    raise DataError(
                        f"{path} has no class {unknown[0]!r}; it has {len(self.classes)}, the first: {known}"
                    )
                names = [name for name in names if class_of[name] in only]
                self.classes = tuple(sorted(only))
            numbers = {name: number for number, name in enumerate(self.classes)}
            self.class_indices = np.array([numbers[class_of[name]] for name in names])
            self.images = np.empty((len(names), size, size, 3), np.uint8)
            for row, name in enumerate(names):
                with reading(f"{path}: photo {name}"):
                    photo = Image.fromarray(decode(archive.read(name)).image)
                self.images[row] = np.asarray(photo if photo.size == (size, size) else photo.resize((size, size)))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        image = self.images[index]
        if self.view_size is not None:
            image = np.asarray(self.view(index, self.view_size(epoch), generator(self.seed, epoch, index)))
        return {"images": normalize(image), "class_indices": torch.tensor(self.class_indices[index])}

    def view(self, index: int, size: int, rng: np.random.Generator) -> Image.Image:
        """Return a random view of a photo, `size` px a side."""
        photo = random_resized_crop(Image.fromarray(self.images[index]), size, self.area, rng)
        if rng.random() < 0.5:
            photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return jitter_colours(photo, self.jitter, rng, self.hue)
