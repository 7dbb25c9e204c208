"""Maps to label maps by the configured rule: thresholds, saliency, refinements."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from app.inference.errors import ConfigError, DataError
from app.inference.image.preprocess import Geometry
from app.inference.labels import IGNORE_INDEX, voc_palette
from app.inference.maps.localization import ScaleCams
from training.checkpoint import save_weights
from training.config.run_config import RunConfig
from training.config.tables import PseudoLabelConfig
from training.data import open_source
from training.label_rules import PhotoMaps
from training.smoothing.crf import refine_crf
from training.stages.classifier import build_classifier
from training.stages.localize import StoredMaps, localize_split
from training.stages.pseudo_label import (
    blend_saliency,
    label_map_of,
    photo_maps,
    pseudo_label_run,
    read_saliency,
    write_label_map,
)
from training.stages.saliency import EXACT, write_saliency

IMAGE = np.zeros((4, 4, 3), np.uint8)
MAPS = np.tile(np.array([0.9, 0.35, 0.25, 0.0], np.float32), (1, 4, 1))


def label(maps: np.ndarray, class_indices: tuple[int, ...], settings: PseudoLabelConfig) -> np.ndarray:
    return label_map_of(PhotoMaps(IMAGE, class_indices, maps), settings)


def test_thresholds() -> None:
    row = label(MAPS, (4,), PseudoLabelConfig(background_threshold=0.3))[0]
    assert row.tolist() == [5, 5, 0, 0]
    config = PseudoLabelConfig(background_threshold=0.2, foreground_threshold=0.5)
    assert label(MAPS, (4,), config)[0].tolist() == [5, IGNORE_INDEX, IGNORE_INDEX, 0]


def test_no_class_is_all_background() -> None:
    for refine in ("none", "pamr", "crf"):
        label_map = label(np.zeros((0, 4, 4), np.float32), (), PseudoLabelConfig(refine=refine))
        assert (label_map == 0).all()


def run_config(tmp_path: Path, **tables: object) -> RunConfig:
    data = {"source": "scenes"}
    return RunConfig(name="rule", out=tmp_path, data=data, saliency={"folder": tmp_path, "limit": 50}, **tables)


def stored(maps: np.ndarray) -> StoredMaps:
    size = maps.shape[1:]
    return StoredMaps((4,), ScaleCams(np.zeros(5), (maps,), Geometry(*size, *size)), finished=True)


SALIENCY = np.array([[255, 255, 0, 255]], np.uint8).repeat(4, axis=0)


def label_salient(stored: StoredMaps, saliency: np.ndarray, config: RunConfig) -> np.ndarray:
    """The label map of a photo whose saliency the run finds in its folder."""
    Image.fromarray(saliency).save(config.saliency.folder / "photo.png")
    return label_map_of(photo_maps(config, "photo", IMAGE, stored), config.pseudo_label)


def test_saliency_decides_what_is_background(tmp_path: Path) -> None:
    config = run_config(tmp_path, pseudo_label={"rule": "drs", "background_threshold": 0.2})
    assert label_salient(stored(MAPS), SALIENCY, config)[0].tolist() == [5, 5, 0, IGNORE_INDEX]
    config = run_config(tmp_path, pseudo_label={"rule": "edam"})
    assert label_salient(stored(MAPS), SALIENCY, config)[0].tolist() == [5, 5, 0, 0]
    assert label_salient(stored(MAPS), 0 * SALIENCY, config)[0].tolist() == [5, 0, 0, 0]  # the peak is certain


def test_the_paper_of_edam_weighs_masks_against_the_background(tmp_path: Path) -> None:
    tables = {"classifier": {"method": "edam"}, "localize": {"flip": True}, "pseudo_label": {"rule": "edam-paper"}}
    config = run_config(tmp_path, **tables)
    cams = 2 * np.tile(np.array([0.8, 0.7, 0.8, 0.0], np.float32), (1, 4, 1))  # a view and its mirror image, added
    views = ScaleCams(np.zeros(5), (cams,), Geometry(4, 4, 4, 4))
    # background masks are sqrt(1 - m^2): 0.6, 0.71, 0.6, 1; the third pixel is not salient, its mask below beta
    label_map = label_salient(StoredMaps((4,), views), SALIENCY, config)
    assert label_map[0].tolist() == [5, 0, 0, 0]


def test_saliency_is_blended_into_the_maps() -> None:
    maps = np.array([[0.9, 0.4, 0.0, 0.0], [0.1, 0.2, 0.3, 0.0]], np.float32).reshape(2, 1, 4).repeat(4, axis=1)
    saliency = np.tile(np.array([255, 204, 204, 0], np.uint8), (4, 1))
    blended = blend_saliency(maps, saliency, 0.5)
    np.testing.assert_allclose(blended[:, 0], [[0.95, 0.6, 0.4, 0.0], [0.55, 0.5, 0.55, 0.0]], atol=1e-6)
    config = PseudoLabelConfig(background_threshold=0.5, foreground_threshold=0.58)
    assert label(blended, (4, 6), config)[0].tolist() == [5, 5, IGNORE_INDEX, 0]
    assert blend_saliency(maps[:0], saliency, 0.5).shape == (0, 4, 4)  # a photo without tags
    assert blend_saliency(maps, None, 0.0) is maps
    small = blend_saliency(maps[:, :2, :2], saliency, 0.75)  # saliency has the photo's size, maps the network's
    assert small.shape == (2, 2, 2)


def test_a_run_blends_its_saliency_in(tmp_path: Path) -> None:
    data = {"source": "scenes", "scenes": {"count": 4, "val_count": 2, "size": 48, "class_count": 3}}
    config = RunConfig(
        name="blend", out=tmp_path, data=data, saliency={"estimate": "exact"}, localize={"preferred_size": 48},
        classifier={"weights": None}, pseudo_label={"background_threshold": 0.5, "saliency_share": 0.9},
    )  # fmt: skip
    photos = open_source(config.data)
    save_weights(tmp_path / "classifier" / "weights.pt", build_classifier(config.classifier, len(photos.classes)))
    write_saliency(config.data, photos, tmp_path / "saliency", EXACT)
    localize_split(config, photos)
    pseudo_label_run(config, photos)
    for name in photos.names("train"):
        saliency = read_saliency(tmp_path / "saliency" / f"{name}.png", photos.size(name))
        with Image.open(tmp_path / "pseudo_labels" / f"{name}.png") as label_map:
            assert ((np.asarray(label_map) > 0) == (saliency > 0)).mean() > 0.95  # maps of random weights change little


def test_saliency_must_be_there_and_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"b\.png does not exist"):
        read_saliency(tmp_path / "b.png", (4, 4))
    Image.fromarray(SALIENCY[:2]).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"4, 2.* its photo"):
        read_saliency(tmp_path / "b.png", (4, 4))
    with pytest.raises(ValidationError, match=r"needs a \[saliency\] table"):
        RunConfig(name="rule", out=tmp_path, data={"source": "scenes"}, pseudo_label={"rule": "drs"})
    with pytest.raises(ValidationError, match=r"saliency_share needs a \[saliency\] table"):
        RunConfig(name="rule", out=tmp_path, data={"source": "scenes"}, pseudo_label={"saliency_share": 0.5})
    with pytest.raises(ValidationError, match="leave `saliency_share` out"):
        PseudoLabelConfig(rule="edam", saliency_share=0.5)
    with pytest.raises(ValidationError, match="either `folder` or `estimate`"):
        RunConfig(name="rule", out=tmp_path, data={"source": "scenes"}, saliency={"limit": 3})


def test_a_rule_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="unknown rule 'treshold'; there are threshold, drs, edam, edam-paper"):
        PseudoLabelConfig(rule="treshold")
    with pytest.raises(ValidationError, match="takes `refine` of"):
        PseudoLabelConfig(rule="edam-paper", refine="pamr")
    with pytest.raises(ValidationError, match="gamma"):
        PseudoLabelConfig(rule="edam", options={"gamma": 1})
    with pytest.raises(ValidationError, match="reads the masks of EDAM"):
        run_config(tmp_path, pseudo_label={"rule": "edam-paper"})


def test_notes_of_an_earlier_release_are_read() -> None:
    """Runs noted EDAM's two thresholds in the table, whatever their rule was."""
    assert PseudoLabelConfig(rule="threshold", alpha=1e-6, beta=0.99999) == PseudoLabelConfig()
    assert PseudoLabelConfig(rule="edam", alpha=0.1, beta=0.99999).rule_options.alpha == 0.1


def test_label_maps_are_indexed_pngs_with_the_voc_palette(tmp_path: Path) -> None:
    label_map = np.array([[0, 12], [15, IGNORE_INDEX]], np.uint8)
    write_label_map(tmp_path / "a.png", label_map)
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "P"
        assert (np.asarray(stored) == label_map).all()
        assert stored.convert("RGB").getpixel((1, 0)) == tuple(voc_palette()[12])


@pytest.mark.environment("crf")
def test_crf_follows_the_edge_of_the_photo() -> None:
    pytest.importorskip("pydensecrf", reason="the extra `crf` could not be built (it needs a C++ compiler)")
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, 16:] = 255
    maps = np.zeros((1, 32, 32), np.float32)
    maps[:, :, 12:] = 0.6  # four columns too many
    refined = refine_crf(image, maps, 0.3)
    assert (refined[0, 4:-4, 18:] > 0.3).all()
    assert (refined[0, 4:-4, :15] < 0.3).all()


def test_crf_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)  # importing it raises ImportError
    with pytest.raises(ConfigError, match=r"\.\[crf\]"):
        refine_crf(IMAGE, MAPS, 0.3)
