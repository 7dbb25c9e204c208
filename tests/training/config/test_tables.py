"""Every key of a run's tables says what it means."""

import re
from pathlib import Path

import pytest

from app.inference.errors import ConfigError
from training.config import learning, map_tables, tables
from training.config.learning import Section
from training.config.run_config import RunConfig, read_config

SECTIONS = sorted(
    {
        kind
        for module in (learning, map_tables, tables)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Section) and kind is not Section
    },
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", SECTIONS, ids=lambda kind: kind.__name__)
def test_every_key_is_described_in_a_sentence(kind: type[Section]) -> None:
    undescribed = [
        key for key, field in kind.model_fields.items() if not field.description or field.description[-1] != "."
    ]
    assert not undescribed
    assert (kind.__doc__ or "").strip().endswith(".")


def test_an_unknown_key_names_the_one_that_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f'name = "a"\nout = "{tmp_path}"\n[data]\nsource = "scenes"\n')
    for override, said in (
        ("classifier.fit.epoch=3", "classifier.fit.epoch: there is no such key; did you mean 'epochs'? (got 3)"),
        ("refine.drss.size=64", "refine.drss: there is no such key; did you mean 'drs'?"),
        ("clasifier.method=cam", "clasifier: there is no such key; did you mean 'classifier'?"),
        ("needs.moon=1", "needs.moon: there is no such key; the keys are gpu_memory_gib"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            read_config(RunConfig, path, [override])


def test_what_an_earlier_release_noted_of_a_segmenter_is_read() -> None:
    """Runs and models of that time go on."""
    noted = tables.SegmenterConfig().model_dump(mode="json") | {"tag_regression": {"size": 384, "decay": 0.01}}
    assert tables.SegmenterConfig.model_validate(noted) == tables.SegmenterConfig()
