"""Maps to label maps by the configured rule: thresholds, saliency, refinements."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.errors import ConfigError, DataError
from app.labels import IGNORE_INDEX, voc_palette
from training.config import PseudoLabelConfig
from training.pseudo_label import label_photo, write_label_map
from training.refine import refine_crf

IMAGE = np.zeros((4, 4, 3), np.uint8)
MAPS = np.tile(np.array([0.9, 0.35, 0.25, 0.0], np.float32), (1, 4, 1))


def test_thresholds() -> None:
    row = label_photo(IMAGE, MAPS, (4,), PseudoLabelConfig(background_threshold=0.3), "a")[0]
    assert row.tolist() == [5, 5, 0, 0]
    config = PseudoLabelConfig(background_threshold=0.2, foreground_threshold=0.5)
    assert label_photo(IMAGE, MAPS, (4,), config, "a")[0].tolist() == [5, IGNORE_INDEX, IGNORE_INDEX, 0]


def test_no_class_is_all_background() -> None:
    for refine in ("none", "pamr", "crf"):
        label_map = label_photo(IMAGE, np.zeros((0, 4, 4), np.float32), (), PseudoLabelConfig(refine=refine), "a")
        assert (label_map == 0).all()


def test_saliency_decides_what_is_background(tmp_path: Path) -> None:
    saliency = np.array([[255, 255, 0, 255]], np.uint8).repeat(4, axis=0)
    Image.fromarray(saliency).save(tmp_path / "a.png")
    config = PseudoLabelConfig(background_threshold=0.2, saliency=tmp_path)
    assert label_photo(IMAGE, MAPS, (4,), config, "a")[0].tolist() == [5, 5, 0, IGNORE_INDEX]
    with pytest.raises(DataError, match=r"b\.png does not exist"):
        label_photo(IMAGE, MAPS, (4,), config, "b")
    Image.fromarray(saliency[:2]).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"4, 2.* its photo"):
        label_photo(IMAGE, MAPS, (4,), config, "b")


def test_label_maps_are_indexed_pngs_with_the_voc_palette(tmp_path: Path) -> None:
    label_map = np.array([[0, 12], [15, IGNORE_INDEX]], np.uint8)
    write_label_map(tmp_path / "a.png", label_map)
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "P"
        assert (np.asarray(stored) == label_map).all()
        assert stored.convert("RGB").getpixel((1, 0)) == tuple(voc_palette()[12])


def test_crf_follows_the_edge_of_the_photo() -> None:
    pytest.importorskip("pydensecrf", reason="the extra `crf` is not installed")
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, 16:] = 255
    maps = np.zeros((1, 32, 32), np.float32)
    maps[:, :, 12:] = 0.6  # four columns too many
    refined = refine_crf(image, maps, 0.3)
    assert (refined[0, 4:-4, 18:] > 0.3).all()
    assert (refined[0, 4:-4, :15] < 0.3).all()


def test_crf_without_its_extra_says_what_to_install() -> None:
    try:
        import pydensecrf  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match=r"\.\[crf\]"):
            refine_crf(IMAGE, MAPS, 0.3)
    else:
        pytest.skip("the extra `crf` is installed")
