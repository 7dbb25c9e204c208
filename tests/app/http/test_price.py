"""What a request costs, counted by hand, and what is refused for it."""

import pytest

from app.http.price import check_price, price_of
from app.inference.analysis import Analyzer
from app.inference.engine import Engine
from app.inference.errors import PriceError
from app.inference.options import Options
from tests.app.colour_models import SIDE, write_cam_model, write_segmentation_model
from tests.app.http.test_errors import check_problem

VIEW = SIDE**2 / 1e6


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models")
    cam = Engine(write_cam_model(directory, scales=(0.5, 1.0), flip=True), device="cpu")
    return cam, Engine(write_segmentation_model(directory), device="cpu")


@pytest.mark.parametrize(
    ("options", "cams", "segmenter", "views"),
    [
        ({}, 0, True, 1),
        ({}, 1, False, (0.25 + 1) * 2),
        ({}, 2, True, 2 * (0.25 + 1) * 2 + 1),
        ({"scales": (2.0, 1.0), "flip": False}, 1, True, 5 + 5),
        ({"refine": "pamr", "scales": (1.0,), "flip": False}, 1, True, 1 + 1 + 20),
        ({"conditional": True}, 1, False, 2.5 + (1 + 4 * 5) * (1 + 0.25 + 2.25 + 4) * 2),
        ({"conditional": True, "scales": (1.0,), "flip": False}, 1, False, 2.5 + (1 + 4 * 5)),
    ],
)
def test_prices(engines, options, cams, segmenter, views):
    cam, masks = engines
    analyzer = Analyzer(Options(**options), (cam,) * cams, masks if segmenter else None)
    assert price_of(analyzer) == pytest.approx(views * VIEW)
    check_price(analyzer, views * VIEW + 1e-9)
    with pytest.raises(PriceError, match="the limit is"):
        check_price(analyzer, views * VIEW * 0.99)


def test_the_dearest_request_is_refused_before_its_photo_is_read(client, serve, models_directory, settings):
    dear = "/cam?class=dog&inference=class-conditional&scales=2,2,2,2,2,2&flip=true&refine=pamr"
    service = serve(settings.model_copy(update={"max_price": 2}))
    problem = check_problem(service.post(dear, content=b"no photo"), 422, "the limit is 2", "TAG2MASK_MAX_PRICE")
    assert problem["price"] > problem["limit"] == 2
    assert problem["type"] == "urn:tag2mask:price"
    assert service.post("/segment", content=b"no photo", headers={"Content-Type": "image/png"}).status_code == 415
