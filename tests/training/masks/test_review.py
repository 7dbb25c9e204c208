"""The rank correlation of the quality estimate with the true IoU, by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.__main__ import main
from training.masks.review import photo_iou


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Three photos of a dog; the labels hit none, half and all of it, and the estimates are in that order but for one."""
    for folder in ("data/JPEGImages", "data/SegmentationClass", "out/SegmentationClass"):
        (tmp_path / folder).mkdir(parents=True)
    truth = np.zeros((8, 8), np.uint8)
    truth[:4] = 1
    lines = ["name,quality,agreement,consistency,margin,found,tags"]
    for name, rows, quality, margin in (("a", 0, 0.1, 0.9), ("b", 2, 0.4, 0.5), ("c", 4, 0.3, 0.2)):
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / "JPEGImages" / f"{name}.png")
        Image.fromarray(truth).save(tmp_path / "data" / "SegmentationClass" / f"{name}.png")
        label = np.zeros((8, 8), np.uint8)
        label[:rows] = 1
        Image.fromarray(label).save(tmp_path / "out" / "SegmentationClass" / f"{name}.png")
        lines.append(f"{name},{quality},,,{margin},dog,dog")
    (tmp_path / "out" / "review.csv").write_text("\n".join(lines))
    (tmp_path / "data" / "labels.csv").write_text("name,classes\na,dog\nb,dog\nc,dog\n")
    return tmp_path


def test_correlation_by_hand(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", str(labelled / "out"), "--data", str(labelled / "data")]) == 0
    said = capsys.readouterr().out
    assert "3 photos, mean IoU 50.0" in said
    assert "quality       0.500  (3 photos)" in said  # ranks 1 3 2 against 1 2 3
    assert "margin       -1.000  (3 photos)" in said
    assert "agreement" not in said
    assert "quarter listed first 0.0" in said


def test_what_is_not_there(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", str(labelled), "--data", str(labelled / "data")]) == 2
    assert "python -m app label" in capsys.readouterr().err
    for path in (labelled / "data" / "SegmentationClass").iterdir():
        path.unlink()
    assert main(["review", str(labelled / "out"), "--data", str(labelled / "data")]) == 2
    assert "has a mask" in capsys.readouterr().err


def test_iou_of_a_photo() -> None:
    truth = np.array([[1, 1, 255, 0]], np.uint8)
    assert photo_iou(truth, np.array([[1, 0, 2, 0]], np.uint8)) == 0.5  # where the truth is unknown nothing counts
    assert photo_iou(truth, np.array([[2, 0, 0, 0]], np.uint8)) == 0
    assert photo_iou(np.zeros((1, 2), np.uint8), np.zeros((1, 2), np.uint8)) == 1
