"""Photos of single objects, four in a view, as further tags."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.inference.errors import ConfigError, DataError
from training.config.learning import MosaicConfig
from training.config.map_tables import ClassifierConfig
from training.config.run_config import RunConfig, read_config, validate_config
from training.data import open_source
from training.data.augment import IMAGENET_MEAN, IMAGENET_STD
from training.data.class_zip import ClassZip
from training.data.mosaic import MosaicViews
from training.data.views import TaggedViews
from training.pipeline.preflight import needs_of
from training.stages.classifier import check_classifier

SCENES = Path("experiments/scenes/cam.toml")
COLOURS = {"blue": (30, 40, 200), "green": (40, 190, 40), "red": (200, 30, 30)}
CLASSES = {"disc": ("blue", "green"), "star": ("red",)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zip") / "train.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, colour in {**COLOURS, "black": (0, 0, 0)}.items():
            for number in range(3):
                buffer = io.BytesIO()
                Image.new("RGB", (64, 64), colour).save(buffer, "png")
                archive.writestr(f"{name}/{number}.png", buffer.getvalue())
    return path


def mosaics(photos: Path, share: float = 0.999, classes: dict[str, tuple[str, ...]] = CLASSES) -> MosaicViews:
    config = read_config(RunConfig, SCENES, ["classifier.views={ long_side = [48, 48], crop = 47, colour_jitter = 0 }"])
    source = open_source(config.data)
    views = TaggedViews(source, source.names("train"), config.classifier.views, seed=0)
    settings = {"photos": photos, "share": share, "classes": classes}
    return MosaicViews(views, validate_config(MosaicConfig, settings, "test"))


def quarters(item: dict[str, torch.Tensor]) -> list[str]:
    """The colours in the middle of the quarters."""
    image = item["images"].permute(1, 2, 0).numpy() * IMAGENET_STD + IMAGENET_MEAN
    middles = [255 * image[y, x] for y in (12, 35) for x in (12, 35)]
    return [min(COLOURS, key=lambda name: np.abs(np.array(COLOURS[name]) - middle).sum()) for middle in middles]


def test_a_mosaic_has_the_tags_of_its_quarters(photos: Path) -> None:
    views = mosaics(photos)
    classes, seen = views.views.photos.classes, set()
    assert set(classes) >= {"disc", "star"}
    for index in range(20):
        item = views[0, index]
        assert item["images"].shape == (3, 47, 47)
        shown = quarters(item)
        seen |= set(shown)
        tags = {name for name, sources in CLASSES.items() if set(shown) & set(sources)}
        assert {classes[i] for i in item["image_labels"].nonzero().ravel()} == tags
        assert item["image_labels"].dtype == views.views[0, index]["image_labels"].dtype
    assert seen == set(COLOURS)  # black is no class of the data


def test_a_share_of_the_views_are_mosaics_and_the_others_untouched(photos: Path) -> None:
    views = mosaics(photos, share=0.3)
    same = [
        torch.equal(views[epoch, i]["images"], views.views[epoch, i]["images"]) for epoch in (0, 1) for i in range(100)
    ]
    assert len(views) == len(views.views)
    assert 0.6 < np.mean(same) < 0.8
    assert same[:100] != same[100:]
    assert torch.equal(mosaics(photos)[3, 5]["images"], mosaics(photos)[3, 5]["images"])


def test_what_mosaics_cannot_be_made_of_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no class 'purple'; it has 4, the first: black, blue, green, red"):
        mosaics(photos, classes={"disc": ("blue", "purple"), "star": ("red",)})
    with pytest.raises(ConfigError, match="the data has no 'unicorn'; it has disc, "):
        mosaics(photos, classes={"unicorn": ("blue",)})
    with pytest.raises(DataError, match="does not exist"):
        mosaics(tmp_path / "none.zip")
    mosaic = {"photos": tmp_path / "none.zip", "classes": CLASSES}
    with pytest.raises(ConfigError, match=r"leave out \[classifier.mosaic\]"):
        check_classifier(validate_config(ClassifierConfig, {"method": "edam", "mosaic": mosaic}, "test"))
    changes = [f'classifier.mosaic={{ photos = "{tmp_path}/none.zip", classes = {{ disc = ["blue"] }} }}']
    missing = [need.what for need in needs_of(read_config(RunConfig, SCENES, changes)) if need.missing]
    assert missing == [f"[classifier.mosaic] photos of single objects in {tmp_path}/none.zip"]


@pytest.mark.parametrize(
    ("entries", "classes"),
    [
        (
            ["cat/1.jpg", "dog/2.JPG", "__MACOSX/cat/._1.jpg", "cat/.DS_Store", "dog/Thumbs.db", "cat/notes.txt"],
            "cat dog",
        ),
        (["photos/cat/1.jpg", "photos/dog/2.jpg", "photos/readme.txt"], "cat dog"),
        (["cat\\1.jpg", "dog\\2.jpg"], "cat dog"),
        (["./cat/1.jpg", "./dog/more/2.jpg"], "cat dog"),
        (["cat/1.jpg", "cat/young/2.jpg"], "cat"),
    ],
)
def test_classes_of_zips_as_people_pack_them(entries: list[str], classes: str, tmp_path: Path) -> None:
    photo = io.BytesIO()
    Image.new("RGB", (8, 8)).save(photo, "JPEG")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for entry in entries:
            archive.writestr(entry, photo.getvalue() if entry.lower().endswith(".jpg") else b"something else")
    packed = ClassZip(tmp_path / "photos.zip", 8, 0, (0.5, 1.0), 0.0, None)
    assert (packed.classes, len(packed)) == (tuple(classes.split()), 2)


def test_a_zip_without_folders_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "flat.zip", "w") as archive:
        archive.writestr("1.jpg", b"")
    with pytest.raises(DataError, match=r"holds no CLASS/NAME\.webp .* write it again with a folder for each class"):
        ClassZip(tmp_path / "flat.zip", 8, 0, (0.5, 1.0), 0.0, None)
