"""One of several processes works on its part of a run's photos: every N-th photo, from the I-th on."""

import os
import re
from dataclasses import dataclass

from app.inference.errors import ConfigError


@dataclass(frozen=True)
class Shard:
    """It is one of `count` equal parts, counted from 0."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read "I/N". Raises ConfigError where it is none."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or int(found[1]) >= int(found[2]):
            raise ConfigError(f"--shard {text}: write I/N, such as 0/8, with I from 0 to N - 1")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def of_process(cls) -> "Shard":
        """Return the part of this process among those that torchrun started; the whole without torchrun."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    def of(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return this part of the names; the parts together are all of them, each once."""
        return names[self.index :: self.count]


WHOLE = Shard()
