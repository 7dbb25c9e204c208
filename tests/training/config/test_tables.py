"""Every key of a run's tables says what it means."""

import pytest

from training.config import learning, map_tables, tables
from training.config.learning import Section

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
