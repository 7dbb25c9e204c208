"""The page on services with other models than the repository's, and on one that goes away."""

from selenium.webdriver.common.keys import Keys

from tests.app.browser import page_on
from tests.app.colour_models import write_cam_model, write_photo, write_segmentation_model
from tests.app.server import ROOT

CAT = ROOT / "tests/photos/cat.jpg"
MARKUP = "<img src=x onerror=alert(1)> & 'co'"


def test_methods_that_do_not_know_a_class_are_named(browser, models_directory):
    with page_on(browser, models_directory, CAT) as page:
        page.click("#all-classes")
        page.choose_class("aeroplane")
        page.click("#tab-methods")
        assert [caption.text for caption in page.all("#stage figcaption b")] == ["drs_colours/1"]
        assert "Without cam_colours/2, cam_colours/10" in page.text("#caption")
        page.click("#tab-disagreement")
        assert "Only drs_colours/1 is ticked and knows aeroplane" in page.text("#caption")


def test_one_cam_model_with_odd_class_names(browser, tmp_path):
    write_cam_model(tmp_path / "models", classes=("dog", "traffic light", MARKUP))
    with page_on(browser, tmp_path / "models", write_photo(tmp_path / "<b>red.png")) as page:
        assert [tab.text for tab in page.all("#tabs button")] == ["Heatmap", "Pseudo-label"]
        assert {chip.text.rsplit("\n", 1)[0] for chip in page.all(".chip")} == {"dog", "traffic light", MARKUP}
        page.all(".chip")[2].click()
        page.wait_until_idle()
        page.find("#tag").send_keys(MARKUP + Keys.ENTER)
        page.wait_until_idle()
        assert page.text("#tags span") == MARKUP
        assert MARKUP in page.text("#caption")
        assert not page.find("#alert").is_displayed()
        page.click("#tab-pseudoLabel")
        assert not page.all(".controls img, .viewing b b, .viewing figure img")


def test_only_a_segmentation_model(browser, tmp_path):
    write_segmentation_model(tmp_path / "models")
    with page_on(browser, tmp_path / "models", write_photo(tmp_path / "red.png")) as page:
        assert [tab.text for tab in page.all("#tabs button")] == ["Mask"]
        assert "50.0 %" in page.text("#legend")
        assert page.picture() != page.bare_photo()


def test_a_photo_the_service_has_forgotten_is_sent_again(browser, models_directory):
    with page_on(browser, models_directory, CAT, upload_store_bytes=0) as page:
        page.click("#tab-mask")
        assert not page.find("#alert").is_displayed()
        assert page.all("#stage canvas")


def test_a_server_that_has_gone(browser, models_directory):
    with page_on(browser, models_directory, CAT) as page:
        pass
    page.click("#tab-methods")
    assert "cannot be reached" in page.text("#alert-text")
    assert page.find("#alert-retry").is_displayed()
    page.driver.get_log("browser")  # the browser, too, complains of the lost connection


def test_fused_models_leave_out_one_of_other_classes(browser, tmp_path):
    few = {"classes": ("sofa", "dog")}
    for name, method, threshold, card in (("own", "drs", 0.9, few), ("p", "drs", 0.2, {}), ("q", "cam", 0.6, {})):
        write_cam_model(tmp_path / "models", name, method=method, background_threshold=threshold, **card)
    with page_on(browser, tmp_path / "models", write_photo(tmp_path / "red.png")) as page:
        page.click("#tab-pseudoLabel")
        page.click("#model option[value='all']")
        said = page.text("#model-about")
        assert said == "The maps of p/1, q/1, joined by where they agree. Left out: own/1, of other classes."
        assert page.text("#background-value") == "0.20"
