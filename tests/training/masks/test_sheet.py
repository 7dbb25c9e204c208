"""The contact sheet: photos beside what the shipped models make of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.__main__ import main
from training.data import DataConfig, open_source
from training.masks.sheet import CELL

MODELS = sorted(str(path) for path in Path("models").glob("*/*/model.onnx"))


def folder(root: Path) -> Path:
    """Two tagged photos, one of them with a mask."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets"):
        (root / name).mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
    Image.fromarray(np.full((60, 90), 12, np.uint8)).save(root / "SegmentationClass" / "a.png")
    (root / "labels.csv").write_text("name,classes\na,dog\nb,person\n")
    (root / "ImageSets" / "val.txt").write_text("a\nb\n")
    (root / "ImageSets" / "train.txt").write_text("")
    return root


def test_a_picture_per_model_and_the_mask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = folder(tmp_path), tmp_path / "sheets" / "sheet.jpg"
    assert main(["sheet", "--models", *MODELS, "--data", str(data), "--out", str(out)]) == 0
    assert open_source(DataConfig(source="folder", root=data)).names("val") == ("a", "b")
    with Image.open(out) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert pixels.shape[1] == (len(MODELS) + 2) * CELL
    last = pixels[:, -CELL:].astype(int)
    assert last[: len(last) // 2].std() > 20  # the first photo's mask
    assert last[len(last) // 2 + 20 :].min() > 200  # the second has none
    named = tmp_path / "named.jpg"
    assert main(["sheet", "--models", *MODELS, "--data", str(data), "--out", str(named), "--photos", "b"]) == 0
    with Image.open(named) as sheet:
        alone = np.asarray(sheet.convert("RGB")).astype(int)
    # b has no mask, so its sheet has a column less
    first, second = (rows[:, : alone.shape[1]] for rows in np.split(pixels, [len(alone)]))
    assert np.abs(alone - second).mean() < 8 < np.abs(alone - first).mean()
    assert main(["sheet", "--models", *MODELS, "--data", str(data), "--out", str(named), "--photos", "b", "c"]) == 2
    assert "no photo 'c' in 'val'" in capsys.readouterr().err
    assert main(["sheet", "--models", *MODELS, "--data", str(data), "--out", str(out), "--count", "0"]) == 2
    assert "--count 0" in capsys.readouterr().err
    assert main(["sheet", "--models", *MODELS, "--data", str(data), "--out", str(out), "--split", "train"]) == 2
    assert "unknown split 'train'" in capsys.readouterr().err
    for split in ("train", "val"):
        (data / "ImageSets" / f"{split}.txt").unlink()
    (data / "labels.csv").write_text("name,classes\na,dog\n")
    splits = open_source(DataConfig(source="folder", root=data)).splits
    [empty] = [split for split, names in splits.items() if not names]  # one photo cannot be in both
    assert main(["sheet", "--models", *MODELS, "--data", str(data), "--out", str(out), "--split", empty]) == 2
    assert f"no photo in {empty!r}" in capsys.readouterr().err
