"""The README's commands do what it says."""

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.app.server import start_server
from training.config.learn import LearnConfig, SimulateConfig
from training.config.learning import PretrainConfig, Section
from training.config.run_config import RunConfig, read_config
from training.pipeline.compare import CompareConfig

README = Path("README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
CURL = [command for command in COMMANDS if command.startswith("curl ")]


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The port of a service with the models of the repository."""
    with start_server(Path("models").resolve()) as running:
        running.wait_until_ready()
        yield running.port


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", CURL)
def test_curl_commands(command: str, server: int, tmp_path: Path) -> None:
    words = shlex.split(command.replace("localhost:8000", f"127.0.0.1:{server}"))
    out = None
    if "-o" in words:
        out = tmp_path / words[words.index("-o") + 1]
        words[words.index("-o") + 1] = str(out)
    done = subprocess.run([*words, "--silent", "--show-error", "--fail"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    if out is None:
        assert '"classes"' in done.stdout
    else:
        with Image.open(out) as picture:
            assert picture.size == (451, 300)


def test_there_are_curl_commands() -> None:
    assert len(CURL) >= 4


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_commands_exist(command: str) -> None:
    done = subprocess.run([*shlex.split(command), "--dry-run"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [c for c in COMMANDS if "-m training" in c])
def test_training_commands_have_a_valid_configuration(command: str) -> None:
    words = shlex.split(command)[3:]
    assert words[0] == "run"
    overrides = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    read_config(RunConfig, Path(words[1]), overrides)


@pytest.mark.parametrize("path", sorted(Path("experiments").rglob("*.toml")), ids=str)
def test_every_experiment_is_a_valid_configuration(path: Path) -> None:
    tables = tomllib.loads(path.read_text())
    read_config(kind_of(tables), path)


def kind_of(tables: dict[str, object]) -> type[Section]:
    """Return what a file configures, by a key that nothing else has."""
    marks = {"rows": CompareConfig, "orders": SimulateConfig, "corrections": LearnConfig, "data": RunConfig}
    return next((kind for mark, kind in marks.items() if mark in tables), PretrainConfig)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([\w./-]+)\)", README))))
def test_links_of_the_readme_lead_somewhere(target: str) -> None:
    assert Path(target).exists()
