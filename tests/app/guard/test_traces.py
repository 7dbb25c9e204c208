"""Traces, received as an OpenTelemetry collector does."""

import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx2
import pytest

from app.inference.errors import DataError
from app.main import create_app
from app.runtime.settings import Settings
from tests.app.colour_models import BLACK, RED, halves, to_file, write_cam_model, write_segmentation_model
from tests.app.server import start_server

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(HTTPServer):
    """It takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), Receive)


class Receive(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


@pytest.mark.environment("traces")
def test_a_request_and_its_stages_become_one_trace(collector, tmp_path):
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    write_cam_model(tmp_path)
    write_segmentation_model(tmp_path)
    with start_server(tmp_path, workers=1, traces=f"http://127.0.0.1:{collector.server_port}") as server:
        server.wait_until_ready()
        photo = {"file": to_file(halves(RED, BLACK))}
        before = time.time_ns()
        given = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "mine"}
        assert httpx2.post(f"{server.url}/segment?format=png", files=photo, headers=given).status_code == 200
        assert httpx2.get(f"{server.url}/cam?class=dgo").status_code == 422
        after = time.time_ns()
        server.process.terminate()  # What is left is sent at the end.
        server.process.wait(60)
        assert "Traceback" not in server.log.read_text()
    exported = [ExportTraceServiceRequest.FromString(body) for body in collector.bodies]
    spans = [
        span
        for export in exported
        for resource in export.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    (request,) = [span for span in spans if span.name == "POST /segment"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    attributes = {entry.key: entry.value.string_value or entry.value.int_value for entry in request.attributes}
    assert attributes["tag2mask.request_id"] == "mine"
    assert attributes["http.response.status_code"] == 200
    stages = [span for span in spans if span.parent_span_id == request.span_id]
    assert {"queue", "decode", "predict", "encode"} == {span.name for span in stages}
    assert before <= request.start_time_unix_nano <= request.end_time_unix_nano <= after
    for span in stages:
        assert span.trace_id == request.trace_id
        assert request.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano
    (refused,) = [span for span in spans if span.name == "GET /cam"]
    assert "unknown-class" in [
        entry.value.string_value for entry in refused.attributes if entry.key == "tag2mask.reason"
    ]


@pytest.mark.environment("traces")
def test_a_service_without_a_collector_serves_and_ends(tmp_path):
    write_segmentation_model(tmp_path)
    with start_server(tmp_path, workers=1, traces="http://127.0.0.1:9", drain_grace_seconds=0) as server:
        server.wait_until_ready()
        assert httpx2.get(f"{server.url}/classes").status_code == 200
        server.process.terminate()
        server.process.wait(60)
        assert "Traceback" not in server.log.read_text()


def test_traces_need_their_extra(models_directory: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)  # It cannot be imported now.
    with pytest.raises(DataError, match=r"needs the extra `traces` .*install it"):
        create_app(Settings(models=models_directory, device="cpu", traces="http://127.0.0.1:4318"))
