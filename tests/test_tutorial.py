"""The tutorial's commands, run in order: a folder of tagged photos becomes models in a running service."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.server import Server, start_server

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]
SHORTER = [
    "--set",
    "classifier.fit.epochs=1",
    "--set",
    "segmenter.fit.epochs=1",
]  # what is learned is not the point here
FEWER = {"160": "24", "40": "8"}  # photos


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
    with start_server(place / "models", models_poll_seconds=0.2) as running:
        running.wait_until_ready()
        yield running


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_lead_from_tags_to_a_served_mask(place: Path, server: Server) -> None:
    said = {}
    for command in COMMANDS:
        words = shlex.split(command.replace("localhost:8000", f"127.0.0.1:{server.port}"))
        if words[0] == ".venv-dev/bin/python":
            words[0] = sys.executable
            words = [FEWER.get(word, word) for word in words]
            words += SHORTER if "run" in words else []
        if words[0] == "curl":
            words += [
                "--silent",
                "--show-error",
                "--fail-with-body",
                "--retry",
                "20",
                "--retry-delay",
                "1",
                "--retry-all-errors",
            ]
        done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        said[command] = done.stdout
    assert len(said) == len(COMMANDS) > 6
    assert '"things-deeplab"' in next(reply for command, reply in said.items() if "/segment" in command)
    assert "32 of 32 photos labelled" in next(reply for command, reply in said.items() if "app label" in command)
    for name in ("heat.jpg", "all.json", "runs/things/report.html", "labelled/annotations.json"):
        assert (place / name).is_file()


def test_its_pictures_are_there() -> None:
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT):
        assert (ROOT / "docs" / picture).is_file()
