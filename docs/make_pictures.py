"""Takes the pictures of docs/page.md and docs/corrections.md in Chromium, from the models in models/: `python docs/make_pictures.py DOG.jpg [FOLDER]`.

FOLDER is one that `label` made, of which review.html is shown. The dog comes from PASCAL VOC 2012's `val` (the file is not part of the project), the others are those of tests/photos.
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.app.browser import Page, open_chromium  # noqa: E402
from tests.app.server import Server, start_server  # noqa: E402

OUT = ROOT / "docs" / "images"
CAT, PERSON = (ROOT / "tests" / "photos" / name for name in ("cat.jpg", "astronaut.jpg"))
DESKTOP, PHONE = (1280, 860), (390, 844)


def keep(page: Page, name: str) -> None:
    """Write what the browser shows as docs/images/NAME.jpg, with nothing under the pointer."""
    ActionChains(page.driver).move_to_element(page.find("h1")).perform()
    shown = Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB")
    shown.save(OUT / f"{name}.jpg", quality=78, optimize=True)


def tag(page: Page, *names: str) -> None:
    """Type what is in the photo."""
    for name in names:
        page.find("#tag").send_keys(name + Keys.ENTER)
        page.wait_until_idle()


def draw(page: Page, *places: tuple[int, int]) -> None:
    """Draw a stroke of the mouse through these places, in pixels from the middle of the photo; it is not ended."""
    actions = ActionChains(page.driver)
    for number, place in enumerate(places):
        actions.move_to_element_with_offset(page.find("#stage canvas"), *place)
        if not number:
            actions.click_and_hold()
    actions.perform()


def correct(
    page: Page, server: Server, name: str, size: tuple[int, int], scheme: str, *places: tuple[int, int]
) -> None:
    """Correct the mask of the cat by brush, and keep what the page shows meanwhile as docs/images/NAME.jpg."""
    page.open(server, *size, scheme=scheme, address="#view=mask").upload(CAT)
    page.click("#correct")
    page.wait(lambda: page.find("#brush").is_displayed())
    draw(page, *places)
    shown = Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB")
    shown.save(OUT / f"{name}.jpg", quality=78, optimize=True)
    ActionChains(page.driver).release().perform()


def take_brush(page: Page, server: Server) -> None:
    """Keep the pictures of docs/corrections.md. The draft misses the cat's right ear."""
    ear = ((255, -120), (215, -165), (235, -215), (290, -222))
    correct(page, server, "brush-dark", DESKTOP, "dark", *ear[:3])
    correct(page, server, "brush-phone", PHONE, "light", (100, -60), (110, -100))
    correct(page, server, "brush", DESKTOP, "light", *ear)
    page.click("#brush-save")
    page.wait(lambda: not page.find("#brush").is_displayed())
    page.wait(lambda: not page.text("#status"))
    keep(page, "brush-saved")


def take_review(page: Page, labelled: Path) -> None:
    """Keep the picture of the review.html that `label` made."""
    page.driver.set_window_size(*DESKTOP)
    size = {"width": DESKTOP[0], "height": DESKTOP[1], "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.driver.get((labelled.resolve() / "review.html").as_uri())
    page.wait(lambda: page.run("return document.getElementById('picture').complete"))
    keep(page, "review")


def main() -> None:
    """Walk the page and keep what it shows."""
    dog = Path(sys.argv[1]).resolve()
    with (
        tempfile.TemporaryDirectory() as folder,
        start_server(ROOT / "models", corrections=Path(folder) / "corrections") as server,
        open_chromium(Path(folder) / "profile") as driver,
    ):
        server.wait_until_ready()
        page = Page(driver)
        page.open(server, *DESKTOP)
        page.wait(lambda: page.all("#examples button"))
        keep(page, "page-first")
        page.upload(dog, CAT, PERSON)
        tag(page, "dog")
        keep(page, "page")
        page.click("#tab-methods")
        keep(page, "page-methods")
        page.click("#tab-mask")
        keep(page, "page-mask")
        text = Path(folder) / "notes.txt"
        text.write_text("no photo")
        page.upload(text, CAT)
        page.wait(lambda: page.find("#alert").is_displayed())
        keep(page, "page-refused")
        page.open(server, *DESKTOP, scheme="dark").upload(CAT)
        page.click("#tab-mask")
        keep(page, "page-dark")
        page.open(server, *PHONE).upload(PERSON)
        page.click("#tab-mask")
        keep(page, "page-phone")
        take_brush(page, server)
        if len(sys.argv) > 2:
            take_review(page, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
