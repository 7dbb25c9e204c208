"""The background threshold that saliency chooses."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.inference.errors import ConfigError, DataError
from app.inference.image.preprocess import geometry_of
from app.inference.maps.localization import ScaleCams
from training.config.run_config import RunConfig, read_config
from training.data import open_source
from training.stages.localize import StoredMaps, save_maps
from training.stages.threshold import agreeing_threshold

CONFIG = Path("experiments/scenes/cam.toml")


@pytest.mark.parametrize("edge", [0.2, 0.6])
def test_it_is_where_maps_end_with_what_is_salient(tmp_path: Path, edge: float) -> None:
    """Every map is a slope from 0 on the left to 1 on the right; what is salient begins where it has the value `edge`."""
    changes = [
        f"out={tmp_path}",
        "data.scenes.count=6",
        "data.scenes.val_count=1",
        f"saliency.folder='{tmp_path / 's'}'",
    ]
    config = read_config(RunConfig, CONFIG, changes)
    photos = open_source(config.data)
    (tmp_path / "s").mkdir()
    slope = np.tile(np.linspace(0, 1, 96, dtype=np.float32), (96, 1))
    for name in photos.names("train"):
        indices = photos.class_indices(name)
        maps = np.repeat(slope[None], len(indices), axis=0)
        views = ScaleCams(np.zeros(len(photos.classes)), (maps,), geometry_of((96, 96), 96))
        save_maps(tmp_path / "cams" / f"{name}.npz", StoredMaps(indices, views, finished=True))
        Image.fromarray(np.where(slope > edge, 200, 0).astype(np.uint8)).save(tmp_path / "s" / f"{name}.png")
    assert agreeing_threshold(config, photos) == edge
    for path in (tmp_path / "s").glob("*.png"):
        Image.new("L", (96, 96)).save(path)
    with pytest.raises(DataError, match="look at both"):
        agreeing_threshold(config, photos)


def test_it_needs_saliency() -> None:
    with pytest.raises(ConfigError, match=r"needs a \[saliency\] table"):
        read_config(RunConfig, CONFIG, ["export.background_threshold=saliency"])
    with pytest.raises(ConfigError, match="background_threshold"):
        read_config(RunConfig, CONFIG, ["export.background_threshold=1.5"])
    conditional = ["saliency.estimate=exact", "localize.inference=class-conditional"]
    with pytest.raises(ConfigError, match="plain ones"):
        read_config(RunConfig, CONFIG, ["export.background_threshold=saliency", *conditional])
