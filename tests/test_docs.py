"""The manual says what the service does: the reference is up to date, every example runs."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.app.server import Server, start_server

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server(ROOT / "models") as running:
        running.wait_until_ready()
        yield running


def load_script(name: str) -> ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_reference_is_up_to_date() -> None:
    make_api = load_script("make_api")
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert text == make_api.reference(), "docs/api.md is out of date: run `make api`"
    for path in ("/segment", "/cam", "/pseudo-label", "/analyze", "/models"):
        assert f"`{path}`" in text


@pytest.mark.parametrize(
    ("program", "name", "said", "left"),
    [
        (["sh"], "quickstart.sh", "photo ", {"mask.png", "heat.jpg", "label.png", "all.npz", "coco.json"}),
        ([sys.executable], "quickstart.py", "label_map", set()),
        (["node"], "quickstart.mjs", "again: 304", {"heat.jpg"}),
    ],
)
def test_examples_run(program: list[str], name: str, said: str, left: set[str], server: Server, tmp_path: Path) -> None:
    needed = "curl" if program == ["sh"] else program[0]
    if shutil.which(needed) is None:
        pytest.skip(f"{needed} is not installed")
    command = [*program, str(EXAMPLES / name), str(ROOT / "tests" / "photos" / "cat.jpg"), server.url]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == left


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == {"quickstart.sh", "quickstart.py", "quickstart.mjs"}


def test_the_rooms_are_drawn_as_they_are() -> None:
    """`python docs/make_architecture.py` writes them anew."""
    for path, text in load_script("make_architecture").written().items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is older than the code"


def test_the_architecture_names_files_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:app|training|tests|docs)/[\w/.]+)`", page)
    assert len(named) > 30
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_settings_are_listed_as_they_are() -> None:
    page = load_script("make_settings").page()
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == page, "it is out of date: run `make api`"
    assert "| None |" not in page, "a setting has no description"


def test_common_parameters_are_described_once() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) == len(set(rows))
    for name in ("image", "tags", "scales", "size"):
        assert sum(line.startswith(f"| `{name}` |") for line in rows) == 1


def test_the_page_of_training_says_what_the_command_line_says() -> None:
    said = ast.get_docstring(ast.parse((ROOT / "training" / "__main__.py").read_text(encoding="utf-8")))
    assert said is not None
    assert said.partition("\n\n")[2] in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def test_messages_that_have_remedies_are_messages_of_the_product() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    said = [
        text
        for folder in ("app", "tag2mask", "training")
        for path in (ROOT / folder).rglob("*.py")
        for text in texts_of(path)
    ]
    said.append((ROOT / "Makefile").read_text(encoding="utf-8"))
    assert len(messages) > 20
    assert not [message for message in messages if not any(message in text for text in said)]


def texts_of(path: Path) -> Iterator[str]:
    """The texts of a file, with … for what an f-string fills in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([\w./-]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert not [target for target in targets if not (ROOT / page).parent.joinpath(target).exists()]
