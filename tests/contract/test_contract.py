"""The contract: what the page says, what the card holds, what a file must be."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from app.inference.engine import Engine
from app.inference.errors import ModelCardError
from app.inference.model_card import ModelCard

PAGE = Path("docs/onnx-contract.md").read_text(encoding="utf-8")
MODELS = sorted(Path("models").glob("*/*/model.onnx"))
VALUES = {
    "name": "cam", "version": 3, "task": "cam", "method": "cam", "paper": "p", "backbone": "small",
    "classes": ("cat", "dog"),
    "output_stride": 16, "preferred_size": 320, "presence_thresholds": (0.4, 0.6), "data": "d", "data_licence": "l",
    "figures": {"map": 50.0}, "config": {"fit": {"lr": 0.1}},
}  # fmt: skip


def test_the_page_lists_the_keys_of_the_card() -> None:
    section = PAGE.split("## Metadata")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(ModelCard.model_fields)


def test_metadata_round_trips() -> None:
    card = ModelCard(**VALUES)
    assert ModelCard.from_metadata(card.to_metadata(), "here") == card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": None}, "carries no 'schema_version'"),
        ({"schema_version": "2"}, "schema version '2'; this tag2mask reads version 1"),
        ({"classes": None}, "'classes': Field required"),
        ({"classes": '["cat", "cat"]'}, "hold a name twice"),
        ({"presence_thresholds": "[0.5]"}, "1 values, 2 are expected"),
        ({"output_stride": '"wide"'}, "'output_stride'"),
        ({"figures": "{"}, "is not JSON"),
        ({"surprise": "1"}, "'surprise'"),
        ({"scales": "[0]"}, "must lie in"),
    ],
)
def test_malformed_metadata_is_refused_by_name(change: dict[str, str | None], message: str) -> None:
    metadata = ModelCard(**VALUES).to_metadata()
    for key, value in change.items():
        if value is None:
            del metadata[key]
        else:
            metadata[key] = value
    with pytest.raises(ModelCardError, match=re.escape(message)):
        ModelCard.from_metadata(metadata, "file.onnx")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelCardError, match="is not a model ONNX Runtime can load"):
        Engine(path)


@pytest.mark.parametrize("path", MODELS, ids=str)
def test_shipped_models_keep_the_contract(path: Path) -> None:
    engine = Engine(path, device="cpu", whole=True)
    card = engine.card
    assert path.parts[-3:-1] == (card.name, str(card.version))
    written = {entry.key for entry in onnx.load(path).metadata_props}
    assert set(card.to_metadata()) == written | {
        "measured_on",
        "checksum",
        "synonyms",
        "presence_weight",
        "taught_by",
    }  # which files exported before they came lack
    assert max(card.export_check.values()) <= 1e-3
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 65, 3), dtype=np.uint8)
    outputs, alone = engine.run(images), engine.run(images[1:])
    count = len(card.classes)
    if card.task == "cam":
        assert outputs["scores"].shape == (2, count)
        assert outputs["scores"].min() >= 0
        assert outputs["scores"].max() <= 1
        assert outputs["cam"].shape[:2] == (2, count)
        assert outputs["cam"].min() >= 0
    else:
        assert outputs["mask"].shape == (2, 96, 65)
        assert outputs["mask"].dtype == np.uint8
        assert outputs["mask"].max() <= count
        assert outputs["logits"].shape[1] == count + 1
    for name, value in outputs.items():
        assert np.allclose(value[1:], alone[name], atol=1e-4 * max(1.0, np.abs(value).max())), name


def test_models_fit_the_limit() -> None:
    assert sum(path.stat().st_size for path in MODELS) <= 64 * 2**20
