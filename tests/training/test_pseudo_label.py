"""Maps to label maps by the configured rule: thresholds, saliency, refinements."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from app.errors import ConfigError, DataError
from app.labels import IGNORE_INDEX, voc_palette
from app.predict import ScaleCams
from app.preprocess import Geometry
from training.config import PseudoLabelConfig, RunConfig
from training.localize import StoredMaps
from training.pseudo_label import label_photo, label_salient, read_saliency, write_label_map
from training.refine import refine_crf

IMAGE = np.zeros((4, 4, 3), np.uint8)
MAPS = np.tile(np.array([0.9, 0.35, 0.25, 0.0], np.float32), (1, 4, 1))


def test_thresholds() -> None:
    row = label_photo(IMAGE, MAPS, (4,), PseudoLabelConfig(background_threshold=0.3))[0]
    assert row.tolist() == [5, 5, 0, 0]
    config = PseudoLabelConfig(background_threshold=0.2, foreground_threshold=0.5)
    assert label_photo(IMAGE, MAPS, (4,), config)[0].tolist() == [5, IGNORE_INDEX, IGNORE_INDEX, 0]


def test_no_class_is_all_background() -> None:
    for refine in ("none", "pamr", "crf"):
        label_map = label_photo(IMAGE, np.zeros((0, 4, 4), np.float32), (), PseudoLabelConfig(refine=refine))
        assert (label_map == 0).all()


def run_config(tmp_path: Path, **tables: object) -> RunConfig:
    data = {"source": "scenes"}
    return RunConfig(name="rule", out=tmp_path, data=data, saliency={"folder": tmp_path, "limit": 50}, **tables)


def stored(maps: np.ndarray) -> StoredMaps:
    size = maps.shape[1:]
    return StoredMaps((4,), ScaleCams(np.zeros(5), (maps,), Geometry(*size, *size)), finished=True)


SALIENCY = np.array([[255, 255, 0, 255]], np.uint8).repeat(4, axis=0)


def test_saliency_decides_what_is_background(tmp_path: Path) -> None:
    config = run_config(tmp_path, pseudo_label={"rule": "drs", "background_threshold": 0.2})
    assert label_salient(IMAGE, stored(MAPS), SALIENCY, config)[0].tolist() == [5, 5, 0, IGNORE_INDEX]
    config = run_config(tmp_path, pseudo_label={"rule": "edam"})
    assert label_salient(IMAGE, stored(MAPS), SALIENCY, config)[0].tolist() == [5, 5, 0, 0]
    assert label_salient(IMAGE, stored(MAPS), 0 * SALIENCY, config)[0].tolist() == [5, 0, 0, 0]  # the peak is certain


def test_the_paper_of_edam_weighs_masks_against_the_background(tmp_path: Path) -> None:
    tables = {"classifier": {"method": "edam"}, "localize": {"flip": True}, "pseudo_label": {"rule": "edam-paper"}}
    config = run_config(tmp_path, **tables)
    cams = 2 * np.tile(np.array([0.8, 0.7, 0.8, 0.0], np.float32), (1, 4, 1))  # a view and its mirror image, added
    views = ScaleCams(np.zeros(5), (cams,), Geometry(4, 4, 4, 4))
    # background masks are sqrt(1 - m^2): 0.6, 0.71, 0.6, 1; the third pixel is not salient, its mask below beta
    label_map = label_salient(IMAGE, StoredMaps((4,), views), SALIENCY, config)
    assert label_map[0].tolist() == [5, 0, 0, 0]


def test_saliency_must_be_there_and_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"b\.png does not exist"):
        read_saliency(tmp_path / "b.png", (4, 4))
    Image.fromarray(SALIENCY[:2]).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"4, 2.* its photo"):
        read_saliency(tmp_path / "b.png", (4, 4))
    with pytest.raises(ValidationError, match=r"needs a \[saliency\] table"):
        RunConfig(name="rule", out=tmp_path, data={"source": "scenes"}, pseudo_label={"rule": "drs"})
    with pytest.raises(ValidationError, match="either `folder` or `estimate`"):
        RunConfig(name="rule", out=tmp_path, data={"source": "scenes"}, saliency={"limit": 3})


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
