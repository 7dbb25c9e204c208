"""A Ray cluster of two nodes, which the tests of this folder share."""

import os
import time
from collections.abc import Iterator

import pytest

from tests.app.cluster.ray_nodes import LOCK, Nodes, two_nodes

S3_KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}


PATIENCE = 180  # seconds; Ray's own processes give up where they get next to no time of a core


def skip_after(end: float) -> None:
    """Skip what needs the nodes where they are not there in time."""
    if time.monotonic() > end:
        pytest.skip("Ray's nodes did not start: this machine is too busy")


@pytest.fixture(scope="session")
def nodes() -> Iterator[Nodes]:
    """Two nodes, joined by this process."""
    os.environ.update(LOCK)  # Ray reads it as it is imported.
    ray = pytest.importorskip("ray", reason="Ray could not be installed")
    os.environ.update(S3_KEYS)
    with two_nodes(**S3_KEYS) as nodes:
        end = time.monotonic() + PATIENCE
        while not ray.is_initialized():
            try:
                ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
            except ConnectionError:  # The head listens before it is ready.
                skip_after(end)
                time.sleep(0.5)
        while ray.cluster_resources().get("CPU", 0) < 2:
            skip_after(end)
            time.sleep(0.2)
        yield nodes
        ray.shutdown()
