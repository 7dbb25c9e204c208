"""`python -m app` as a process: what only a socket and a signal show."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from app.__main__ import main
from app.batch.folder import label_folder
from app.batch.labellers import InProcess, Remote
from app.http.request.parameters import AnalyzeParameters
from app.inference.errors import DataError
from app.runtime.settings import Settings
from tests.app.colour_models import BLACK, RED, halves, to_file, write_cam_model, write_segmentation_model
from tests.app.server import MAX_UPLOAD_BYTES, ROOT, start_server


@pytest.fixture(scope="module")
def slow_photo() -> bytes:
    """A small file of 16 megapixels, which keeps a worker busy for a while."""
    return to_file(halves(RED, BLACK, 4000, 4000))


def test_session_with_a_cookie(server, photo):
    with httpx2.Client(base_url=server.url) as client:
        assert client.get("/cam?class=dog").status_code == 400
        image_id = client.post("/segment", files={"file": photo}).json()["image"]["id"]
        heatmap = client.get("/cam?class=dog&format=gray16")
        assert (heatmap.status_code, heatmap.headers["x-image-id"]) == (200, image_id)
    assert httpx2.get(f"{server.url}/cam", params={"class": "dog", "image": image_id}).status_code == 200


@pytest.mark.parametrize("content_type", ["image/jpeg", "multipart/form-data; boundary=b"])
def test_too_large_a_body_is_refused_while_it_streams(server, content_type):
    opening = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        if "boundary" in content_type
        else b""
    )
    head = f"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"\xff\xd8\xff" + bytes(100_000)
    with server.connect() as connection:
        connection.sendall(head.encode())
        for part in [opening or b"\xff", *[chunk] * 11]:  # over the limit, and the body has no end
            connection.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        reply = b""
        while b"}" not in reply:
            reply += connection.recv(65536)
    assert reply.startswith(b"HTTP/1.1 413")
    assert b"application/problem+json" in reply
    assert str(MAX_UPLOAD_BYTES).encode() in reply


def test_too_large_a_body_is_refused_before_it_is_sent(server):
    head = "POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_client_library_that_sends_everything_still_reads_the_refusal(server):
    reply = httpx2.post(f"{server.url}/segment", files={"file": b"\xff\xd8\xff" + bytes(8_000_000)}, timeout=60)
    assert reply.status_code == 413


def test_full_queue_answers_503_with_a_time_to_retry(server, slow_photo):
    def post(_: int) -> httpx2.Response:
        return httpx2.post(f"{server.url}/segment?format=png", files={"file": slow_photo}, timeout=120)

    with ThreadPoolExecutor(8) as clients:
        replies = list(clients.map(post, range(8)))
    statuses = {reply.status_code for reply in replies}
    assert statuses == {200, 503}
    for reply in replies:
        if reply.status_code == 503:
            assert 1 <= int(reply.headers["retry-after"]) <= 30
            assert reply.headers["content-type"] == "application/problem+json"
            assert reply.json()["limit"] == 2


def test_clients_that_leave_take_no_place_with_them(server, slow_photo, photo):
    head = f"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(slow_photo)}\r\n\r\n"
    for body in (slow_photo, slow_photo[:1000]):
        for _ in range(6):
            with server.connect() as connection:
                connection.sendall(head.encode() + body)
    wait_for(lambda: httpx2.post(f"{server.url}/segment", files={"file": photo}).status_code == 200)
    with ThreadPoolExecutor(2) as clients:  # both places are there
        replies = clients.map(
            lambda _: httpx2.post(f"{server.url}/segment", files={"file": photo}, timeout=60), range(2)
        )
        assert [reply.status_code for reply in replies] == [200, 200]


def test_work_is_dropped_where_its_client_leaves(models_directory, slow_photo, photo):
    """In a worker process, between two views: the next request gets that process, and not a new one."""
    head = f"Host: x\r\nContent-Type: image/png\r\nContent-Length: {len(slow_photo)}\r\n\r\n".encode()
    with start_server(models_directory, workers=1) as server:
        server.wait_until_ready()
        with server.connect() as connection:
            asked = "/pseudo-label?inference=class-conditional&scales=2,2,2,2,2,2&refine=pamr&tags=dog"
            connection.sendall(f"POST {asked} HTTP/1.1\r\n".encode() + head + slow_photo)
            wait_for(lambda: "tag2mask_jobs 1.0" in httpx2.get(f"{server.url}/metrics").text)
        wait_for(lambda: "tag2mask_jobs 0.0" in httpx2.get(f"{server.url}/metrics").text)
        assert httpx2.post(f"{server.url}/segment", files={"file": photo}).status_code == 200
        assert "tag2mask_workers_ended 0.0" in httpx2.get(f"{server.url}/metrics").text
        (line,) = [line for line in server.log.read_text().splitlines() if "/pseudo-label" in line]
    assert '"status": 499' in line
    assert '"reason": "client-left"' in line


def test_photo_of_the_largest_size(server):
    largest = to_file(halves(RED, BLACK, 5000, 5000))
    reply = httpx2.post(f"{server.url}/cam?class=dog&format=gray8", files={"file": largest}, timeout=120)
    assert reply.status_code == 200
    image = {"image": reply.headers["x-image-id"]}
    maps = httpx2.get(f"{server.url}/cam", params={"class": "all", "format": "npy", **image}, timeout=120)
    assert maps.status_code == 422


def test_sigterm_finishes_what_was_taken(models_directory, slow_photo):
    with start_server(models_directory, queue_size=1) as server, ThreadPoolExecutor(2) as clients:
        server.wait_until_ready()
        url = f"{server.url}/segment"
        replies = [clients.submit(httpx2.post, url, files={"file": slow_photo}, timeout=120) for _ in range(2)]
        wait_for(lambda: httpx2.get(f"{url}?image=x", timeout=60).status_code == 503)  # both are taken: no room is left
        server.process.send_signal(signal.SIGTERM)
        assert [reply.result().status_code for reply in replies] == [200, 200]
        assert server.process.wait(60) in (0, -signal.SIGTERM)
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{server.url}/healthz")
        log = server.log.read_text()
    assert "drs_colours/1 (cam, CPUExecutionProvider)" in log
    assert "Traceback" not in log


def test_cuda_where_there_is_none(models_directory):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("CUDA is here")
    with start_server(models_directory, device="cuda") as server:
        assert server.process.wait(120) == 1
        log = server.log.read_text()
    last = log.strip().splitlines()[-1]
    assert last.startswith("tag2mask: ")
    assert "TAG2MASK_DEVICE=cuda" in last
    assert "TAG2MASK_DEVICE=cpu" in last
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TAG2MASK_MODELS", "/nowhere", "there is no models directory '/nowhere'"),
        ("TAG2MASK_PORT", "many", "TAG2MASK_PORT=many"),
        ("TAG2MASK_DEVICE", "tpu", "TAG2MASK_DEVICE=tpu"),
    ],
)
def test_settings_that_cannot_work_end_in_one_line(monkeypatch, name, value, words):
    monkeypatch.setattr(sys, "argv", ["app"])
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        main()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_port_that_is_taken_ends_in_one_line(models_directory):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with start_server(models_directory, port=port) as server:
            assert server.process.wait(120) == 1
            log = server.log.read_text()
    assert (
        log.splitlines()[-1]
        == f"tag2mask: port {port} is taken on 127.0.0.1; set TAG2MASK_PORT to another one (make serve PORT=...)."
    )
    assert "Traceback" not in log
    assert "ready" not in log  # it said so before it loaded any model


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_models_come_and_break_while_the_service_runs(tmp_path, photo):
    write_cam_model(tmp_path, "a", 1)
    with start_server(tmp_path, models_poll_seconds=0) as server:
        server.wait_until_ready()
        with httpx2.Client(base_url=server.url) as client:

            def models(wanted: Callable[[dict], bool]) -> dict:
                """GET /models after a SIGHUP, as soon as it is as wanted."""
                server.process.send_signal(signal.SIGHUP)
                end = time.monotonic() + 120
                while not wanted(reply := client.get("/models").json()):
                    assert time.monotonic() < end, reply
                    time.sleep(0.05)
                return reply

            path = write_cam_model(tmp_path, "a", 2)
            models(lambda reply: [model["version"] for model in reply["models"]] == [1, 2])
            reply = client.post("/cam?class=dog&model=a", files={"file": photo})
            assert (reply.status_code, reply.headers["x-model"]) == (200, "a/2")
            path.write_bytes(b"broken")
            listed = models(lambda reply: bool(reply["refused"]))
            assert [model["version"] for model in listed["models"]] == [1, 2]
            assert (listed["refused"][0]["name"], listed["refused"][0]["version"]) == ("a", 2)
            assert "not a model" in listed["refused"][0]["reason"]
            assert client.post("/cam?class=dog&model=a/2", files={"file": photo}).status_code == 200


def test_the_models_directory_is_looked_at_by_itself(tmp_path):
    write_cam_model(tmp_path, "a", 1)
    with start_server(tmp_path, models_poll_seconds=0.2) as server:
        server.wait_until_ready()
        write_cam_model(tmp_path, "b", 1)
        end = time.monotonic() + 120
        while len(httpx2.get(f"{server.url}/models").json()["models"]) < 2:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_a_folder_labelled_by_a_server_is_as_labelled_here(server, models_directory, photo, slow_photo, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(photo)
    (photos / "b.png").write_bytes(slow_photo)
    (photos / "large.png").write_bytes(bytes(MAX_UPLOAD_BYTES + 1))
    settings, parameters = Settings(models=models_directory, device="cpu"), AnalyzeParameters(refine="pamr")
    (photos / "nothing.png").write_bytes(photo)
    tags = tmp_path / "labels.csv"
    tags.write_text("name,classes\na,dog\nb,cat dog\nlarge,dog\nnothing,\n")
    said, complete = label_folder(photos, tmp_path / "there", Remote(server.url, parameters), tags, workers=3)
    label_folder(photos, tmp_path / "here", InProcess(settings, parameters), tags)
    assert not complete
    assert said.startswith("3 of 4 photos labelled")
    # it answers before all is sent, and under load may have hung up before its answer is read
    assert re.search(r"large\.png: .*(the upload has|bytes are more than it takes)", said)
    for name in ("a", "b", "nothing"):
        there, here = (tmp_path / side / "SegmentationClass" / f"{name}.png" for side in ("there", "here"))
        assert there.read_bytes() == here.read_bytes()
    assert (tmp_path / "there" / "review.csv").read_bytes() == (tmp_path / "here" / "review.csv").read_bytes()


def test_a_server_labels_with_the_highest_version_of_the_model_that_is_named(tmp_path, photo):
    models, photos = tmp_path / "models", tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(photo)
    for version, classes in ((1, ("dog",)), (10, ("cat", "dog", "person"))):
        write_cam_model(models, "a", version, classes=classes, method="grad-cam")
    write_cam_model(models, "b", 1)  # the default: its method is preferred
    write_segmentation_model(models, classes=("cat", "dog", "person"))
    with start_server(models) as server:
        server.wait_until_ready()
        labeller = Remote(server.url, AnalyzeParameters(model="a"))
        assert labeller.classes == ("cat", "dog", "person")
        assert sorted(labeller.provenance["models"]) == ["a/10", "deeplab_colours/1"]
        said, complete = label_folder(photos, tmp_path / "out", labeller)
        assert complete, said
        with pytest.raises(DataError, match="serves no segmentation model x"):
            Remote(server.url, AnalyzeParameters(segmenter="x"))
    with Image.open(tmp_path / "out" / "SegmentationClass" / "a.png") as mask:
        assert set(np.unique(mask)) == {0, 2}  # dog is the second of three


def test_a_folder_is_labelled_within_the_servers_limits(models_directory, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for name, width in (("fits", 65), ("large", 66)):
        (photos / f"{name}.png").write_bytes(to_file(halves(RED, BLACK, 64, width)))
    (photos / "a.png").write_bytes(to_file(halves(RED, BLACK, 64, 65)) + bytes(40_000_000))
    with start_server(models_directory, max_image_pixels=64 * 65) as server:
        server.wait_until_ready()
        command = [sys.executable, "-m", "app", "label", photos, "--out", out, "--server", server.url]
        environment = {**os.environ, "TAG2MASK_MAX_IMAGE_PIXELS": "100"}  # of this process, which decides nothing
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.splitlines()[0].partition(";")[0]) == (1, f"1 of 3 photos labelled into {out}")
    refusal = "large.png: the server refuses it: the photo has 66 x 64 = 4224 pixels; the limit is 4160"
    assert refusal in done.stdout
    assert "a.png: " in done.stdout  # the connection was closed while it was sent: no reason to stop
    assert [path.name for path in (out / "JPEGImages").iterdir()] == ["fits.jpg"]


def test_a_server_that_is_killed_ends_the_labelling_in_one_line(models_directory, slow_photo, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for number in range(6):
        (photos / f"{number}.png").write_bytes(slow_photo)
    with start_server(models_directory) as server:
        server.wait_until_ready()
        command = [sys.executable, "-m", "app", "label", photos, "--out", out, "--server", server.url]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as labelling:
            wait_for(lambda: any(out.glob("records/*.json")))
            server.process.kill()
            said = labelling.communicate(timeout=120)[1]
    assert labelling.returncode == 1
    assert said.splitlines()[-1].startswith(f"tag2mask: {server.url} does not answer")
    assert "Traceback" not in said
    assert not (out / "refused.csv").exists()  # no photo is to blame
