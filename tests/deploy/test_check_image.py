"""What asks a container is itself tried on a service without one, and can say no."""

import pytest

from tests.app.colour_models import write_cam_model, write_segmentation_model
from tests.app.server import ROOT, start_server
from tests.deploy.check_image import check


def test_a_service_with_the_shipped_models_passes() -> None:
    with start_server(ROOT / "models") as server:
        assert "/segment found cat" in check(server.url)


def test_a_service_that_finds_no_cat_fails(tmp_path) -> None:
    write_cam_model(tmp_path)
    write_segmentation_model(tmp_path)
    with start_server(tmp_path) as server, pytest.raises(AssertionError, match="no cat was found"):
        check(server.url)
    with pytest.raises(AssertionError, match="is not ready"):
        check(server.url, patience_seconds=0)
