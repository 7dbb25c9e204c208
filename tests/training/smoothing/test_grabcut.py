"""Graph cuts on the colours of a photo, started from maps."""

import numpy as np
import pytest
from pydantic import ValidationError

from training.config.tables import PseudoLabelConfig
from training.label_rules import PhotoMaps
from training.smoothing.grabcut import cut_labels, join_labels, mask_labels
from training.stages.pseudo_label import label_map_of

HEIGHT, WIDTH = 60, 80
THING = (slice(15, 45), slice(20, 60))


def photo() -> np.ndarray:
    """An orange rectangle on a blue ground, both a little noisy."""
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[:] = (40, 80, 200)
    image[THING] = (230, 120, 30)
    noise = np.random.default_rng(0).integers(0, 12, image.shape, dtype=np.uint8)
    return image + noise


def blurred(peak: tuple[int, int], width: float) -> np.ndarray:
    """A round map (1, H, W) whose maximum is 1."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.exp(-((y - peak[0]) ** 2 + (x - peak[1]) ** 2) / (2 * width**2))[None].astype(np.float32)


def truth(label: int) -> np.ndarray:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[THING] = label
    return labels


def test_a_round_map_grows_to_the_border_of_the_thing() -> None:
    maps = blurred((30, 40), 12)  # above 0.2 on 1,460 pixels, round; the thing has 1,200 and corners
    labels = cut_labels(photo(), maps, (4,), 0.2)
    assert labels.dtype == np.uint8
    assert (labels == truth(5)).mean() > 0.97
    assert (np.where(maps[0] > 0.2, 5, 0) == truth(5)).mean() < 0.95


def test_each_pixel_takes_the_class_of_its_greatest_map() -> None:
    maps = np.concatenate([blurred((30, 28), 9), blurred((30, 52), 9)])
    labels = cut_labels(photo(), maps, (2, 7), 0.2)
    assert labels[30, 24] == 3
    assert labels[30, 56] == 8
    assert labels[5, 5] == 0


def test_a_segmenter_has_its_say() -> None:
    maps, own = blurred((30, 40), 12), np.zeros((1, HEIGHT, WIDTH), np.float32)
    assert np.array_equal(
        join_labels(photo(), maps, own, (4,), 0.2, np.array([0.2])), cut_labels(photo(), maps, (4,), 0.2)
    )
    assert not join_labels(photo(), maps, own, (4,), 0.2, np.array([0.6])).any()
    own[0][THING] = 1
    own[0, :, 40:] = 0  # it sees the left half
    half = join_labels(photo(), maps, own, (4,), 0.2, np.array([0.8]))
    assert half[30, 30] == 5
    assert half[30, 50] == 0


def test_maps_and_segmenter_name_together_what_the_cuts_find() -> None:
    maps = np.concatenate([blurred((30, 40), 12), 0.5 * blurred((30, 40), 12)])
    own = np.stack([np.full((HEIGHT, WIDTH), 0.1), np.full((HEIGHT, WIDTH), 0.5)]).astype(np.float32)
    assert join_labels(photo(), maps, own, (2, 7), 0.2, np.full(2, 0.8))[30, 40] == 8
    assert join_labels(photo(), maps, own, (2, 7), 0.2, np.full(2, 0.2))[30, 40] == 3
    assert mask_labels(photo(), own, (2, 7))[30, 40] == 8
    assert cut_labels(photo(), maps, (2, 7), 0.2)[30, 40] == 3


def test_a_photo_without_classes_is_background() -> None:
    config = PseudoLabelConfig(refine="grabcut")
    assert not label_map_of(PhotoMaps(photo(), (), np.zeros((0, 4, 4), np.float32)), config).any()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_map_without_a_border_is_taken_as_it_is(value: float) -> None:
    labels = cut_labels(photo(), np.full((1, HEIGHT, WIDTH), value, np.float32), (0,), 0.2)
    assert (labels == (value > 0.2)).all()


def test_the_same_photo_gets_the_same_labels() -> None:
    first, second = (
        label_map_of(PhotoMaps(photo(), (4,), blurred((30, 40), 12)), PseudoLabelConfig(refine="grabcut")) for _ in "ab"
    )
    assert np.array_equal(first, second)


def test_a_tiny_photo_is_cut_too() -> None:
    assert cut_labels(photo()[:1, :3], np.ones((1, 1, 3), np.float32), (0,), 0.2).shape == (1, 3)


def test_it_knows_one_threshold() -> None:
    with pytest.raises(ValidationError, match="leave `foreground_threshold` out"):
        PseudoLabelConfig(refine="grabcut", foreground_threshold=0.5)
