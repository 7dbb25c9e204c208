"""Metrics and log lines: what whoever runs the service sees of it, and what they do not hold."""

import hashlib
import json
import logging
import time

import httpx2
import pytest

from app.batch.folder import label_folder
from app.batch.labellers import Remote
from app.guard.log_lines import JsonLines
from app.guard.request_log import ID_PREFIX
from app.http.request.parameters import AnalyzeParameters
from app.inference.errors import DataError
from tests.app.server import start_server


def test_metrics(client, photo):
    prometheus = pytest.importorskip("prometheus_client.parser")
    client.post("/segment", files={"file": photo})
    image_id = client.post("/cam?class=dog", files={"file": photo}).headers["x-image-id"]
    assert client.get(f"/cam?class=cat&image={image_id}").status_code == 200
    client.get("/cam?class=horsse")
    client.get("/nothing/here")
    reply = client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in prometheus.text_string_to_metric_families(reply.text)
        for sample in family.samples
    }
    segment = [("method", "POST"), ("route", "/segment"), ("status", "200")]
    assert samples["tag2mask_requests_total", *segment] >= 1
    assert samples["tag2mask_requests_total", ("method", "GET"), ("route", "other"), ("status", "404")] >= 1
    assert samples["tag2mask_refusals_total", ("reason", "unknown-class")] >= 1
    assert samples["tag2mask_stage_seconds_count", ("stage", "predict")] >= 1
    assert samples["tag2mask_jobs",] == 0
    assert samples["tag2mask_maps_found",] >= 1
    assert samples["tag2mask_maps_missing",] >= 1
    models = [dict(name[1:]) for name in samples if name[0] == "tag2mask_model"]
    assert ("drs_colours", "1") in [(model["name"], model["version"]) for model in models]


def test_every_line_of_the_log_is_json_with_the_reason_of_a_refusal(models_directory, photo):
    with start_server(models_directory, log_format="json") as server:
        server.wait_until_ready()
        image_id = httpx2.post(f"{server.url}/segment", files={"file": photo}).headers["x-image-id"]
        httpx2.get(f"{server.url}/segment?image={image_id}&format=overlay&threshold=1")
        httpx2.get(f"{server.url}/cam?class=dgo&image={'0' * 64}", headers={"X-Request-Id": "mine"})
        httpx2.post(f"{server.url}/v2/models/nothing/infer", content=b"{}")
        end = time.monotonic() + 20
        while "unknown-model" not in (log := server.log.read_text()):
            assert time.monotonic() < end
            time.sleep(0.1)
    lines = [json.loads(line) for line in log.splitlines()]
    assert all({"time", "level", "logger"} <= set(line) for line in lines)
    requests = [line for line in lines if line["logger"] == "app.requests" and line["path"] != "/readyz"]
    assert [line["reason"] for line in requests] == [None, None, "unknown-class", "unknown-model"]
    assert requests[2]["id"] == "mine"
    assert {line["client"] for line in requests} == {"127.0.0.1"}
    assert requests[0]["image"] == image_id[:ID_PREFIX]
    assert image_id not in log  # who reads the log gets no photo by it


def test_a_traceback_stays_within_its_line():
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        record = logging.LogRecord(
            "app", logging.ERROR, "", 0, "failed %s", ("here\n",), (ValueError, error, error.__traceback__)
        )
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "failed here\n"
    assert "two\nlines" in json.loads(line)["traceback"]


def test_a_service_open_to_everybody_says_so(models_directory):
    with start_server(models_directory, host="0.0.0.0") as server:
        server.wait_until_ready()
        assert "ANYBODY who reaches 0.0.0.0 is served" in server.log.read_text()
    with start_server(models_directory, host="0.0.0.0", api_keys="0" * 64) as server:
        server.wait_until_ready()
        assert "ANYBODY" not in server.log.read_text()


def test_a_folder_is_labelled_by_a_service_that_wants_a_key(models_directory, photo, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_bytes(photo)
    with start_server(models_directory, api_keys=hashlib.sha256(b"mine").hexdigest()) as server:
        server.wait_until_ready()
        with pytest.raises(DataError, match="API key"):
            Remote(server.url, AnalyzeParameters())
        labeller = Remote(server.url, AnalyzeParameters(), "mine")
        said, complete = label_folder(tmp_path / "photos", tmp_path / "out", labeller)
        assert complete, said
        assert "mine" not in server.log.read_text()
