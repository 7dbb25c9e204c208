"""The page's sliders for the pseudo-label's thresholds, in a real Chromium against a real server."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.app.browser import Page, page_on
from tests.app.colour_models import write_cam_model, write_photo


def thresholds_of(page: Page) -> tuple[tuple[str, str], dict[str, list[str]]]:
    """The pseudo-label's thresholds as shown, and as the command line asks for them."""
    [address] = re.findall(r"http\S+?(?='| -o)", str(page.find("#curl").get_attribute("value")))
    asked = {name: value for name, value in parse_qs(urlsplit(address).query).items() if "threshold" in name}
    return (page.text("#background-value"), page.text("#foreground-value")), asked


def test_thresholds_of_the_pseudo_label(cat, served):
    models = httpx2.get(f"{served.url}/models").json()["models"]
    [own] = [model["background_threshold"] for model in models if model["task"] == "cam" and model["default"]]

    assert not cat.find("#background").is_displayed()
    cat.click("#tab-pseudoLabel")
    assert thresholds_of(cat) == ((f"{own:.2f}", f"{own:.2f}"), {})
    assert not cat.find("#thresholds-reset").is_displayed()
    before = cat.picture()
    cat.slide("foreground", 70)
    cat.wait_until_idle()
    assert thresholds_of(cat) == ((f"{own:.2f}", "0.70"), {"foreground_threshold": ["0.7"]})
    assert "ignored" in cat.text("#legend")
    assert "% is ignored" in cat.text("#caption")
    assert cat.picture() != before
    for box in cat.all("#legend input"):
        box.click()
    assert cat.picture() == cat.bare_photo()
    cat.slide("foreground", 1)  # never below the other one
    cat.wait_until_idle()
    assert thresholds_of(cat) == ((f"{own:.2f}", f"{own:.2f}"), {})
    assert cat.picture() == before
    cat.slide("background", 80)
    cat.wait_until_idle()
    assert thresholds_of(cat) == (("0.80", "0.80"), {"background_threshold": ["0.8"]})
    assert cat.picture() != before


def test_a_threshold_that_is_dragged_asks_the_server_once(cat):
    cat.click("#tab-pseudoLabel")
    before, requests = cat.picture(), cat.requests()
    handle = ActionChains(cat.driver).move_to_element(cat.find("#foreground")).click_and_hold()
    for _ in range(5):
        handle = handle.move_by_offset(10, 0)
    handle.perform()
    dragged = cat.text("#foreground-value")
    assert dragged > cat.text("#background-value")
    assert (cat.picture(), cat.requests()) == (before, requests)
    ActionChains(cat.driver).release().perform()
    cat.wait_until_idle()
    assert cat.requests() == requests + 1
    assert cat.text("#foreground-value") == dragged
    assert cat.picture() != before


def test_a_threshold_that_passes_the_other_one_and_comes_back_leaves_it(cat):
    cat.click("#tab-pseudoLabel")
    cat.slide("background", 50)
    cat.slide("foreground", 70)
    cat.wait_until_idle()
    before = thresholds_of(cat)
    assert before == (("0.50", "0.70"), {"background_threshold": ["0.5"], "foreground_threshold": ["0.7"]})
    cat.run("""
        window.seen = [];
        const note = () => window.seen.push(["background", "foreground"].map((id) => document.getElementById(id).value));
        document.addEventListener("input", note);""")
    way = int(0.3 * (cat.find("#background").size["width"] - 18))  # 18 px: the thumb
    handle = ActionChains(cat.driver).move_to_element(cat.find("#background")).click_and_hold()
    handle.move_by_offset(way, 0).pause(0.1).move_by_offset(-way, 0).pause(0.1).release().perform()
    cat.wait_until_idle()
    assert cat.run("return window.seen") == [["80", "80"], ["50", "70"]]
    assert thresholds_of(cat) == before
    cat.find("#background").send_keys(Keys.ARROW_RIGHT * 21)
    cat.wait_until_idle()
    assert thresholds_of(cat) == (("0.71", "0.71"), {"background_threshold": ["0.71"]})
    cat.find("#background").send_keys(Keys.ARROW_LEFT * 21)
    cat.wait_until_idle()
    assert thresholds_of(cat) == before


@pytest.fixture
def graded(browser: Page, tmp_path: Path) -> Iterator[Page]:
    """A page whose models have background thresholds of their own: 0.2 and 0.3 of a, 0.6 of b, which is the default."""
    for name, version, threshold, method in (("a", 1, 0.2, "drs"), ("a", 2, 0.3, "drs"), ("b", 1, 0.6, "cam")):
        write_cam_model(tmp_path / "models", name, version, background_threshold=threshold, method=method)
    with page_on(browser, tmp_path / "models", write_photo(tmp_path / "red.png")) as page:
        page.click("#tab-pseudoLabel")
        yield page


def test_the_thresholds_of_a_model_are_shown_at_once(graded, tmp_path):
    def shown() -> tuple[str, str | None, str | None]:
        background = graded.find("#background")
        return (
            graded.text("#background-value"),
            background.get_attribute("value"),
            background.get_attribute("aria-valuetext"),
        )

    assert shown() == ("0.60", "60", "0.60")
    with graded.held():
        graded.find("#model option[value='a/2']").click()
        assert shown() == ("0.30", "30", "0.30")
    with graded.held():
        graded.find("#model option[value='b/1']").click()
        graded.find("#model option[value='all']").click()
        assert shown() == ("0.30", "30", "0.30")
    graded.click("#format option[value='json']")
    [all_fused] = re.findall(r"http\S+?(?='| -o)", str(graded.find("#curl").get_attribute("value")))
    red = (tmp_path / "red.png").read_bytes()
    assert httpx2.post(all_fused, files={"file": red}).json()["thresholds"]["background"] == 0.3
    graded.slide("background", 90)
    graded.wait_until_idle()
    with graded.held():
        graded.find("#refine").click()
        graded.find("#thresholds-reset").click()
        assert shown() == ("0.30", "30", "0.30")


def test_a_model_whose_own_threshold_lies_above_the_second_one(graded):
    graded.click("#model option[value='a/2']")
    graded.slide("foreground", 50)
    graded.wait_until_idle()
    assert thresholds_of(graded) == (("0.30", "0.50"), {"foreground_threshold": ["0.5"]})
    graded.click("#model option[value='a/1']")
    assert thresholds_of(graded) == (("0.20", "0.50"), {"foreground_threshold": ["0.5"]})
    graded.click("#model option[value='b/1']")
    assert not graded.find("#alert").is_displayed()
    assert thresholds_of(graded) == (("0.60", "0.60"), {})
    assert not graded.find("#thresholds-reset").is_displayed()
    graded.slide("foreground", 70)
    graded.wait_until_idle()
    graded.click("#model option[value='all']")
    assert thresholds_of(graded) == (("0.30", "0.70"), {"foreground_threshold": ["0.7"]})
    assert not graded.find("#alert").is_displayed()


def test_thresholds_by_keyboard(cat):
    cat.click("#tab-pseudoLabel")
    before = cat.picture()
    background = cat.find("#background")
    start_at = int(str(background.get_attribute("value")))
    background.send_keys(Keys.PAGE_UP, Keys.ARROW_RIGHT)
    cat.wait_until_idle()
    assert int(str(background.get_attribute("value"))) > start_at + 1
    assert background.get_attribute("aria-valuetext") == cat.text("#background-value")
    assert cat.picture() != before
    cat.find("#thresholds-reset").send_keys(Keys.ENTER)
    cat.wait_until_idle()
    assert cat.picture() == before
    assert cat.driver.switch_to.active_element.get_attribute("id") == "background"
    cat.find("#refine").send_keys(Keys.SPACE)
    cat.wait_until_idle()
    assert "refine=pamr" in str(cat.find("#curl").get_attribute("value"))
    assert cat.picture() != before


def test_the_reset_of_the_thresholds_says_of_what(cat):
    cat.click("#tab-pseudoLabel")
    cat.slide("background", 50)
    cat.wait_until_idle()
    node = cat.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": "document.getElementById('thresholds-reset')"})
    tree = cat.driver.execute_cdp_cmd("Accessibility.getPartialAXTree", {"objectId": node["result"]["objectId"]})
    said = tree["nodes"][0]
    assert (said["name"]["value"], said["description"]["value"]) == ("As the model has them", "Thresholds")
