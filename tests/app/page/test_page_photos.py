"""Photos on the page: their own tags, examples, what is refused or shrunk, and what outlives a reload."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.keys import Keys

from app.inference.engine import Engine
from tests.app.browser import Page, page_on
from tests.app.server import ROOT

CAT, PERSON = (ROOT / "tests" / "photos" / name for name in ("cat.jpg", "astronaut.jpg"))


def tag(page: Page, *names: str) -> None:
    for name in names:
        page.find("#tag").send_keys(name + Keys.ENTER)
        page.wait_until_idle()


def tags(page: Page) -> list[str]:
    return [entry.text for entry in page.all("#tags span")]


def show(page: Page, number: int) -> None:
    page.click(f"#strip li:nth-child({number}) .thumbnail")


@pytest.fixture
def two(page: Page) -> Page:
    """A cat, in view, and a person."""
    page.upload(CAT, PERSON)
    return page


def test_every_photo_has_tags_of_its_own(two: Page) -> None:
    tag(two, "CAT")
    assert tags(two) == ["cat"]  # whatever its case
    show(two, 2)
    assert tags(two) == []
    assert "tags=" not in str(two.find("#curl").get_attribute("value"))
    tag(two, "people", "dog")
    show(two, 1)
    assert tags(two) == ["cat"]
    assert "tags=cat" in str(two.find("#curl").get_attribute("value"))
    show(two, 2)
    assert "tags=person,dog" in str(two.find("#curl").get_attribute("value"))


def test_the_tags_stand_above_everything_else(two: Page) -> None:
    sections = [section.get_attribute("id") for section in two.all(".controls > section") if section.is_displayed()]
    assert sections[0] == "tags-section"


def test_photos_tags_and_settings_outlive_a_reload(two: Page) -> None:
    tag(two, "cat")
    two.click("#tab-mask")
    two.slide("smallest", 20)
    two.wait_until_idle()
    before = two.picture()
    two.driver.refresh()
    two.wait(lambda: two.all("#stage canvas") and two.all("#tags span"))
    two.wait_until_idle()
    assert len(two.all("#strip li")) == 2
    assert tags(two) == ["cat"]
    assert two.find("#tab-mask").get_attribute("aria-selected") == "true"
    assert two.text("#smallest-value") == "2.0 % of the photo"
    assert two.picture() == before
    two.click("#strip li:nth-child(1) .remove")
    two.click("#strip li:nth-child(1) .remove")
    two.driver.refresh()
    two.wait(lambda: two.all("#examples button"))
    assert two.find("#welcome").is_displayed()


def test_an_address_can_be_passed_on(browser: Page, served) -> None:
    page = browser.open(served, address="#view=mask&smallest=0.02&example=cat.jpg&model=nonsense&threshold=7")
    page.wait(lambda: page.all("#legend input"))
    page.wait_until_idle()
    assert page.text("#smallest-value") == "2.0 % of the photo"
    assert page.find("#threshold").get_attribute("value") == "0"  # 7 is none
    page.click("#tab-heatmap")
    page.slide("threshold", 30)
    address = str(page.run("return location.hash"))
    assert "smallest=0.02" in address
    assert "threshold=0.3" in address
    assert "example=cat.jpg" in address
    assert "view=" not in address  # as it is at the start


def test_example_photos_and_what_the_models_are_worth(page: Page) -> None:
    page.wait(lambda: page.all("#examples button"))
    assert "It knows 20 classes: aeroplane" in page.text("#knows")
    newest = max(Path("models/deeplab").glob("*/model.onnx"), key=lambda path: int(path.parent.name))
    share = round(Engine(newest, device="cpu").card.figures["miou"])
    assert f"its masks share {share} % of their area" in page.text("#good")
    for button in page.all("#examples img"):
        assert page.run("return arguments[0].complete && arguments[0].naturalWidth > 0", button)
    page.find("#examples li:first-child button").click()
    page.wait(lambda: page.all("#stage canvas"))
    page.wait_until_idle()
    assert page.all(".chip")[0].get_attribute("data-class") == "cat"


def test_what_is_refused_is_told_at_once(page: Page, tmp_path: Path) -> None:
    notes, broken = tmp_path / "notes.txt", tmp_path / "broken.jpg"
    notes.write_text("hello, this is no photo")
    broken.write_bytes(CAT.read_bytes()[:2000])
    page.upload(CAT, notes, PERSON, broken)
    page.wait(lambda: page.find("#alert").is_displayed())
    said = page.text("#alert-text")
    assert said.startswith("2 files were refused. notes.txt: ")
    assert "broken.jpg: " in said
    assert len(page.all(".thumbnail.refused")) == 2
    assert page.find("#stage canvas").is_displayed()  # the cat stays in view


@pytest.fixture
def small_limits(browser: Page, models_directory: Path, tmp_path: Path) -> Iterator[Page]:
    with page_on(browser, models_directory, CAT, max_upload_bytes=100_000, max_image_pixels=200_000) as page:
        yield page


def test_photos_that_are_too_large_are_shrunk(small_limits: Page, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (600, 800, 3), np.uint8)
    heavy, wide = tmp_path / "heavy.png", tmp_path / "wide.png"
    Image.fromarray(noise).save(heavy)  # 1.4 MB
    Image.new("RGB", (1200, 400), "red").save(wide)  # few bytes, many pixels
    for path in (heavy, wide):
        small_limits.upload(path)
        assert not small_limits.find("#alert").is_displayed()
        said = small_limits.text("#caption")
        assert f"{path.name} was shrunk from " in said
        assert "the service takes 0.1 MB" in said
        assert small_limits.all("#stage canvas")
    assert "1200 × 400 px" in said


def test_a_refused_file_is_never_kept_as_a_photo(page: Page, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("no photo")
    shutil.copy(CAT, tmp_path / "ok.jpg")
    page.upload(notes)
    assert page.text("#alert-text").startswith("notes.txt: ")
    page.upload(tmp_path / "ok.jpg")
    assert page.all("#stage canvas")
