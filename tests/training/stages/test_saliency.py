"""The verb `saliency`: estimates that find what stands out, files that fit their photos, and what is refused."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.inference.errors import ConfigError
from app.inference.labels import BACKGROUND
from training.__main__ import main
from training.config.data import ScenesConfig
from training.data import DataConfig, open_source
from training.masks.ground_truth import GroundTruth
from training.smoothing.opencv import load_opencv
from training.stages import saliency
from training.stages.saliency import (
    DEFAULT_METHOD,
    ESTIMATORS,
    EXACT,
    ORIGIN,
    estimate_photo,
    path_length,
    write_saliency,
)

SCENES = DataConfig(source="scenes", scenes=ScenesConfig(count=2, val_count=1))
NAMES = ("train_00000", "train_00001", "val_00000")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos, one per split, of different sizes."""
    root = tmp_path / "photos"
    (root / "images").mkdir(parents=True)
    (root / "ImageSets").mkdir()
    (root / "labels.csv").write_text("name,classes\nwide,cat\ntall,dog\n")
    for split, name, size in (("train", "wide", (60, 40)), ("val", "tall", (33, 50))):
        Image.new("RGB", size, (90, 120, 90)).save(root / "images" / f"{name}.png")
        (root / "ImageSets" / f"{split}.txt").write_text(f"{name}\n")
    return root


def disc_photo(height: int = 90, width: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """A bright disc on plain ground, and where it is: uint8 (H, W, 3), bool (H, W)."""
    y, x = np.indices((height, width))
    inside = np.hypot(y - 0.55 * height, x - 0.4 * width) < 0.22 * height
    return np.where(inside[..., None], (240, 220, 60), (70, 110, 80)).astype(np.uint8), inside


@pytest.mark.parametrize("method", ESTIMATORS)
def test_a_bright_disc_stands_out(method: str) -> None:
    image, inside = disc_photo()
    estimate = estimate_photo(image, method)
    assert estimate.dtype == np.uint8
    assert estimate.shape == inside.shape
    assert (estimate.min(), estimate.max()) == (0, 255)
    assert estimate[inside].mean() > estimate[~inside].mean() + 60


def test_the_default_fills_the_disc_and_nothing_else() -> None:
    image, inside = disc_photo()
    salient = estimate_photo(image) > 50  # the limit of DRS
    assert (salient & inside).sum() / (salient | inside).sum() > 0.9


@pytest.mark.parametrize("method", ESTIMATORS)
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 1), (700, 500)])
def test_any_size_and_a_plain_photo_have_an_answer(method: str, size: tuple[int, int]) -> None:
    estimate = estimate_photo(np.full((*size, 3), 130, np.uint8), method)
    assert estimate.shape == size
    if method == DEFAULT_METHOD:
        assert not estimate.any()


def test_path_length_takes_the_shorter_way_round() -> None:
    none = np.inf
    steps = np.array([[none, 1, 5, none], [1, none, 2, none], [5, 2, none, none], [none, none, none, none]])
    assert path_length(steps).tolist() == [[0, 1, 3, none], [1, 0, 2, none], [3, 2, 0, none], [none, none, none, 0]]


def test_generated_scenes_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.toml"
    scenes = "scenes = {count = 2, val_count = 1}"
    config.write_text(f'name = "a"\nout = "{tmp_path.as_posix()}"\n[data]\nsource = "scenes"\n{scenes}\n')
    estimate = f'saliency.estimate="{DEFAULT_METHOD}"'
    assert main(["saliency", str(config), "--set", estimate]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path)
    for name in NAMES:
        with Image.open(tmp_path / "saliency" / f"{name}.png") as stored:
            assert (stored.mode, stored.size) == ("L", (96, 96))
            assert np.asarray(stored).max() == 255


def test_a_folder_by_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "maps"
    assert main(["saliency", "--data", str(folder), "--out", str(out), "--method", "spectral-residual"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert sorted(path.name for path in out.iterdir()) == [ORIGIN, "tall.png", "wide.png"]
    assert json.loads((out / ORIGIN).read_text())["method"] == "spectral-residual"
    for name, size in (("wide", (60, 40)), ("tall", (33, 50))):
        with Image.open(out / f"{name}.png") as stored:
            assert (stored.mode, stored.size) == ("L", size)


def test_maps_written_before_are_kept(folder: Path, tmp_path: Path) -> None:
    data, out = DataConfig(root=folder), tmp_path / "maps"
    write_saliency(data, open_source(data), out)
    kept = (out / "wide.png").stat().st_mtime_ns
    (out / "tall.png").unlink()  # stopped before it was written
    write_saliency(data, open_source(data), out)
    assert (out / "wide.png").stat().st_mtime_ns == kept
    assert sorted(path.name for path in out.iterdir()) == [ORIGIN, "tall.png", "wide.png"]


def test_maps_of_another_origin_are_neither_kept_nor_overwritten(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    write_saliency(DataConfig(root=folder), open_source(DataConfig(root=folder)), out)
    with pytest.raises(ConfigError, match=r"holds saliency made by 'robust-background' of .*photos"):
        write_saliency(DataConfig(root=folder), open_source(DataConfig(root=folder)), out, "fine-grained")
    with pytest.raises(ConfigError, match=r"holds saliency made by 'robust-background'"):
        write_saliency(SCENES, open_source(SCENES), out)
    (out / ORIGIN).unlink()
    with pytest.raises(ConfigError, match=r"of unknown origin; name another folder"):
        write_saliency(DataConfig(root=folder), open_source(DataConfig(root=folder)), out)


def test_exact_saliency_is_the_things_of_scenes(tmp_path: Path) -> None:
    out = write_saliency(SCENES, open_source(SCENES), tmp_path / "maps", EXACT)
    truth = GroundTruth(SCENES)
    for name in NAMES:
        with Image.open(out / f"{name}.png") as stored:
            assert (np.asarray(stored) == np.where(truth.mask(name) == BACKGROUND, 0, 255)).all()


def test_exact_saliency_of_photos_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    assert main(["scenes", str(photos), "--count", "2", "--val-count", "1"]) == 0  # with masks as files
    out = tmp_path / "maps"
    assert main(["saliency", "--data", str(photos), "--out", str(out), "--method", EXACT]) == 2
    assert (
        "'exact' is drawn for generated scenes (source = \"scenes\"); this data is 'folder'" in capsys.readouterr().err
    )
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere", "--out", "maps"], "data directory nowhere does not exist"),
        (["--data", "nowhere"], "saliency takes a CONFIG"),
        ([], "got neither"),
        (["experiments/own.toml", "--out", "maps"], "got --out"),
    ],
)
def test_refused_command_lines(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["saliency", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_method_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown saliency 'fine-grain' \(nearest: 'fine-grained'\); known are"):
        write_saliency(SCENES, open_source(SCENES), tmp_path / "maps", "fine-grain")


def test_without_its_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match=r'pip install "\.\[saliency\]"'):
        write_saliency(SCENES, open_source(SCENES), tmp_path / "maps")
    assert write_saliency(SCENES, open_source(SCENES), tmp_path / "exact", EXACT).is_dir()  # needs none


def test_plain_opencv_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(importlib.import_module("cv2"), "saliency")
    with pytest.raises(ConfigError, match=r"the extra `saliency`"):
        load_opencv()


def test_weak_supervision_takes_exact_saliency_from_nowhere_else() -> None:
    root = Path(saliency.__file__).parents[1]
    users = {path.name for path in root.rglob("*.py") if "exact_saliency" in path.read_text(encoding="utf-8")}
    assert users == {"scenes.py", "saliency.py"}
