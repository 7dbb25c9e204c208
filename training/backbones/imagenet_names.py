"""The name of a class means some of ImageNet's 1,000 classes.

`imagenet_names.csv` holds the nouns of WordNet 3.0 (Princeton University, free licence) with the ImageNet classes that are
one of them or a kind of it; `experiments/make_imagenet_names.py` writes it.
"""

import csv
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

TABLE = Path(__file__).with_suffix(".csv")
# WordNet does not know these names of VOC, or knows them in another sense; the nouns say the same.
SYNONYMS = {
    "cow": ("cattle",),
    "diningtable": ("dining table",),
    "pottedplant": ("flowerpot",),
    "tvmonitor": ("television", "monitor"),
}


@lru_cache(maxsize=1)
def nouns() -> dict[str, tuple[int, ...]]:
    """Return, for each noun, the indices of the ImageNet classes it means."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return {row["noun"]: tuple(map(int, row["imagenet_classes"].split())) for row in csv.DictReader(file)}


def imagenet_classes(name: str) -> tuple[int, ...]:
    """Return the indices of the ImageNet classes that the name of a class means, in lower or upper case; none where it means none."""
    noun = " ".join(name.lower().replace("_", " ").replace("-", " ").split())
    meant = {index for synonym in SYNONYMS.get(noun, (noun,)) for index in nouns().get(synonym, ())}
    return tuple(sorted(meant))


def name_rows(imagenet_head: Tensor, classes: tuple[str, ...]) -> Tensor:
    """Return what ImageNet's head knows of classes by their names: its rows (1000, D) -> (C, D).

    A class's row is the mean of the rows that its name means less the mean of all rows; zero where the name means none.
    """
    centred = imagenet_head - imagenet_head.mean(dim=0)
    return torch.stack([
        centred[list(meant)].mean(dim=0) if (meant := imagenet_classes(name)) else torch.zeros(centred.shape[1])
        for name in classes
    ])  # fmt: skip
