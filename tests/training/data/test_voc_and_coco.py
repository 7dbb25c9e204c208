"""The VOC devkit and COCO instances as sources of tags."""

import json
from pathlib import Path

import pytest

from app.inference.errors import DataError
from app.inference.labels import VOC_CLASSES
from training.config.data import CocoConfig, VocConfig
from training.data import DataConfig, TaggedPhotos, open_source


def open_voc(root: Path, **settings: object) -> TaggedPhotos:
    return open_source(DataConfig(source="voc", root=root, **settings))


def open_coco(root: Path, **settings: object) -> TaggedPhotos:
    return open_source(DataConfig(source="coco", root=root, **settings))


def edit(path: Path, key: str, entry: int, **values: object) -> None:
    data = json.loads(path.read_text())
    data[key][entry].update(values)
    path.write_text(json.dumps(data))


def test_voc_tags_are_object_names(voc: Path) -> None:
    photos = open_voc(voc)
    assert photos.classes == VOC_CLASSES
    assert photos.tags("2007_000001") == ("dog", "person"), "difficult objects count, parts do not"
    assert photos.image("2007_000001").ndim == 3


def test_voc_takes_trainaug_where_it_is(voc: Path) -> None:
    assert open_voc(voc).names("train") == ("2007_000001", "2007_000002")
    assert open_voc(voc).names("val") == ("2007_000003",)
    assert open_voc(voc, voc=VocConfig(train_list="train")).names("train") == ("2007_000001",)
    (voc / "ImageSets" / "Segmentation" / "trainaug.txt").unlink()
    assert open_voc(voc).names("train") == ("2007_000001",)


def test_voc_root_may_be_the_devkit(voc: Path) -> None:
    assert open_voc(voc.parent).names("val") == ("2007_000003",)


def test_voc_lists_may_be_paths(voc: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("2007_000002\n2007_000002\n")
    assert open_voc(voc, voc=VocConfig(train_list=str(path))).names("train") == ("2007_000002",)


def test_voc_errors(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no list 'vla' .*nearest: 'val'.*known are: train, trainaug, val"):
        open_voc(voc, voc=VocConfig(val_list="vla"))
    with pytest.raises(DataError, match=r"is not a VOC devkit.*Set `root` to \.\.\./VOCdevkit/VOC2012"):
        open_voc(tmp_path)
    with pytest.raises(DataError, match=r"trainaug\.txt row 1 \('2007_000001'\): unknown class 'dog'"):
        open_voc(voc, classes=("cat", "car", "person"))
    annotation = voc / "Annotations" / "2007_000002.xml"
    annotation.write_text("<annotation></annotation>")
    with pytest.raises(DataError, match=r"trainaug\.txt row 2 \('2007_000002'\): the photo has no tag"):
        open_voc(voc)
    annotation.write_text("<annotation>")
    with pytest.raises(DataError, match=r"row 2 .*2007_000002\.xml cannot be read"):
        open_voc(voc)
    annotation.unlink()
    with pytest.raises(DataError, match=r"row 2 .*no annotation"):
        open_voc(voc)
    photos = open_voc(voc, on_error="skip")
    assert (photos.names("train"), len(photos.skipped)) == (("2007_000001",), 1)
    (voc / "JPEGImages" / "2007_000003.jpg").unlink()
    with pytest.raises(DataError, match=r"val\.txt row 1 \('2007_000003'\): no photo '2007_000003'"):
        open_voc(voc, voc=VocConfig(train_list="train"))


def test_coco_tags_are_categories(coco: Path) -> None:
    photos = open_coco(coco)
    assert photos.classes == ("dog", "cat"), "by id"
    assert photos.tags("000010") == ("dog", "cat")
    assert photos.tags("000012") == ("dog",), "a crowd counts"
    assert photos.image_labels("000012").tolist() == [1, 0]
    assert photos.names("train") == ("000010",)
    assert photos.skipped == ("instances_train2017.json images[1] ('000011.jpg'): no object of the classes",)


def test_coco_classes_choose_categories(coco: Path) -> None:
    photos = open_coco(coco, classes=("cat",))
    assert photos.tags("000010") == ("cat",)
    assert photos.tags("000012") == (), "a validation photo without an object of the classes stays"
    with pytest.raises(DataError, match=r"no category 'cow'.*known are: dog, cat"):
        open_coco(coco, classes=("cow",))


def test_coco_without_val_is_split(coco: Path) -> None:
    edit(coco / "annotations" / "instances_train2017.json", "annotations", 0, image_id=11)
    photos = open_coco(coco, coco=CocoConfig(val_instances=Path("none.json")))
    assert len(photos.names("train")) == len(photos.names("val")) == 1


def test_coco_errors(coco: Path) -> None:
    path = coco / "annotations" / "instances_train2017.json"
    edit(path, "images", 0, file_name="gone.jpg")
    with pytest.raises(
        DataError, match=r"images\[0\] \('gone\.jpg'\): no photo 'gone\.jpg' in .*Add the photo or correct the name"
    ):
        open_coco(coco)
    edit(path, "images", 0, file_name="000010.jpg")
    edit(path, "annotations", 0, category_id=99)
    with pytest.raises(DataError, match=r"annotation 1: no category 99; known ids are 3, 7"):
        open_coco(coco)
    path.write_text("{}")
    with pytest.raises(DataError, match="is not an instances file: the list `images` is missing"):
        open_coco(coco)
    path.write_text('{"images": [], "annotations": [], "categories": [{"id": 1}]}')
    with pytest.raises(DataError, match=r"categories\[0\]: `name` is missing, or is no text"):
        open_coco(coco)
    path.write_text("[")
    with pytest.raises(DataError, match="is not JSON"):
        open_coco(coco)
    path.unlink()
    with pytest.raises(DataError, match=r"does not exist\. Set `coco\.train_instances`"):
        open_coco(coco)


@pytest.mark.parametrize(
    ("written", "on_disk"),
    [
        ("train2017/000010.jpg", "000010.jpg"),
        ("/elsewhere/data/part/000010.jpg", "part/000010.jpg"),
        ("C:\\data\\part\\000010.jpg", "part/000010.jpg"),
        ("000010.JPG", "000010.jpg"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
    ],
)
def test_coco_finds_photos_by_paths_of_other_machines(written: str, on_disk: str, coco: Path) -> None:
    path = coco / "train2017" / on_disk
    path.parent.mkdir(exist_ok=True)
    (coco / "train2017" / "000010.jpg").rename(path)
    edit(coco / "annotations" / "instances_train2017.json", "images", 0, file_name=written)
    photos = open_coco(coco)
    assert photos.reader.paths[photos.names("train")[0]] == path


def test_coco_ids_are_the_same_as_numbers_and_as_texts(coco: Path) -> None:
    before = open_coco(coco)
    path = coco / "annotations" / "instances_train2017.json"
    data = json.loads(path.read_text())
    for entry in data["annotations"]:
        entry.update(image_id=str(entry["image_id"]), category_id=str(entry["category_id"]))
    path.write_text(json.dumps(data))
    assert open_coco(coco).tag_table == before.tag_table


def test_coco_names_are_unique(coco: Path) -> None:
    edit(coco / "annotations" / "instances_val2017.json", "images", 0, file_name="000010.jpg")
    (coco / "val2017" / "000012.jpg").rename(coco / "val2017" / "000010.jpg")
    with pytest.raises(DataError, match=r"000010\.jpg has the same name. Rename one of the files"):
        open_coco(coco)
