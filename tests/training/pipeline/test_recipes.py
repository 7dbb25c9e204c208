"""Every recipe under experiments/ holds together: two steps of each of its stages, on generated scenes."""

import hashlib
import shutil
from pathlib import Path

import pytest

from app.inference.model_card import ModelCard
from app.inference.whole_file import whole_file
from training.__main__ import main
from training.config.run_config import RunConfig, read_config
from training.export.onnx_file import export_model, write_card
from training.export.served import ServedClassifier, ServedSegmenter

ROOT = Path("experiments")
RUNS = sorted(str(path.relative_to(ROOT)) for folder in ("voc12", "photos", "scenes") for path in (ROOT / folder).glob("*.toml")
              if path.stem not in ("pretrain", "pretrain-longer", "common"))  # fmt: skip


@pytest.fixture
def exports_once(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Export networks of one layout once: recipes share them, and an export takes longer than all other stages together.

    The next recipe gets the file that the first one wrote, with its own card. The folder is one for all processes.
    """
    written = tmp_path_factory.getbasetemp().parent / "exports"

    def export(
        module: ServedClassifier | ServedSegmenter, card: ModelCard, models: Path, version: int | None = None
    ) -> Path:
        known = written / f"{hashlib.sha256(repr(module).encode()).hexdigest()}.onnx"
        if not known.is_file():
            path = export_model(module, card, models, version)
            with whole_file(known) as partial:
                shutil.copy(path, partial)
            return path
        path = models / card.name / "1" / "model.onnx"
        with whole_file(path) as partial:
            shutil.copy(known, partial)
            write_card(partial, card)
        return path

    monkeypatch.setattr("training.pipeline.run.export_model", export)


def test_every_method_has_a_recipe() -> None:
    methods = {(Path(name).parts[0], read_config(RunConfig, ROOT / name).classifier.method) for name in RUNS}
    assert methods >= {
        (folder, method) for folder in ("voc12", "photos", "scenes") for method in ("cam", "drs", "amr", "edam")
    }


@pytest.mark.parametrize("name", RUNS)
def test_dry_run(name: str, exports_once: None, capsys: pytest.CaptureFixture[str]) -> None:
    config = read_config(RunConfig, ROOT / name)
    deep = config.segmenter is not None and config.segmenter.backbone == "resnet101"
    changes = ["--set", "segmenter.backbone=resnet50"] if deep else []  # the same blocks, fewer of them
    assert main(["run", str(ROOT / name), "--dry-run", *changes]) == 0
    said = capsys.readouterr().out
    assert "needs data: 4 + 2 generated scenes" in said
    assert f"every stage of {config.name} runs" in said
