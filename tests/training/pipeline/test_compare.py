"""The table of methods: rows trained and measured once, resumed, formatted."""

import json
from pathlib import Path

import pytest

from training.__main__ import main
from training.config.run_config import read_config
from training.pipeline.compare import CompareConfig, merged, run_config, slug

TABLE = """
name = "tried"
out = "OUT"
saliency = ["exact"]

[data]
source = "scenes"
scenes = { count = 8, val_count = 3, size = 64, class_count = 3 }

[classifier]
output_stride = 8
views = { long_side = [64, 64], crop = 64 }
fit = { epochs = 1, batch_size = 4 }

[localize]
preferred_size = 64
conditional = { scales = [1.0], rounds = 2 }

[irn]
output_stride = 8
radius = 3
doublings = 2
views = { long_side = [64, 64], crop = 64 }
fit = { epochs = 1, batch_size = 4 }

[drs]
output_stride = 8
extra = 1
size = 64
scales = [64]
fit = { epochs = 1, batch_size = 4, optimizer = "adamw" }

[[rows]]
name = "CAM"

[[rows]]
name = "DRS, fixed, + refinement"
run = "drs"
refined = true
classifier = { method = "drs", options = { stages = [4], extra = 0 }, fit = { lr = 0.02 } }

[[rows]]
name = "AMR"
spotlight = "CAM"
classifier = { method = "amr", options = { bounded = true } }

[[rows]]
name = "CAM and AMR"
fuse = ["CAM", "AMR"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "table.toml"
    path.write_text(TABLE.replace("OUT", str(tmp_path / "table")))
    return path


def test_every_row_is_measured_once(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(path)]) == 0
    written = Path(capsys.readouterr().out.strip().splitlines()[-1])
    lines = written.read_text().splitlines()
    names = [line.split(" | ")[0].removeprefix("| ") for line in lines[6:]]
    assert names == [name for name in ("CAM", "DRS, fixed, + refinement", "AMR") for _ in range(2)] + ["CAM and AMR"]
    assert {line.count("|") for line in lines[4:]} == {lines[4].count("|")}
    fused = json.loads((tmp_path / "table" / "cam-and-amr" / "figures.json").read_text())["plain"]
    assert set(fused) == {"none", "pamr", "exact"}
    assert 0 <= fused["none"]["miou"] <= 100
    assert "seed 0" in lines[2]
    figures = json.loads((tmp_path / "table" / "cam" / "figures.json").read_text())
    for inference in ("plain", "class-conditional"):
        for kind in ("none", "pamr", "irn", "exact"):
            assert 0 <= figures[inference][kind]["miou"] <= 100
            assert figures[inference][kind]["seconds"] >= 0
    weights = tmp_path / "table" / "drs" / "classifier" / "weights.pt"
    before = weights.stat().st_mtime_ns
    assert main(["compare", str(path)]) == 0
    assert weights.stat().st_mtime_ns == before
    assert main(["compare", str(path), "--set", "irn.doublings=3"]) == 2
    assert "'CAM' of" in capsys.readouterr().err


def test_rows_that_are_fused_come_before(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(path.read_text().replace('fuse = ["CAM", "AMR"]', 'fuse = ["CAM", "EDAM"]'))
    assert main(["compare", str(path)]) == 2
    assert "fuses ['EDAM']; there are ['CAM', 'AMR'] before it" in capsys.readouterr().err
    path.write_text(path.read_text().replace('fuse = ["CAM", "EDAM"]', 'fuse = ["CAM"]\nrun = "cam"'))
    assert main(["compare", str(path)]) == 2
    assert "trains nothing" in capsys.readouterr().err
    path.write_text(path.read_text().replace('"CAM and AMR"', '"cam"'))
    assert main(["compare", str(path)]) == 2
    assert "share the folders ['cam']" in capsys.readouterr().err


def test_rows_change_what_they_name_alone(path: Path) -> None:
    config = read_config(CompareConfig, path)
    run = run_config(config, config.rows[1])
    assert run.out.name == "drs"
    assert (run.classifier.fit.lr, run.classifier.fit.batch_size) == (0.02, 4)
    assert merged({"options": {"a": 1}, "fit": {"x": 1}}, {"options": {"b": 2}, "fit": {"y": 2}}) == {
        "options": {"b": 2}, "fit": {"x": 1, "y": 2},
    }  # fmt: skip
    assert slug("AMR + DRS (fixed)") == "amr-drs-fixed"
