"""Corrected masks from other tools: each form gives the same mask, what does not fit is refused by its row."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.inference.errors import DataError
from app.inference.label_maps.brush import encode_brush
from app.inference.label_maps.corrections import Correction, read_corrections, write_correction
from app.inference.label_maps.regions import mask_to_rle
from app.inference.labels import IGNORE_INDEX
from tests.training.data.samples import HEIGHT, WIDTH, save_mask
from training.__main__ import main
from training.config.learning import CorrectionsConfig
from training.data import DataConfig, TaggedPhotos, open_source
from training.masks.corrections.add import add_corrections
from training.masks.corrections.taught import corrected_mask, open_corrections, write_corrected
from training.masks.ground_truth import read_mask

Make = Callable[..., Path]
CAT, DOG = 1, 2  # labels of the folder's classes
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[1:5, 2:6] = DOG
MASK[6:8, 0:3] = CAT


@pytest.fixture
def root(make_folder: Make) -> Path:
    root = make_folder("name,classes\na,dog cat\nb,dog\n")
    (root / "classes.txt").write_text("cat\ndog\n")
    return root


@pytest.fixture
def photos(root: Path) -> TaggedPhotos:
    return open_source(DataConfig(source="folder", root=root))


def voc_folder(directory: Path, mask: np.ndarray, name: str = "a") -> Path:
    save_mask(directory / "SegmentationClass" / f"{name}.png", mask)
    return directory


def cvat_folder(directory: Path, mask: np.ndarray) -> Path:
    (directory / "SegmentationClass").mkdir(parents=True)
    (directory / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nDog:9,8,7::\ncat:1,2,3::\n"
    )
    colours = np.zeros((*mask.shape, 3), np.uint8)
    colours[mask == DOG], colours[mask == CAT] = (9, 8, 7), (1, 2, 3)
    Image.fromarray(colours).save(directory / "SegmentationClass" / "a.png")
    return directory


def coco_file(directory: Path, mask: np.ndarray, **changes: Any) -> Path:
    rle = {"size": list(mask.shape), "counts": mask_to_rle(mask == DOG).counts}
    square = [0, 6, 3, 6, 3, 8, 0, 8]
    document = {
        "images": [
            {"id": 4, "file_name": "sub/a.jpg", "height": mask.shape[0], "width": mask.shape[1]},
            {"id": 5, "file_name": "b.jpg", "height": HEIGHT, "width": WIDTH},  # nobody annotated it
        ],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 7, "iscrowd": 1, "segmentation": rle},
            {"id": 2, "image_id": 4, "category_id": 3, "iscrowd": 0, "segmentation": [square]},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    path = directory / "instances.json"
    directory.mkdir(exist_ok=True)
    path.write_text(json.dumps(document | changes))
    return path


def label_studio_file(directory: Path, mask: np.ndarray, **changes: Any) -> Path:
    size = {"original_width": mask.shape[1], "original_height": mask.shape[0], "image_rotation": 0}
    brush = {"format": "rle", "rle": encode_brush(mask == DOG), "brushlabels": ["dog"]}
    corners = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in ((0, 6), (3, 6), (3, 8), (0, 8))]
    result = [
        {"id": "x", "type": "brushlabels", "from_name": "tag", "to_name": "image", **size, "value": brush},
        {"id": "y", "type": "polygon", "from_name": "poly", "to_name": "image", **size, "value": {"points": corners}},
        {"id": "y", "type": "labels", "from_name": "label", "to_name": "image", **size, "value": {"labels": ["cat"]}},
    ]
    draft = {"id": 8, "model_version": "deeplab/5@sha256:ab12", "result": result[:1]}
    older = {"id": 1, "updated_at": "2026-01-01T00:00:00Z", "result": []}
    newer = {
        "id": 2, "updated_at": "2026-02-01T00:00:00Z", "result": result, "completed_by": {"id": 3, "email": "ann@example.org"},
        "parent_prediction": 8,
    }  # fmt: skip
    tasks = [
        {"id": 11, "data": {"image": "/data/upload/1/0123abcd-a.jpg", "tags": "dog"}, "annotations": [newer, older],
         "predictions": [draft], **changes},
        {"id": 12, "data": {"image": "/data/upload/1/0123abcd-b.jpg"}, "annotations": []},
    ]  # fmt: skip
    path = directory / "export.json"
    directory.mkdir(exist_ok=True)
    path.write_text(json.dumps(tasks))
    return path


@pytest.mark.parametrize("write", [voc_folder, cvat_folder, coco_file, label_studio_file])
def test_each_form_gives_the_same_mask(write: Make, photos: TaggedPhotos, tmp_path: Path) -> None:
    said = add_corrections(write(tmp_path / "in", MASK), photos, tmp_path / "out", made_by="Bob")
    assert said.startswith("1 corrected masks")
    corrections = read_corrections(tmp_path / "out")
    assert list(corrections.rows) == ["a"]
    np.testing.assert_array_equal(corrections.mask("a", (HEIGHT, WIDTH)), MASK)
    assert corrections.rows["a"].made_by == ("ann@example.org" if write is label_studio_file else "Bob")


def test_label_studio_says_who_corrected_which_draft_and_how_much(photos: TaggedPhotos, tmp_path: Path) -> None:
    add_corrections(label_studio_file(tmp_path / "in", MASK), photos, tmp_path / "out")
    row = read_corrections(tmp_path / "out").rows["a"]
    assert row == Correction(
        "a", "ann@example.org", "deeplab/5", "ab12", int((MASK == CAT).sum()), "2026-02-01T00:00:00Z", "label-studio"
    )


def test_what_was_taken_in_before_is_not_taken_in_again(photos: TaggedPhotos, tmp_path: Path) -> None:
    source = label_studio_file(tmp_path / "in", MASK)
    add_corrections(source, photos, tmp_path / "out")
    said = add_corrections(source, photos, tmp_path / "out")
    assert said.splitlines() == [f"0 corrected masks were put into {tmp_path / 'out'}", "1 masks were there already"]
    assert len((tmp_path / "out" / "corrections.csv").read_text().splitlines()) == 2


def test_a_mask_that_equals_its_draft_is_left_out(photos: TaggedPhotos, tmp_path: Path) -> None:
    source = voc_folder(tmp_path / "in", MASK)
    voc_folder(source, MASK, "b")
    drafts = voc_folder(tmp_path / "drafts", MASK, "b")
    voc_folder(drafts, MASK * 0)
    (drafts / "label.json").write_text(json.dumps({"models": {"cam/3": "c", "deeplab/5": "d"}}))
    said = add_corrections(source, photos, tmp_path / "out", drafts=drafts)
    assert "1 masks are as their drafts were" in said
    rows = read_corrections(tmp_path / "out").rows
    assert list(rows) == ["a"]
    assert (rows["a"].draft_model, rows["a"].draft_checksum) == ("deeplab/5", "d")
    assert rows["a"].pixels_changed == np.count_nonzero(MASK)


@pytest.mark.parametrize(
    ("write", "mask", "changes", "said"),
    [
        (voc_folder, MASK.T, {}, "a.png: the mask is .* stored turned"),
        (voc_folder, MASK + 5, {}, "a.png.*label 7"),
        (coco_file, MASK[:4], {}, "image 'sub/a.jpg'"),
        (coco_file, MASK, {"categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "cow"}]}, "'sub/a.jpg'.*'cow'"),
        (label_studio_file, MASK.T, {}, "task 11.*turned"),
        (label_studio_file, MASK, {"data": {"image": "/data/upload/1/c.jpg"}}, "task 11.*no photo"),
        (label_studio_file, MASK, {"annotations": [{"result": [{"type": "brushlabels"}]}]}, "task 11.*not as Label Studio"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_its_row_and_nothing_is_written(
    write: Make, mask: np.ndarray, changes: dict[str, Any], said: str, photos: TaggedPhotos, tmp_path: Path
) -> None:
    source = write(tmp_path / "in", mask, **changes)
    with pytest.raises(DataError, match=said):
        add_corrections(source, photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "refused: " in add_corrections(source, photos, tmp_path / "out", skip=True)


def test_choices_of_a_review_are_taken_in_and_change_the_tags(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "choices.csv"
    source.write_text("name,choice,classes\na,retag,cat\nb,reject,\n")
    out = tmp_path / "out"
    assert main(["corrections", "add", str(source), "--data", str(root), "--to", str(out)]) == 0
    photos = open_source(DataConfig(source="folder", root=root, choices=out / "choices.csv"))
    assert dict(photos.tag_table) == {"a": ("cat",)}
    source.write_text("name,choice,classes\nzebra,reject,\n")
    assert main(["corrections", "add", str(source), "--data", str(root), "--to", str(out)]) == 2


def test_the_folder_gives_labels_of_the_data_and_keeps_some_aside(make_folder: Make, tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(20)]
    root = make_folder("name,classes\n" + "".join(f"{name},dog cat\n" for name in names), [f"{n}.jpg" for n in names])
    (root / "classes.txt").write_text("cat\ndog\n")
    (root / "ImageSets").mkdir()
    (root / "ImageSets" / "val.txt").write_text("p3\n")
    photos = open_source(DataConfig(source="folder", root=root))
    folder = tmp_path / "corrections"
    for name in names[:10]:  # in a folder whose classes stand the other way round
        write_correction(folder, MASK, MASK.shape, ("dog", "cat"), Correction(name))
    taught = open_corrections(CorrectionsConfig(folder=folder, held_out=0.3), photos)
    assert "p3" in taught.kept_aside  # nobody trains on photos of `val`
    assert len(taught.kept_aside) > 1
    assert sorted((*taught.taught, *taught.kept_aside)) == sorted(names[:10])
    for name in names[10:]:
        write_correction(folder, MASK, MASK.shape, ("dog", "cat"), Correction(name))
    assert set(taught.kept_aside) <= set(
        open_corrections(CorrectionsConfig(folder=folder, held_out=0.3), photos).kept_aside
    )
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "old.png").write_bytes(b"")
    write_corrected(taught, photos, tmp_path / "labels")
    assert {path.stem for path in (tmp_path / "labels").iterdir()} == set(taught.taught)
    written = read_mask(tmp_path / "labels" / f"{taught.taught[0]}.png")
    np.testing.assert_array_equal(written == DOG, MASK == 1)
    np.testing.assert_array_equal(corrected_mask(taught.corrections, photos, taught.taught[0]), written)
    write_correction(tmp_path / "other", MASK, MASK.shape, ("dog", "moose"), Correction("p0"))
    strange = open_corrections(CorrectionsConfig(folder=tmp_path / "other"), photos).corrections
    with pytest.raises(DataError, match="'moose'"):
        corrected_mask(strange, photos, "p0")


def test_the_list_stays_a_table(photos: TaggedPhotos, tmp_path: Path) -> None:
    mask = MASK.copy()
    mask[0, 0] = IGNORE_INDEX
    add_corrections(voc_folder(tmp_path / "in", mask), photos, tmp_path / "out", made_by='Ann "A", Bob')
    with (tmp_path / "out" / "corrections.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["made_by"] == 'Ann "A", Bob'
    assert row["mask"] == "masks/a.png"
