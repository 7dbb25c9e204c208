"""axe-core's rules on every state of the page, and the page by keyboard alone."""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.app.browser import Page
from tests.app.server import ROOT, Server, start_server

CAT = ROOT / "tests" / "photos" / "cat.jpg"
VIEWS = ("heatmap", "methods", "disagreement", "mask", "pseudoLabel")


@pytest.fixture(scope="module")
def axe() -> str:
    """The rules, as a script."""
    package = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed: make dev")
    return resources.files(package).joinpath("axe.min.js").read_text(encoding="utf-8")


def violations(page: Page, axe: str) -> list[str]:
    """What breaks a rule: which, and where."""
    page.run(axe)
    found = page.driver.execute_async_script("axe.run().then(arguments[0])")
    return [f"{rule['id']}: {node['html']}" for rule in found["violations"] for node in rule["nodes"]]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_no_rule_is_broken(browser: Page, served: Server, axe: str, width: int, scheme: str, tmp_path: Path) -> None:
    page = browser.open(served, width, 860, scheme)
    page.wait(lambda: page.all("#examples button"))
    assert violations(page, axe) == []
    notes = tmp_path / "notes.txt"
    notes.write_text("no photo")
    page.upload(CAT, notes)
    page.wait(lambda: page.find("#alert").is_displayed())
    page.find("#tag").send_keys("cat" + Keys.ENTER + "dgo" + Keys.ENTER)
    page.wait_until_idle()
    for view in VIEWS:
        page.click(f"#tab-{view}")
        assert violations(page, axe) == [], view
    page.click("#strip li:nth-child(2) .thumbnail")
    assert violations(page, axe) == []


@pytest.fixture(scope="module")
def correcting(models_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that takes corrections."""
    with start_server(models_directory, corrections=tmp_path_factory.mktemp("corrections")) as server:
        server.wait_until_ready()
        yield server


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_no_rule_is_broken_by_the_brush(browser: Page, correcting: Server, axe: str, width: int, scheme: str) -> None:
    page = browser.open(correcting, width, 860, scheme, "#view=mask")
    page.upload(CAT)
    assert violations(page, axe) == []
    page.click("#correct")
    page.wait(lambda: page.find("#brush").is_displayed())
    assert violations(page, axe) == []
    page.find("#brush-erase").click()
    page.find("#stage").send_keys(Keys.ENTER, Keys.ARROW_DOWN, Keys.ENTER)
    assert violations(page, axe) == []
    page.click("#brush-save")
    page.wait(lambda: not page.find("#brush").is_displayed())
    assert violations(page, axe) == []


def focused(page: Page) -> str:
    """The id of what has the focus, or its accessible name."""
    element = page.driver.switch_to.active_element
    return str(element.get_attribute("id") or element.accessible_name)


def test_from_the_first_key_to_a_saved_mask(page: Page, tmp_path: Path) -> None:
    page.wait(lambda: page.all("#examples button"))
    press = page.driver.switch_to.active_element.send_keys

    def tab_to(wanted: str) -> None:
        seen = []
        for _ in range(60):
            page.driver.switch_to.active_element.send_keys(Keys.TAB)
            seen.append(focused(page))
            if seen[-1] == wanted:
                return
        raise AssertionError(f"{wanted} is not reached: {seen}")

    press(Keys.TAB)
    assert focused(page) == "Skip to the content"
    tab_to("A cat")
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.wait(lambda: page.all("#stage canvas"))
    page.wait_until_idle()
    tab_to("tab-heatmap")
    page.driver.switch_to.active_element.send_keys(Keys.END, Keys.ARROW_LEFT)
    page.wait_until_idle()
    assert focused(page) == "tab-mask"
    tab_to("stage")
    shown = page.picture()
    page.driver.switch_to.active_element.send_keys("+")
    assert page.picture() != shown
    page.driver.switch_to.active_element.send_keys("0")
    tab_to("tag")
    page.driver.switch_to.active_element.send_keys("cat" + Keys.ENTER)
    page.wait_until_idle()
    tab_to("smallest")
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    page.wait_until_idle()
    assert focused(page) == "smallest"
    tab_to("save")
    saved = tmp_path / "saved"
    saved.mkdir()
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(saved)})
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.wait(lambda: list(saved.glob("*.png")))


def test_what_happens_is_said(page: Page) -> None:
    for region, role in (("status", "status"), ("alert", "alert"), ("tag-error", "alert")):
        assert page.find(f"#{region}").get_attribute("role") == role
    assert page.find("#caption").get_attribute("aria-live") == "polite"
