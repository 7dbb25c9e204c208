"""SegmentationClass/NAME.png are label maps as PASCAL VOC's devkit, CVAT ("Segmentation mask") and `python -m app label` write them.

The numbers are those of the data's classes unless the folder lists its own: `classes.txt`, one class per line, or
CVAT's `labelmap.txt`, whose lines read `dog:64,0,128::`. With the latter the masks may be in colours.
"""

from functools import partial
from pathlib import Path

import numpy as np

from app.inference.errors import DataError, UploadError
from app.inference.image.decode import decode, decode_labels
from app.inference.label_maps.corrections import CLASSES, Correction
from app.inference.labels import BACKGROUND, IGNORE_INDEX, label_of
from training.config.data import RESERVED
from training.data import TaggedPhotos
from training.data.folder import listed_classes, read_list
from training.data.source import reading
from training.masks.corrections.drawn import LABEL_VALUES, Drawn, Row, known_label, known_photo

MASKS, LABEL_MAP = "SegmentationClass", "labelmap.txt"
IGNORED = {"__ignore__", "_ignore_", "void", "ignore"}  # CVAT and VOC call pixels so that belong to nothing.
Colours = dict[tuple[int, int, int], str]


def rows_of_voc_folder(root: Path, photos: TaggedPhotos) -> list[Row]:
    """Return the masks of the folder, in the order of their names. Raises DataError."""
    files = sorted((root / MASKS).glob("*.png"))
    if not files:
        raise DataError(f"{root / MASKS} holds no PNG; masks are called like their photos, NAME.png")
    colours = read_colours(root / LABEL_MAP) if (root / LABEL_MAP).is_file() else {}
    names = listed_classes(root / CLASSES)
    return [partial(read_one, path, colours, names, photos) for path in files]


def read_one(path: Path, colours: Colours, names: tuple[str, ...] | None, photos: TaggedPhotos) -> Drawn:
    """Return what one mask shows. Raises DataError."""
    photo = known_photo(path.name, path.stem, photos, str(path))
    mask = read_coloured(path, colours, photos) if colours else read_numbers(path, names, photos)
    return Drawn(str(path), mask, Correction(photo, source="cvat" if colours else "voc"))


def read_colours(path: Path) -> Colours:
    """Return the names of CVAT's list by their colours. Raises DataError."""
    colours: Colours = {}
    for number, line in read_list(path):
        if line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        try:
            red, green, blue = (int(value) for value in rest.split(":")[0].split(","))
        except ValueError:
            raise DataError(
                f"{path} row {number} ({line!r}): a line reads NAME:RED,GREEN,BLUE::, such as dog:64,0,128::"
            ) from None
        colours[red, green, blue] = name.strip()
    return colours


def read_coloured(path: Path, colours: Colours, photos: TaggedPhotos) -> np.ndarray:
    """Return the labels of a mask in the colours of a list, uint8 (H, W). Raises DataError for a colour it lacks."""
    with reading(f"mask {path}"):
        image = decode(path.read_bytes()).image
    found, inverse = np.unique(image.reshape(-1, image.shape[2]), axis=0, return_inverse=True)
    table = np.zeros(len(found), np.uint8)
    for row, colour in enumerate(map(tuple, found.tolist())):
        name = colours.get(colour)
        if name is None:
            raise DataError(f"{path}: it holds the colour {colour}, which {LABEL_MAP} does not list. Export it anew.")
        table[row] = label_of_name(name, photos, str(path))
    return table[inverse.ravel()].reshape(image.shape[:2])


def label_of_name(name: str, photos: TaggedPhotos, where: str) -> int:
    """Return the label of a name in a list of labels: a class, the background, or "ignore"."""
    if name.casefold() in IGNORED:
        return IGNORE_INDEX
    return BACKGROUND if name.casefold() in RESERVED else known_label(name, photos, where)


def read_numbers(path: Path, names: tuple[str, ...] | None, photos: TaggedPhotos) -> np.ndarray:
    """Return the labels of an indexed or grey mask, whose numbers mean `names`, or the data's classes where None."""
    try:
        mask = decode_labels(path.read_bytes())
    except (UploadError, DataError) as error:
        raise DataError(f"{path}: {error} Masks in colours need CVAT's {LABEL_MAP} beside {MASKS}.") from None
    if names is None:
        return mask
    table = np.arange(LABEL_VALUES).astype(np.uint8)
    for index, name in enumerate(names):
        if (mask == label_of(index)).any():
            table[label_of(index)] = known_label(name, photos, str(path))
    return table[mask]
