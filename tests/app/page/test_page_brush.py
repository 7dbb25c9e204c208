"""The brush of the page: by mouse, by touch and by keys, from the model's draft to a mask that training reads."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from app.inference.label_maps.corrections import Corrections, changed_pixels, read_corrections
from app.inference.labels import BACKGROUND, IGNORE_INDEX
from tests.app.browser import Page
from tests.app.colour_models import BLACK, CAT, DOG, PERSON, RED, halves, to_file
from tests.app.server import Server, start_server

HEIGHT, WIDTH = 120, 160
DRAFT = np.zeros((HEIGHT, WIDTH), np.uint8)
DRAFT[:, : WIDTH // 2] = DOG


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corrections")


@pytest.fixture(scope="module")
def correcting(models_directory: Path, folder: Path) -> Iterator[Server]:
    """A service that takes corrections."""
    with start_server(models_directory, corrections=folder) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture
def photo(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A photo of a name of its own, whose draft is `DRAFT`: red (dog) on the left, black on the right."""
    path = tmp_path / f"{request.node.name.partition('[')[0]}.png"
    path.write_bytes(to_file(halves(RED, BLACK, HEIGHT, WIDTH)))
    return path


def start(browser: Page, server: Server, photo: Path, **window: object) -> Page:
    """The page with the brush on the mask of the photo."""
    page = browser.open(server, address="#view=mask", **window)
    page.upload(photo)
    page.click("#correct")
    page.wait(lambda: page.find("#brush").is_displayed())
    return page


@pytest.fixture
def page(browser: Page, correcting: Server, photo: Path) -> Page:
    return start(browser, correcting, photo)


def draw(page: Page, *places: tuple[float, float]) -> None:
    """A stroke of the mouse through these places, as shares of the photo's sides from its middle."""
    canvas = page.find("#stage canvas")
    scale = min(canvas.size["width"] / WIDTH, canvas.size["height"] / HEIGHT)
    actions = ActionChains(page.driver, duration=0)
    for number, (x, y) in enumerate(places):
        actions.move_to_element_with_offset(canvas, round(x * WIDTH * scale), round(y * HEIGHT * scale))
        if not number:
            actions.click_and_hold()
    actions.release().perform()


def changed(page: Page) -> int:
    """How many pixels the page says differ from the draft."""
    words = page.text("#caption").partition(" pixels")
    return int(words[0].replace(",", "")) if words[1] else 0


def save(page: Page, folder: Path, photo: Path) -> tuple[np.ndarray, Corrections]:
    page.click("#brush-save")
    page.wait(lambda: not page.find("#brush").is_displayed())
    corrections = read_corrections(folder)
    return corrections.mask(photo.stem, (HEIGHT, WIDTH)), corrections


def test_a_stroke_of_the_mouse_is_saved_where_it_was_drawn(page: Page, folder: Path, photo: Path) -> None:
    assert page.find("#brush-class").get_attribute("value") == str(DOG)
    draw(page, (0.2, -0.3), (0.2, 0.3))
    said = changed(page)
    mask, corrections = save(page, folder, photo)
    rows, columns = np.nonzero(mask != DRAFT)
    assert set(mask[rows, columns]) == {DOG}
    assert abs(columns.mean() + 0.5 - 0.7 * WIDTH) < 1.5
    assert abs(rows.mean() + 0.5 - 0.5 * HEIGHT) < 1.5
    assert np.ptp(rows) > 0.6 * HEIGHT
    assert np.ptp(columns) < 0.1 * WIDTH
    row = corrections.rows[photo.stem]
    assert said == row.pixels_changed == changed_pixels(mask, DRAFT)
    assert (row.draft_model, row.source) == ("deeplab_colours/1", "page")
    with Image.open(folder / "photos" / photo.name) as kept:
        assert kept.size == (WIDTH, HEIGHT)
    assert "corrected" in str(page.find(".thumbnail").get_attribute("aria-label"))
    assert len(page.all("#stage canvas")) == 2  # the draft, and what was made of it


def test_classes_erasing_ignoring_undo_and_redo(page: Page, folder: Path, photo: Path) -> None:
    page.find(f"#brush-class option[value='{CAT}']").click()
    draw(page, (0.3, -0.3))
    page.find("#brush-erase").click()
    draw(page, (-0.3, 0))
    page.find(f"#brush-class option[value='{IGNORE_INDEX}']").click()  # a class is chosen to paint it
    draw(page, (0.3, 0.3))
    three = changed(page)
    page.find("#brush-undo").click()
    two = changed(page)
    page.find("#brush-undo").click()
    assert 0 < changed(page) < two < three
    page.find("#brush-redo").click()
    assert changed(page) == two
    ActionChains(page.driver).key_down(Keys.CONTROL).send_keys("y").key_up(Keys.CONTROL).perform()
    assert changed(page) == three
    assert not page.find("#brush-redo").is_enabled()
    mask, _ = save(page, folder, photo)
    for row, column, label in ((24, 128, CAT), (60, 32, BACKGROUND), (96, 128, IGNORE_INDEX), (60, 10, DOG)):
        assert mask[row, column] == label


def test_the_brush_draws_where_it_points_when_the_photo_is_zoomed(page: Page, folder: Path, photo: Path) -> None:
    for _ in range(4):
        page.find("#zoom-in").click()
    page.slide("brush-size", 0)
    zoom = 1.4**4
    draw(page, (0.25, 0.125))
    mask, _ = save(page, folder, photo)
    rows, columns = np.nonzero(mask != DRAFT)
    assert len(rows) == 1  # the smallest brush covers one pixel
    assert abs(columns[0] + 0.5 - (0.5 + 0.25 / zoom) * WIDTH) < 1
    assert abs(rows[0] + 0.5 - (0.5 + 0.125 / zoom) * HEIGHT) < 1


def touch(page: Page, kind: str, *fingers: tuple[float, float]) -> None:
    """What fingers do at places of the canvas, as shares of its sides."""
    box = page.run(
        "const b = document.querySelector('#stage canvas').getBoundingClientRect(); return [b.left, b.top, b.width, b.height]"
    )
    points = [
        {"x": box[0] + x * box[2], "y": box[1] + y * box[3], "id": number} for number, (x, y) in enumerate(fingers)
    ]
    page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def test_one_finger_draws_and_two_move_the_photo(browser: Page, correcting: Server, folder: Path, photo: Path) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        page = start(browser, correcting, photo, width=390, height=844)
        scrolled = page.run("return scrollY")
        touch(page, "touchStart", (0.7, 0.4))
        touch(page, "touchMove", (0.7, 0.6))
        touch(page, "touchEnd")
        drawn = changed(page)
        assert drawn > 100
        assert page.run("return scrollY") == scrolled
        touch(page, "touchStart", (0.3, 0.4))
        touch(page, "touchStart", (0.3, 0.4), (0.5, 0.6))
        touch(page, "touchMove", (0.1, 0.2), (0.7, 0.8))
        touch(page, "touchEnd")
        assert changed(page) == drawn  # what the first finger had begun is none
        assert page.run("return document.getElementById('stage').classList.contains('zoomed')")
        mask, _ = save(page, folder, photo)
        assert set(mask[mask != DRAFT]) == {DOG}
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


def test_keys_alone_correct_and_save(page: Page, folder: Path, photo: Path) -> None:
    def press(*keys: str) -> None:
        page.driver.switch_to.active_element.send_keys(*keys)

    assert page.driver.switch_to.active_element.get_attribute("id") == "stage"
    press(*[Keys.ARROW_RIGHT] * 6, "2", Keys.ENTER, *[Keys.ARROW_DOWN] * 3, Keys.ENTER)
    painted = changed(page)
    assert painted > 100
    press("e", *[Keys.ARROW_LEFT] * 12, Keys.ENTER, Keys.ENTER)
    assert changed(page) > painted
    press("[", "b", Keys.ENTER, Keys.ARROW_UP, Keys.ESCAPE)  # a stroke that is called off
    assert changed(page) > painted
    press(Keys.CONTROL, "z")
    assert changed(page) == painted
    second = int(str(page.run("return document.getElementById('brush-class').options[1].value")))
    for _ in range(20):
        page.driver.switch_to.active_element.send_keys(Keys.SHIFT, Keys.TAB)
        if page.driver.switch_to.active_element.get_attribute("id") == "brush-save":
            break
    press(Keys.ENTER)
    page.wait(lambda: not page.find("#brush").is_displayed())
    mask = read_corrections(folder).mask(photo.stem)
    assert set(mask[mask != DRAFT]) == {second}
    assert page.driver.switch_to.active_element.get_attribute("id") == "correct"


def test_a_later_correction_goes_on_from_the_one_before(page: Page, folder: Path, photo: Path) -> None:
    draw(page, (0.3, 0))
    first, _ = save(page, folder, photo)
    page.click("#correct")
    page.wait(lambda: page.find("#brush").is_displayed())
    assert changed(page) == changed_pixels(first, DRAFT)
    page.find(f"#brush-class option[value='{PERSON}']").click()
    draw(page, (0.3, -0.4))
    both, corrections = save(page, folder, photo)
    assert set(both[both != DRAFT]) == {DOG, PERSON}
    assert corrections.rows[photo.stem].pixels_changed == changed_pixels(both, DRAFT)


def test_what_is_not_saved_is_not_lost_by_accident(page: Page, folder: Path) -> None:
    draw(page, (0.3, 0))
    kept = changed(page)
    (folder / "classes.txt").rename(folder / "away.txt")
    (folder / "classes.txt").write_text("background\nother\n")
    try:
        page.find("#brush-save").click()
        page.wait(lambda: page.find("#alert").is_displayed())
        assert "a folder of their own" in page.text("#alert-text")
        assert changed(page) == kept
        assert page.find("#brush").is_displayed()
    finally:
        (folder / "away.txt").replace(folder / "classes.txt")
    page.find("#brush-leave").click()
    page.driver.switch_to.alert.dismiss()
    assert page.find("#brush").is_displayed()
    page.find("#brush-leave").click()
    page.driver.switch_to.alert.accept()
    page.wait(lambda: not page.find("#brush").is_displayed())
    assert page.find("#tab-mask").is_displayed()


def test_another_photo_of_the_same_name_gets_one_of_its_own(page: Page, folder: Path, photo: Path) -> None:
    draw(page, (0.3, 0))
    save(page, folder, photo)
    other = photo.parent / "other" / photo.name
    other.parent.mkdir()
    other.write_bytes(to_file(halves(BLACK, RED, HEIGHT, WIDTH)))
    page.upload(other)
    page.click("#correct")
    page.wait(lambda: page.find("#brush").is_displayed())
    draw(page, (-0.3, 0))
    save(page, folder, photo)
    names = [name for name in read_corrections(folder).rows if name.startswith(photo.stem)]
    assert len(names) == 2
    assert {(folder / "photos" / f"{name}.png").read_bytes() for name in names} == {
        photo.read_bytes(),
        other.read_bytes(),
    }


def test_without_a_folder_there_is_no_brush(browser: Page, server: Server, photo: Path) -> None:
    page = browser.open(server, address="#view=mask")
    page.upload(photo)
    assert page.find("#legend-section").is_displayed()
    assert not page.find("#correct-section").is_displayed()
