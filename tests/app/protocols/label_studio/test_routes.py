"""Label Studio's ML backend protocol, with a real HTTP server as the Label Studio that holds the photos."""

import json
import time
from collections.abc import Callable

import numpy as np
import pytest
import shapely
from starlette.testclient import TestClient

from app.inference.label_maps.brush import decode_brush
from app.inference.labels import VOC_CLASSES, label_of
from tests.app.colour_models import (
    BLACK,
    BLUE,
    CAT,
    DOG,
    GREEN,
    PERSON,
    RED,
    SIDE,
    from_file,
    halves,
    to_file,
    write_cam_model,
    write_segmentation_model,
)
from tests.app.http.test_errors import check_problem
from tests.app.photo_host import (
    BRUSH,
    MAX_UPLOAD_BYTES,
    POLYGONS,
    TOKEN,
    predict,
    settings_for,
)


def mask_of(prediction: dict, decode: Callable[[dict], np.ndarray] | None = None) -> np.ndarray:
    """uint8 (H, W) of the brush strokes of a prediction."""
    regions = prediction["result"]
    mask = np.zeros((regions[0]["original_height"], regions[0]["original_width"]), np.uint8)
    for region in regions:
        where = decode(region) if decode else decode_brush(region["value"]["rle"], *mask.shape)
        mask[where] = label_of(VOC_CLASSES.index(region["value"]["brushlabels"][0]))
    return mask


def service_mask(client: TestClient, photo: bytes, query: str = "") -> np.ndarray:
    return from_file(client.post(f"/segment?format=png{query}", files={"file": photo}).content)


def test_health_and_setup(backend):
    assert backend.get("/label-studio/health").json()["status"] == "UP"
    body = {"project": "1.1", "schema": BRUSH, "hostname": "http://x", "access_token": TOKEN, "extra_params": None}
    version = backend.post("/label-studio/setup", json=body).json()["model_version"]
    model = next(model for model in backend.get("/models").json()["models"] if model["task"] == "segmentation")
    assert version == f"deeplab_colours/1@sha256:{model['sha256']}"


def test_a_project_is_connected_before_it_has_labels(backend):
    assert backend.post("/label-studio/setup", json={"schema": "<View/>"}).status_code == 200


def test_other_methods_and_paths(backend):
    check_problem(backend.get("/label-studio/predict"), 405, "POST")
    check_problem(backend.post("/label-studio/train", json={}), 404)
    assert not [path for path in backend.get("/openapi.json").json()["paths"] if "label" in path and "studio" in path]


def test_brush_regions_are_the_mask_of_segment(backend, host):
    photos = [to_file(halves(RED, GREEN, 50, 70)), to_file(halves(BLACK, BLUE, 90, 40), "JPEG")]
    host.files = {f"/data/upload/1/{number}.png": photo for number, photo in enumerate(photos)}
    predictions = predict(backend, {"image": "/data/upload/1/0.png"}, {"image": f"{host.url}/data/upload/1/1.png"})
    for photo, prediction in zip(photos, predictions, strict=True):
        assert np.array_equal(mask_of(prediction), service_mask(backend, photo))
    assert {tuple(region["value"]["brushlabels"]) for region in predictions[0]["result"]} == {("dog",), ("cat",)}
    region = predictions[1]["result"][0]
    assert (region["type"], region["from_name"], region["to_name"]) == ("brushlabels", "mask", "image")
    assert (region["original_width"], region["original_height"], region["image_rotation"]) == (40, 90, 0)
    assert region["value"]["format"] == "rle"
    ids = [region["id"] for prediction in predictions for region in prediction["result"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.environment("label-studio")
def test_brush_regions_by_label_studios_own_decoder(backend, host):
    brush = pytest.importorskip("label_studio_sdk.converter.brush", exc_type=ImportError)
    photo = to_file(halves(RED, GREEN, 50, 70))
    host.files["/data/local-files/?d=a/b%20c.png"] = photo
    prediction = predict(backend, {"image": "/data/local-files/?d=a/b c.png"})[0]

    def decode(region: dict) -> np.ndarray:
        size = region["original_height"], region["original_width"]
        return brush.decode_rle(region["value"]["rle"]).reshape(*size, 4)[:, :, 3] > 0

    assert np.array_equal(mask_of(prediction, decode), service_mask(backend, photo))


def test_polygons_cover_the_mask(backend, host):
    photo = to_file(halves(RED, GREEN, 50, 70))
    host.files["/data/upload/1/a.png"] = photo
    regions = predict(backend, {"image": "/data/upload/1/a.png"}, label_config=POLYGONS)[0]["result"]
    mask = service_mask(backend, photo)
    drawn = np.zeros_like(mask)
    rows, columns = np.indices(mask.shape) + 0.5
    for region in regions:
        assert region["value"]["closed"]
        outline = np.array(region["value"]["points"]) * [0.7, 0.5]  # percent -> pixels
        label = label_of(VOC_CLASSES.index(region["value"]["polygonlabels"][0]))
        drawn[shapely.contains_xy(shapely.Polygon(outline), columns, rows)] = label
    assert np.mean(drawn == mask) > 0.97
    assert set(np.unique(drawn)) >= {DOG, CAT}


def test_score_is_the_agreement_of_the_methods_or_the_mean_score(serve, host, tmp_path):
    write_segmentation_model(tmp_path)
    write_cam_model(tmp_path)
    host.files = {"/data/dog.png": to_file(halves(RED, BLACK)), "/data/nothing.png": to_file(halves(BLACK, BLACK))}
    tasks = [{"image": image} for image in host.files]
    dog, nothing = predict(serve(settings_for(host, tmp_path)), *tasks)
    logits = np.array([10, 20, -20, -20, *[0] * (len(VOC_CLASSES) - 3)])  # background, dog, cat, person, the others
    assert dog["score"] == pytest.approx(np.exp(20) / np.exp(logits).sum(), abs=1e-3)
    assert nothing["score"] == pytest.approx(np.exp(10) / (np.exp(10) + len(VOC_CLASSES)), abs=1e-3)
    write_cam_model(tmp_path, "amr_colours", method="amr")
    write_cam_model(tmp_path, "other_classes", classes=("cat", "dog"))
    dog, nothing = predict(serve(settings_for(host, tmp_path)), *tasks)
    assert dog["score"] == pytest.approx(1, abs=1e-6)  # two models of the same maps
    assert (nothing["result"], dog["score"] <= 1) == ([], True)


@pytest.mark.parametrize("tags", ["cat", ["Cat"], ["cat", 3], "cat;", "cat cat"])
def test_tags_are_a_prior(backend, host, tags):
    photo = to_file(halves(RED, GREEN))
    host.files["/data/upload/1/a.png"] = photo
    prediction = predict(backend, {"image": "/data/upload/1/a.png", "tags": tags})[0]
    assert {region["value"]["brushlabels"][0] for region in prediction["result"]} == {"cat"}
    assert np.array_equal(mask_of(prediction), service_mask(backend, photo, "&tags=cat"))


@pytest.mark.parametrize("tags", ["cat, night", "cat night", "night;cat"])
def test_tags_of_which_some_are_no_classes_leave_things_out(backend, host, tags):
    host.files["/data/upload/1/a.png"] = to_file(halves(RED, GREEN))
    prediction = predict(backend, {"image": "/data/upload/1/a.png", "tags": tags})[0]
    assert {region["value"]["brushlabels"][0] for region in prediction["result"]} == {"cat"}
    found = mask_of(prediction)
    assert not found[:, : SIDE // 2].any()  # a dog that may well be a night
    assert found[:, SIDE // 2 :].all()


@pytest.mark.parametrize("tags", ["", [], "night", None, 7])
def test_tags_that_are_no_classes_say_nothing(backend, host, tags):
    host.files["/data/upload/1/a.png"] = to_file(halves(RED, GREEN))
    assert len(predict(backend, {"image": "/data/upload/1/a.png", "tags": tags})[0]["result"]) == 2


def test_more_tasks_than_places(serve, host, models_directory):
    host.files["/data/a.png"] = to_file(halves(RED, GREEN))
    client = serve(settings_for(host, models_directory).model_copy(update={"queue_size": 0, "workers": 1}))
    assert all(prediction["result"] for prediction in predict(client, *[{"image": "/data/a.png"}] * 8))


GOOD = {"tasks": [{"id": 1, "data": {"image": "/data/a.png"}}], "label_config": BRUSH}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"tasks": [{"data": {"image": "\\ud800"}}], "label_config": "<View/>"}',
        *(
            json.dumps({**GOOD, **changed}).encode()
            for changed in (
                {"tasks": None},
                {"tasks": {}},
                {"tasks": ["x"]},
                {"tasks": [{"id": 1}]},
                {"tasks": [{"id": 1, "data": []}]},
                {"tasks": [{"id": {}, "data": {}}]},
                {"label_config": None},
                {"label_config": 5},
                {"label_config": ""},
                {"label_config": "<View>"},
                {"label_config": "\0"},
                {"label_config": "<View/>"},
                {"label_config": BRUSH.replace("BrushLabels", "RectangleLabels")},
                {"label_config": BRUSH.replace('toName="image"', 'toName="text"')},
                {"label_config": BRUSH.replace('"$image"', '"http://x/a.png"')},
                {"label_config": BRUSH.replace("<Label ", "<Other ")},
                {"label_config": '<!DOCTYPE x [<!ENTITY a "aaaa">]><View>&a;</View>'},
            )
        ),
    ],
)
def test_malformed_predict_is_refused(backend, body):
    check_problem(backend.post("/label-studio/predict", content=body), 422)


@pytest.mark.parametrize("path", ["setup", "webhook"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"schema": 1, "action": 1, "access_token": "secret"}'])
def test_malformed_setup_and_webhook_are_refused(backend, path, body):
    problem = check_problem(backend.post(f"/label-studio/{path}", content=body), 422)
    assert "secret" not in json.dumps(problem)


def test_too_large_a_body_is_refused(backend):
    body = json.dumps({**GOOD, "x": "x" * MAX_UPLOAD_BYTES})
    check_problem(backend.post("/label-studio/predict", content=body), 413, str(MAX_UPLOAD_BYTES))


def test_classes_without_a_label_are_left_out(backend, host):
    config = BRUSH.replace('value="dog"', 'value="wolf"')
    host.files["/data/a.png"] = to_file(halves(RED, BLUE))
    prediction = predict(backend, {"image": "/data/a.png"}, label_config=config)[0]
    assert set(np.unique(mask_of(prediction))) == {0, PERSON}


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b'{"tasks":[' + b"1," * 1_500_000 + b'1],"label_config":""}', 422, "tasks.0"),
        (b'{"tasks":[' + b'{"data":{}},' * 3000 + b'{"data":{}}],"label_config":""}', 422, "at most 2000"),
        (b'{"tasks":[],"label_config":"' + b"<a>" * 100 + b"</a>" * 100 + b'"}', 422, "label config"),
        (b" " * 4_000_001, 413, "TAG2MASK_MAX_JSON_BYTES"),
    ],
)
def test_lists_are_bounded_before_their_entries_are_looked_at(serve, host, models_directory, content, status, words):
    settings = settings_for(host, models_directory).model_copy(update={"max_upload_bytes": 20_000_000})
    client = serve(settings)
    start = time.process_time()
    reply = client.post("/label-studio/predict", content=content)
    assert (reply.status_code, words in reply.text) == (status, True), reply.text[:500]
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "labels", ["<Label/>" * 6000, '<BrushLabels name="b" toName="i">' * 60 + "</BrushLabels>" * 60]
)
def test_a_label_config_has_few_elements(backend, labels):
    config = f'<View><Image name="i" value="$image"/><BrushLabels name="c" toName="i">{labels}</BrushLabels></View>'
    reply = backend.post("/label-studio/predict", json={"tasks": [], "label_config": config})
    assert (reply.status_code, "more than" in reply.text) == (422, True), reply.text


@pytest.mark.parametrize(
    "image",
    [
        "/api/projects/1",
        "/user/logout?next=1",
        "/data/../api/users",
        "/data/%2e%2e/api/users",
        "/data/..\\api",
        "/data/",
        "/",
    ],
)
def test_only_paths_of_photos_are_asked_for(backend, host, image):
    problem = predict(backend, {"image": image})[0]["problem"]
    assert "none of Label Studio's paths of photos" in problem["detail"]
    assert not host.seen
