"""Where photos of Label Studio's tasks are fetched from, and where not, by a real HTTP server."""

import base64
import logging
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx2
import pytest

from app.inference.errors import ParameterError
from app.protocols.label_studio.host import Host
from app.runtime.settings import Settings
from tests.app.colour_models import GREEN, RED, halves, to_file
from tests.app.http.test_errors import check_problem
from tests.app.photo_host import (
    ACCESS_TOKEN,
    BRUSH,
    MAX_UPLOAD_BYTES,
    PERSONAL_TOKEN,
    TOKEN,
    FakeHost,
    predict,
    run_host,
    settings_for,
)
from tests.app.server import start_server


@pytest.fixture
def other_host() -> Iterator[FakeHost]:
    with run_host() as host:
        yield host


def test_tokens_go_to_the_host_and_nowhere_else(serve, host, models_directory, caplog):
    host.files["/data/upload/1/a.png"] = to_file(halves(RED, GREEN))
    task = {"image": "/data/upload/1/a.png"}
    with caplog.at_level(logging.DEBUG):
        for token, header in ((TOKEN, f"Token {TOKEN}"), (PERSONAL_TOKEN, f"Bearer {ACCESS_TOKEN}")):
            client = serve(settings_for(host, models_directory, token))
            good, bad = predict(client, task, {"image": "/data/upload/1/none.png"})
            assert good["result"]
            assert not bad["result"]
            assert host.seen[-1][1] == header
            assert token not in repr(settings_for(host, models_directory, token))
        for token in ("wrong-secret", "wrong\nsecret", "wröng-secret", "wrong.secret.jwt"):
            client = serve(settings_for(host, models_directory, token))
            reply = client.post("/label-studio/predict", json={"tasks": [{"data": task}], "label_config": BRUSH})
            assert "TAG2MASK_LABEL_STUDIO_TOKEN" in reply.text
            assert "secret" not in reply.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("missing", ["label_studio_url", "label_studio_token"])
def test_without_the_setting_the_problem_names_it(serve, host, models_directory, missing):
    client = serve(settings_for(host, models_directory).model_copy(update={missing: None}))
    reply = client.post("/label-studio/predict", json={"tasks": [], "label_config": BRUSH})
    check_problem(reply, 403, "TAG2MASK_LABEL_STUDIO_URL", "TAG2MASK_LABEL_STUDIO_TOKEN")


@pytest.mark.parametrize(
    "image",
    [
        "{other}/a.png",
        "{other_bare}/a.png",  # //host/path
        "{url}@{other_name}/a.png",
        "http://user@{name}/a.png",
        "https://{name}/a.png",
        "ftp://{name}/a.png",
        "file:///etc/hostname",
        "http://[::1/a.png",
        "http://127.0.0.1:99999/a.png",
    ],
)
def test_other_hosts_are_refused_and_not_asked(backend, host, other_host, image, caplog):
    names = {"name": host.url.removeprefix("http://"), "other_name": other_host.url.removeprefix("http://")}
    image = image.format(url=host.url, other=other_host.url, other_bare=other_host.url.removeprefix("http:"), **names)
    prediction = predict(backend, {"image": image})[0]
    assert prediction["result"] == []
    assert "the only host" in prediction["problem"]["detail"]
    assert "the only host" in caplog.text
    assert not [path for path, _ in host.seen if "token" not in path]
    assert not other_host.seen


def test_redirects_stay_on_the_host(backend, host, other_host):
    photo = to_file(halves(RED, GREEN))
    other_host.files["/data/a.png"] = host.files["/data/real.png"] = photo
    host.files["/data/moved.png"] = (302, {"Location": "/data/real.png"})
    host.files["/data/away.png"] = (302, {"Location": f"{other_host.url}/a.png"})
    host.files["/data/sign-in.png"] = (302, {"Location": "/user/login/?next=/data/sign-in.png"})
    host.files["/data/round.png"] = (302, {"Location": "/data/round.png"})
    tasks = [{"image": f"/data/{name}.png"} for name in ("moved", "away", "sign-in", "round")]
    moved, away, sign_in, round_ = predict(backend, *tasks)
    assert len(moved["result"]) == 2
    assert "not followed" in away["problem"]["detail"]
    assert "sign in" in sign_in["problem"]["detail"]
    assert round_["result"] == []
    assert not other_host.seen


def test_redirects_to_storage_are_followed_where_it_is_named_and_without_the_token(host):
    photo = to_file(halves(RED, GREEN))
    with run_host(asks_for_token=False) as storage:
        storage.files["/bucket/a.png?signature=x"] = photo
        away = {"Location": f"{storage.url}/bucket/a.png?signature=x"}
        host.files["/tasks/1/resolve/?fileuri=czM6Ly9iL2EucG5n"] = (303, away)
        known = Host(host.url, TOKEN, MAX_UPLOAD_BYTES, frozenset({"127.0.0.1"})).signed_in()
        assert known.fetch("s3://b/a.png", 1) == photo
        assert storage.seen == [("/bucket/a.png?signature=x", "")]
        with pytest.raises(
            ParameterError, match="'127.0.0.1', which is not followed. Name it in TAG2MASK_LABEL_STUDIO_STORAGE"
        ):
            replace(known, storage=frozenset()).fetch("s3://b/a.png", 1)
        assert len(storage.seen) == 1


def test_one_photo_that_cannot_be_had_does_not_fail_the_batch(backend, host, caplog):
    host.files = {
        "/data/good.png": to_file(halves(RED, GREEN)),
        "/data/large.png": bytes(MAX_UPLOAD_BYTES + 1),
        "/data/text.png": b"no photo",
        "/data/cut.png": to_file(halves(RED, GREEN))[:60],
        "/data/short.png": (200, {"Content-Length": "1000", "Connection": "close"}),
    }
    images = [
        "/data/good.png",
        "/data/large.png",
        "/data/text.png",
        "/data/cut.png",
        "/data/short.png",
        "/data/none.png",
        "",
        None,
        7,
    ]
    good, *bad = predict(backend, *[{"image": image} for image in images], {})
    assert len(good["result"]) == 2
    assert len(bad) == 9
    for prediction in bad:
        assert (prediction["result"], prediction["score"]) == ([], 0)
        assert prediction["model_version"] != good["model_version"]  # so that Label Studio asks again
        assert prediction["problem"]["detail"] in caplog.text
    assert str(MAX_UPLOAD_BYTES) in bad[0]["problem"]["detail"]


def test_work_ends_when_label_studio_leaves(host, models_directory):
    host.files["/data/a.png"] = to_file(halves(RED, GREEN, 3000, 3000))
    body = {"tasks": [{"data": {"image": "/data/a.png"}}] * 500, "label_config": BRUSH}
    given = {"label_studio_url": host.url, "label_studio_token": TOKEN}
    with start_server(models_directory, **given) as server:
        server.wait_until_ready()
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(f"{server.url}/label-studio/predict", json=body, timeout=1)
        time.sleep(1)
        asked = len(host.seen)
        time.sleep(1)
        assert len(host.seen) == asked < 100
        server.process.terminate()
        server.process.wait(60)
        log = server.log.read_text()
    assert '"status": 499' in log
    assert "Traceback" not in log
    assert TOKEN not in log


def test_host_that_is_not_there(serve, models_directory):
    with run_host() as gone:
        settings = settings_for(gone, models_directory)
    assert "cannot be reached" in predict(serve(settings), {"image": "/data/a.png"})[0]["problem"]["detail"]


@pytest.mark.parametrize(
    ("url", "image", "address"),
    [
        ("http://ls:8080", "/data/upload/1/a.png", "http://ls:8080/data/upload/1/a.png"),
        ("http://ls:8080/", "data/upload/1/a b.png", "http://ls:8080/data/upload/1/a%20b.png"),
        ("http://ls", "http://LS:80/data/ä.png#part", "http://ls/data/%C3%A4.png"),
        ("http://ls", "/tasks/7/resolve/?fileuri=czM6", "http://ls/tasks/7/resolve/?fileuri=czM6"),
        ("http://ls", "/storage-data/uploaded/?filepath=a", "http://ls/storage-data/uploaded/?filepath=a"),
        ("https://ls/studio", "/data/local-files/?d=x/y.png", "https://ls/studio/data/local-files/?d=x/y.png"),
        ("https://ls/studio/", "https://ls:443/studio/data/a%20b.png", "https://ls/studio/data/a%20b.png"),
    ],
)
def test_addresses(url, image, address):
    assert Host(url.rstrip("/"), TOKEN, 1).address(image) == address


@pytest.mark.parametrize("way", ["resolve", "presign"])
def test_cloud_storage_is_had_through_label_studio(backend, host, way):
    for scheme in ("s3", "gs", "azure-blob"):
        address = f"{scheme}://bucket/my photo.png"
        named = base64.urlsafe_b64encode(address.encode()).decode()
        host.files[f"/tasks/0/{way}/?fileuri={named}"] = to_file(halves(RED, GREEN))
        assert len(predict(backend, {"image": address})[0]["result"]) == 2


def test_cloud_storage_that_sends_on_is_said(backend, host, other_host):
    named = base64.urlsafe_b64encode(b"s3://bucket/a.png").decode()
    host.files[f"/tasks/0/resolve/?fileuri={named}"] = (303, {"Location": f"{other_host.url}/a.png?signed"})
    said = predict(backend, {"image": "s3://bucket/a.png"})[0]["problem"]["detail"]
    assert "TAG2MASK_LABEL_STUDIO_STORAGE" in said
    assert not other_host.seen


def test_the_names_of_this_machine_are_one_host(backend, host):
    host.files["/data/a.png"] = to_file(halves(RED, GREEN))
    found = predict(backend, {"image": host.url.replace("127.0.0.1", "localhost") + "/data/a.png"})[0]
    assert len(found["result"]) == 2


def test_a_photo_inside_the_task(backend):
    inside = base64.b64encode(to_file(halves(RED, GREEN))).decode()
    found = predict(backend, {"image": f"data:image/png;base64,{inside}"}, {"image": "data:image/png;base64,A"})
    assert len(found[0]["result"]) == 2
    assert "no base64" in found[1]["problem"]["detail"]


def test_a_token_is_checked_when_a_project_is_connected(serve, host, models_directory, caplog):
    body = {"schema": BRUSH}
    for token, word in ((TOKEN, None), ("wrong", "is not valid there"), ("a.b.c", "cannot be exchanged")):
        client = serve(settings_for(host, models_directory, token))
        reply = client.post("/label-studio/setup", json=body)
        assert reply.status_code == (503 if word else 200)
        assert token not in str(reply.url)
        if word:  # Label Studio's page shows the address of what was refused, and not its body.
            assert word in reply.json()["detail"]
            assert word.replace(" ", "-") in str(reply.url)
            assert word in caplog.text
    client = serve(Settings(models=models_directory, device="cpu"))
    assert "TAG2MASK_LABEL_STUDIO_URL" in client.post("/label-studio/setup", json=body).json()["detail"]
