"""Maps, labels and masks against numbers worked out by hand."""

import numpy as np
import pytest

from app.inference.arrays import (
    enlarged_labels,
    label_by_thresholds,
    mask_from_logits,
    normalize_cam,
    resize_bilinear,
    winner,
)
from app.inference.labels import IGNORE_INDEX, VOC_CLASSES, class_index_of, label_of, voc_palette


def test_resize_bilinear_is_half_pixel_interpolation() -> None:
    row = np.array([[[0.0, 4.0]]], np.float32)
    assert resize_bilinear(row, 1, 4)[0, 0].tolist() == [0.0, 1.0, 3.0, 4.0]


def test_resize_bilinear_shrinks_by_taking_the_middle() -> None:
    square = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    assert resize_bilinear(square, 2, 2)[0].tolist() == [[2.5, 4.5], [10.5, 12.5]]


def test_resize_of_a_single_value_is_constant() -> None:
    assert (resize_bilinear(np.full((1, 1, 1), 7.0, np.float32), 3, 5) == 7).all()


def test_normalized_cam_lies_in_zero_one_and_drops_the_negative() -> None:
    cam = np.array([[[-1.0, 1.0], [2.0, 4.0]]], np.float32)
    expected = np.array([[0, 1, 2, 4]]) / (4 + 1e-5)
    assert np.allclose(normalize_cam(cam).ravel(), expected.ravel())


def test_map_without_evidence_stays_zero() -> None:
    assert (normalize_cam(np.full((2, 3, 3), -1.0, np.float32)) == 0).all()


def test_pseudo_label_by_hand() -> None:
    maps = np.array([[[0.9, 0.3], [0.1, 0.5]], [[0.2, 0.6], [0.2, 0.5]]], np.float32)
    label_map = label_by_thresholds((11, 14), 0.25, 0.4)(*winner(maps))
    assert label_map.tolist() == [[12, 15], [0, 12]]  # dog, person; background; a tie goes to the first
    assert label_by_thresholds((11, 14), 0.25, 0.55)(*winner(maps)).tolist() == [[12, 15], [0, IGNORE_INDEX]]


@pytest.mark.parametrize("source", [(9, 12), (1, 7), (6, 1), (1, 1), (40, 60)])
@pytest.mark.parametrize("target", [(200, 300), (9, 12), (31, 17), (1, 5), (3000, 2000)])
@pytest.mark.parametrize("thresholds", [(0.5, 0.5), (0.45, 0.6), (0.0, 0.0)])
def test_enlarged_labels_are_those_of_enlarged_maps(
    source: tuple[int, int], target: tuple[int, int], thresholds: tuple[float, float]
) -> None:
    maps = np.random.default_rng(sum(source)).random((3, *source), dtype=np.float32)
    maps[:, : source[0] // 2] = maps[:, :1, :1]  # half of the maps has no border in it
    enlarged = resize_bilinear(maps, *target)
    expected = label_by_thresholds((2, 5, 9), *thresholds)(*winner(enlarged))
    found = enlarged_labels(maps, *target, label_by_thresholds((2, 5, 9), *thresholds))
    best, second = np.sort(enlarged, axis=0)[::-1][:2]
    doubtful = np.min([best - second, *(abs(best - threshold) for threshold in thresholds)], axis=0) < 1e-6
    assert ((found == expected) | doubtful).all()
    assert doubtful.mean() < 0.01 or source[0] > 1


def test_mask_from_logits_equals_full_arg_max_over_its_candidates() -> None:
    logits = np.random.default_rng(1).normal(size=(4, 6, 6)).astype(np.float32)
    expected = resize_bilinear(logits, 31, 17).argmax(axis=0)
    assert (mask_from_logits(logits, np.arange(4), 31, 17) == expected).all()
    assert set(np.unique(mask_from_logits(logits, np.array([0, 3]), 31, 17))) <= {0, 3}


@pytest.mark.parametrize("class_index", [0, 7, len(VOC_CLASSES) - 1])
def test_label_and_class_index_are_inverse(class_index: int) -> None:
    assert class_index_of(label_of(class_index)) == class_index


def test_voc_palette_has_the_known_colours() -> None:
    palette = voc_palette()
    assert palette[label_of(VOC_CLASSES.index("dog"))].tolist() == [64, 0, 128]
    assert palette[label_of(VOC_CLASSES.index("person"))].tolist() == [192, 128, 128]
    assert palette[IGNORE_INDEX].tolist() == [224, 224, 192]
