"""What a piece of work costs in CPU time."""

import statistics
import time
from collections.abc import Callable


def cpu(work: Callable[[], object], times: int = 5) -> float:
    """Return the median milliseconds of CPU time of something; its first time is not measured."""
    work()
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(1000 * (time.process_time() - start))
    return statistics.median(found)
