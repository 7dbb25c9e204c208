"""The commands of two tutorials, run in order: a folder of tagged photos becomes models in a running service, and corrected masks
the next version of one.
"""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from app.inference.label_maps.corrections import read_corrections
from tests.app.server import Server, start_server

ROOT = Path(__file__).resolve().parents[1]
TAGS, CORRECTIONS = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("tutorial.md", "corrections.md"))
# What is learned is not the point here: fewer photos, and shorter training.
SHORTER = {
    "--count 160 --val-count 40": "--count 24 --val-count 8",
    "training run experiments/tutorial.toml": "training run experiments/tutorial.toml --set classifier.fit.epochs=1 "
    "--set segmenter.fit.epochs=1",
    "corrections learn": "corrections learn --promote --set fit.max_steps=2 --set photos=4",
    "curl ": "curl --silent --show-error --fail-with-body --retry 20 --retry-delay 1 --retry-all-errors ",
    ".venv-dev/bin/python": sys.executable,
}


def commands_of(text: str) -> list[str]:
    """The lines of a page that a shell is to run."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def run_all(text: str, place: Path, server: Server) -> dict[str, str]:
    """What each command of a page says."""
    said = {}
    for command in commands_of(text):
        shorter = command.replace("localhost:8000", f"127.0.0.1:{server.port}")
        for written, used in SHORTER.items():
            shorter = shorter.replace(written, used)
        done = subprocess.run(["bash", "-c", shorter], cwd=place, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        said[command] = done.stdout
    return said


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to run the commands in, as the checkout is one, with a model of its own."""
    place = tmp_path_factory.mktemp("tutorial")
    for name in ("app", "training", "experiments"):
        (place / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "models" / "cam", place / "models" / "cam")
    return place


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    with start_server(place / "models", models_poll_seconds=0.2, corrections=place / "corrections") as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="module")
def tagged(place: Path, server: Server) -> dict[str, str]:
    """What the commands of the first tutorial say; their models serve."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    return run_all(TAGS, place, server)


def test_the_commands_lead_from_tags_to_a_served_mask(place: Path, tagged: dict[str, str]) -> None:
    assert len(tagged) == len(commands_of(TAGS)) > 6
    assert '"things-deeplab"' in next(reply for command, reply in tagged.items() if "/segment" in command)
    assert "32 of 32 photos labelled" in next(reply for command, reply in tagged.items() if "app label" in command)
    for name in ("heat.jpg", "all.json", "runs/things/report.html", "labelled/annotations.json"):
        assert (place / name).is_file()


def test_the_commands_lead_round_the_circle(place: Path, server: Server, tagged: dict[str, str]) -> None:
    said = run_all(CORRECTIONS, place, server)
    assert len(said) == len(commands_of(CORRECTIONS))
    corrections = read_corrections(place / "corrections")
    assert corrections.rows["train_00000"].draft_model == "things-deeplab/1"
    assert len(corrections.rows) >= 12
    with Image.open(place / "things" / "SegmentationClass" / "train_00000.png") as drawn:
        np.testing.assert_array_equal(corrections.mask("train_00000"), np.asarray(drawn))
    end = time.monotonic() + 60
    while not (taught := versions(server)).get(2):
        assert time.monotonic() < end, "the next version does not serve"
        time.sleep(0.2)
    assert re.fullmatch(r"tags \+ \d+ masks", taught[2])
    assert taught[1] == "tags"
    assert (place / "labelled-2" / "review.csv").is_file()


def versions(server: Server) -> dict[int, str]:
    """What taught each version of the segmenter."""
    models = httpx2.get(f"{server.url}/models").json()["models"]
    return {model["version"]: model["taught_by"] for model in models if model["name"] == "things-deeplab"}


@pytest.mark.parametrize("text", [TAGS, CORRECTIONS])
def test_its_pictures_are_there(text: str) -> None:
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (ROOT / "docs" / picture).is_file()
