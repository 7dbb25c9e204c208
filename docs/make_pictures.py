"""Takes the pictures of docs/page.md in Chromium, from the models in models/: `python docs/make_pictures.py DOG.jpg`.

The dog comes from PASCAL VOC 2012's `val` (the file is not part of the project), the others are those of tests/photos.
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.app.browser import Page, open_chromium  # noqa: E402
from tests.app.server import start_server  # noqa: E402

OUT = ROOT / "docs" / "images"
CAT, PERSON = (ROOT / "tests" / "photos" / name for name in ("cat.jpg", "astronaut.jpg"))
DESKTOP, PHONE = (1280, 860), (390, 844)


def keep(page: Page, name: str) -> None:
    """Write what the browser shows as docs/images/NAME.jpg."""
    shown = Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB")
    shown.save(OUT / f"{name}.jpg", quality=85, subsampling=0, optimize=True)


def main() -> None:
    """Walk the page and keep what it shows."""
    dog = Path(sys.argv[1]).resolve()
    with (
        tempfile.TemporaryDirectory() as folder,
        start_server(ROOT / "models") as server,
        open_chromium(Path(folder) / "profile") as driver,
    ):
        server.wait_until_ready()
        page = Page(driver)
        page.open(server, *DESKTOP).upload(dog, CAT, PERSON)
        keep(page, "page")
        page.click("#tab-methods")
        keep(page, "page-methods")
        text = Path(folder) / "notes.txt"
        text.write_text("no photo")
        page.upload(text)
        page.wait(lambda: page.find("#alert").is_displayed())
        keep(page, "page-refused")
        page.open(server, *DESKTOP, scheme="dark").upload(CAT)
        page.click("#tab-mask")
        keep(page, "page-dark")
        page.open(server, *PHONE).upload(PERSON)
        keep(page, "page-phone")


if __name__ == "__main__":
    main()
