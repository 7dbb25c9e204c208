"""Photos could be corrected in these orders, by what is known of them without a mask: tags, and signs of a label's quality.

review        the mean of all signs, worst first: the order of `python -m app label`
disagreement  the share of its area that the segmenter's mask and the classifier's label have in common, smallest first
entropy       how evenly the segmenter's probabilities are spread over the photo's classes, most evenly first
balance       each class in turn, the one that fewest photos have first; of a class a photo by chance
typical       the same; of a class the photo whose `review` value lies nearest the middle of its class
random        by chance
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from app.inference.analysis import Analyzer
from app.inference.files.whole_file import write_whole
from app.inference.label_maps.quality import quality_of
from app.inference.labels import label_of
from app.inference.maps.localization import Model
from app.inference.options import Options
from training.data import TaggedPhotos
from training.data.sampling import in_turn, photos_by_class

LEAST = 1e-12  # Smaller probabilities count as this one in a logarithm.
SAVED_EVERY = 50  # The signs of this many photos are lost at most where a run is stopped.


@dataclass(frozen=True)
class Signs:
    """They hold what is known of a photo's label without a mask; see `app.inference.label_maps.quality`."""

    estimate: float
    agreement: float
    entropy: float


@dataclass(frozen=True)
class Pool:
    """It holds the photos that an order sorts. Their signs are found when an order first reads them."""

    photos: TaggedPhotos
    names: tuple[str, ...]
    find_signs: Callable[[], Mapping[str, Signs]]

    @cached_property
    def signs(self) -> Mapping[str, Signs]:
        """The signs of every photo, by its name."""
        return self.find_signs()


Order = Callable[[Pool, int], list[str]]


def signs_of(
    cam: Model, segmenter: Model, photos: TaggedPhotos, names: tuple[str, ...], path: Path
) -> dict[str, Signs]:
    """Return the signs of photos, read from `path` where they stand there already, and written there."""
    known = {name: Signs(**signs) for name, signs in json.loads(path.read_text()).items()} if path.is_file() else {}
    todo = [name for name in names if name not in known]
    for number, name in enumerate(tqdm(todo, desc="signs", unit="photo", mininterval=5), 1):
        known[name] = look_at(cam, segmenter, photos, name)
        if number % SAVED_EVERY == 0 or number == len(todo):
            write_whole(path, json.dumps({photo: asdict(signs) for photo, signs in known.items()}))
    return {name: known[name] for name in names}


def look_at(cam: Model, segmenter: Model, photos: TaggedPhotos, name: str) -> Signs:
    """Return the signs of a photo's mask, as `python -m app label` has them where tags are given, and its entropy."""
    analysis = Analyzer(Options(tags=photos.tags(name)), (cam,), segmenter).look_at(photos.image(name))
    found, expected = analysis.mask, frozenset(map(label_of, photos.class_indices(name)))
    quality = quality_of(found.mask, analysis.pseudo_label.label_map, found.probabilities, expected)
    assert quality.agreement is not None  # There is a second opinion.
    return Signs(quality.estimate, quality.agreement, entropy_of(found.probabilities))


def entropy_of(probabilities: np.ndarray) -> float:
    """Return the mean over the pixels of the entropy, in nats, of probabilities (K, h, w)."""
    return float(-(probabilities * np.log(np.maximum(probabilities, LEAST))).sum(axis=0).mean())


def by_review(pool: Pool, seed: int) -> list[str]:
    """Return the photos by the mean of all signs, worst first."""
    return sorted(pool.names, key=lambda name: pool.signs[name].estimate)


def by_disagreement(pool: Pool, seed: int) -> list[str]:
    """Return the photos by how little the mask and the classifier's label have in common."""
    return sorted(pool.names, key=lambda name: pool.signs[name].agreement)


def by_entropy(pool: Pool, seed: int) -> list[str]:
    """Return the photos by the entropy of the segmenter's probabilities, highest first."""
    return sorted(pool.names, key=lambda name: -pool.signs[name].entropy)


def by_chance(pool: Pool, seed: int) -> list[str]:
    """Return the photos in an order that follows from the seed."""
    return [pool.names[index] for index in np.random.default_rng(seed).permutation(len(pool.names))]


def by_class(pool: Pool, seed: int) -> list[str]:
    """Return the photos so that each class has its turn; of a class they come by chance."""
    return in_turn(photos_by_class(by_chance(pool, seed), pool.photos))


def by_typical(pool: Pool, seed: int) -> list[str]:
    """Return the photos so that each class has its turn; of a class come those in the middle of it by review first."""
    queues = photos_by_class(by_review(pool, seed), pool.photos)
    return in_turn([from_the_middle(queue) for queue in queues])


def from_the_middle(names: list[str]) -> list[str]:
    """Return the names, the one in the middle first, the ends last."""
    places = sorted(range(len(names)), key=lambda place: abs(place - len(names) // 2))
    return [names[place] for place in places]


ORDERS: dict[str, Order] = {
    "review": by_review,
    "random": by_chance,
    "entropy": by_entropy,
    "disagreement": by_disagreement,
    "balance": by_class,
    "typical": by_typical,
}
