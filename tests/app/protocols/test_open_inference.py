"""The Open Inference Protocol: Triton's own client against a real server, and what is refused."""

import asyncio
import json
import time

import httpx2
import numpy as np
import pytest

from app.inference.errors import ReplyTooLargeError
from app.protocols import tensors
from app.runtime.model_store import ModelStore
from app.runtime.settings import Settings
from tests.app.colour_models import BLACK, RED, SIDE, halves, write_cam_model

triton = pytest.importorskip("tritonclient.http")
IMAGES = np.stack([halves(RED, BLACK), halves(BLACK, RED)])


@pytest.fixture
def client(server):
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}", network_timeout=30)
    yield client
    client.close()


def image_input(images: np.ndarray, binary: bool = True):
    tensor = triton.InferInput("image", images.shape, "UINT8")
    tensor.set_data_from_numpy(images, binary_data=binary)
    return tensor


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("drs_colours")
    assert not client.is_model_ready("drs_colours", "7")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data", "statistics", "model_repository"]
    metadata = client.get_model_metadata("cam_colours")
    assert metadata["versions"] == ["2", "10"]
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    outputs = {output["name"]: (output["datatype"], output["shape"]) for output in metadata["outputs"]}
    assert outputs == {"scores": ("FP32", [-1, 3]), "cam": ("FP32", [-1, 3, -1, -1])}


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tensors_are_those_of_the_engine(client, models_directory, binary_in, binary_out):
    engine = ModelStore(Settings(models=models_directory, device="cpu")).load().engines["cam_colours", 2]
    expected = engine.run(IMAGES)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("cam", "scores")]
    found = client.infer(
        "cam_colours", [image_input(IMAGES, binary_in)], model_version="2", outputs=wanted, request_id="mine"
    )
    for name in ("cam", "scores"):
        np.testing.assert_array_equal(found.as_numpy(name), expected[name])
    reply = found.get_response()
    assert (reply["model_name"], reply["model_version"], reply["id"]) == ("cam_colours", "2", "mine")


def test_all_outputs_of_the_default_version(client):
    found = client.infer("deeplab_colours", [image_input(IMAGES[:1])])
    assert found.as_numpy("mask").shape == (1, SIDE, SIDE)
    assert found.as_numpy("mask").dtype == np.uint8
    assert found.as_numpy("logits").dtype == np.float32


def test_statistics_count_what_was_answered_and_refused(serve, models_directory):
    service = serve(Settings(models=models_directory, device="cpu", workers=1))
    for _ in range(2):
        assert service.post("/v2/models/cam_colours/infer", json=request_of(IMAGES)).status_code == 200
    assert service.post("/v2/models/cam_colours/infer", json={}).status_code == 422
    (old, new) = service.get("/v2/models/cam_colours/stats").json()["model_stats"]
    assert (old["version"], old["execution_count"], old["last_inference"]) == ("2", 0, 0)
    assert (new["version"], new["execution_count"], new["inference_count"]) == ("10", 2, 4)
    shares = new["inference_stats"]
    assert {name: share["count"] for name, share in shares.items()} == {
        **dict.fromkeys(("success", "queue", "compute_input", "compute_infer", "compute_output"), 2),
        "fail": 1,
    }
    stages = sum(shares[name]["ns"] for name in ("queue", "compute_input", "compute_infer", "compute_output"))
    assert 0 < stages < shares["success"]["ns"]
    assert service.get("/v2/models/cam_colours/versions/2/stats").json()["model_stats"] == [old]
    assert len(service.get("/v2/models/stats").json()["model_stats"]) == 4
    assert service.get("/v2/models/none/stats").status_code == 404
    assert 'tag2mask_stage_seconds_count{stage="predict"} 2.0' in service.get("/metrics").text


def test_the_index_of_the_repository(client, serve, tmp_path):
    ready = [(entry["name"], entry["version"], entry["state"]) for entry in client.get_model_repository_index()]
    assert ready[:2] == [("cam_colours", "2", "READY"), ("cam_colours", "10", "READY")]
    assert "drs_colours" in {name for name, *_ in ready}
    assert client.get_inference_statistics("drs_colours")["model_stats"][0]["name"] == "drs_colours"
    write_cam_model(tmp_path, "a", 1)
    write_cam_model(tmp_path, "b", 1).write_bytes(b"broken")
    service = serve(Settings(models=tmp_path, device="cpu", workers=1))
    served, broken = service.post("/v2/repository/index").json()
    assert (served["state"], broken["name"], broken["state"]) == ("READY", "b", "UNAVAILABLE")
    assert "is not a model ONNX Runtime can load" in broken["reason"]
    assert service.post("/v2/repository/index", json={"ready": True}).json() == [served]
    assert service.post("/v2/repository/index", json={"ready": "perhaps"}).status_code == 422


def test_the_client_understands_refusals(client):
    with pytest.raises(triton.InferenceServerException, match="no model 'nothing' is served"):
        client.infer("nothing", [image_input(IMAGES)])
    with pytest.raises(triton.InferenceServerException, match="sides of at least 32"):
        client.infer("drs_colours", [image_input(IMAGES[:, :8])])
    with pytest.raises(triton.InferenceServerException, match="no output 'masks'; there are scores, cam"):
        client.infer("drs_colours", [image_input(IMAGES)], outputs=[triton.InferRequestedOutput("masks")])
    with pytest.raises(triton.InferenceServerException, match="compressed bodies are not read"):
        client.infer("drs_colours", [image_input(IMAGES)], request_compression_algorithm="gzip")
    outputs = [triton.InferRequestedOutput("scores", class_count=3)]
    with pytest.raises(triton.InferenceServerException, match="'classification' is not offered"):
        client.infer("drs_colours", [image_input(IMAGES)], outputs=outputs)
    with pytest.raises(triton.InferenceServerException, match="there is nothing at"):
        client.load_model("drs_colours")


def body(**changes: object) -> dict:
    tensor = {"name": "image", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": [0] * 32 * 32 * 3}
    return {"inputs": [tensor | changes]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the body"),
        (b"{", "the body"),
        (b"[]", "the body"),
        (b"{}", "inputs"),
        (b'{"inputs": []}', "inputs"),
        (json.dumps(body(name="x" * 1000)).encode(), "the input is 'image' of type UINT8"),
        (json.dumps(body(datatype="FP32")).encode(), "the input is 'image' of type UINT8"),
        (json.dumps(body(shape=[1, 32, 32, 4])).encode(), "is not (N, H, W, 3)"),
        (json.dumps(body(shape=[0, 32, 32, 3])).encode(), "is not (N, H, W, 3)"),
        (json.dumps(body(shape=[1, 10**6, 10**6, 3])).encode(), "the limit is"),
        (json.dumps(body(shape=[1, 10**30, 32, 3])).encode(), "shape"),
        (json.dumps(body(data=[0] * 5)).encode(), "`data` must hold 3072"),
        (json.dumps(body(data=[256] * 3072)).encode(), "`data` must hold"),
        (json.dumps(body(data=[0.5] * 3072)).encode(), "`data` must hold"),
        (json.dumps(body(data=["a"] * 3072)).encode(), "`data` must hold"),
        (json.dumps(body(data=[[1], [1, 2]])).encode(), "`data` must hold"),
        (json.dumps(body(data=[10**30] * 3072)).encode(), "`data` must hold"),
        (json.dumps(body(data=None)).encode(), "`data` must hold"),
        (json.dumps(body(data=None, parameters={"binary_data_size": 5})).encode(), "3072 bytes are expected"),
        (json.dumps(body(data=None, parameters={"binary_data_size": "a"})).encode(), "3072 bytes are expected"),
    ],
)
def test_what_is_refused(server, content, reason):
    reply = httpx2.post(f"{server.url}/v2/models/drs_colours/infer", content=content)
    assert reply.status_code == 422, reply.text
    assert set(reply.json()) == {"error"}
    assert reason in reply.json()["error"]
    assert len(reply.text) < 1000


@pytest.mark.parametrize("length", ["-1", "9999999", "abc", "\u0661".encode()])
def test_a_wrong_length_of_the_json(server, length):
    headers = {"Inference-Header-Content-Length": length}
    reply = httpx2.post(f"{server.url}/v2/models/drs_colours/infer", content=b"{}", headers=headers)
    assert (reply.status_code, "is not a length" in reply.text) == (422, True)


def test_json_is_read_and_written_off_the_event_loop(serve, models_directory, monkeypatch):
    """The JSON of 20 megabytes takes seconds, in which a loop that read it would answer nobody else."""
    on_loop = []

    def noting(work):
        def answer(*arguments):
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                on_loop.append(False)
            else:
                on_loop.append(True)
            return work(*arguments)

        return answer

    for name in ("read_request", "respond"):
        monkeypatch.setattr(tensors, name, noting(getattr(tensors, name)))
    service = serve(Settings(models=models_directory, device="cpu", worker_processes=False))
    reply = service.post("/v2/models/drs_colours/infer", json=request_of(IMAGES))
    assert reply.status_code == 200
    assert on_loop == [False, False]


def test_a_reply_has_a_limit(serve, models_directory):
    service = serve(Settings(models=models_directory, device="cpu", max_reply_bytes=100_000))
    wanted = [{"name": "mask"}]
    reply = service.post("/v2/models/deeplab_colours/infer", json={**request_of(IMAGES), "outputs": wanted})
    assert reply.status_code == 200
    reply = service.post("/v2/models/deeplab_colours/infer", json=request_of(IMAGES))
    assert reply.status_code == ReplyTooLargeError.status
    assert "the limit is 100000 (TAG2MASK_MAX_REPLY_BYTES). Ask for them as binary data" in reply.json()["error"]


def request_of(images: np.ndarray) -> dict:
    tensor = {"name": "image", "shape": list(images.shape), "datatype": "UINT8", "data": images.ravel().tolist()}
    return {"inputs": [tensor]}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"inputs":[{"name":"image","datatype":"UINT8","shape":[' + b"-1," * 1_200_000 + b"1]}]}", 422),
        (b'{"inputs":[{"name":"image","datatype":"UINT8","shape":[' + b"1," * 1_900_000 + b"1]}]}", 422),
        (json.dumps(body(data=[])).encode().replace(b'"data": []', b'"data": [' + b"[]," * 1_200_000 + b"[]]"), 422),
        (json.dumps(body(data=[])).encode().replace(b'"data": []', b'"data": [' + b"{}," * 1_200_000 + b"{}]"), 422),
        (b'{"inputs":[' + b"1," * 1_900_000 + b"1]}", 422),
        (b'{"inputs":[],"outputs":[' + b"1," * 1_900_000 + b"1]}", 422),
        (b'{"inputs":[],"parameters":{' + b",".join(b'"%d":[]' % number for number in range(300_000)) + b"}}", 422),
        (b"[" * 3_900_000, 422),
        (b'{"inputs":[{"name":"image","datatype":"UINT8","shape":[' + b"-1," * 1_500_000 + b"1]}]}", 413),
    ],
)
def test_lists_are_bounded_before_their_entries_are_looked_at(serve, models_directory, content, status):
    service = serve(Settings(models=models_directory, device="cpu"))
    start = time.process_time()
    reply = service.post("/v2/models/drs_colours/infer", content=content)
    assert (reply.status_code, len(reply.text) < 1000) == (status, True), reply.text[:1000]
    assert time.process_time() - start < 5


def test_images_of_a_request_have_a_limit_of_pixels(server):
    reply = httpx2.post(f"{server.url}/v2/models/drs_colours/infer", json=body(shape=[1, 2001, 1000, 3]))
    assert (reply.status_code, "the limit is 2000000 (TAG2MASK_MAX_INPUT_PIXELS)" in reply.text) == (422, True)


def test_nested_data_and_many_numbers(client, server):
    images = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), np.uint8)
    flat, nested = request_of(images), request_of(images)
    nested["inputs"][0]["data"] = images.tolist()
    replies = [
        httpx2.post(f"{server.url}/v2/models/deeplab_colours/infer", json=sent).json() for sent in (flat, nested)
    ]
    assert replies[0] == replies[1]
    logits, mask = (entry for entry in replies[0]["outputs"])
    expected = client.infer("deeplab_colours", [image_input(images)])
    np.testing.assert_array_equal(
        np.array(logits["data"], np.float32).reshape(logits["shape"]), expected.as_numpy("logits")
    )
    assert mask["data"] == expected.as_numpy("mask").ravel().tolist()
