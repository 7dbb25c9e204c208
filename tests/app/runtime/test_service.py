"""What the service says of itself: models, classes, health, documentation, log."""

import json
import signal
import threading
import time

from starlette.testclient import TestClient

from app.http.api_docs.examples import CAM_EXAMPLE, PROBLEM_EXAMPLES, PSEUDO_LABEL_EXAMPLE, SEGMENT_EXAMPLE
from app.http.reply.schemas import CamReply, PseudoLabelReply, SegmentReply
from app.inference.engine import Engine
from app.inference.errors import ServiceError
from app.inference.labels import IGNORE_INDEX, VOC_CLASSES, voc_palette
from app.inference.model_card import ModelCard
from app.main import create_app
from app.runtime.settings import Settings
from tests.app.colour_models import DOG, write_cam_model


def test_models_state_card_file_and_providers(client, models_directory):
    models = client.get("/models").json()["models"]
    listed = [(model["name"], model["version"], model["task"], model["method"], model["default"]) for model in models]
    assert listed == [
        ("cam_colours", 2, "cam", "grad-cam", False),
        ("cam_colours", 10, "cam", "grad-cam", False),
        ("deeplab_colours", 1, "segmentation", "deeplabv3", True),
        ("drs_colours", 1, "cam", "drs", True),
    ]
    drs = models[3]
    assert drs["classes"] == list(VOC_CLASSES)
    assert drs["providers"] == ["CPUExecutionProvider"]
    assert drs["sha256"] == Engine(models_directory / "drs_colours/1/model.onnx", device="cpu").sha256
    assert set(ModelCard.model_fields) <= set(drs)


def test_classes(client):
    body = client.get("/classes").json()
    assert [entry["class"] for entry in body["classes"]] == list(VOC_CLASSES)
    red, green, blue = voc_palette()[DOG]
    dog = body["classes"][11]
    assert (dog["class"], dog["label"], dog["color"]) == ("dog", DOG, f"#{red:02x}{green:02x}{blue:02x}")
    assert dog["display_color"] != dog["color"]
    assert (body["model"]["name"], body["background"], body["ignore"]) == ("drs_colours", 0, IGNORE_INDEX)
    few = client.get("/classes?model=cam_colours").json()
    assert [(entry["class"], entry["label"]) for entry in few["classes"]] == [("cat", 1), ("dog", 2), ("person", 3)]
    assert client.get("/classes?model=deeplab_colours").status_code == 200
    assert client.get("/classes?model=x").status_code == 404


def test_alive_at_once_and_ready_when_the_models_are(tmp_path, monkeypatch, photo):
    write_cam_model(tmp_path)
    gate = threading.Event()
    monkeypatch.setattr("app.runtime.loading.warm", lambda engine: gate.wait())
    with TestClient(create_app(Settings(models=tmp_path, device="cpu", worker_processes=False))) as client:
        try:
            assert client.get("/healthz").json() == {"status": "alive"}
            for reply in (client.get("/readyz"), client.get("/models"), client.post("/segment", files={"file": photo})):
                assert reply.status_code == 503
                assert int(reply.headers["retry-after"]) >= 1
                assert reply.headers["content-type"] == "application/problem+json"
        finally:
            gate.set()
        while (reply := client.get("/readyz")).status_code == 503:
            pass
        assert reply.json() == {"status": "ready"}


def test_models_that_cannot_be_loaded_stop_the_start(tmp_path):
    write_cam_model(tmp_path).write_bytes(b"broken")
    failures = []
    with TestClient(create_app(Settings(models=tmp_path, device="cpu"), on_failed_start=failures.append)) as client:
        while not failures:
            assert client.get("/healthz").status_code == 200
        assert "could not be loaded" in client.get("/readyz").json()["detail"]
    assert "model.onnx" in str(failures[0])


def test_one_line_in_the_log_per_request(client, photo, caplog):
    caplog.set_level("INFO", "app.requests")
    image_id = client.post("/cam?class=dog", files={"file": photo}).headers["x-image-id"]
    client.get("/nothing%0Ahere")
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "app.requests"]
    names = {"id", "client", "method", "path", "status", "ms", "reason", "model", "image", "key"}
    assert [set(line) for line in lines] == [names] * 2
    first, second = lines
    assert (first["method"], first["path"], first["status"]) == ("POST", "/cam", 200)
    assert (first["model"], first["image"], first["reason"]) == ("drs_colours/1", image_id[:12], None)
    assert first["ms"] > 0
    assert (second["path"], second["status"], second["model"]) == ("/nothing\nhere", 404, None)
    assert second["reason"] == "not-found"
    assert "\n" not in caplog.records[-1].getMessage()


def test_documentation_page_and_schema(client):
    assert client.get("/docs").status_code == 200
    document = client.get("/openapi.json").json()
    about_photos = {"/segment", "/cam", "/pseudo-label", "/analyze"}
    assert set(document["paths"]) == about_photos | {"/correction", "/models", "/classes", "/healthz", "/readyz"}
    post = document["paths"]["/segment"]["post"]
    stated = {
        "multipart/form-data",
        "image/jpeg",
        "image/png",
        "image/webp",
        "image/tiff",
        "image/bmp",
        "image/heic",
        "application/octet-stream",
    }
    assert set(post["requestBody"]["content"]) == stated
    common = {"model", "format", "size", "tags", "scales", "flip", "refine", "regions"}
    assert {parameter["name"] for parameter in post["parameters"]} == common | {
        "threshold",
        "presence_threshold",
        "smallest_region",
    }
    kept = document["paths"]["/cam"]["get"]["parameters"]
    assert {parameter["name"] for parameter in kept if parameter["required"]} == {"class"}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            errors = {status: reply for status, reply in operation["responses"].items() if status not in ("200", "304")}
            assert errors, path
            for reply in errors.values():
                assert set(reply["content"]) == {"application/problem+json"}
                assert reply["content"]["application/problem+json"]["examples"]
    operations = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(operations) == len(set(operations))


def test_examples_of_the_documentation_have_the_shape_of_real_replies(client, photo):
    examples = [(SegmentReply, SEGMENT_EXAMPLE, "/segment"), (CamReply, CAM_EXAMPLE, "/cam?class=dog&format=json")]
    examples.append((PseudoLabelReply, PSEUDO_LABEL_EXAMPLE, "/pseudo-label?format=json"))
    for schema, example, path in examples:
        schema.model_validate(example)
        real = client.post(path, files={"file": photo}).json()
        assert real.keys() == example.keys()
        for name in ("image", "model", "thresholds", "timings_ms"):
            if name != "timings_ms" or "encode" in real[name]:
                assert real[name].keys() == example[name].keys(), (path, name)


def test_examples_of_problems_are_those_the_service_sends():
    kinds = {kind.__name__ for kind in subclasses(ServiceError)}
    titles = {kind.title: kind.status for kind in subclasses(ServiceError)}
    for status, examples in PROBLEM_EXAMPLES.items():
        for example in examples:
            name = "".join(part.title() for part in example["type"].rpartition(":")[2].split("-")) + "Error"
            assert name in kinds
            assert titles[example["title"]] == example["status"] == status


def subclasses(kind: type) -> list[type]:
    return [kind, *(below for child in kind.__subclasses__() for below in subclasses(child))]


def test_the_models_are_followed_where_there_is_no_sighup(serve, tmp_path, monkeypatch):
    """Windows has none."""
    monkeypatch.delattr(signal, "SIGHUP")
    write_cam_model(tmp_path, "a", 1)
    client = serve(Settings(models=tmp_path, device="cpu", models_poll_seconds=0.05))
    write_cam_model(tmp_path, "b", 1)
    end = time.monotonic() + 120
    while len(client.get("/models").json()["models"]) < 2:
        assert time.monotonic() < end, "the new model is not served"
        time.sleep(0.05)
