"""The detection function for CVAT, loaded as `cvat-cli` loads it, with CVAT's own types and mask decoder."""

import importlib.util
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import httpx2
import numpy as np
import pytest
from PIL import Image

from tests.app.colour_models import GREEN, RED, halves, to_file, write_cam_model, write_segmentation_model
from tests.app.server import Server, start_server

cvataa = pytest.importorskip("cvat_sdk.auto_annotation")
driver = pytest.importorskip("cvat_sdk.auto_annotation.driver")
masks = pytest.importorskip("cvat_sdk.masks")

FILE = Path(__file__).parents[2] / "integrations" / "cvat_function.py"
PHOTO = halves(RED, GREEN, 50, 70)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    write_cam_model(directory)
    write_segmentation_model(directory)
    return directory


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    with start_server(models) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture(scope="module")
def module() -> ModuleType:
    specification = importlib.util.spec_from_file_location("__cvat_function__", FILE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(params=["server", "models"])
def create(request, module, server, models):
    """`create` for a running server, and for models in this process."""
    given = {"url": server.url} if request.param == "server" else {"models": str(models)}
    return lambda **parameters: module.create(**given, **parameters)


def context(conf_threshold: float | None = None, conv_mask_to_poly: bool = False) -> SimpleNamespace:
    return SimpleNamespace(frame_name="a.png", conf_threshold=conf_threshold, conv_mask_to_poly=conv_mask_to_poly)


def service_mask(server: Server) -> np.ndarray:
    reply = httpx2.post(f"{server.url}/segment?format=png", files={"file": to_file(PHOTO)})
    return np.asarray(Image.open(io.BytesIO(reply.content)))


def test_masks_are_those_of_segment(create, server):
    function = create()
    shapes = function.detect(context(), Image.fromarray(PHOTO))
    names = {label.id: label.name for label in function.spec.labels}
    mask = service_mask(server)
    assert {names[shape.label_id] for shape in shapes} == {"dog", "cat"}
    for shape in shapes:
        where = masks.decode_mask(shape.points, image_width=70, image_height=50)
        assert np.array_equal(where, mask == list(names.values()).index(names[shape.label_id]) + 1)
        assert shape.type.value == "mask"


def test_polygons_where_cvat_wants_them(create):
    shapes = create().detect(context(conv_mask_to_poly=True), Image.fromarray(PHOTO).convert("RGBA"))
    assert {shape.type.value for shape in shapes} == {"polygon"}
    for shape in shapes:
        points = np.reshape(shape.points, (-1, 2))
        assert len(points) >= 3
        assert (points >= 0).all()
        assert (points <= [70, 50]).all()


def test_cvat_takes_what_comes(create):
    """Its own check of a function's labels and shapes against those of a task, some of them missing there."""
    function = create()
    labels = [SimpleNamespace(name=name, id=7, type="mask", attributes=[], sublabels=[]) for name in ("dog",)]
    mapper = driver._AnnotationMapper(
        logging.getLogger(__name__), function.spec.labels, labels, allow_unmatched_labels=True, conv_mask_to_poly=False
    )
    _, shapes = mapper.validate_and_remap(function.detect(context(), Image.fromarray(PHOTO)), 3)
    assert [(shape.label_id, shape.frame) for shape in shapes] == [(7, 3)]


def test_threshold_and_tags(create):
    assert not create().detect(context(conf_threshold=1.0), Image.fromarray(PHOTO))
    function = create(tags="cat", model="deeplab_colours/1")
    (shape,) = function.detect(context(), Image.fromarray(PHOTO))
    assert function.spec.labels[shape.label_id].name == "cat"


def test_refusals(module, server, models):
    with pytest.raises(cvataa.BadFunctionError, match="unknown-model"):
        module.create(url=server.url, model="nothing")
    with pytest.raises(cvataa.BadFunctionError, match="give one of them"):
        module.create(url=server.url, models=str(models))
    with pytest.raises(cvataa.BadFunctionError, match="cannot be asked"):
        module.create(url="http://127.0.0.1:9")
