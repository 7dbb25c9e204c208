"""Generated scenes: exact, repeatable, writable as a folder."""

import resource
from pathlib import Path

import numpy as np
import pytest

from app.inference.errors import DataError
from app.inference.labels import class_index_of
from training.config.data import MAX_SCENE_CLASSES, ScenesConfig
from training.data import DataConfig, open_source
from training.data.scenes import arrange, write_folder
from training.masks.ground_truth import GroundTruth

CONFIG = DataConfig(source="scenes", scenes=ScenesConfig(count=60, val_count=6, class_count=MAX_SCENE_CLASSES))


def test_tags_are_what_the_mask_shows() -> None:
    photos = open_source(CONFIG)
    truth = GroundTruth(CONFIG, photos)
    for name in photos.names("train"):
        labels = np.unique(truth.mask(name))
        assert {photos.classes[class_index_of(int(label))] for label in labels if label} == set(photos.tags(name))
        assert labels[0] == 0, "some ground is left"


def test_things_have_the_stated_sizes() -> None:
    photos = open_source(CONFIG)
    scenes = [arrange(CONFIG.scenes, name) for name in photos.names("train")]
    assert {len(things) for things in scenes} == {1, 2, 3}
    shares = [2 * thing.radius / CONFIG.scenes.size for things in scenes for thing in things]
    assert 0.15 <= min(shares) < max(shares) <= 0.6


@pytest.mark.parametrize("size", [32, 96, 161])
def test_image_and_mask_agree_in_size(size: int) -> None:
    config = DataConfig(source="scenes", scenes=ScenesConfig(size=size))
    photos = open_source(config)
    image = photos.image("val_00003")
    assert (image.shape, image.dtype) == ((size, size, 3), np.uint8)
    assert GroundTruth(config).mask("val_00003").shape == photos.size("val_00003") == (size, size)


def test_a_scene_depends_on_seed_split_and_index_alone() -> None:
    photos = open_source(CONFIG)
    again = open_source(DataConfig(source="scenes", scenes=CONFIG.scenes.model_copy(update={"count": 7})))
    other = open_source(DataConfig(source="scenes", scenes=CONFIG.scenes.model_copy(update={"random_seed": 1})))
    image = photos.image("train_00005")
    assert np.array_equal(image, again.image("train_00005"))
    for different in (other.image("train_00005"), photos.image("val_00005"), photos.image("train_00004")):
        assert not np.array_equal(image, different)


def test_written_folder_equals_the_source(tmp_path: Path) -> None:
    photos, truth = open_source(CONFIG), GroundTruth(CONFIG)
    config = DataConfig(root=write_folder(CONFIG, tmp_path / "scenes"), classes=photos.classes)
    written = open_source(config)
    assert dict(written.tag_table) == dict(photos.tag_table)
    assert {split: set(written.names(split)) for split in ("train", "val")} == {
        split: set(photos.names(split)) for split in ("train", "val")
    }
    masks = GroundTruth(config, written)
    for name in photos.names("val"):
        assert np.array_equal(masks.mask(name), truth.mask(name))
        difference = written.image(name).astype(int) - photos.image(name)
        assert np.abs(difference).mean() < 6, "JPEG"


def test_errors() -> None:
    with pytest.raises(DataError, match=r"classes are cat; generated scenes show disc, .*Leave `classes` out"):
        open_source(CONFIG.model_copy(update={"classes": ("cat",)}))
    truth = GroundTruth(CONFIG)
    assert truth.has("val_00005")
    for name in ("val_00006", "val_5", "val_x", "test_00000", "val", "val_0000５"):
        assert not truth.has(name)


def test_a_folder_that_the_disk_refuses_holds_no_half_of_a_file(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large: '.*train_00000.jpg'"):
            write_folder(CONFIG, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"train.txt"}
