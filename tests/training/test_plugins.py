"""A method, a backbone and a label rule from outside the tree: the blocks of `docs/extending.md`, one file and one entry each.

The run below takes all three through every stage; no file of `training` knows them.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.inference.engine import Engine
from tests.extending import added, changes
from training.__main__ import start_run
from training.config.run_config import RunConfig, read_config
from training.methods import METHODS
from training.pipeline.dry_run import dry

CHANGES = changes()


@pytest.fixture
def plugged() -> Iterator[None]:
    with added("training.backbones", "training.methods", "training.label_rules") as modules:
        assert len(modules) == 3
        yield


def test_a_method_a_backbone_and_a_label_rule_from_outside_make_a_run(plugged: None, tmp_path: Path) -> None:
    config = dry(read_config(RunConfig, Path("experiments/scenes/cam.toml"), CHANGES), tmp_path)
    assert start_run(config).is_file()
    assert (tmp_path / "classifier" / "first" / "weights.pt").is_file()
    for path in (tmp_path / "pseudo_labels").glob("*.png"):
        with Image.open(path) as stored:
            labels = np.asarray(stored)
        edge = int(0.25 * labels.shape[1])
        assert (labels[:, :edge] > 0).all()
        assert not labels[:, edge:].any()
    cards = {path.parts[-3]: Engine(path).card for path in (tmp_path / "models").glob("*/*/model.onnx")}
    assert {card.method for card in cards.values()} == {"paired", "deeplabv3plus"}
    assert {card.backbone for card in cards.values()} == {"tiny"}


def test_methods_that_build_on_others_take_one_from_outside(plugged: None) -> None:
    options = METHODS["amr"].Options(spotlight="paired", spotlight_options={"pull": 0.3})
    assert METHODS["amr"].photos_per_group(options) == 2
    model = METHODS["amr"](3, "tiny", 16, None, options)
    assert isinstance(model.spotlight, METHODS["paired"])
    with pytest.raises(ValueError, match="unknown method 'amr'; there are cam, drs, edam, joined, paired"):
        METHODS["amr"].Options(spotlight="amr")


def test_a_rule_from_outside_has_its_own_say_in_the_configuration(plugged: None) -> None:
    with pytest.raises(Exception, match="halves need mirrored views"):
        read_config(RunConfig, Path("experiments/scenes/cam.toml"), [*CHANGES, "localize.flip=false"])
    with pytest.raises(Exception, match="share"):
        read_config(RunConfig, Path("experiments/scenes/cam.toml"), [*CHANGES, "pseudo_label.options={ share = 'a' }"])
