"""The queue before the workers is bounded.

One job is a whole photo: decode, predict and encode in one go, so that nothing is handed about in between. Each of the pool's
threads hands its job to a worker process and waits (`app.runtime.workers.fleet`), or does it itself.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from app.inference.deadline import time_limit
from app.inference.errors import ClientLeftError, QueueFullError, StoppingError, WorkTimeError
from app.runtime.memory import Trimming

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

SMOOTHING = 0.1  # The newest job has this weight in the running mean of the times of jobs.
MAX_RETRY_AFTER_SECONDS = 30


def _drop_if_left(watch: "asyncio.Future[None]", job: Future[Any], left: threading.Event) -> None:
    """Drop a job once its watch says that the client has left; a watch that fails says nothing about the client."""
    if watch.cancelled():
        return
    if (error := watch.exception()) is not None:
        logger.warning("whether a client has left cannot be told, so its photo is worked on: %r", error)
        return
    left.set()
    job.cancel()


class Pool:
    """It has `workers` threads, and at most `queue_size` jobs waiting for one.

    A job has `work_seconds` (`app.inference.deadline`); its caller waits for `queue_seconds` besides. `perform` does a job, and heeds
    an event that is set once nobody waits for it; without `perform` the thread does it itself.
    """

    def __init__(
        self,
        workers: int,
        queue_size: int,
        work_seconds: float = math.inf,
        queue_seconds: float = math.inf,
        perform: Callable[..., Any] | None = None,
    ) -> None:
        self.workers = workers
        self.queue_size = queue_size
        self._work_seconds = work_seconds
        self._perform = perform or self._perform_here
        self._patience = work_seconds + queue_seconds
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="worker")
        self._lock = threading.Lock()
        self._jobs = 0  # These run or wait.
        self._mean_seconds = 0.5
        self._stopping = False
        self._trimming = Trimming()

    @property
    def jobs(self) -> int:
        """So many jobs are running or waiting now."""
        return self._jobs

    def check_room(self) -> None:
        """Raise QueueFullError or StoppingError where a job would not be taken now."""
        with self._lock:
            self._refuse()

    async def run(
        self, job: Callable[..., Result], *arguments: Any, gone: Callable[[], Awaitable[None]] | None = None
    ) -> Result:
        """Run `job(*arguments)` on a worker.

        `gone` returns when the client has left: a job still waiting is then dropped, and one that runs ends at its next step
        (`app.inference.deadline`), as it does where the caller is cancelled. The place in the queue is freed when the job ends
        or is dropped, whatever becomes of the caller.

        Raises QueueFullError, StoppingError, ClientLeftError, WorkTimeError, or what the job raises. Where a job does not end
        in time its caller is told so, and the place stays taken until it does.
        """
        left = threading.Event()
        future = self._submit(partial(job, *arguments), left)
        watch = asyncio.ensure_future(gone()) if gone else None
        if watch:
            watch.add_done_callback(lambda task: _drop_if_left(task, future, left))
        try:
            async with asyncio.timeout(self._patience if math.isfinite(self._patience) else None):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise WorkTimeError(
                f"the photo was not done within {self._patience:g} seconds, waiting and work together. Send it again later, or ask "
                f"for less."
            ) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if future.cancelled() and task and not task.cancelling():
                raise ClientLeftError("the client left before its photo was worked on.") from None
            raise
        finally:
            left.set()
            if watch:
                watch.cancel()

    def close(self) -> None:
        """Take no new jobs, finish those taken."""
        with self._lock:
            self._stopping = True
        self._executor.shutdown(wait=True)

    def _submit(self, work: Callable[[], Result], left: threading.Event) -> Future[Result]:
        with self._lock:
            self._refuse()
            future = self._executor.submit(self._timed, work, left)
            self._jobs += 1
        future.add_done_callback(self._release)
        return future

    def _refuse(self) -> None:
        if self._stopping:
            raise StoppingError("the service is shutting down and takes no new photos; send it again in a moment.")
        if self._jobs >= self.workers + self.queue_size:
            seconds = math.ceil(self._mean_seconds * self._jobs / self.workers)
            raise QueueFullError(
                f"{self._jobs} photos are being worked on or waiting, which is the limit; send it again after the "
                f"seconds in Retry-After.",
                retry_after_seconds=min(max(seconds, 1), MAX_RETRY_AFTER_SECONDS),
                limit=self.workers + self.queue_size,
            )

    def _timed(self, work: Callable[[], Result], left: threading.Event) -> Result:
        start = time.perf_counter()
        try:
            result: Result = self._perform(work, left=left)
            return result
        finally:
            self._mean_seconds += SMOOTHING * (time.perf_counter() - start - self._mean_seconds)

    def _perform_here(self, work: Callable[[], Result], left: threading.Event) -> Result:
        try:
            with time_limit(self._work_seconds, left.is_set):
                return work()
        finally:
            self._trimming.work_ended()

    def _release(self, _: Future[Any]) -> None:
        with self._lock:
            self._jobs -= 1
