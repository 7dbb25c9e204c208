"""Time limits: of steps that ask for them, and of a network in the middle of its graph."""

import time

import numpy as np
import pytest

from app.inference import deadline
from app.inference.deadline import time_limit
from app.inference.engine import Engine
from app.inference.errors import WorkTimeError
from tests.app.colour_models import loop_for_ever, write_cam_model

IMAGES = np.zeros((1, 64, 64, 3), np.uint8)


def test_a_check_says_the_limit_and_the_remedy():
    deadline.check()
    with time_limit(0.001):
        time.sleep(0.01)
        with pytest.raises(WorkTimeError, match=r"more than 0\.001 seconds.*TAG2MASK_WORK_SECONDS"):
            deadline.check()
    deadline.check()


def test_a_graph_that_does_not_end_is_ended_and_the_engine_goes_on(tmp_path):
    path = write_cam_model(tmp_path)
    good = Engine(path, device="cpu")
    loop_for_ever(path)
    endless = Engine(path, device="cpu")
    start = time.monotonic()
    for _ in range(2):
        with time_limit(0.5), pytest.raises(WorkTimeError):
            endless.run(IMAGES)
    assert time.monotonic() - start < 20
    with time_limit(60):
        assert good.run(IMAGES)["cam"].shape == (1, 20, 8, 8)


def test_without_a_limit_and_with_one_the_outputs_are_the_same(tmp_path):
    engine = Engine(write_cam_model(tmp_path), device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (2, 300, 200, 3), np.uint8)  # larger than the preferred size
    free = engine.run(images)
    with time_limit(float("inf")):
        unbounded = engine.run(images)
    with time_limit(60):
        bounded = engine.run(images)
    for name, values in free.items():
        np.testing.assert_array_equal(values, bounded[name])
        np.testing.assert_array_equal(values, unbounded[name])
