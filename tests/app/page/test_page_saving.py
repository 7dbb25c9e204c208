"""What is seen is what is saved: pictures, every format of the service, and a ZIP of all photos."""

import io
import json
import re
import zipfile
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.keys import Keys

from tests.app.browser import Page
from tests.app.server import ROOT

CAT, PERSON = (ROOT / "tests" / "photos" / name for name in ("cat.jpg", "astronaut.jpg"))
SIZE = (451, 300)
SHIPPED = max(
    Path("models/deeplab").glob("*/model.onnx"), key=lambda path: int(path.parent.name)
).parent.name  # the version of the segmenter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    saved = tmp_path / "saved"
    saved.mkdir()
    return saved


def choose(page: Page, format: str) -> None:
    page.find(f"#format option[value='{format}']").click()


def test_the_picture_is_saved_as_shown(cat: Page, folder: Path) -> None:
    cat.click("#tab-mask")
    [first] = cat.saved(folder)
    assert first.name == f"cat-mask-deeplab-{SHIPPED}-shown.png"
    with Image.open(first) as picture, Image.open(CAT) as photo:
        assert picture.size == SIZE
        whole = np.array(picture.convert("RGB"), int)
        changed = np.abs(whole - np.array(photo.convert("RGB"), int)).sum(axis=2) > 60
    assert 0.2 < changed.mean() < 0.9
    first.unlink()
    for box in cat.all("#legend input"):
        box.click()  # no region is shown any more
    [bare] = cat.saved(folder)
    with Image.open(bare) as picture, Image.open(CAT) as photo:
        assert np.abs(np.array(picture.convert("RGB"), int) - np.array(photo.convert("RGB"), int)).mean() < 1


def test_thresholds_and_the_smallest_region_are_saved(cat: Page, folder: Path, served) -> None:
    cat.slide("threshold", 60)
    choose(cat, "gray8")
    [heat] = cat.saved(folder)
    assert re.fullmatch(r"cat-cat-cam-\d+-gray8\.png", heat.name)
    with Image.open(heat) as picture:
        values = np.array(picture)
    assert not ((values > 0) & (values < 0.6 * 255)).any()
    assert values.any()
    cat.click("#tab-mask")
    cat.slide("mask-threshold", 95)
    cat.slide("smallest", 10)
    cat.wait_until_idle()
    choose(cat, "png")
    [mask] = [path for path in cat.saved(folder) if path != heat]
    query = f"threshold=0.95&smallest_region=0.01&format=png&model=deeplab/{SHIPPED}"
    told = httpx2.post(f"{served.url}/segment?{query}", files={"file": CAT.read_bytes()}).content
    with Image.open(mask) as picture, Image.open(io.BytesIO(told)) as other:
        np.testing.assert_array_equal(np.array(picture), np.array(other))
    commands = str(cat.find("#curl").get_attribute("value"))
    assert "threshold=0.95" in commands
    assert "smallest_region=0.01" in commands
    assert "format=png" in commands


def test_every_format_is_answered_under_a_name_of_its_own(cat: Page, folder: Path) -> None:
    cat.click("#tab-mask")
    names = set()
    formats = [option.get_attribute("value") for option in cat.all("#format option")]
    assert len(formats) == 10
    for format in formats:
        choose(cat, str(format))
        [path] = [path for path in cat.saved(folder) if path.name not in names]
        assert path.stat().st_size > 100
        names.add(path.name)
    assert json.loads((folder / f"cat-mask-deeplab-{SHIPPED}.json").read_text())["model"]["name"] == "deeplab"


def test_several_methods_are_saved_together(cat: Page, folder: Path) -> None:
    cat.click("#tab-methods")
    methods = len(cat.all("#stage canvas"))
    for shown in ("shown", "npy"):
        choose(cat, shown)
        [path] = cat.saved(folder)
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert len(archive.namelist()) == methods
        path.unlink()
    cat.click("#tab-disagreement")
    choose(cat, "shown")
    [path] = cat.saved(folder)
    assert path.name == "cat-cat-disagreement-range-shown.png"


def test_all_photos_as_a_zip_each_with_its_own_tags(page: Page, folder: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("no photo")
    page.upload(CAT, PERSON, notes)
    page.wait(lambda: page.all(".thumbnail.refused"))
    page.find("#tag").send_keys("dog" + Keys.ENTER)
    page.wait_until_idle()
    page.click("#tab-mask")
    for shown, suffix in (("png", ".png"), ("shown", "-shown.png")):
        choose(page, shown)
        assert page.text("#save-all") == "All 2 photos as ZIP"
        [path] = page.saved(folder, "#save-all")
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert archive.namelist() == [f"{stem}-mask-deeplab-{SHIPPED}{suffix}" for stem in ("cat", "astronaut")]
            if shown == "png":
                labels = [
                    set(np.unique(np.array(Image.open(io.BytesIO(archive.read(name)))))) for name in archive.namelist()
                ]
                assert labels[0] <= {0, 12}  # the tag "dog" is the cat's alone
                assert 15 in labels[1]
        path.unlink()


def test_holding_the_button_shows_the_photo_alone(cat: Page) -> None:
    cat.click("#tab-mask")
    shown = cat.picture()
    cat.run("document.getElementById('compare').dispatchEvent(new PointerEvent('pointerdown'))")
    assert cat.picture() not in (shown, "")
    cat.run("document.getElementById('compare').dispatchEvent(new PointerEvent('pointerup'))")
    assert cat.picture() == shown
    cat.find("#names").click()  # the names go
    assert cat.picture() != shown


def test_only_ticked_methods_are_compared(cat: Page) -> None:
    cat.click("#tab-methods")
    methods = len(cat.all("#stage canvas"))
    cat.click("#methods li:nth-child(2) input")
    assert len(cat.all("#stage canvas")) == methods - 1
    assert "without=" in str(cat.run("return location.hash"))
    cat.click("#tab-disagreement")
    assert cat.text("#stage figcaption b") == f"{methods - 1} methods"
    for number in range(1, methods + 1):
        if cat.find(f"#methods li:nth-child({number}) input").is_selected():
            cat.click(f"#methods li:nth-child({number}) input")
    assert "No method is ticked" in cat.text("#caption")
