"""Behind a proxy with a path prefix, in Kubernetes, and asked from the pages of other sites."""

import re

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from app.http.behind import BehindProxies
from app.main import create_app
from app.runtime.settings import Settings, unknown_variables


@pytest.fixture
def behind(models_directory):
    """A client at 127.0.0.1 of a service with these settings."""
    clients = []

    def start(address: str = "127.0.0.1", **settings: object) -> TestClient:
        client = TestClient(
            create_app(Settings(models=models_directory, device="cpu", **settings)),
            client=(address, 5),
            follow_redirects=False,
        )
        client.__enter__()
        clients.append(client)
        while client.get("/readyz").status_code != 200:
            pass
        return client

    yield start
    for client in clients:
        client.__exit__(None, None, None)


PREFIX = {"X-Forwarded-Prefix": "/tag2mask", "X-Forwarded-Host": "example.test"}


@pytest.mark.parametrize("headers", [PREFIX, {}])
def test_everything_begins_with_the_prefix(behind, photo, headers):
    client = behind() if headers else behind(root_path="/tag2mask/")
    reply = client.post("/segment", files={"file": photo}, headers=headers)
    assert "Path=/tag2mask;" in reply.headers["set-cookie"]
    link = reply.json()["links"]["png"]
    assert link.startswith("/tag2mask/segment?")
    for path in (link, link.removeprefix("/tag2mask")):  # whether the proxy strips the prefix or not
        assert client.get(path, headers=headers).status_code == 200
    docs = client.get("/docs", headers=headers).text
    for address in re.findall(r"""(?:src|href)="([^"#]+)"|url: '([^']+)'""", docs):
        path = "".join(address)
        assert client.get(path if path.startswith("/") else f"/tag2mask/{path}", headers=headers).status_code == 200
    assert "/tag2mask/openapi.json" in docs
    assert client.get("/openapi.json", headers=headers).json()["servers"][0]["url"] == "/tag2mask"
    page = client.get("/", headers=headers).text
    assert not [path for path in re.findall(r'(?:src|href)="([^"#]+)"', page) if path.startswith("/")]
    moved = client.post("/segment/", headers=headers).headers["location"]
    assert moved == f"http://{'example.test' if headers else 'testserver'}/tag2mask/segment"
    assert client.get("/v2/none", headers=headers).json()["error"]
    assert client.delete("/segment", headers=headers).headers["allow"] == "POST, GET, HEAD"


@pytest.mark.parametrize(
    ("prefix", "believed"),
    [
        ("/a/b", True),
        ("/a/", True),
        ("//evil.test", False),
        ("/..", False),
        ("a", False),
        ("/a?b", False),
        ("/" + "a" * 300, False),
    ],
)
def test_a_prefix_is_a_path(behind, photo, prefix, believed):
    reply = behind().post("/segment", files={"file": photo}, headers={"X-Forwarded-Prefix": prefix})
    assert reply.json()["links"]["png"].startswith(prefix.rstrip("/") + "/segment" if believed else "/segment")


def test_only_trusted_proxies_are_believed(behind, photo):
    strange = behind("203.0.113.7").post("/segment", files={"file": photo}, headers=PREFIX)
    assert strange.json()["links"]["png"].startswith("/segment?")
    named = behind("10.1.2.3", trusted_proxies="127.0.0.1, 10.0.0.0/8")
    assert named.post("/segment", files={"file": photo}, headers=PREFIX).json()["links"]["png"].startswith("/tag2mask/")
    assert BehindProxies(None, "", ["*"]).trusts(("203.0.113.7", 1))
    assert BehindProxies(None, "", ["10.0.0.0/8"]).trusts(("::ffff:10.0.0.1", 1))
    assert not BehindProxies(None, "", ["10.0.0.0/8"]).trusts(None)


@pytest.mark.parametrize(
    ("path", "expected"), [("/http://x/healthz", "/healthz"), ("http://x:1", "/"), ("//healthz", "//healthz")]
)
def test_a_whole_address_in_the_request_line(path, expected):
    scope = {"type": "http", "path": path, "headers": [], "client": None}
    assert BehindProxies(None, "", []).rewritten(scope)["path"] == expected


def test_pages_of_other_sites_ask_where_a_setting_lets_them(behind, photo):
    asked = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    assert behind().options("/segment", headers=asked).status_code == 405
    client = behind(cors_origins="http://localhost:3000,https://example.org")
    allowed = client.options("/segment", headers=asked)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "http://localhost:3000")
    reply = client.post("/segment", files={"file": photo}, headers={"Origin": "https://example.org"})
    assert reply.headers["access-control-allow-origin"] == "https://example.org"
    assert "X-Image-Id" in reply.headers["access-control-expose-headers"]
    assert client.options("/segment", headers={**asked, "Origin": "https://evil.test"}).status_code == 400


@pytest.mark.parametrize(
    "wrong",
    [
        {"root_path": "tag2mask"},
        {"trusted_proxies": "proxy"},
        {"cors_origins": "example.org"},
        {"cors_origins": "https://a/b"},
    ],
)
def test_settings_that_cannot_be_meant(wrong):
    with pytest.raises(ValidationError, match="is expected|is no"):
        Settings(**wrong)


def test_what_kubernetes_sets_is_no_setting(monkeypatch):
    monkeypatch.setenv("TAG2MASK_PORT", "tcp://10.96.0.10:8000")
    assert Settings().port == 8000
    environment = {
        "TAG2MASK_PORT": "tcp://10.96.0.10:8000",
        "TAG2MASK_SERVICE_HOST": "10.96.0.10",
        "TAG2MASK_SERVICE_PORT": "8000",
        "TAG2MASK_SERVICE_PORT_HTTP": "8000",
        "TAG2MASK_PORT_8000_TCP": "tcp://10.96.0.10:8000",
        "TAG2MASK_PORT_8000_TCP_ADDR": "10.96.0.10",
        "TAG2MASK_MODELS": "models",
        "HOME": "/",
    }
    assert unknown_variables(environment) == []
    said = unknown_variables({"TAG2MASK_MODLES": "x", "TAG2MASK_ZZZ": "1"})
    assert said[0] == "TAG2MASK_MODLES is no setting, and does nothing. Did you mean TAG2MASK_MODELS?"
    assert "--help" in said[1]
