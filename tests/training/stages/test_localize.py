"""Ways from a photo to stored maps: plain, class-conditional, AdvCAM."""

from pathlib import Path

import numpy as np
import pytest
import torch

from app.inference.arrays import resize_bilinear
from app.inference.errors import DataError
from app.inference.image.preprocess import Geometry
from app.inference.maps.class_conditional import ConditionalOptions, class_conditional_maps, uint8_cams
from app.inference.maps.localization import ScaleCams, scale_cams
from training.config.map_tables import LocalizeConfig
from training.config.run_config import RunConfig
from training.stages.classifier import build_classifier, torch_classifier
from training.stages.localize import StoredMaps, load_maps, make_localizer, save_maps

CLASSES = ("cat", "dog", "person")
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def localizer(**settings: object):
    config = RunConfig(name="ways", out=Path("runs/ways"), data={"source": "scenes"},
                       localize={"preferred_size": 64, "flip": False} | settings)  # fmt: skip
    torch.manual_seed(0)
    classifier = build_classifier(config.classifier, len(CLASSES)).eval()
    model = torch_classifier(config, CLASSES, classifier)
    return model, make_localizer(model, classifier, config.localize)


def test_plain_keeps_what_the_network_said(tmp_path: Path) -> None:
    model, localize = localizer(scales=[1.0, 0.5])
    save_maps(tmp_path / "a.npz", localize(IMAGE, (0, 2)))
    again = load_maps(tmp_path / "a.npz")
    assert again.class_indices == (0, 2)
    assert not again.finished
    assert (again.maps() == scale_cams(model, IMAGE).select((0, 2)).maps()).all()
    with pytest.raises(DataError, match="run `python -m training localize` first"):
        load_maps(tmp_path / "b.npz")


def test_class_conditional_is_ccrm_on_the_network_input(tmp_path: Path) -> None:
    options = {"scales": [1.0, 0.5], "rounds": 2, "buffers": [3, 6]}
    model, localize = localizer(inference="class-conditional", conditional=options)
    stored = localize(IMAGE, (1,))
    conditional = ConditionalOptions(scales=(1.0, 0.5), rounds=2, buffers=(3, 6))
    expected = class_conditional_maps(uint8_cams(model.run), IMAGE, (1,), conditional).maps
    quarter = resize_bilinear(expected, 12, 16)  # of the network input's size
    assert np.allclose(stored.views.cams[0], quarter)
    assert np.allclose(stored.maps(), resize_bilinear(quarter, 48, 64))  # no map is divided by its maximum again
    assert localize(IMAGE, ()).maps().shape == (0, 48, 64)


def test_advcam_climbs_with_the_configured_steps() -> None:
    maps = []
    for steps in (1, 3):
        _, localize = localizer(inference="advcam", climbing={"steps": steps, "scales": [1.0]})
        maps.append(localize(IMAGE, (0,)).maps())
    assert maps[0].shape == (1, 48, 64)
    assert 0 <= maps[1].min() <= maps[1].max() <= 1
    assert np.abs(maps[0] - maps[1]).max() > 1e-3


def test_finished_maps_keep_their_maxima(tmp_path: Path) -> None:
    maps = np.stack([np.full((4, 4), 0.5, np.float32), np.full((4, 4), 0.25, np.float32)])
    stored = StoredMaps((0, 1), ScaleCams(np.zeros(3), (maps,), Geometry(16, 16, 16, 16)), finished=True)
    save_maps(tmp_path / "a.npz", stored)
    again = load_maps(tmp_path / "a.npz")
    assert again.finished
    assert again.maps().max(axis=(1, 2)).tolist() == [0.5, 0.25]


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValueError, match="roundz"):
        LocalizeConfig(conditional={"roundz": 3})
