"""`review.html` and `choices.csv`: what the page shows, and what labelling a folder makes of the choices."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from selenium.webdriver.common.keys import Keys

from app.batch.folder import label_folder
from app.batch.labellers import InProcess
from app.batch.review import outline_of, outlines_of, reasons_of
from app.batch.yolo import yolo_text
from app.http.request.parameters import AnalyzeParameters
from app.inference.errors import DataError
from app.inference.files.choices import Choice, read_choices
from app.runtime.settings import Settings
from tests.app.browser import Page
from tests.app.colour_models import BLACK, BLUE, DOG, PERSON, RED, halves, to_file

MARKUP = "<script>alert(1)<!--"
Label = Callable[..., str]


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def label(tmp_path: Path, labelled: Path, models_directory: Path) -> Label:
    """Label a folder of a dog, a person and a name that reads like markup; returns what is said."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, left in (("dog", RED), ("person", BLUE), (MARKUP, RED)):
        (photos / f"{name}.png").write_bytes(to_file(halves(left, BLACK)))
    labeller = InProcess(Settings(models=models_directory, device="cpu"), AnalyzeParameters())
    return lambda **options: label_folder(photos, labelled, labeller, **options)[0]


def choices(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["name,choice,classes", *rows, ""]))
    return path


def test_choices_hold_when_the_folder_is_labelled_again(label: Label, labelled: Path) -> None:
    assert "choices: " not in label()
    dog = (labelled / "records" / "dog.json").read_bytes()
    choices(labelled / "choices.csv", "dog,accept,", "person,retag,cat", f"{MARKUP},reject,", "gone,reject,")
    said = label()
    assert "choices: 1 accept, 1 reject, 1 retag" in said
    assert "choices about photos that are not here: 1 (gone)" in said
    assert (labelled / "records" / "dog.json").read_bytes() == dog  # nothing was done again
    names = (labelled / "ImageSets" / "Segmentation" / "train.txt").read_text().splitlines()
    assert names == ["dog", "person"]
    coco = json.loads((labelled / "annotations.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["JPEGImages/dog.jpg", "JPEGImages/person.jpg"]
    assert (labelled / "yolo" / "train.txt").read_text() == "./images/dog.jpg\n./images/person.jpg\n"
    with (labelled / "review.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert {name: row["choice"] for name, row in rows.items()} == {"dog": "accept", "person": "retag", MARKUP: "reject"}
    assert (rows["person"]["tags"], rows["person"]["found"]) == ("cat", "cat")
    (labelled / "choices.csv").unlink()  # taken back
    assert "choices: " not in label()
    with Image.open(labelled / "SegmentationClass" / "person.png") as mask:
        assert PERSON in np.array(mask)


def test_a_list_of_choices_may_lie_elsewhere(label: Label, labelled: Path, tmp_path: Path) -> None:
    label(choices=choices(tmp_path / "mine.csv", "dog.png,retag,"))
    with Image.open(labelled / "SegmentationClass" / "dog.png") as mask:
        assert not np.array(mask).any()  # no class at all: background
    with pytest.raises(DataError, match="'dgo'"):
        label(choices=choices(tmp_path / "mine.csv", "dog,retag,dgo"))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("dog,keep,", r"row 2 \('dog'\): the choice 'keep' is none of accept, retag, reject"),
        ("dog,accept,cat", "accept takes no classes, found 'cat'. Write retag"),
    ],
)
def test_choices_that_cannot_be_read(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_choices(choices(tmp_path / "choices.csv", row))
    (tmp_path / "choices.csv").write_text("photo\n")
    with pytest.raises(DataError, match="the first row must be 'name,choice,classes', found 'photo'"):
        read_choices(tmp_path / "choices.csv")


def test_names_with_spaces_and_the_last_word(tmp_path: Path) -> None:
    path = choices(tmp_path / "choices.csv", '"a, b",retag,traffic light; bus', "c,accept", "c,reject,")
    assert read_choices(path) == {"a, b": Choice("retag", ("traffic light", "bus")), "c": Choice("reject")}


def test_outlines_and_yolo_follow_the_mask() -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[10:50, 10:70] = DOG
    mask[20:40, 30:50] = 0  # a hole
    mask[2:6, 2:8] = PERSON
    drawn = Image.new("1", (80, 60))
    shell, hole = re.findall(r"M([^Z]*)Z", outline_of(mask == DOG)[0])
    for ring, inside in ((shell, 1), (hole, 0)):
        corners = [tuple(map(float, corner.split())) for corner in ring.split("L")]
        ImageDraw.Draw(drawn).polygon(corners, fill=inside)
    where = np.array(drawn)
    assert (where & (mask == DOG)).sum() / (where | (mask == DOG)).sum() > 0.9
    _, x, y = outline_of(mask == DOG)
    assert mask[y, x] == DOG  # the name does not stand in the hole
    assert set(outlines_of(mask)["paths"]) == {str(DOG), str(PERSON)}
    large = outlines_of(np.kron(mask, np.ones((20, 20), np.uint8)))
    assert large["size"] == [640, 480]
    lines = yolo_text(mask).splitlines()
    assert [line.split()[0] for line in lines] == [str(label - 1) for label in sorted((DOG, PERSON))]
    for line, label in zip(lines, sorted((DOG, PERSON)), strict=True):
        corners = np.array(line.split()[1:], float).reshape(-1, 2)
        assert corners.min() >= 0
        assert corners.max() <= 1
        rows, columns = np.nonzero(mask == label)
        np.testing.assert_allclose(corners.min(0) * (80, 60), (columns.min(), rows.min()), atol=1)
        np.testing.assert_allclose(corners.max(0) * (80, 60), (columns.max() + 1, rows.max() + 1), atol=1)


def test_the_reasons_are_sentences_the_weightiest_first() -> None:
    signs = {"agreement": 0.3, "consistency": 0.5, "margin": 0.1}
    record = {"quality": signs, "tags": ["cat", "dog"], "regions": [{"class_name": "cat"}, {"class_name": "sofa"}]}
    assert reasons_of(record) == [
        "The segmenter hesitates: its best class leads by 10% on average.",
        "The mask and the heatmaps share 30% of their area.",
        "The tags name dog, which the label does not hold; the label holds sofa, which no tag names.",
    ]
    untold = {**record, "tags": None, "quality": {**signs, "consistency": 0.2, "agreement": 0.9, "margin": 0.9}}
    assert reasons_of({**untold, "present": ["bird", "cat"]}) == [
        "The classifier finds bird, which the label does not hold; the label holds sofa, whose score is below its threshold."
    ]
    assert reasons_of(untold) == ["The label and the classifier do not name the same classes."]
    good = {
        "quality": {"agreement": 0.9, "consistency": 1, "margin": None},
        "tags": None,
        "regions": [{"class_name": "a"}],
    }
    assert reasons_of(good) == []


@pytest.fixture
def review(browser: Page, label: Label, labelled: Path) -> Page:
    label()
    browser.driver.get((labelled / "review.html").as_uri())
    browser.run("localStorage.clear()")
    browser.driver.refresh()
    browser.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(labelled.parent / "saved")}
    )
    return browser


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.find("body").send_keys(key)


def reload_until(page: Page, said: str) -> None:
    """Reload the page until its progress says so: the browser writes what a page keeps a moment after the page asked for it."""

    def told() -> bool:
        page.driver.refresh()
        return said in page.text("#progress")

    page.wait(told)


def test_the_page_shows_photos_outlines_and_a_legend(review: Page) -> None:
    assert {entry.text.split("\n")[0] for entry in review.all("#list .entry")} == {"dog", "person", MARKUP}
    assert review.run("return document.getElementById('picture').naturalWidth") == 64
    first = review.text("#name")
    assert ("person" if first == "person" else "dog") in review.text("#legend")
    assert [name.text for name in review.all("#regions text")] == ["person" if first == "person" else "dog"]
    assert len(review.all("#regions path")) == 3  # the region, and two lines about it
    review.find("#class option[value='15']").click()
    assert [entry.text.split("\n")[0] for entry in review.all("#list .entry")] == ["person"]


def test_choices_by_key_survive_a_reload_and_are_read_back(review: Page, label: Label, labelled: Path) -> None:
    names = [entry.text.split("\n")[0] for entry in review.all("#list .entry")]
    press(review, "a", "r")
    assert [entry.text.split("\n")[0] for entry in review.all("#list .entry")] == names[2:]
    press(review, "t")
    field = review.find("#tags")
    field.clear()
    field.send_keys("Cat, dgo" + Keys.ENTER)
    assert "dgo: not a class of this model" in review.text("#wrong")
    field.clear()
    field.send_keys("Cat" + Keys.ENTER)
    assert review.find("#nothing").is_displayed()
    reload_until(review, "1 accepted, 1 tagged anew, 1 rejected")
    review.find("#save").click()
    saved = labelled.parent / "saved" / "choices.csv"
    review.wait(saved.is_file)
    assert read_choices(saved) == {
        names[0]: Choice("accept"), names[1]: Choice("reject"), names[2]: Choice("retag", ("cat",)),
    }  # fmt: skip
    saved.replace(labelled / "choices.csv")
    assert "choices: 1 accept, 1 reject, 1 retag" in label()
    review.driver.get((labelled / "review.html").as_uri())  # the choices are the page's own now
    review.run("localStorage.clear()")
    reload_until(review, "1 accepted, 1 tagged anew, 1 rejected")
