"""The verb `refine` on a trained run: a random walk, and DRS's refinement network."""

from pathlib import Path

import numpy as np
import pytest

from app.inference.errors import ConfigError, DataError
from training.config.run_config import RunConfig, read_config
from training.data import open_source
from training.data.sampling import evenly_spaced
from training.pipeline.run import VERBS, do
from training.stages.localize import StoredMaps, load_maps, save_maps
from training.stages.refine import finished, refine_run

SMALL = ["data.scenes.count=12", "data.scenes.val_count=4", "classifier.fit.epochs=1", "classifier.fit.batch_size=4"]
IRN = ["refine.method=irn", "refine.irn.output_stride=8", "refine.irn.radius=3", "refine.irn.doublings=3",
       "refine.irn.photos=6", "refine.irn.views.long_side=[64, 64]", "refine.irn.views.crop=64",
       "refine.irn.fit.epochs=1", "refine.irn.fit.batch_size=2"]  # fmt: skip
DRS = ["refine.method=drs", "refine.drs.output_stride=8", "refine.drs.extra=1", "refine.drs.size=64",
       "refine.drs.scales=[64]", "refine.drs.fit.epochs=1", "refine.drs.fit.batch_size=4"]  # fmt: skip


@pytest.fixture(scope="module")
def localized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has its maps."""
    out = tmp_path_factory.mktemp("refine") / "run"
    config = read_config(RunConfig, Path("experiments/scenes/cam.toml"), [f"out={out}", *SMALL])
    for verb in ("fit", "localize"):
        do(VERBS[verb], config)
    return out


@pytest.mark.parametrize("table", [IRN, DRS], ids=["irn", "drs"])
def test_refined_maps_of_every_photo(localized: Path, tmp_path: Path, table: list[str]) -> None:
    out = tmp_path / "run"
    out.mkdir()
    for part in ("classifier", "cams", "state.json"):
        (out / part).symlink_to(localized / part)
    config = read_config(RunConfig, Path("experiments/scenes/cam.toml"), [f"out={out}", *SMALL, *table])
    do(VERBS["refine"], config)
    photos = open_source(config.data)
    for name in photos.names("train") + photos.names("val"):
        before, refined = load_maps(out / "cams" / f"{name}.npz"), load_maps(out / "refined" / f"{name}.npz")
        assert refined.finished
        assert refined.class_indices == before.class_indices
        assert refined.maps().shape == before.maps().shape
        assert np.isfinite(refined.maps()).all()
    if table is IRN:
        assert len(list((out / "refine" / "affinity").glob("*.png"))) == 6
        assert evenly_spaced(photos.names("train"), 6)[0] == photos.names("train")[0]
    do(VERBS["pseudo-label"], config)
    assert len(list((out / "pseudo_labels").glob("*.png"))) == 16


def test_fusion_with_maps_of_other_runs(localized: Path, tmp_path: Path) -> None:
    out, others = tmp_path / "run", tmp_path / "others"
    out.mkdir()
    for part in ("classifier", "cams", "state.json"):
        (out / part).symlink_to(localized / part)
    table = ["refine.method=fusion", f"refine.others=['{others}']"]
    config = read_config(RunConfig, Path("experiments/scenes/cam.toml"), [f"out={out}", *SMALL, *table])
    photos = open_source(config.data)
    names = photos.names("train") + photos.names("val")
    others.mkdir()
    for name in names:
        stored = load_maps(out / "cams" / f"{name}.npz")
        save_maps(others / f"{name}.npz", finished(stored, np.zeros_like(stored.maps())))
    do(VERBS["refine"], config)
    for name in names:
        before, refined = load_maps(out / "cams" / f"{name}.npz"), load_maps(out / "refined" / f"{name}.npz")
        assert refined.class_indices == before.class_indices
        np.testing.assert_allclose(refined.maps(), finished(before, before.maps() / 2).maps(), atol=1e-6)
    (others / f"{names[-1]}.npz").unlink()
    (out / "refined" / f"{names[-1]}.npz").unlink()
    with pytest.raises(DataError, match="does not exist"):
        refine_run(config, photos)
    save_maps(others / f"{names[-1]}.npz", StoredMaps((), load_maps(out / "cams" / f"{names[-1]}.npz").views))
    with pytest.raises(DataError, match="other classes"):
        refine_run(config, photos)


@pytest.mark.parametrize("table", [["refine.method=fusion"], ["refine.method=irn", "refine.others=['runs/a/cams']"]])
def test_fusion_and_its_folders_go_together(table: list[str]) -> None:
    with pytest.raises(ConfigError, match="folders of maps"):
        read_config(RunConfig, Path("experiments/scenes/cam.toml"), table)


def test_a_run_without_the_table_has_no_such_verb(localized: Path) -> None:
    config = read_config(RunConfig, Path("experiments/scenes/cam.toml"), [f"out={localized}", *SMALL])
    with pytest.raises(ConfigError, match=r"no \[refine\] table"):
        do(VERBS["refine"], config)
