"""The time of a stage is added up, once."""

import time

import pytest

from app.inference.stopwatch import Stopwatch


def test_two_stages_of_one_name_are_added() -> None:
    stopwatch = Stopwatch()
    for name, seconds in (("predict", 0.03), ("encode", 0.01), ("predict", 0.05)):
        with stopwatch.stage(name):
            time.sleep(seconds)
    assert list(stopwatch.milliseconds) == ["predict", "encode"]
    assert stopwatch.milliseconds["predict"] >= 80


def test_a_stage_inside_itself_counts_once() -> None:
    stopwatch = Stopwatch()
    start = time.perf_counter()
    with stopwatch.stage("predict"), stopwatch.stage("predict"):
        time.sleep(0.05)
    assert 50 <= stopwatch.milliseconds["predict"] <= 1000 * (time.perf_counter() - start)


def test_a_stage_that_fails_counts_too() -> None:
    stopwatch = Stopwatch()
    with pytest.raises(ValueError, match="no"), stopwatch.stage("decode"):
        raise ValueError("no")
    with stopwatch.stage("decode"):
        time.sleep(0.01)
    assert stopwatch.milliseconds["decode"] >= 10
