"""Masks: read as labels, checked, and out of reach of a source."""

import ast
import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

import training
from app.inference.errors import DataError
from app.inference.labels import IGNORE_INDEX
from tests.training.data.samples import HEIGHT, WIDTH, save_mask
from training.config.data import ScenesConfig
from training.data import DataConfig, TaggedPhotos, open_source
from training.data.scenes import write_folder
from training.masks.ground_truth import GroundTruth

SCENES = ScenesConfig(count=4, val_count=2, size=32)


@pytest.fixture
def configs(tmp_path: Path, voc: Path, coco: Path) -> dict[str, DataConfig]:
    """One configuration per source, each with masks."""
    scenes = DataConfig(source="scenes", scenes=SCENES)
    return {
        "folder": DataConfig(root=write_folder(scenes, tmp_path / "folder")),
        "voc": DataConfig(source="voc", root=voc),
        "coco": DataConfig(source="coco", root=coco),
        "scenes": scenes,
    }


def everything(photos: TaggedPhotos) -> dict[str, tuple[object, ...]]:
    """All a source tells."""
    return {
        name: (photos.image(name).tobytes(), photos.size(name), photos.tags(name), photos.image_labels(name).tobytes())
        for names in photos.splits.values()
        for name in names
    }


def reachable(value: object) -> Iterator[object]:
    """A value and all it holds."""
    yield value
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from reachable(getattr(value, field.name))
    elif isinstance(value, dict):
        for pair in value.items():
            yield from reachable(pair)
    elif isinstance(value, tuple | list | set):
        for entry in value:
            yield from reachable(entry)


@pytest.mark.parametrize("source", ["folder", "voc", "coco", "scenes"])
def test_a_source_holds_nothing_that_leads_to_a_mask(configs: dict[str, DataConfig], source: str) -> None:
    photos = open_source(configs[source])
    assert not [name for name in dir(photos) if "mask" in name or "truth" in name]
    assert b"segmentation" not in pickle.dumps(photos).lower()
    suffixes = {value.suffix for value in reachable(photos) if isinstance(value, Path)}
    assert suffixes <= {".jpg"}, "photos are the only paths"
    arrays = [value for value in reachable(photos) if isinstance(value, np.ndarray | Image.Image)]
    assert not arrays
    root = configs[source].root
    assert root not in list(reachable(photos))


@pytest.mark.parametrize("source", ["folder", "voc", "coco", "scenes"])
def test_a_source_survives_pickling(configs: dict[str, DataConfig], source: str) -> None:
    photos = open_source(configs[source])
    assert everything(pickle.loads(pickle.dumps(photos))) == everything(photos)


@pytest.mark.parametrize("source", ["folder", "voc"])
@pytest.mark.parametrize("trap", [False, True], ids=["deleted", "unreadable"])
def test_a_source_reads_no_mask(configs: dict[str, DataConfig], source: str, trap: bool) -> None:
    config = configs[source]
    before = everything(open_source(config))
    assert config.root is not None
    directory = config.root / "SegmentationClass"
    masks = list(directory.iterdir())
    shutil.rmtree(directory)
    if trap:  # opening or listing any of these fails, whoever runs the test
        directory.mkdir()
        for mask in masks:
            mask.symlink_to(mask)
    after = open_source(config)
    assert everything(after) == before
    assert not after.skipped
    truth = GroundTruth(config, after)
    assert not any(truth.has(name) for name in after.tag_table)
    with pytest.raises(DataError, match="has no mask"):
        truth.mask(after.names("val")[0])


def test_a_coco_source_needs_no_segmentation(configs: dict[str, DataConfig], coco: Path) -> None:
    before = everything(open_source(configs["coco"]))
    for path in (coco / "annotations").iterdir():
        data = json.loads(path.read_text())
        for annotation in data["annotations"]:
            del annotation["segmentation"]
        path.write_text(json.dumps(data))
    assert everything(open_source(configs["coco"])) == before


def test_only_measuring_imports_masks() -> None:
    assert training.__file__ is not None
    package = Path(training.__file__).parent
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported |= {f"{node.module}.{alias.name}" for alias in node.names}
        if "masks" not in path.relative_to(package).parts:
            assert not [name for name in imported if name.startswith("training.masks.ground_truth")], path
            assert "training.data.scenes.render_mask" not in imported, path


@pytest.fixture
def masked(make_folder: Callable[..., Path]) -> tuple[DataConfig, Path]:
    """A folder of two photos, and the path of the first one's mask."""
    root = make_folder("name,classes\na,fox\nb,badger\n")
    return DataConfig(root=root), root / "SegmentationClass" / "a.png"


def test_masks_are_read_as_labels(masked: tuple[DataConfig, Path]) -> None:
    config, path = masked
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[1:3, 2:5], labels[4, 4], labels[7, 11] = 1, 2, IGNORE_INDEX
    save_mask(path, labels)
    truth = GroundTruth(config)
    assert (truth.has("a"), truth.has("b")) == (True, False)
    mask = truth.mask("a")
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, labels)
    Image.fromarray(labels).save(path)
    assert np.array_equal(truth.mask("a"), labels), "8-bit grey"


def test_bad_masks(masked: tuple[DataConfig, Path]) -> None:
    config, path = masked
    truth = GroundTruth(config)
    save_mask(path, np.zeros((HEIGHT + 1, WIDTH)))
    with pytest.raises(DataError, match="mask of 'a' is 12 x 9 pixels, its photo 12 x 8"):
        truth.mask("a")
    save_mask(path, np.full((HEIGHT, WIDTH), 3))
    with pytest.raises(DataError, match="mask of 'a' holds label 3, the 2 classes have labels up to 2"):
        truth.mask("a")
    Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3)).save(path)
    with pytest.raises(
        DataError, match=r"a\.png cannot be read: it is in colours, of which \(1, 2, 3\) is none of PASCAL VOC's"
    ):
        truth.mask("a")
    path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a\.png cannot be read: the upload is not a picture"):
        truth.mask("a")


def test_voc_masks_may_lie_in_the_augmented_directory(configs: dict[str, DataConfig], voc: Path) -> None:
    truth = GroundTruth(configs["voc"])
    assert truth.mask("2007_000002").max() == 0
    (voc / "SegmentationClass" / "2007_000002.png").unlink()
    assert not truth.has("2007_000002")
    save_mask(voc / "SegmentationClassAug" / "2007_000002.png", np.full((HEIGHT, WIDTH), 8))
    assert truth.mask("2007_000002").min() == 8


def test_coco_masks_are_drawn(configs: dict[str, DataConfig]) -> None:
    truth = GroundTruth(configs["coco"])
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:, 2:10] = 1  # the dog, run lengths, although it comes later
    expected[1:5, 2:6] = 2  # the cat, a polygon, lies on top as it is smaller
    assert np.array_equal(truth.mask("000010"), expected)
    crowd = np.zeros((HEIGHT, WIDTH), np.uint8)
    crowd[:, 0] = IGNORE_INDEX
    assert np.array_equal(truth.mask("000012"), crowd)
    assert not truth.has("000013")


def test_coco_masks_of_chosen_categories(configs: dict[str, DataConfig]) -> None:
    truth = GroundTruth(configs["coco"].model_copy(update={"classes": ("cat",)}))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[1:5, 2:6] = 1
    assert np.array_equal(truth.mask("000010"), expected)


def test_coco_compressed_run_lengths_and_bad_regions(configs: dict[str, DataConfig], coco: Path) -> None:
    path = coco / "annotations" / "instances_val2017.json"
    data = json.loads(path.read_text())
    region = np.zeros((HEIGHT, WIDTH), np.uint8)
    region[3:6, 4:9] = 1
    runs = coco_mask.encode(np.asfortranarray(region))
    annotation = data["annotations"][0]
    annotation |= {"iscrowd": 0, "segmentation": {"size": runs["size"], "counts": runs["counts"].decode()}}
    path.write_text(json.dumps(data))
    assert np.array_equal(GroundTruth(configs["coco"]).mask("000012"), region)
    size = [HEIGHT, WIDTH]
    regions_out_of_range = (
        {"size": size, "counts": [5]},
        {"size": size, "counts": [0, 500]},
        {"size": [3, 3], "counts": [9]},
        {"size": size, "counts": [-1, HEIGHT * WIDTH + 1]},
        {"size": [10**9, 10**9], "counts": "0"},
        [[1, 1, float("nan"), 4, 4, 4]],
        [[1, 1, 1e12, 4, 4, 4]],
        [[1, 1, 4, 1, 4, 4, 1]],
    )
    for box in ([], None, ""):
        annotation["segmentation"] = box
        path.write_text(json.dumps(data))
        assert not GroundTruth(configs["coco"]).has("000012"), "a box without an outline is a tag without a mask"
    for bad in ([[1, 1, 4, 4]], {"counts": [9]}, [["x"] * 6], *regions_out_of_range):
        annotation["segmentation"] = bad
        path.write_text(json.dumps(data))
        with pytest.raises(DataError, match="COCO annotation 3: `segmentation` is no polygon"):
            GroundTruth(configs["coco"]).mask("000012")


@pytest.mark.parametrize("stated", [10**9, -1, 48.5, float("inf"), "x"])
def test_a_size_in_coco_that_is_not_the_photos_is_refused(
    configs: dict[str, DataConfig], coco: Path, stated: object
) -> None:
    for path in (coco / "annotations").iterdir():
        data = json.loads(path.read_text())
        for image in data["images"]:
            image["height"] = stated
        path.write_text(json.dumps(data))
    truth = GroundTruth(configs["coco"])
    with pytest.raises(DataError, match="the photo has|no height and width"):
        truth.mask(next(name for name in truth.photos.tag_table if truth.has(name)))


def test_a_crowd_is_no_crowd_where_its_flag_is_the_text_0(configs: dict[str, DataConfig], coco: Path) -> None:
    before = GroundTruth(configs["coco"]).mask("000012")
    for path in (coco / "annotations").iterdir():
        data = json.loads(path.read_text())
        for annotation in data["annotations"]:
            annotation["iscrowd"] = str(annotation.get("iscrowd", 0))
        path.write_text(json.dumps(data))
    assert np.array_equal(GroundTruth(configs["coco"]).mask("000012"), before)
