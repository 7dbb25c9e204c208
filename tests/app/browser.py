"""The web page in a headless Chromium, as a test sees it."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.app.server import Server, start_server

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars")
PATIENCE_SECONDS = 30


class Page:
    """The page in a browser."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(
        self, server: Server, width: int = 1280, height: int = 800, scheme: str = "light", address: str = ""
    ) -> "Page":
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(f"{server.url}/static/icon.svg")
        self.run("sessionStorage.clear()")  # the photos of the test before
        self.driver.get(f"{server.url}/{address}")
        return self

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def run(self, script: str, *arguments: object) -> object:
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], object]) -> None:
        WebDriverWait(self.driver, PATIENCE_SECONDS, 0.05).until(lambda _: condition())

    def wait_until_idle(self) -> None:
        self.wait(lambda: self.run("return document.getElementById('progress').hidden"))

    def upload(self, *paths: Path) -> None:
        self.find("#files").send_keys("\n".join(map(str, paths)))
        self.wait(lambda: self.run("return !document.getElementById('work').hidden"))
        self.wait_until_idle()

    def click(self, selector: str) -> None:
        self.find(selector).click()
        self.wait_until_idle()

    def choose_class(self, name: str) -> None:
        self.click(f"[data-class='{name}']")

    def slide(self, name: str, percent: int) -> None:
        script = "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
        self.run(f"{script} for (const kind of ['input', 'change']) s.dispatchEvent(new Event(kind));", name, percent)

    def picture(self, number: int = 0) -> str:
        """A pane's pixels."""
        return str(self.run("return document.querySelectorAll('#stage canvas')[arguments[0]].toDataURL()", number))

    def bare_photo(self) -> str:
        """The first pane's pixels without the layer."""
        opacity = self.run("return document.getElementById('opacity').value")
        self.slide("opacity", 0)
        picture = self.picture()
        self.slide("opacity", int(str(opacity)))
        return picture

    def requests(self) -> int:
        return int(str(self.run("return performance.getEntriesByType('resource').length")))

    @contextmanager
    def held(self) -> Iterator[None]:
        """What the page asks the server for meanwhile is asked after."""
        self.run("""
            window.ask = window.fetch;
            window.waiting = [];
            window.fetch = (...request) => new Promise((resolve) => window.waiting.push(() => resolve(ask(...request))));""")
        yield
        self.run("window.fetch = window.ask; for (const go of window.waiting) go();")
        self.wait_until_idle()

    def saved(self, folder: Path, button: str = "#save") -> list[Path]:
        """The files that the browser saves into an empty folder when that button is pressed."""
        behaviour = {"behavior": "allow", "downloadPath": str(folder)}
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
        before = set(folder.iterdir())
        self.find(button).click()
        self.wait_until_idle()
        self.wait(lambda: [path for path in set(folder.iterdir()) - before if path.suffix != ".crdownload"])
        return sorted(set(folder.iterdir()) - before)

    def hosts(self) -> set[str]:
        """Whom the browser has asked for anything since the last call."""
        entries = [json.loads(str(entry["message"]))["message"] for entry in self.driver.get_log("performance")]
        sent = [
            entry["params"]["request"]["url"] for entry in entries if entry["method"] == "Network.requestWillBeSent"
        ]
        return {address.netloc for address in map(urlsplit, sent) if address.scheme not in ("blob", "data")}

    def complaints(self) -> list[str]:
        """What the browser's console says of errors, refusals of the service apart."""
        entries = [str(entry["message"]) for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [message for message in entries if "the server responded with a status of" not in message]


@contextmanager
def open_chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """A Chromium with that profile directory; the test is skipped where there is none."""
    browser, chromedriver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not browser or not chromedriver:
        pytest.skip("no Chromium with its chromedriver here (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    driver.set_page_load_timeout(PATIENCE_SECONDS)
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def page_on(browser: Page, models: Path, photo: Path, **settings: object) -> Iterator[Page]:
    """The page of a service of one's own with these models and settings, with the photo on it."""
    with start_server(models, **settings) as server:
        server.wait_until_ready()
        page = browser.open(server)
        page.upload(photo)
        yield page
