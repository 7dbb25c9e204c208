"""Every recipe under experiments/ holds together: two steps of each of its stages, on generated scenes."""

from pathlib import Path

import pytest

from training.__main__ import main
from training.config.run_config import RunConfig, read_config

ROOT = Path("experiments")
RUNS = sorted(str(path.relative_to(ROOT)) for folder in ("voc12", "photos", "scenes") for path in (ROOT / folder).glob("*.toml")
              if path.stem not in ("pretrain", "pretrain-longer", "common", "simulate"))  # fmt: skip


def test_every_method_has_a_recipe() -> None:
    methods = {(Path(name).parts[0], read_config(RunConfig, ROOT / name).classifier.method) for name in RUNS}
    assert methods >= {
        (folder, method) for folder in ("voc12", "photos", "scenes") for method in ("cam", "drs", "amr", "edam")
    }


@pytest.mark.parametrize("name", RUNS)
def test_dry_run(name: str, exports_once: None, capsys: pytest.CaptureFixture[str]) -> None:
    config = read_config(RunConfig, ROOT / name)
    changes = []
    if config.segmenter is not None and config.segmenter.backbone == "resnet101":
        changes += ["--set", "segmenter.backbone=resnet50"]  # the same blocks, fewer of them
    if (config.classifier.method, config.classifier.backbone) == ("cam", "resnet38"):
        changes += ["--set", "classifier.backbone=resnet50"]  # EDAM's recipe stands on the other
    assert main(["run", str(ROOT / name), "--dry-run", *changes]) == 0
    said = capsys.readouterr().out
    assert "needs data: 4 + 2 generated scenes" in said
    assert f"every stage of {config.name} runs" in said
