"""A photo on the page becomes a task of the configured Label Studio, and the reply says where it is opened."""

from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.runtime.settings import Settings
from tests.app.photo_host import TOKEN, FakeHost, settings_for

PATH = "/api/projects/7/import?return_task_ids=true"


@pytest.fixture
def client(serve: Callable[[Settings], TestClient], host: FakeHost, models_directory: Path) -> TestClient:
    return serve(settings_for(host, models_directory, label_studio_project=7))


def ask(client: TestClient, photo: bytes, name: str = "a beach; é.png") -> dict:
    image = client.post("/segment", files={"file": (name, photo)}).json()["image"]["id"]
    return client.put("/label-studio/task", params={"image": image}).json()


def test_the_photo_is_sent_and_its_task_is_named(client: TestClient, host: FakeHost, photo: bytes) -> None:
    host.files[PATH] = b'{"task_count": 1, "task_ids": [31]}'
    assert ask(client, photo) == {"url": f"{host.url}/projects/7/data?task=31"}
    assert host.seen[-1] == (PATH, f"Token {TOKEN}")
    head, _, rest = host.posted[0].partition(b"\r\n\r\n")
    assert rest.startswith(photo)
    assert 'filename="a beach; é.png"'.encode() in head
    assert client.get("/static/limits.json").json()["label_studio"] is True


@pytest.mark.parametrize("answer", [(404, {}), (401, {}), b"no JSON", b'{"task_ids": []}', b'{"task_ids": ["x"]}'])
def test_a_label_studio_that_makes_none_is_said(
    client: TestClient, host: FakeHost, photo: bytes, answer: bytes | tuple[int, dict[str, str]]
) -> None:
    host.files[PATH] = answer
    said = ask(client, photo)
    assert said["status"] == 400
    assert "Label Studio" in said["detail"]


def test_without_a_project_or_a_photo_there_is_no_task(client: TestClient, backend: TestClient, photo: bytes) -> None:
    said = ask(backend, photo)
    assert said["status"] == 403
    assert "TAG2MASK_LABEL_STUDIO_PROJECT" in said["detail"]
    assert backend.get("/static/limits.json").json()["label_studio"] is False
    assert client.put("/label-studio/task").status_code == 404
