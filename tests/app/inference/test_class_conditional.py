"""Class-conditional inference over classifiers that are a line of numpy; the authors' numbers are in test_parity."""

from itertools import pairwise

import numpy as np
import pytest

from app.inference.maps.class_conditional import (
    Box,
    ConditionalOptions,
    class_conditional_maps,
    mass_centre,
    resize_mask,
    resize_nearest,
    split_boxes,
    uint8_cams,
)

CLEAN, RELEASED = ConditionalOptions(), ConditionalOptions(released=True)
SIZE = (120, 160)


def colours(images: np.ndarray) -> np.ndarray:
    """Class k is seen where colour channel k stands out; stride 4."""
    pooled = images.reshape(len(images), images.shape[1] // 4, 4, images.shape[2] // 4, 4, 3).mean(axis=(2, 4))
    return np.maximum(pooled - pooled.mean(axis=(1, 2), keepdims=True), 0).transpose(0, 3, 1, 2)


def cropped(images: np.ndarray) -> np.ndarray:
    """`colours` for any size."""
    height, width = (side - side % 4 for side in images.shape[1:3])
    return colours(images[:, :height, :width])


def photo(*blobs: tuple[int, int, int, int]) -> np.ndarray:
    """Grey, with squares of 24 px: (row, column of the centre, channel, value)."""
    image = np.full((*SIZE, 3), 60, np.uint8)
    for row, column, channel, value in blobs:
        image[row - 12 : row + 12, column - 12 : column + 12, channel] = value
    return image


def test_mass_centre() -> None:
    plain = np.zeros((4, 6))
    plain[1, 2], plain[3, 5] = 1, 3
    assert mass_centre(plain).tolist() == [(1 + 3 * 3) / 4, (2 + 3 * 5) / 4]
    assert mass_centre(np.zeros((4, 6))).tolist() == [2, 3]


@pytest.mark.parametrize("options", [CLEAN, RELEASED])
def test_boxes_of_one_class_reach_ten_pixels_over_its_centre(options: ConditionalOptions) -> None:
    boxes = split_boxes(np.array([[50.9, 80.2]]), SIZE, options)
    assert boxes == (Box(0, 60, 0, 90), Box(0, 60, 70, 160), Box(40, 120, 0, 90), Box(40, 120, 70, 160))


def test_boxes_of_two_classes_reach_twenty_pixels_over_the_outer_centres() -> None:
    boxes = split_boxes(np.array([[50.0, 90.0], [70.0, 40.0]]), SIZE, CLEAN)
    assert boxes == (Box(0, 90, 0, 110), Box(0, 90, 20, 160), Box(30, 120, 0, 110), Box(30, 120, 20, 160))


def test_three_classes_are_not_split() -> None:
    assert split_boxes(np.array([[1.0, 1.0]] * 3), SIZE, CLEAN) == (Box(0, 120, 0, 160),) * 4


def test_boxes_are_clamped_unless_as_released() -> None:
    centres = np.array([[4.0, 155.0]])
    clean = (Box(0, 14, 0, 160), Box(0, 14, 145, 160), Box(0, 120, 0, 160), Box(0, 120, 145, 160))
    assert split_boxes(centres, SIZE, CLEAN) == clean
    released = split_boxes(centres, SIZE, RELEASED)
    assert released[:2] == clean[:2]
    assert released[2:] == (Box(114, 120, 0, 160), Box(114, 120, 145, 160))  # row -6 counts from the far edge


def test_resize_nearest() -> None:
    mask = np.array([[1, 2, 3], [4, 5, 6]])
    assert resize_nearest(mask, 1, 6).tolist() == [[1, 1, 2, 2, 3, 3]]
    assert resize_nearest(mask, 4, 2).tolist() == [[1, 2], [1, 2], [4, 5], [4, 5]]


def test_resize_mask_is_symmetric() -> None:
    mask = np.random.default_rng(0).random((50, 83)) < 0.5
    for height, width in ((25, 42), (75, 124), (100, 166), (50, 83)):
        assert np.array_equal(resize_mask(mask, height, width)[:, ::-1], resize_mask(mask[:, ::-1], height, width))
    assert resize_mask(np.array([[True, True, True, False]]), 1, 2).tolist() == [[True, False]]


@pytest.mark.parametrize("options", [CLEAN, RELEASED])
def test_erasing_finds_the_weaker_object(options: ConditionalOptions) -> None:
    image = photo((40, 80, 0, 255), (80, 80, 0, 190))
    result = class_conditional_maps(cropped, image, (0, 1, 2), options)  # three classes: the whole photo
    assert result.plain[0, 80, 80] < 0.69
    assert result.maps[0, 80, 80] > 0.9
    assert result.maps[0, 40, 80] > 0.9
    assert len(result.kept[0]) > 1
    assert not result.kept[0][0][40, 80]
    assert result.kept[0][0][80, 80]
    assert not result.kept[0][-1][80, 80]


@pytest.mark.parametrize("classes", [(0,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("options", [CLEAN, RELEASED])
def test_maps_are_normalised_and_of_the_photos_size(classes: tuple[int, ...], options: ConditionalOptions) -> None:
    image = photo((30, 40, 0, 250), (60, 90, 1, 200), (90, 120, 2, 230))
    result = class_conditional_maps(cropped, image, classes, options)
    assert result.maps.shape == result.plain.shape == (len(classes), *SIZE)
    assert result.maps.min() >= 0
    assert result.maps.max() <= 1
    for box, rounds in zip(result.boxes, result.kept, strict=True):
        assert {kept.shape for kept in rounds} == {(box.bottom - box.top, box.right - box.left)}
        assert all((before | ~after).all() for before, after in pairwise(rounds))  # never undone


def test_nothing_found_stops_after_the_first_round() -> None:
    result = class_conditional_maps(lambda images: np.zeros((len(images), 3, 2, 2)), photo(), (1,), CLEAN)
    assert [len(rounds) for rounds in result.kept] == [1] * 4
    assert not result.maps.any()
    assert result.centres.tolist() == [[60, 80]]


def test_a_mirrored_photo_gives_mirrored_maps_unless_as_released() -> None:
    image = photo((40, 40, 0, 255), (80, 100, 0, 150), (60, 60, 1, 200), (70, 130, 2, 220))
    different = {}
    for options in (CLEAN, RELEASED):
        maps = class_conditional_maps(colours, image, (0, 1, 2), options).maps
        mirrored = class_conditional_maps(colours, image[:, ::-1], (0, 1, 2), options).maps
        different[options.released] = np.abs(maps - mirrored[:, :, ::-1]).max()
    assert different[False] < 1e-3
    assert different[True] > 0.1


def test_no_view_sees_what_was_erased_unless_as_released() -> None:
    image = photo((60, 30, 0, 255))

    def seen_after_the_first_round(options: ConditionalOptions) -> float:
        rounds: list[np.ndarray] = []

        def cams(images: np.ndarray) -> np.ndarray:
            rounds.append(images[..., 0].max())
            return cropped(images)

        class_conditional_maps(cams, image, (0, 1, 2), options)
        return max(rounds[2:])  # one call for the plain maps, one for the first round

    options = ConditionalOptions(scales=(1.0,), erase_threshold=0.05)
    assert seen_after_the_first_round(options) < 100
    assert seen_after_the_first_round(ConditionalOptions(scales=(1.0,), erase_threshold=0.05, released=True)) == 255


@pytest.mark.parametrize("classes", [(0,), (0, 2), (0, 1, 2)])
def test_batches_change_nothing(classes: tuple[int, ...]) -> None:
    image = photo((30, 40, 0, 250), (60, 90, 1, 200), (90, 120, 2, 230))
    sizes: list[int] = []

    def cams(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return cropped(images)

    together = class_conditional_maps(cams, image, classes, CLEAN).maps
    assert max(sizes) > 1
    sizes.clear()
    alone = class_conditional_maps(cams, image, classes, ConditionalOptions(batch_pixels=1)).maps
    assert set(sizes) == {1}
    assert np.array_equal(together, alone)


def test_the_whole_photo_is_inferred_once_for_three_classes() -> None:
    calls: list[int] = []

    def cams(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        return cropped(images)

    result = class_conditional_maps(cams, photo((60, 60, 0, 250)), (0, 1, 2), ConditionalOptions(scales=(1.0,)))
    assert sum(calls) == 2 * (1 + len(result.kept[0]))


def test_without_mirroring_no_view_is_mirrored() -> None:
    calls: list[int] = []

    def cams(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        return cropped(images)

    options = ConditionalOptions(scales=(1.0, 0.5), flip=False, rounds=1)
    class_conditional_maps(cams, photo((60, 60, 0, 250)), (0, 1, 2), options)
    assert calls == [1, 1, 1, 1]


def test_a_small_patch_is_enlarged_for_the_network() -> None:
    smallest: list[int] = []

    def cams(images: np.ndarray) -> np.ndarray:
        smallest.append(min(images.shape[1:3]))
        return cropped(images)

    class_conditional_maps(cams, photo((13, 13, 0, 250)), (0,), CLEAN)
    assert min(smallest) == 32


def test_a_served_classifier_gets_uint8() -> None:
    seen: list[np.ndarray] = []

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(images)
        return {"cam": np.zeros((len(images), 2, 3, 3), np.float32)}

    assert uint8_cams(run)(np.array([[[[254.6, 0.4, 12.0]]]], np.float32)).shape == (1, 2, 3, 3)
    assert seen[0].dtype == np.uint8
    assert seen[0].ravel().tolist() == [255, 0, 12]
