"""Regions of label maps as COCO has them, by hand."""

import warnings

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from app.inference.label_maps.regions import mask_to_rle, region_of, regions_in

MASK = np.array([[0, 1, 1, 0], [0, 0, 1, 0], [12, 0, 0, 255], [12, 12, 0, 255]], np.uint8)


def test_rle_counts_down_the_columns():
    encoded = mask_to_rle(MASK == 1).model_dump()
    assert encoded["size"] == [4, 4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools 2.0.11 under numpy 2
        assert np.array_equal(coco_mask.decode(encoded), MASK == 1)
    # down the columns: 4 off, 1 on, 3 off, 2 on, 6 off; from the fourth on each run is stored less the one two before it
    assert encoded["counts"] == "41313"


@pytest.mark.parametrize(("label", "box"), [(1, [1, 0, 2, 2]), (12, [0, 2, 2, 2]), (255, [3, 2, 1, 2])])
def test_box(label, box):
    region = region_of("class", label, label == MASK, 0.5)
    assert (region.box, region.pixels) == (box, 3 if label != 255 else 2)
    assert region.rle == mask_to_rle(label == MASK)


def test_the_classes_of_a_mask_come_largest_first():
    mask = np.pad(MASK, ((0, 3), (0, 0)), constant_values=12)
    assert [(label, where.tolist()) for label, where in regions_in(mask)] == [
        (label, (mask == label).tolist()) for label in (12, 1)
    ]
