"""IoU, average precision and thresholds against numbers worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.inference.arrays import label_by_thresholds, resize_bilinear, winner
from app.inference.labels import IGNORE_INDEX
from tests.app.colour_models import DOG, GREEN, RED, SIDE, halves, write_segmentation_model
from training.data import DataConfig
from training.masks.confusion import Confusion, Sweep
from training.masks.evaluate import evaluate_file
from training.stages.ranking import THRESHOLDS, best_f1_threshold, mean_average_precision


def test_iou_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 2], [0, 0, 2, 2], [IGNORE_INDEX] * 4], np.uint8)
    predicted = np.array([[0, 0, 1, 0], [0, 1, 1, 2], [0, 0, 2, 1], [1, 1, 1, 1]], np.uint8)
    confusion = Confusion.empty(3)
    confusion.add(truth, predicted)
    iou = confusion.iou()
    assert iou[:3] == pytest.approx([100 * 5 / 7, 100 * 2 / 5, 100 * 2 / 3])
    assert np.isnan(iou[3])  # neither there nor predicted: not a zero
    assert confusion.miou() == pytest.approx(100 * (5 / 7 + 2 / 5 + 2 / 3) / 3)
    assert confusion.miou([0, 2]) == pytest.approx(100 * (5 / 7 + 2 / 3) / 2)


def test_a_missed_class_counts_as_zero() -> None:
    confusion = Confusion.empty(1)
    confusion.add(np.array([[0, 1]], np.uint8), np.array([[0, 0]], np.uint8))
    assert confusion.iou().tolist() == [50.0, 0.0]


def test_ignored_prediction_counts_as_background() -> None:
    confusion = Confusion.empty(1)
    confusion.add(np.array([[0, 1]], np.uint8), np.array([[IGNORE_INDEX, 1]], np.uint8))
    assert confusion.iou().tolist() == [100.0, 100.0]


def test_sweep_equals_labelling_at_every_threshold() -> None:
    rng = np.random.default_rng(0)
    sweep, single = Sweep(4), [Confusion.empty(4) for _ in THRESHOLDS]
    for class_indices in ((1,), (0, 3), ()):
        truth = rng.choice(np.array([0, 1, 2, 4, IGNORE_INDEX], np.uint8), (20, 30))
        maps = rng.random((len(class_indices), 5, 7), dtype=np.float32)
        sweep.add(truth, maps, class_indices)
        for confusion, threshold in zip(single, THRESHOLDS, strict=True):
            label_map = np.zeros_like(truth)
            if class_indices:
                label_map = label_by_thresholds(class_indices, threshold, threshold)(
                    *winner(resize_bilinear(maps, 20, 30))
                )
            confusion.add(truth, label_map)
    for index, confusion in enumerate(single):
        assert (sweep.at(index).counts == confusion.counts).all()
    threshold, best = sweep.best()
    assert best == max(confusion.miou() for confusion in single)
    assert single[THRESHOLDS.index(threshold)].miou() == best


def test_masks_without_and_with_the_photos_tags(tmp_path: Path) -> None:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets"):
        (tmp_path / folder).mkdir()
    Image.fromarray(halves(RED, GREEN)).save(
        tmp_path / "JPEGImages" / "a.png"
    )  # what the model takes for a dog and a cat
    Image.fromarray(np.full((SIDE, SIDE), DOG, np.uint8)).save(tmp_path / "SegmentationClass" / "a.png")
    (tmp_path / "labels.csv").write_text("name,classes\na,dog\n")
    (tmp_path / "ImageSets" / "val.txt").write_text("a\n")
    (tmp_path / "ImageSets" / "train.txt").write_text("")
    model = write_segmentation_model(tmp_path / "models")
    figures = evaluate_file(model, DataConfig(source="folder", root=tmp_path), "val", common=("dog",)).figures
    assert figures["miou"] == pytest.approx((50 + 0) / 2)  # of the dog, and of a cat that is not there
    assert figures["tagged_miou"] == figures["tagged_miou_common"] == 100


def test_the_reported_split_is_measured_unless_another_is_named(tmp_path: Path) -> None:
    for folder in ("JPEGImages", "ImageSets"):
        (tmp_path / folder).mkdir()
    rows = []
    for split, names in {"train": "a", "val": "bc", "val_dev": "b", "val_report": "c"}.items():
        (tmp_path / "ImageSets" / f"{split}.txt").write_text("\n".join(names))
    for name in "abc":
        Image.fromarray(halves(RED, GREEN)).save(tmp_path / "JPEGImages" / f"{name}.png")
        rows.append(f"{name},dog\n")
    (tmp_path / "labels.csv").write_text("name,classes\n" + "".join(rows))
    model, data = write_segmentation_model(tmp_path / "models"), DataConfig(source="folder", root=tmp_path)
    assert evaluate_file(model, data).measured_on == "1 photos of val_report"
    assert evaluate_file(model, data, "val").measured_on == "2 photos of val"


def test_mean_average_precision_leaves_out_classes_without_photos() -> None:
    image_labels = np.array([[1, 0], [0, 0], [1, 0]])
    scores = np.array([[0.9, 0.5], [0.8, 0.1], [0.7, 0.9]])
    assert mean_average_precision(image_labels, scores) == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_best_f1_threshold_separates() -> None:
    assert best_f1_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.6, 0.9])) == pytest.approx(0.6)
    assert best_f1_threshold(np.zeros(3), np.array([0.1, 0.2, 0.3])) == 0.5
