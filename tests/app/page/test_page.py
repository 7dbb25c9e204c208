"""The web page: what the service sends, and its behaviour in a real Chromium against a real server."""

import re
import shutil
import subprocess

import httpx2
import pytest
from selenium.webdriver.common.keys import Keys

from tests.app.server import ROOT

STATIC = ROOT / "app/static"
CAT = ROOT / "tests/photos/cat.jpg"
PERSON = ROOT / "tests/photos/astronaut.jpg"
VIEWS = ("heatmap", "methods", "disagreement", "mask", "pseudoLabel")


def test_the_page_and_its_headers(client):
    reply = client.get("/")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    policy = reply.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "img-src 'self' blob: data:" in policy
    assert "unsafe" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert client.head("/").headers["content-length"] == str(len(reply.content))
    assert client.get("/", headers={"If-None-Match": reply.headers["etag"]}).status_code == 304


@pytest.mark.parametrize(
    "path", sorted(path for path in STATIC.rglob("*") if path.is_file()), ids=lambda path: path.name
)
def test_files_have_their_types_and_name_no_other_address(client, path):
    kinds = {
        ".html": "text/html",
        ".css": "text/css",
        ".js": "javascript",
        ".svg": "image/svg+xml",
        ".jpg": "image/jpeg",
    }
    reply = client.get(f"/static/{path.relative_to(STATIC).as_posix()}")
    assert reply.status_code == 200
    assert kinds[path.suffix] in reply.headers["content-type"]
    assert "default-src 'self'" in reply.headers["content-security-policy"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    if path.suffix == ".jpg":
        return
    addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"')]*", reply.text)
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}
    assert "innerHTML" not in reply.text


@pytest.mark.parametrize("path", ["../page.py", "%2e%2e/page.py", "..%2fpage.py", "%2fetc/passwd", "nothing.js", ""])
def test_nothing_else_is_served(client, path):
    reply = client.get(f"/static/{path}")
    assert reply.status_code == 404
    assert reply.headers["content-type"] == "application/problem+json"


def test_the_page_is_no_part_of_the_api(client):
    assert not {path for path in client.get("/openapi.json").json()["paths"] if path == "/" or "static" in path}
    assert client.post("/").status_code == 405


def test_before_the_first_photo(page):
    assert page.find("#choose").is_displayed()
    assert not page.find("#work").is_displayed()
    assert not page.find("#alert").is_displayed()


def test_no_page_asks_another_host(browser, served):
    own = {served.url.removeprefix("http://")}
    browser.hosts()
    page = browser.open(served)
    page.upload(CAT)
    for view in VIEWS:
        page.click(f"#tab-{view}")
    assert page.hosts() == own
    page.driver.get(f"{served.url}/docs")
    page.wait(lambda: page.all(".opblock-summary-path"))
    assert {path.text for path in page.all(".opblock-summary-path")} >= {"/segment", "/cam", "/pseudo-label"}
    page.find("#operations-service-get_health button").click()
    page.wait(lambda: page.all(".try-out__btn"))
    page.find(".try-out__btn").click()
    page.find("button.execute").click()
    page.wait(lambda: "alive" in page.text(".live-responses-table"))
    assert page.hosts() == own
    assert httpx2.get(f"{served.url}/redoc").status_code == 404


def test_an_uploaded_photo_gets_chips_and_a_heatmap(cat):
    chips = cat.all(".chip")
    assert len(chips) >= 8
    assert chips[0].get_attribute("aria-pressed") == "true"
    for chip in cat.all(".chip"):
        score, sign, threshold = chip.find_element("css selector", "small").text.split()
        present = "present" in str(chip.get_attribute("class")).split()
        assert (sign == "≥") == present == (float(score) >= float(threshold))
        said = "present" if present else "not present"
        assert chip.get_attribute("aria-label").endswith(f", score {score}, {said}, threshold {threshold}")
    assert re.search(
        r"a score of [01]\.\d+, so it counts as present: its threshold is 0\.\d+\.", cat.find("#caption").text
    )
    assert cat.picture() != cat.bare_photo()
    before, other = cat.picture(), str(chips[1].get_attribute("data-class"))
    cat.choose_class(other)
    assert cat.picture() not in (before, cat.bare_photo())
    assert cat.find(f"[data-class='{other}']").get_attribute("aria-pressed") == "true"
    assert other in cat.find("#stage canvas").get_attribute("aria-label")


def test_all_classes_can_be_listed_and_searched(cat):
    cat.click("#all-classes")
    assert len(cat.all(".chip")) == 20
    cat.find("#find-class").send_keys("mon")
    assert [chip.get_attribute("data-class") for chip in cat.all(".chip")] == ["tvmonitor"]


def test_sliders_ask_the_server_nothing(cat):
    before, requests = cat.picture(), cat.requests()
    cat.slide("threshold", 50)
    cut = cat.picture()
    assert cut != before
    assert cat.text("#threshold-value") == "0.50"
    cat.slide("opacity", 30)
    assert cat.picture() not in (before, cut)
    cat.slide("threshold", 100)
    assert cat.picture() == cat.bare_photo()
    assert cat.requests() == requests


def test_methods_side_by_side_zoom_together(cat, served):
    models = httpx2.get(f"{served.url}/models").json()["models"]
    methods = {f"{model['name']}/{model['version']}" for model in models if model["task"] == "cam"}
    cat.click("#tab-methods")
    assert {caption.text for caption in cat.all("#stage figcaption b")} == methods
    pictures = [cat.picture(number) for number in range(len(methods))]
    assert len(set(pictures)) == len(methods) > 1
    cat.click("#zoom-in")
    zoomed = [cat.picture(number) for number in range(len(methods))]
    assert all(before != after for before, after in zip(pictures, zoomed, strict=True))
    cat.find("#stage").send_keys("0")
    assert [cat.picture(number) for number in range(len(methods))] == pictures


def test_disagreement_of_the_methods(cat):
    heatmap = cat.picture()
    cat.click("#tab-disagreement")
    spread = cat.picture()
    assert spread not in (heatmap, cat.bare_photo())
    cat.click("#spread option[value='deviation']")
    assert cat.picture() not in (spread, cat.bare_photo())
    assert "standard deviation" in cat.text("#caption")


@pytest.mark.parametrize("view", ["mask", "pseudoLabel"])
def test_masks_with_their_legend(cat, view):
    cat.click(f"#tab-{view}")
    assert "cat" in cat.text("#legend")
    assert cat.picture() != cat.bare_photo()
    for box in cat.all("#legend input"):
        box.click()
    assert cat.picture() == cat.bare_photo()


def test_tags_gate_the_maps(cat):
    cat.find("#tag").send_keys("dog" + Keys.ENTER)
    cat.wait_until_idle()
    assert [tag.text for tag in cat.all("#tags span")] == ["dog"]
    assert cat.find("[data-class='dog']").get_attribute("aria-pressed") == "true"
    assert cat.picture() != cat.bare_photo()
    cat.choose_class("cat")
    assert "not among the tags" in cat.text("#caption")
    assert cat.picture() == cat.bare_photo()
    assert "tags=dog" in cat.find("#curl").get_attribute("value")
    cat.click("#tags button")
    assert cat.picture() != cat.bare_photo()


def test_an_unknown_tag_is_refused_beside_its_field(cat):
    requests = cat.requests()
    cat.find("#tag").send_keys("dgo" + Keys.ENTER)
    assert cat.text("#tag-error") == "dgo: no class of these models. Did you mean dog?"
    assert cat.find("#tag").get_attribute("aria-invalid") == "true"
    assert cat.find("#tag").get_attribute("value") == "dgo"
    assert not cat.all("#tags li")
    assert cat.requests() == requests
    cat.find("#tag").send_keys(Keys.BACKSPACE * 3 + "Dog" + Keys.ENTER)
    cat.wait_until_idle()
    assert [tag.text for tag in cat.all("#tags span")] == ["dog"]
    assert not cat.text("#tag-error")


def test_several_photos_and_a_refused_file(page, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("hello, this is no photo")
    page.upload(CAT, notes, PERSON)
    page.wait(lambda: page.find("#alert").is_displayed())
    page.click("#alert-close")
    first = page.picture()
    page.click("#strip li:nth-child(2) .thumbnail")
    assert page.text("#alert-text").startswith("notes.txt: ")
    assert "Send JPEG, PNG, WebP, TIFF" in page.text("#alert-text")
    assert page.find("#alert").get_attribute("role") == "alert"
    page.click("#strip li:nth-child(3) .thumbnail")
    assert not page.find("#alert").is_displayed()
    assert page.picture() != first
    page.click("#strip li:nth-child(2) .remove")
    assert len(page.all("#strip li")) == 2
    page.click("#strip li:nth-child(1) .thumbnail")
    assert page.picture() == first


def test_the_copied_commands_run(cat, tmp_path):
    if not shutil.which("curl"):
        pytest.skip("no curl here")
    photo = tmp_path / "my cat's photo.jpg"
    shutil.copy(CAT, photo)
    cat.upload(photo)
    cat.slide("threshold", 30)
    cat.click("#tab-methods")
    cat.click("#copy")
    methods = len(cat.all("#stage canvas"))
    cat.find("#format option[value='overlay']").click()
    commands = cat.find("#curl").get_attribute("value")
    assert commands.count("curl ") == methods > 1
    done = subprocess.run(["sh", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    written = [path for path in tmp_path.iterdir() if path != photo]
    assert len(written) == methods
    assert all(path.read_bytes().startswith(b"\xff\xd8\xff") for path in written)


def test_keyboard(cat):
    tab = cat.find("#tab-heatmap")
    tab.send_keys(Keys.ARROW_RIGHT)
    cat.wait_until_idle()
    assert cat.driver.switch_to.active_element.get_attribute("id") == "tab-methods"
    assert cat.find("#tab-methods").get_attribute("aria-selected") == "true"
    before = cat.picture()
    cat.find("#stage").send_keys("+")
    zoomed = cat.picture()
    cat.find("#stage").send_keys(Keys.ARROW_LEFT)
    assert len({before, zoomed, cat.picture()}) == 3


def test_every_control_has_a_name(cat):
    for view in VIEWS:
        cat.click(f"#tab-{view}")
        for control in cat.all("button, input, select, textarea, canvas, [role=tabpanel]"):
            if control.is_displayed():
                assert control.accessible_name, control.get_attribute("outerHTML")


def test_every_button_is_large_enough_to_hit(cat):
    """24 px on a side (WCAG 2.2, 2.5.8)."""
    cat.upload(PERSON)
    for view in VIEWS:
        cat.click(f"#tab-{view}")
        if view == "pseudoLabel":
            cat.slide("background", 50)
            cat.wait_until_idle()
        sizes = {
            button.get_attribute("outerHTML"): button.size for button in cat.all("button") if button.is_displayed()
        }
        assert not {name: size for name, size in sizes.items() if min(size.values()) < 24}
        assert any("thresholds-reset" in str(name) for name in sizes) == (view == "pseudoLabel")


def test_phone_width(browser, served):
    page = browser.open(served, 360, 740)
    width = "return document.documentElement.scrollWidth"
    assert page.run(width) == 360
    page.upload(CAT, PERSON)
    for view in VIEWS:
        page.click(f"#tab-{view}")
        assert page.run(width) == 360
    assert page.find("#tab-heatmap").is_displayed()


def test_dark(browser, served):
    colour = "return getComputedStyle(document.body).backgroundColor"
    light = browser.open(served).run(colour)
    assert browser.open(served, scheme="dark").run(colour) != light


def test_a_busy_service_is_asked_once_more(page):
    page.run("""
        const ask = window.fetch;
        window.asked = 0;
        window.fetch = (url, request) => {
          if (request?.method !== "POST" || window.asked++) return ask(url, request);
          return Promise.resolve(new Response("", { status: 503, headers: { "Retry-After": "1" } }));
        };""")
    page.find("#files").send_keys(str(CAT))
    page.wait(lambda: "busy; trying again in 1 s" in page.text("#status"))
    page.wait_until_idle()
    assert page.run("return window.asked") == 2
    assert page.picture() != page.bare_photo()
