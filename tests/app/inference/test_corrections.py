"""A folder of corrected masks: what is written is read again, and what does not fit is refused by the photo's name."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.inference.errors import DataError
from app.inference.label_maps.corrections import (
    Correction,
    changed_pixels,
    mask_file,
    read_corrections,
    write_correction,
)
from app.inference.labels import IGNORE_INDEX

CLASSES = ("cat", "traffic light")
MASK = np.array([[0, 1, 2], [IGNORE_INDEX, 1, 2]], np.uint8)
DRAWN = Correction("beach, 2", "Ann, at home", "deeplab/5", "ab12", 4, "2026-11-27T12:00:00+00:00", "page")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = write_correction(tmp_path, MASK, MASK.shape, CLASSES, DRAWN)
    corrections = read_corrections(tmp_path)
    assert path == mask_file(tmp_path, "beach, 2")
    assert corrections.classes == CLASSES
    assert corrections.rows == {"beach, 2": DRAWN}
    np.testing.assert_array_equal(corrections.mask("beach, 2", (2, 3)), MASK)
    with Image.open(path) as picture:
        assert picture.mode == "P"
        assert picture.getpalette()[3:6] == [128, 0, 0]
    assert (tmp_path / "classes.txt").read_text() == "background\ncat\ntraffic light\n"


def test_the_last_row_of_a_photo_holds_and_the_others_stay(tmp_path: Path) -> None:
    write_correction(tmp_path, MASK, MASK.shape, CLASSES, DRAWN)
    write_correction(tmp_path, MASK * 0, MASK.shape, CLASSES, Correction("beach, 2", "Bob"))
    corrections = read_corrections(tmp_path)
    assert corrections.rows["beach, 2"].made_by == "Bob"
    assert corrections.rows["beach, 2"].made_at  # now
    assert corrections.rows["beach, 2"].pixels_changed is None
    assert not corrections.mask("beach, 2").any()
    assert len((tmp_path / "corrections.csv").read_text().splitlines()) == 3


def test_savings_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    names = [f"photo{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: write_correction(tmp_path, MASK, MASK.shape, CLASSES, Correction(name)), names))
    corrections = read_corrections(tmp_path)
    assert sorted(corrections.rows) == sorted(names)
    assert all(np.array_equal(corrections.mask(name), MASK) for name in names)


@pytest.mark.parametrize(
    ("mask", "size", "classes", "name", "said"),
    [
        (MASK, (3, 2), CLASSES, "a", "stored turned"),
        (MASK, (4, 6), CLASSES, "a", "3 x 2 pixels, its photo 6 x 4"),
        (MASK, (2, 3), ("cat",), "a", "holds label 2"),
        (MASK, (2, 3), CLASSES, "../a", "not a photo's name"),
        (MASK, (2, 3), CLASSES, "", "not a photo's name"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path: Path, mask: np.ndarray, size: tuple[int, int], classes: tuple[str, ...], name: str, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        write_correction(tmp_path, mask, size, classes, Correction(name))
    assert not list(tmp_path.iterdir())


def test_masks_of_other_classes_are_refused(tmp_path: Path) -> None:
    write_correction(tmp_path, MASK, MASK.shape, CLASSES, Correction("a"))
    with pytest.raises(DataError, match="a folder of their own"):
        write_correction(tmp_path, MASK, MASK.shape, CLASSES[::-1], Correction("b"))
    assert list(read_corrections(tmp_path).rows) == ["a"]


def test_a_damaged_folder_is_refused_with_the_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no corrections\.csv"):
        read_corrections(tmp_path)
    write_correction(tmp_path, MASK, MASK.shape, CLASSES, Correction("a"))
    mask_file(tmp_path, "a").write_bytes(b"no picture")
    with pytest.raises(DataError, match="'a'"):
        read_corrections(tmp_path).mask("a")
    mask_file(tmp_path, "a").unlink()
    with pytest.raises(DataError, match="Add the mask, or remove the row"):
        read_corrections(tmp_path).mask("a")
    with (tmp_path / "corrections.csv").open("a") as file:
        file.write("b,masks/b.png,Ann\n")
    with pytest.raises(DataError, match=r"row 3 \('b'\)"):
        read_corrections(tmp_path)


def test_changed_pixels_are_counted() -> None:
    assert changed_pixels(MASK, MASK) == 0
    assert changed_pixels(MASK, np.zeros_like(MASK)) == 5
