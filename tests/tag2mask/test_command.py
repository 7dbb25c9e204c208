"""The command `tag2mask`: which verb goes where, and what an installation holds."""

import ast
import importlib.util
import json
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tag2mask.__main__ import STEPS, main
from tests.app.colour_models import write_cam_model
from tests.app.server import ROOT

SOURCES = sorted((ROOT / "tag2mask").glob("*.py"))
LIBRARIES = {"PIL", "numpy", "pycocotools", "urllib3"}


def call(*words: str, at: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The command, from some folder."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tag2mask.__main__ import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", program, *words], cwd=at, capture_output=True, text=True, timeout=300)


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


def test_models_and_recipes_come_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = ROOT / "tests" / "photos"
    done = call("label", str(photos), "--out", "labelled", at=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 photos labelled" in done.stdout
    with monkeypatch.context() as here:  # Within this process, which has imported all of training.
        here.chdir(tmp_path)
        here.setenv("TAG2MASK_MODELS", "models")
        assert main(["train", "own", "--set", "data.root=nowhere"]) == 2
    assert "folder in nowhere: no such folder" in capsys.readouterr().err
    done = call("train", "onw", at=tmp_path)
    assert done.returncode == 2
    assert "there is no file onw, and no recipe of that name came along. There are: own, photos/amr, " in done.stderr
    (tmp_path / "models" / "of_another_program").mkdir(parents=True)
    done = call("label", str(photos), "--out", "labelled", at=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"no model is in ./models, so those that came along are used ({ROOT / 'models'})" in done.stderr
    own = write_cam_model(tmp_path / "models", "own", 1)  # one's own come first
    done = call("label", str(photos), "--out", "other", at=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "came along" not in done.stderr
    assert list(json.loads((tmp_path / "other" / "label.json").read_text())["models"]) == ["own/1"]
    own.write_bytes(b"no model")
    done = call("label", str(photos), "--out", "third", "--models", str(ROOT / "models"), at=tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_unknown_verb_is_refused_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    for written, meant in (("sreve", "serve"), ("lable", "label"), ("evalute", "evaluate"), ("--verison", "--version")):
        assert main([written]) == 2
        said = capsys.readouterr().err
        assert f"there is no verb {written!r}. Did you mean {meant!r}? There are serve, label, " in said


@pytest.mark.parametrize(
    ("missing", "verb", "said"),
    [
        ("onnxruntime", "serve", "serve needs ONNX Runtime, which is not installed: pip install '.[cpu]'"),
        ("torch", "fit", "fit is a verb of training, which is not installed: pip install '.[training]'"),
    ],
)
def test_what_an_installation_lacks_is_said(
    missing: str, verb: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAG2MASK_MODELS", "models")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else found(name))
    assert main([verb]) == 2
    assert said in capsys.readouterr().err


def test_the_verbs_of_training_are_all_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAG2MASK_MODELS", "models")
    with pytest.raises(SystemExit):
        main(["training", "none"])
    assert set(re.findall(r"'([\w-]+)'", capsys.readouterr().err)) == {"none", *STEPS}


def test_an_address_may_be_given_as_a_flag(tmp_path: Path) -> None:
    """The settings' own checks hold for flags."""
    done = call("serve", "--port", "many", at=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("tag2mask: TAG2MASK_PORT=many: ")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = call("serve", "--host", "127.0.0.1", "--port", port, at=tmp_path)
    assert f"tag2mask: port {port} is taken on 127.0.0.1; " in done.stderr


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
