"""An epoch visits photos in an order that is a function of (seed, epoch) alone, so that a run can resume anywhere."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from training.data.source import TaggedPhotos


class EpochSampler(Sampler[tuple[int, int]]):
    """It yields (epoch, index) keys of this process's share of an epoch, in batches' order.

    Process r of R takes every R-th photo of each global batch, so that R processes see what one would. The last,
    incomplete batch is dropped. `repeats` are repeat factors per photo (`repeat_factors`).
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, rank: int = 0, world: int = 1, repeats: np.ndarray | None = None
    ) -> None:
        self.count, self.batch_size, self.seed, self.rank, self.world = count, batch_size, seed, rank, world
        self.repeats = np.ones(count) if repeats is None else repeats
        self.epoch = 0
        self.first_batch = 0

    @property
    def batches(self) -> int:
        """An epoch has this many global batches, and one at least."""
        return max(1, math.floor(self.repeats.sum()) // self.batch_size)

    def seek(self, epoch: int, first_batch: int = 0) -> None:
        """Go to a place: the next iteration starts there."""
        self.epoch, self.first_batch = epoch, first_batch

    def order(self) -> np.ndarray:
        """Return the photo indices of the whole epoch (batches * batch_size,)."""
        rng = np.random.default_rng((self.seed, self.epoch))
        whole = np.floor(self.repeats)
        counts = (whole + (rng.random(self.count) < self.repeats - whole)).astype(int)
        indices = rng.permutation(np.repeat(np.arange(self.count), counts))
        return np.resize(indices, self.batches * self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = self.order()[self.first_batch * self.batch_size :]
        return iter([(self.epoch, int(index)) for index in order[self.rank :: self.world]])

    def __len__(self) -> int:
        return (self.batches - self.first_batch) * self.batch_size // self.world


def repeat_factors(image_labels: np.ndarray, threshold: float) -> np.ndarray:
    """Return how often each photo appears in an epoch, so that rare classes are seen more often (N,).

    Gupta et al., "LVIS", CVPR 2019, section 3.2: r_c = max(1, sqrt(threshold / f_c)) with f_c the share of photos that
    have class c, and a photo takes the largest r_c of its classes.

    Args:
        image_labels: multi-hot (N, C).
        threshold: classes rarer than this share are repeated; 0 repeats none.
    """
    share = np.maximum(image_labels.mean(axis=0), 1e-9)
    factors = np.maximum(1.0, np.sqrt(threshold / share))
    return np.where(image_labels > 0, factors, 1.0).max(axis=1)


def with_share(repeats: np.ndarray, chosen: np.ndarray, share: float) -> np.ndarray:
    """Return the repeat factors (N,) with which the photos `chosen`, bool (N,), make up `share` of an epoch.

    The others keep theirs. Where one of the two is empty there is nothing to share out.
    """
    wanted, others = repeats[chosen].sum(), repeats[~chosen].sum()
    if not wanted or not others:
        return repeats
    return np.where(chosen, repeats * share / (1 - share) * others / wanted, repeats)


def evenly_spaced(names: tuple[str, ...], count: int | None) -> tuple[str, ...]:
    """Return `count` of the names, the first and the last among them; all where there are no more, or where None."""
    count = min(len(names), count or len(names))
    return tuple(names[index] for index in np.linspace(0, len(names) - 1, count).astype(int))


def photos_by_class(order: Sequence[str], photos: TaggedPhotos) -> list[list[str]]:
    """Return the photos of each class, in an order; the class that fewest photos have comes first."""
    queues: dict[str, list[str]] = {}
    for name in order:
        for tag in photos.tags(name):
            queues.setdefault(tag, []).append(name)
    return sorted(queues.values(), key=len)


def in_turn(queues: list[list[str]]) -> list[str]:
    """Return all photos: of every queue in turn the first that has not come yet."""
    order: dict[str, None] = {}
    while any(queues):
        for queue in queues:
            while queue and queue[0] in order:
                del queue[0]
            if queue:
                order[queue[0]] = None
    return list(order)
