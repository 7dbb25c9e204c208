"""Every recipe under experiments/ holds together: two steps of each of its stages, on generated scenes.

Stand-ins are exported for the networks, but for the recipe of the shipped `cam` and `deeplab`, whose networks are traced: that takes
longer than all else, and `test_networks.py` does it for every method, backbone and segmenter.
"""

from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.training.exports import stand_ins
from training.__main__ import main
from training.config.run_config import RunConfig, read_config

ROOT = Path("experiments")
RUNS = sorted(str(path.relative_to(ROOT)) for folder in ("voc12", "photos", "scenes") for path in (ROOT / folder).glob("*.toml")
              if path.stem not in ("pretrain", "pretrain-longer", "common", "simulate"))  # fmt: skip
TRACED = "photos/cam.toml"
# Other tests export these backbones: test_networks.py (resnet101 has more of the blocks of resnet50-irn) and test_import.py.
EXPORTED = {"small", "resnet38", "resnet50-irn", "resnet101", "vgg16"}


def test_every_method_has_a_recipe() -> None:
    methods = {(Path(name).parts[0], read_config(RunConfig, ROOT / name).classifier.method) for name in RUNS}
    assert methods >= {
        (folder, method) for folder in ("voc12", "photos", "scenes") for method in ("cam", "drs", "amr", "edam")
    }


def test_every_backbone_of_a_recipe_is_exported_somewhere() -> None:
    configs = {name: read_config(RunConfig, ROOT / name) for name in RUNS}
    traced = configs[TRACED]
    backbones = {
        table.backbone for config in configs.values() for table in (config.classifier, config.segmenter) if table
    }
    assert backbones <= {*EXPORTED, traced.classifier.backbone, traced.segmenter.backbone}


@pytest.mark.parametrize("name", RUNS)
def test_dry_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = read_config(RunConfig, ROOT / name)
    changes = []
    if config.segmenter is not None and config.segmenter.backbone == "resnet101":
        changes += ["--set", "segmenter.backbone=resnet50"]  # the same blocks, fewer of them
    if (config.classifier.method, config.classifier.backbone) == ("cam", "resnet38"):
        changes += ["--set", "classifier.backbone=resnet50"]  # EDAM's recipe stands on the other
    with nullcontext() if name == TRACED else stand_ins():
        assert main(["run", str(ROOT / name), "--dry-run", *changes]) == 0
    said = capsys.readouterr().out
    assert "needs data: 4 + 2 generated scenes" in said
    assert f"every stage of {config.name} runs" in said
