"""Groups of photos that share a class are computed from the tags: EDAM classifies them together.

The released code of EDAM reads a list of pairs of VOC photos made once; here the groups of an epoch are a function of
(seed, epoch) for any tags and any group size.
"""

from collections.abc import Iterator

import numpy as np

from app.inference.errors import ConfigError
from training.data.sampling import EpochSampler


class GroupSampler(EpochSampler):
    """It is an `EpochSampler` whose every `group_size` consecutive keys are photos with at least one class in common.

    An epoch visits the photos in random order. The first one not yet visited opens a group, one of its classes is drawn,
    and the group is filled with the next photos of that class: those not yet visited first, then visited ones. So nearly
    every photo is seen once an epoch, and the groups then come in random order. A photo whose classes no other photo has is grouped with itself.

    Process r of R takes every R-th group of each global batch.
    """

    def __init__(
        self, image_labels: np.ndarray, batch_size: int, group_size: int, seed: int, rank: int = 0, world: int = 1,
        repeats: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """image_labels: multi-hot (N, C), every photo with at least one class; batch_size counts photos."""
        if batch_size % (group_size * world):
            raise ConfigError(
                f"batch_size {batch_size} must be a multiple of group_size times processes, {group_size} x {world}"
            )
        super().__init__(len(image_labels), batch_size, seed, rank, world, repeats)
        self.group_size = group_size
        self.tags = [np.flatnonzero(row) for row in image_labels]
        self.photos_of = [np.flatnonzero(column) for column in image_labels.T]
        without = [index for index, tags in enumerate(self.tags) if not len(tags)]
        if without:
            raise ConfigError(f"{len(without)} photos have no tag and share no class (first: photo {without[0]})")

    def order(self) -> np.ndarray:
        """Return the photo indices of the whole epoch (batches * batch_size,), group after group."""
        visits = super().order()
        rng = np.random.default_rng((self.seed, self.epoch, self.group_size))
        queues: list[list[int]] = [[] for _ in self.photos_of]
        # The order is reversed, since the next visit is popped from the end.
        for visit in range(len(visits) - 1, -1, -1):
            for class_index in self.tags[visits[visit]]:
                queues[class_index].append(visit)
        done = np.zeros(len(visits), bool)
        groups: list[list[int]] = []
        for visit, photo in enumerate(visits):
            if not done[visit]:
                done[visit] = True
                groups.append(self._group(int(photo), queues, visits, done, rng))
        # Photos that fill a group a second time cost a place.
        kept = np.array(groups)[: len(visits) // self.group_size]
        return rng.permutation(kept).ravel()

    def _group(
        self, first: int, queues: list[list[int]], visits: np.ndarray, done: np.ndarray, rng: np.random.Generator
    ) -> list[int]:
        shared = [index for index in self.tags[first] if len(self.photos_of[index]) > 1]
        if not shared:
            return [first] * self.group_size
        class_index = rng.choice(shared)
        group = [first]
        queue = queues[class_index]
        while queue and len(group) < self.group_size:
            visit = queue.pop()
            if not done[visit] and visits[visit] not in group:
                done[visit] = True
                group.append(int(visits[visit]))
        missing = self.group_size - len(group)
        if missing:
            others = np.setdiff1d(self.photos_of[class_index], group)
            others = others if len(others) else self.photos_of[class_index]
            group += [int(photo) for photo in rng.choice(others, missing, replace=missing > len(others))]
        return group

    def __iter__(self) -> Iterator[tuple[int, int]]:
        groups = self.order()[self.first_batch * self.batch_size :].reshape(-1, self.group_size)
        return iter([(self.epoch, int(index)) for index in groups[self.rank :: self.world].ravel()])
