"""Mutated requests, in short: `python -m tests.attack.fuzz` sends as many as one likes."""

import asyncio

import pytest

from tests.attack.fuzz import application, fuzz


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_mutated_requests_get_an_answer(tmp_path, capsys):
    assert not asyncio.run(fuzz(application(tmp_path), 200, seed=7))
