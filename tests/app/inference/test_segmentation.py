"""Masks of a segmenter that also says which classes the whole photo shows."""

from pathlib import Path

import numpy as np
import pytest

from app.inference.engine import Engine
from app.inference.label_maps.segmentation import image_level_prior, segment
from app.inference.labels import BACKGROUND, VOC_CLASSES
from tests.app.colour_models import CAT, DOG, GREEN, RED, SIDE, write_segmentation_model

THRESHOLD = 0.3
VIEWS = [{}, {"scales": (1.0, 0.5), "flip": True}, {"threshold": 0.01}]
CAT_INDEX = VOC_CLASSES.index("cat")


@pytest.fixture
def model(tmp_path: Path) -> Engine:
    path = write_segmentation_model(tmp_path, presence_thresholds=(THRESHOLD,) * len(VOC_CLASSES))
    return Engine(path, device="cpu")


def photo() -> np.ndarray:
    """Half of it red, which is dog (score 0.5), an eighth green, which is cat (score 0.125), the rest black."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[:, : SIDE // 2] = RED
    image[:, -SIDE // 8 :] = GREEN
    return image


@pytest.mark.parametrize("views", VIEWS)
def test_a_class_that_the_whole_photo_does_not_show_gets_no_pixel(model: Engine, views: dict) -> None:
    found = segment(model, photo(), **views)
    assert set(np.unique(found.mask)) == {BACKGROUND, DOG}
    assert set(found.scores) == {BACKGROUND, DOG}
    assert found.probabilities[CAT].max() == 0


@pytest.mark.parametrize("views", VIEWS)
def test_a_photo_of_none_of_the_classes_is_background(model: Engine, views: dict) -> None:
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[:8, :8] = RED
    found = segment(model, image, **views)
    assert not found.mask.any()
    assert found.scores == {BACKGROUND: pytest.approx(1)}


@pytest.mark.parametrize("views", VIEWS)
def test_who_knows_better_is_believed(model: Engine, views: dict) -> None:
    assert CAT in segment(model, photo(), class_indices=(CAT_INDEX,), **views).mask
    assert CAT in segment(model, photo(), class_indices=(CAT_INDEX,), complete=False, **views).mask
    assert CAT in segment(model, photo(), presence_threshold=0.1, **views).mask
    assert DOG not in segment(model, photo(), presence_threshold=0.6, **views).mask


def test_the_whole_photo_weighs_in_the_labels_of_its_pixels(tmp_path: Path) -> None:
    """The green eighth lies beside half a photo of red: by a weight of its odds (1 to 7) it becomes background."""

    def mask_of(name: str, weight: float, views: dict) -> set[int]:
        everything = {"presence_thresholds": (0.0,) * len(VOC_CLASSES), "presence_weight": weight}
        model = Engine(write_segmentation_model(tmp_path, name, **everything), device="cpu")
        return set(np.unique(segment(model, photo(), **views).mask))

    for index, views in enumerate(VIEWS):
        assert mask_of(f"plain{index}", 0.0, views) == {BACKGROUND, DOG, CAT}
        assert mask_of(f"weighed{index}", 10.0, views) == {BACKGROUND, DOG}


def test_what_is_certain_weighs_no_more_than_what_is_likely() -> None:
    changes = image_level_prior(np.array([0.0, 0.2, 0.5, 0.8, 1.0]), 0.5).ravel()
    assert list(changes[[0, 3, 4, 5]]) == [0, 0, 0, 0]
    assert changes[2] == pytest.approx(-0.5 * np.log(4))
    assert np.isfinite(changes).all()
    assert changes[1] < -5


def test_the_mask_has_the_size_asked_for(model: Engine) -> None:
    found = segment(model, photo(), (2 * SIDE, 3 * SIDE))
    assert found.mask.shape == (2 * SIDE, 3 * SIDE)
    assert set(np.unique(found.mask)) == {BACKGROUND, DOG}


def test_a_segmenter_without_scores_answers_as_it_is(tmp_path: Path) -> None:
    plain = Engine(write_segmentation_model(tmp_path), device="cpu")
    assert set(np.unique(segment(plain, photo()).mask)) == {BACKGROUND, DOG, CAT}
