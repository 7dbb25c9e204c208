"""The command `tag2mask`: which verb goes where, and what an installation holds."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tag2mask.__main__ import main
from tests.app.server import ROOT

SOURCES = sorted((ROOT / "tag2mask").glob("*.py"))
LIBRARIES = {"PIL", "numpy", "pycocotools", "urllib3"}


def call(*words: str, at: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The command, from some folder."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tag2mask.__main__ import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", program, *words], cwd=at, capture_output=True, text=True, timeout=120)


def test_help_and_version() -> None:
    assert call().stdout == call("--help").stdout != ""
    for verb in ("serve", "label", "train", "evaluate"):
        assert f"\n{verb}" in call("--help").stdout


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("serve", "TAG2MASK_PORT"),
        ("label", "--out"),
        ("train", "--dry-run"),
        ("evaluate", "--model"),
        ("fit", "CONFIG"),
    ],
)
def test_every_verb_finds_its_program(
    verb: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Within this process: to import all of training again and again takes longer than everything else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAG2MASK_MODELS", "models")  # which `find_models` may set, and monkeypatch takes back
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert said in capsys.readouterr().out


def test_models_and_recipes_come_along(tmp_path: Path) -> None:
    photos = ROOT / "tests" / "photos"
    done = call("label", str(photos), "--out", "labelled", at=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 photos labelled" in done.stdout
    done = call("train", "own", "--set", "data.root=nowhere", at=tmp_path)
    assert done.returncode == 2
    assert "folder in nowhere: no such folder" in done.stderr
    (tmp_path / "models").mkdir()  # one's own come first
    done = call("label", str(photos), "--out", "other", at=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("tag2mask: ")


def test_an_unknown_verb_is_refused() -> None:
    done = call("lable")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_client_needs_neither_app_nor_training() -> None:
    roots = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            roots |= {name.split(".")[0] for name in names}
    assert roots - sys.stdlib_module_names == {"tag2mask", *LIBRARIES}


def test_the_distribution_holds_what_the_command_needs() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["only-include"] == ["tag2mask", *wheel["sources"]]
    assert all((ROOT / name).is_dir() for name in wheel["only-include"])
