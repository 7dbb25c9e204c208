"""`/v2/models/NAME/stats` counts by these numbers: Triton's statistics extension, of the requests to `/v2` since the service started."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Triton calls the stages of the work so; the right side is ours.
STAGES = {"compute_input": "decode", "compute_infer": "predict", "compute_output": "encode", "queue": "queue"}
MILLION = 1_000_000  # A millisecond has this many nanoseconds.


@dataclass
class Share:
    """It says how often something was done, and how long it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, milliseconds: float) -> None:
        self.count += 1
        self.ns += round(milliseconds * MILLION)


@dataclass
class ModelStats:
    """It holds the numbers of one version of a model. They belong to one event loop, so nothing is locked."""

    images: int = 0
    last: int = 0  # It is counted in milliseconds since 1970.
    shares: dict[str, Share] = field(default_factory=lambda: {name: Share() for name in ("success", "fail", *STAGES)})

    def count(self, milliseconds: Mapping[str, float], images: int, whole: float) -> None:
        """Count a request that was answered: its stages, its images, and the milliseconds it took."""
        self.images += images
        self.last = round(1000 * time.time())
        self.shares["success"].add(whole)
        for name, stage in STAGES.items():
            self.shares[name].add(milliseconds.get(stage, 0.0))

    def count_failure(self, whole: float) -> None:
        """Count a request that was refused once its model was known."""
        self.shares["fail"].add(whole)

    def describe(self, name: str, version: int) -> dict[str, Any]:
        """Return the numbers as the protocol has them."""
        shares = {kind: {"count": share.count, "ns": share.ns} for kind, share in self.shares.items()}
        return {
            "name": name,
            "version": str(version),
            "last_inference": self.last,
            "inference_count": self.images,
            "execution_count": self.shares["success"].count,
            "inference_stats": shares,
            "batch_stats": [],
        }
