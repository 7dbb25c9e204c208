"""What a run needs is looked at before it starts."""

from pathlib import Path

import pytest
import torch

from app.inference.errors import ConfigError
from training.__main__ import main
from training.config.run_config import RunConfig, read_config
from training.pipeline.preflight import needs_of, require

SCENES = Path("experiments/scenes/cam.toml")


def missing(*changes: str) -> list[str]:
    needs = needs_of(read_config(RunConfig, SCENES, list(changes)))
    return [f"{need.what}: {need.missing}" for need in needs if need.missing]


def test_a_run_on_scenes_needs_nothing() -> None:
    assert missing() == []


def test_every_missing_thing_is_named_with_its_remedy(tmp_path: Path) -> None:
    changes = ["data.source=folder", f"data.root={tmp_path / 'none'}", f"classifier.weights={tmp_path / 'w.pt'}",
               f"saliency.folder={tmp_path / 'sal'}"]  # fmt: skip
    found = missing(*changes)
    assert len(found) == 3
    assert "no such folder; put the data there" in found[0]
    assert "w.pt: no such file" in found[1]
    assert "write grey PNGs there" in found[2]
    assert missing('saliency={ estimate = "robust-background" }') == []  # the remedy it names
    with pytest.raises(ConfigError, match=r"3 of \d+ needs are missing"):
        require(needs_of(read_config(RunConfig, SCENES, changes)))


def test_pretrained_weights_must_be_here_or_come_from_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert missing("classifier.weights=pretrained") == []  # those of the small backbone lie in the package
    changes = ["classifier.weights=pretrained", "classifier.backbone=resnet38", "segmenter.backbone=resnet38"]
    [found] = missing(*changes)
    assert str(tmp_path) in found
    assert "put it there" in found


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_stops_the_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["run", str(SCENES), "--set", "needs.gpu_memory_gib=24", "--set", f"out={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr()
    assert "needs GPU with 24 GiB" in said.out
    assert "torch sees no GPU" in said.err
    assert not (tmp_path / "run").exists()
    assert missing("needs.gpu_memory_gib=24", "needs={}") == []  # the remedy it names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("classifier.method=dsr", "unknown method 'dsr'"),
        ("segmenter.architecture=deeplab", "unknown architecture 'deeplab'"),
        ("segmenter.options.chanels=3", "chanels"),
        ("segmenter.backbone=vgg16", "that is a small"),
    ],
)
def test_what_cannot_be_built_is_found_before_the_first_stage(change: str, message: str) -> None:
    assert any(message in found for found in missing(change))


def test_what_other_runs_leave_is_looked_for() -> None:
    changes = ["classifier.method=amr", "classifier.options.spotlight_weights=runs/none.pt"]
    assert any("runs/none.pt: no such file; train that" in found for found in missing(*changes))
    [found] = missing("refine.method=fusion", "refine.others=['runs/none/cams']")
    assert "runs/none/cams: no such folder; `localize`" in found


def test_the_supervised_bound_needs_no_classifier() -> None:
    changes = ["segmenter.labels=ground-truth", "segmenter.weights=pretrained", "classifier.weights=none.pt"]
    assert missing(*changes) == []
