"""Views of photos with the planes that belong to them: label maps, saliency, activated regions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.inference.errors import DataError
from app.inference.labels import IGNORE_INDEX
from training.config.learning import ViewConfig
from training.data import DataConfig, TaggedPhotos, open_source
from training.data.augment import cut_out, jitter_colours, turn_hue
from training.data.sampling import with_share
from training.data.views import LabelledViews, TaggedViews, paste_things

DATA = DataConfig(source="scenes", scenes={"count": 4, "val_count": 1, "size": 64, "class_count": 3})
PLAIN = ViewConfig(long_side=(64, 64), crop=64, colour_jitter=0.0)


@pytest.fixture
def photos() -> TaggedPhotos:
    return open_source(DATA)


def write_planes(folder: Path, names: tuple[str, ...], plane: np.ndarray) -> Path:
    folder.mkdir()
    for name in names:
        Image.fromarray(plane).save(folder / f"{name}.png")
    return folder


def test_planes_follow_the_photo(photos: TaggedPhotos, tmp_path: Path) -> None:
    names = photos.names("train")
    columns = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    labels = write_planes(tmp_path / "labels", names, columns)
    salient = write_planes(tmp_path / "salient", names, columns)
    views = LabelledViews(photos, names, labels, PLAIN, 0, {"salient": (salient, 40)})
    mirrored = 0
    for epoch in range(4):
        item = views[epoch, 1]
        assert item["inside"].all()
        assert torch.equal(item["salient"], item["label_maps"] > 40)
        mirrored += int(item["label_maps"][0, 0] == 63)
    assert 0 < mirrored < 4


def test_outside_the_photo_nothing_is_salient(photos: TaggedPhotos, tmp_path: Path) -> None:
    names = photos.names("train")
    white = np.full((64, 64), 250, np.uint8)
    labels, salient = (write_planes(tmp_path / key, names, white) for key in ("labels", "salient"))
    small = ViewConfig(long_side=(32, 32), crop=64, colour_jitter=0.0)
    item = LabelledViews(photos, names, labels, small, 0, {"salient": (salient, 40)})[0, 0]
    assert int(item["inside"].sum()) == 32 * 32
    assert torch.equal(item["salient"], item["inside"])
    assert ((item["label_maps"] == IGNORE_INDEX) == ~item["inside"]).all()


def test_missing_planes_are_named(photos: TaggedPhotos, tmp_path: Path) -> None:
    names = photos.names("train")
    labels = write_planes(tmp_path / "labels", names, np.zeros((64, 64), np.uint8))
    salient = write_planes(tmp_path / "salient", names[1:], np.zeros((64, 64), np.uint8))
    with pytest.raises(DataError, match=rf"1 of 4 photos have no PNG in .*salient \(first: {names[0]}\)"):
        LabelledViews(photos, names, labels, PLAIN, 0, {"salient": (salient, 40)})


def test_a_square_view_gives_up_the_aspect_ratio(tmp_path: Path) -> None:
    wide = np.zeros((20, 80, 3), np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.jpg")
    (tmp_path / "labels.csv").write_text("name,classes\nwide,cat\n")
    photos = open_source(DataConfig(source="folder", root=tmp_path, classes=("cat",), val_fraction=0.1))
    names = tuple(photos.tag_table)
    kept, squared = (
        TaggedViews(photos, names, PLAIN.model_copy(update={"keep_aspect": keep}), 0)[0, 0]["images"]
        for keep in (True, False)
    )
    assert (kept < -1).all(dim=0).float().mean() < 0.5  # black photo on a mean-coloured square
    assert (squared < -1).all()


def test_cutout_paints_squares_of_the_mean() -> None:
    image = torch.ones(3, 10, 12)
    cut_out(image, 4, np.random.default_rng(0))
    assert int((image == 0).sum()) == 3 * 16
    cut_out(image, 40, np.random.default_rng(0))
    assert (image == 0).all()


def test_a_third_of_the_circle_makes_red_green_and_leaves_grey() -> None:
    image = Image.fromarray(np.array([[[255, 0, 0], [90, 90, 90]]], np.uint8))
    green, grey = np.asarray(turn_hue(image, 1 / 3))[0]
    assert np.abs(green.astype(int) - (0, 255, 0)).max() <= 6  # PIL's circle has 256 steps
    assert grey.tolist() == [90, 90, 90]
    assert np.array_equal(np.asarray(turn_hue(image, 0.0)), np.asarray(image))


def test_views_with_hue_depend_on_seed_epoch_and_index_alone(photos: TaggedPhotos) -> None:
    names = photos.names("train")
    plain = ViewConfig(long_side=(64, 96), crop=64)
    turned = plain.model_copy(update={"hue_jitter": 0.1})
    first, again = (TaggedViews(photos, names, turned, 3)[2, 1]["images"] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, TaggedViews(photos, names, plain, 3)[2, 1]["images"])


def test_without_hue_nothing_is_drawn_for_it() -> None:
    image = Image.new("RGB", (4, 4), (200, 100, 50))
    rng, other = np.random.default_rng(0), np.random.default_rng(0)
    jitter_colours(image, 0.3, rng)
    for _ in range(3):
        other.uniform(0.7, 1.3)
    assert rng.random() == other.random()


def test_a_corrected_mask_holds_instead_of_the_label_and_counts_by_its_weight(
    photos: TaggedPhotos, tmp_path: Path
) -> None:
    names = photos.names("train")
    labels = write_planes(tmp_path / "labels", names[1:], np.full((64, 64), 1, np.uint8))
    corrected = write_planes(tmp_path / "corrected", names[:1], np.full((64, 64), 2, np.uint8))
    views = LabelledViews(photos, names, labels, PLAIN, 0, corrected=corrected, corrected_weight=3.0)
    assert views.is_corrected.tolist() == [True, False, False, False]
    assert [int(views[0, index]["label_maps"].max()) for index in range(4)] == [2, 1, 1, 1]
    assert [float(views[0, index]["weights"]) for index in range(4)] == [3, 1, 1, 1]
    with pytest.raises(DataError, match="no PNG"):
        LabelledViews(photos, names, labels, PLAIN, 0)


def test_corrected_photos_have_their_share_of_an_epoch() -> None:
    chosen = np.array([True, False, False, False])
    repeats = with_share(np.array([1.0, 1.0, 2.0, 1.0]), chosen, 0.75)
    np.testing.assert_allclose(repeats, [12, 1, 2, 1])
    np.testing.assert_allclose(with_share(np.ones(4), chosen | True, 0.75), np.ones(4))


def test_things_are_pasted_with_their_pixels_labels_and_tags(photos: TaggedPhotos, tmp_path: Path) -> None:
    names = photos.names("train")
    plane = np.zeros((64, 64), np.uint8)
    plane[10:30, 40:60], plane[50:] = 2, IGNORE_INDEX
    labels = write_planes(tmp_path / "labels", names, plane)
    giver, taker = (LabelledViews(photos, names, labels, PLAIN, 0)[0, index] for index in (0, 1))
    things, before = giver["label_maps"] == 2, {key: values.clone() for key, values in taker.items()}
    assert things.any()
    assert (giver["label_maps"][~things] == IGNORE_INDEX).any()
    paste_things(taker, giver)
    for key in ("images", "label_maps"):
        assert torch.equal(taker[key], torch.where(things, giver[key], before[key]))
    assert taker["image_labels"].tolist() == [
        max(tag, float(index == 1)) for index, tag in enumerate(before["image_labels"])
    ]


def test_a_share_of_the_views_is_pasted_on_and_no_photo_gains_a_tag(photos: TaggedPhotos, tmp_path: Path) -> None:
    names = photos.names("train")
    labels = write_planes(tmp_path / "labels", names, np.full((64, 64), 2, np.uint8))
    plain, pasting = (LabelledViews(photos, names, labels, PLAIN, 0, paste=share) for share in (0.0, 0.5))
    tags = pasting.image_labels.copy()
    keys = [(epoch, index) for epoch in range(5) for index in range(len(names))]
    pasted = [not torch.equal(plain[key]["images"], pasting[key]["images"]) for key in keys]
    assert 0 < sum(pasted) < len(keys)
    assert np.array_equal(pasting.image_labels, tags)
    corrected = write_planes(tmp_path / "corrected", names, np.ones((64, 64), np.uint8))
    drawn = LabelledViews(photos, names, labels, PLAIN, 0, corrected=corrected, paste=1.0)
    assert all((drawn[key]["label_maps"] == 1).all() for key in keys)
    assert all(torch.equal(drawn[key]["images"], plain[key]["images"]) for key in keys)
