"""The annotations of the configured project are fetched where "Start Training" is pressed, and by `python -m app annotations`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.__main__ import main
from app.protocols.label_studio import annotations
from app.runtime.settings import Settings
from tests.app.http.test_errors import check_problem
from tests.app.photo_host import TOKEN, FakeHost, settings_for

PATH = "/api/tasks?project=7&fields=all&page=1&page_size=50"
TASK = {"id": 1, "data": {"image": "/data/a.jpg"}, "annotations": [{"id": 3, "result": []}], "predictions": [{"id": 2}]}
PAGE = json.dumps({"total": 52, "tasks": [{**TASK, "overlap": 1}, {**TASK, "annotations": []}]}).encode()
START = {"action": "START_TRAINING", "project": {"id": 7, "title": "things"}}
Serve = Callable[[Settings], TestClient]


@pytest.fixture
def client(serve: Serve, host: FakeHost, models_directory: Path, tmp_path: Path) -> TestClient:
    return serve(settings_for(host, models_directory, label_studio_project=7, corrections=tmp_path))


def waiting(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.glob("incoming/*")]


def test_start_training_fetches_the_annotations(client: TestClient, host: FakeHost, tmp_path: Path) -> None:
    assert client.post("/label-studio/webhook", json={"action": "ANNOTATION_CREATED"}).json() == {"status": "ignored"}
    assert waiting(tmp_path) == []
    host.files[PATH] = PAGE
    host.files[PATH.replace("page=1", "page=2")] = (
        b'{"total": 52, "tasks": [%s]}' % json.dumps({**TASK, "id": 4}).encode()
    )
    assert client.post("/label-studio/webhook", json=START).json() == {"status": "queued"}
    (written,) = waiting(tmp_path)
    assert json.loads(written) == [TASK, {**TASK, "id": 4}]
    assert host.seen[-2] == (PATH, f"Token {TOKEN}")


def test_a_refusal_is_said_in_the_address(client: TestClient, host: FakeHost, tmp_path: Path) -> None:
    reply = client.post("/label-studio/webhook", json={**START, "project": {"id": 8}}, follow_redirects=False)
    assert reply.status_code == 307
    assert "corrections-come-from-project-7" in reply.headers["location"]
    check_problem(client.post("/label-studio/webhook", json={**START, "project": {"id": 8}}), 422, "not from 8")
    host.files[PATH] = (500, {})
    check_problem(client.post("/label-studio/webhook", json=START), 400, "answers 500")
    for odd in (b"no JSON", b"[]", b'{"total": 1, "tasks": [7]}', b'{"total": "x", "tasks": []}'):
        host.files[PATH] = odd
        check_problem(client.post("/label-studio/webhook", json=START), 400, "does not list the tasks")
    assert waiting(tmp_path) == []
    with annotations.FETCHING:
        check_problem(client.post("/label-studio/webhook", json=START), 503, "already")
    (tmp_path / "incoming").rmdir()
    (tmp_path / "incoming").write_text("a file where the folder should be")
    host.files[PATH] = PAGE
    check_problem(client.post("/label-studio/webhook", json=START), 507, "incoming")


def test_a_page_of_another_site_starts_nothing(client: TestClient, host: FakeHost, tmp_path: Path) -> None:
    host.files[PATH] = PAGE
    for kind in ("text/plain", ""):
        reply = client.post(
            "/label-studio/webhook", content=b'{"action": "START_TRAINING"}', headers={"Content-Type": kind}
        )
        check_problem(reply, 415, "application/json")
    assert waiting(tmp_path) == []


@pytest.mark.parametrize("missing", ["corrections", "label_studio_project"])
def test_what_is_switched_off_is_named(
    serve: Serve, host: FakeHost, models_directory: Path, tmp_path: Path, missing: str
) -> None:
    given = {"label_studio_project": 7, "corrections": tmp_path, missing: None}
    client = serve(settings_for(host, models_directory, **given))
    check_problem(client.post("/label-studio/webhook", json=START), 403, f"TAG2MASK_{missing.upper()}")


def test_the_command_fetches_them_too(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"URL": host.url, "TOKEN": TOKEN, "PROJECT": "7"}.items():
        monkeypatch.setenv(f"TAG2MASK_LABEL_STUDIO_{name}", value)
    out = tmp_path / "export.json"
    with pytest.raises(SystemExit, match="answers 404"):
        main(["annotations", "--out", str(out)])
    assert not out.exists()
    host.files[PATH] = PAGE.replace(b"52", b"2")
    main(["annotations", "--out", str(out)])
    assert json.loads(out.read_bytes()) == [TASK]
    assert capsys.readouterr().out == f"1 annotated tasks: {out}\n"
    host.files[PATH] = b'{"total": 0, "tasks": []}'
    main(["annotations", "--out", str(out)])
    assert json.loads(out.read_bytes()) == []
