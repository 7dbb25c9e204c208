"""The worker pool: bounded, and no place in it is ever lost."""

import asyncio
import threading
import time

import pytest

from app.inference import deadline
from app.inference.errors import ClientLeftError, QueueFullError, StoppingError, WorkTimeError
from app.runtime.pool import Pool


def run_with(pool: Pool, scenario) -> None:
    try:
        asyncio.run(asyncio.wait_for(scenario(), 20))
    finally:
        pool.close()


def test_full_queue_is_refused_with_a_time_to_retry():
    pool, gate = Pool(1, 1), threading.Event()

    async def scenario():
        running, waiting = (asyncio.ensure_future(pool.run(gate.wait)) for _ in range(2))
        await asyncio.sleep(0)
        assert pool.jobs == 2
        with pytest.raises(QueueFullError) as caught:
            await pool.run(gate.wait)
        assert caught.value.details["limit"] == 2
        assert 1 <= int(caught.value.headers["Retry-After"]) <= 30
        with pytest.raises(QueueFullError):
            pool.check_room()
        gate.set()
        assert await asyncio.gather(running, waiting) == [True, True]
        await settled(pool)
        assert await pool.run(lambda: 3) == 3

    run_with(pool, scenario)


def test_errors_reach_the_caller_and_free_the_place():
    pool = Pool(1, 0)

    def fail():
        raise ValueError("no")

    async def scenario():
        for _ in range(5):
            with pytest.raises(ValueError, match="no"):
                await pool.run(fail)
            await settled(pool)

    run_with(pool, scenario)


def test_client_that_leaves_while_waiting_frees_its_place_at_once():
    pool, gate, left, ran = Pool(1, 1), threading.Event(), asyncio.Event(), []

    async def scenario():
        running = asyncio.ensure_future(pool.run(gate.wait))
        waiting = asyncio.ensure_future(pool.run(ran.append, 1, gone=left.wait))
        await asyncio.sleep(0)
        left.set()
        with pytest.raises(ClientLeftError):
            await waiting
        assert pool.jobs == 1
        gate.set()
        await running
        assert ran == []

    run_with(pool, scenario)


def test_a_watch_that_fails_drops_no_photo(caplog):
    """Only a client that is known to have left loses its place."""
    pool, gate, ran = Pool(1, 1), threading.Event(), []

    async def fail() -> None:
        raise ConnectionError("no news of the client")

    async def scenario():
        running = asyncio.ensure_future(pool.run(gate.wait))
        waiting = asyncio.ensure_future(pool.run(ran.append, 1, gone=fail))
        await asyncio.sleep(0.05)
        gate.set()
        await running
        await waiting
        assert ran == [1]

    run_with(pool, scenario)
    assert "no news of the client" in caplog.text


def steps() -> None:
    """Work that asks between its steps whether it may go on, and would not end by itself."""
    while True:
        deadline.check()
        time.sleep(0.01)


def test_work_that_nobody_waits_for_ends_at_its_next_step():
    pool, left = Pool(1, 0), asyncio.Event()

    async def scenario():
        abandoned = asyncio.ensure_future(pool.run(steps, gone=left.wait))
        await asyncio.sleep(0.05)
        left.set()
        with pytest.raises(ClientLeftError, match="was worked on"):
            await abandoned
        await settled(pool)
        cancelled = asyncio.ensure_future(pool.run(steps))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        await settled(pool)
        assert await pool.run(lambda: 3) == 3

    run_with(pool, scenario)


def test_work_that_does_not_ask_holds_the_place_until_the_end():
    pool, gate, started, left = Pool(1, 0), threading.Event(), threading.Event(), asyncio.Event()

    def job():
        started.set()
        gate.wait()
        return 7

    async def scenario():
        running = asyncio.ensure_future(pool.run(job, gone=left.wait))
        await asyncio.to_thread(started.wait)
        left.set()
        await asyncio.sleep(0.01)
        assert pool.jobs == 1
        gate.set()
        assert await running == 7
        await settled(pool)

    run_with(pool, scenario)


def test_cancelled_request_frees_its_place():
    pool, gate = Pool(1, 1), threading.Event()

    async def scenario():
        running, waiting = (asyncio.ensure_future(pool.run(gate.wait)) for _ in range(2))
        await asyncio.sleep(0)
        for task in (waiting, running):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        gate.set()
        await settled(pool)

    run_with(pool, scenario)


def test_closing_finishes_what_was_taken_and_takes_no_more():
    pool, done = Pool(1, 5), []

    async def scenario():
        tasks = [asyncio.ensure_future(pool.run(done.append, number)) for number in range(4)]
        await asyncio.sleep(0)
        await asyncio.to_thread(pool.close)
        await asyncio.gather(*tasks)
        assert done == [0, 1, 2, 3]
        with pytest.raises(StoppingError):
            await pool.run(done.append, 4)

    run_with(pool, scenario)


async def settled(pool: Pool) -> None:
    """Wait until no job is left: its place is freed just after its result is seen."""
    while pool.jobs:
        await asyncio.sleep(0.001)


def test_work_is_ended_between_its_steps_and_the_place_is_free():
    pool = Pool(1, 0, work_seconds=0.2)

    async def scenario():
        with pytest.raises(WorkTimeError, match="more than 0.2 seconds") as caught:
            await pool.run(steps)
        assert caught.value.status == 504
        await settled(pool)
        assert await pool.run(lambda: 3) == 3

    run_with(pool, scenario)


def test_who_waits_too_long_is_told_so_while_the_place_stays_taken():
    pool, gate = Pool(1, 1, work_seconds=0.1, queue_seconds=0.1), threading.Event()

    async def scenario():
        deaf = asyncio.ensure_future(pool.run(gate.wait))  # asks for no deadline
        await asyncio.sleep(0)
        with pytest.raises(WorkTimeError, match="within 0.2 seconds"):
            await pool.run(lambda: 3)
        assert pool.jobs == 1  # the one that waited is dropped
        with pytest.raises(WorkTimeError):
            await deaf
        assert pool.jobs == 1
        gate.set()
        await settled(pool)

    run_with(pool, scenario)
