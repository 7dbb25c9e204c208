"""The figures that the manual states are those that were measured: the models' cards, and what the tutorial's own commands gave."""

import json
import re
from pathlib import Path

import pytest

from tests.test_docs import load_script
from training.export.onnx_file import card_of

ROOT = Path(__file__).resolve().parents[1]
README, MODELS, OWN, TUTORIAL = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "models/README.md", "docs/my-own-data.md", "docs/tutorial.md")
)
FILES = sorted((ROOT / "models").glob("*/*/model.onnx"))
CARDS = {path.parts[-3]: card_of(path) for path in FILES}
CLASSIFIER_COLUMNS = (
    "map", "cam_miou", "cam_miou_common", "cam_miou_best", "cam_miou_untagged", "pseudo_label_miou",
    "pseudo_label_miou_common",
)  # fmt: skip
SEGMENTER_COLUMNS = (
    "miou", "miou_common", "scales_miou", "scales_miou_common", "tagged_miou", "tagged_miou_common",
)  # fmt: skip
HALF_UNIT = {"0.1": 0.051, "1": 0.51}  # A rounded figure may differ from the measured one by this much.


def row_of(page: str, start: str) -> list[str]:
    """The cells of the table's row whose first cell starts so."""
    row = next(line for line in page.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parts[-3])
def test_the_table_of_models_states_what_the_cards_state(path: Path) -> None:
    name, version = path.parts[-3:-1]
    card = CARDS[name]
    cells = row_of(MODELS, f"[`{name}`]({name}/{version}/model.onnx)")
    if card.task == "segmentation":
        keys, stated, size = SEGMENTER_COLUMNS, cells[1:7], cells[7]
    else:
        keys, stated, size = CLASSIFIER_COLUMNS, cells[2:9], cells[9]
        thresholds = [float(found) for found in re.findall(r"\((0\.\d+)\)", " ".join(stated))]
        best = card.figures["cam_threshold_best"] / 100
        assert thresholds == pytest.approx([card.background_threshold, best], abs=0.0051)
    assert [float(cell.split()[0]) for cell in stated] == pytest.approx(
        [card.figures[key] for key in keys], abs=HALF_UNIT["0.1"]
    )
    assert float(size) == pytest.approx(path.stat().st_size / 1e6, abs=HALF_UNIT["0.1"])


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        (README, r"mean IoU of (\d+) % over VOC's.*?(\d+) % over the six.*?told the tags \(`tags=dog`\), (\d+) and (\d+)"),
        (MODELS, r"mean IoU of (\d+) % over the twenty.*?(\d+) % over the six.*?\((\d+) and (\d+) % where it is told"),
    ],
    ids=["README.md", "models/README.md"],
)  # fmt: skip
def test_the_sentence_of_how_good_masks_are(page: str, sentence: str) -> None:
    found = re.search(sentence, page, re.DOTALL)
    assert found is not None
    keys = ("miou", "miou_common", "tagged_miou", "tagged_miou_common")
    measured = [CARDS["deeplab"].figures[key] for key in keys]
    assert [float(number) for number in found.groups()] == pytest.approx(measured, abs=HALF_UNIT["1"])


def test_own_photos_are_compared_with_the_shipped_models() -> None:
    card = CARDS["deeplab"]
    stated = [float(number) for number in re.findall(r"(\d+) %", row_of(OWN, "4,064")[-1])]
    assert stated == pytest.approx([card.figures["miou"], card.figures["tagged_miou"]], abs=HALF_UNIT["1"])


def test_both_pages_say_the_same_of_ninety_photos() -> None:
    _, _, took, gave = row_of(OWN, "90 ")
    minutes = re.match(r"\d+ minutes of one core", took)
    assert minutes is not None
    said = " ".join(README[README.index("Ninety photos of cats") :].split())
    assert minutes[0] in said[:200]
    percent = re.findall(r"\d+ %", gave)[-1]
    assert f"mean IoU of {percent}" in said[:200]


def test_the_tutorial_states_what_its_commands_gave() -> None:
    kept = json.loads((ROOT / "experiments" / "tutorial.json").read_text(encoding="utf-8"))
    measured = load_script("make_tutorial").checksums()
    assert kept["made_from"] == measured, (
        "the recipe or its weights are others: run `python docs/make_tutorial.py FOLDER`"
    )
    found = re.search(
        r"(\d+) % mean IoU for the maps, (\d+) %\s+for the pseudo-labels and (\d+) % for the masks", TUTORIAL
    )
    assert found is not None
    drs, deeplab = (kept["models"][name] for name in ("things-drs", "things-deeplab"))
    expected = [drs["cam_miou"], drs["pseudo_label_miou"], deeplab["miou"]]
    assert [float(number) for number in found.groups()] == pytest.approx(expected, abs=HALF_UNIT["1"])
