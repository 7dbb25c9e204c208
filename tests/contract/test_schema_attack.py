"""Schemathesis on a running service, in short: every endpoint, `/v2` and `/label-studio` among them; and bandit on its code."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.colour_models import write_cam_model, write_segmentation_model
from tests.app.server import ROOT
from tests.contract.schema_attack import BODIES, attack, description


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    write_cam_model(directory, "drs", 3)
    write_segmentation_model(directory)
    return directory


def test_the_description_holds_all_endpoints(models):
    paths = description(models)["paths"]
    assert set(BODIES) < set(paths)
    assert {"/segment", "/cam", "/v2/models/stats", "/label-studio/health"} < set(paths)


@pytest.mark.environment("attack")
def test_whatever_the_description_allows_gets_an_answer(models):
    done = attack(Path(sys.executable), 4, models)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.mark.environment("attack")
def test_bandit_finds_nothing_that_is_not_answered():
    command = [sys.executable, "-m", "bandit", "-c", "pyproject.toml", "-r", "app", "-q"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
