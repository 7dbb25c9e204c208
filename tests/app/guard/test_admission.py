"""What is refused before anything is done for it, and what every answer carries."""

import base64
import hashlib
import time

import pytest
from pydantic import SecretStr

from app.guard.admission import MAX_PARAMETERS
from app.guard.keys import Keys, is_public
from app.inference.errors import AddressError, KeyRequiredError, RateLimitError
from app.runtime.settings import Settings
from tests.app.http.test_errors import check_problem

KEY = "0f9e8d7c6b5a"
HASH = hashlib.sha256(KEY.encode()).hexdigest()


def test_a_query_of_many_names_is_refused_at_once(client):
    query = "&".join(f"{number:x}" for number in range(11_500))
    start = time.process_time()
    reply = client.get(f"/healthz?{query}")
    check_problem(reply, 422, "11500 parameters", f"at most {MAX_PARAMETERS}")
    assert time.process_time() - start < 0.5


def test_a_query_as_long_as_allowed_is_read_in_linear_time(client):
    query = "&".join(f"name{number}=1" for number in range(MAX_PARAMETERS))
    check_problem(client.get(f"/healthz?{query}"), 422, "unknown query parameter 'name0'")
    check_problem(client.get("/healthz?a=1&a=2"), 422, "'a' is given more than once")


@pytest.mark.parametrize("path", ["/healthz", "/models", "/nothing", "/docs", "/openapi.json", "/", "/segment", "/v2"])
def test_every_answer_keeps_browsers_to_what_it_is(client, path):
    reply = client.get(path)
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("photos.example.org", True),
        ("PHOTOS.example.org:8000", True),
        ("a.b.example.com", True),
        ("[::1]:8000", True),
        ("example.com", False),
        ("evil.org", False),
        ("photos.example.org.evil.org", False),
        ("", False),
    ],
)
def test_hosts_that_are_allowed(serve, models_directory, host, served):
    hosts = "photos.example.org, *.example.com, [::1]"
    client = serve(Settings(models=models_directory, device="cpu", allowed_hosts=hosts))
    reply = client.get("/models", headers={"Host": host})
    assert reply.status_code == (200 if served else 421)
    if not served:
        check_problem(reply, 421, "TAG2MASK_ALLOWED_HOSTS")
    assert client.get("/healthz", headers={"Host": host}).status_code == 200  # what watches over it asks by address


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{key}".encode()).decode()


def test_with_keys_nobody_else_is_served(serve, models_directory, photo):
    client = serve(Settings(models=models_directory, device="cpu", api_keys=SecretStr(f"alice:{HASH}")))
    for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": f"Bearer {HASH}"}, {"Authorization": "Basic %%%"}):
        for path in ("/", "/models", "/metrics", "/docs", "/nothing"):
            reply = client.get(path, headers=headers)
            check_problem(reply, 401, "X-API-Key")
            assert reply.headers["www-authenticate"].startswith("Basic")
        reply = client.get("/v2", headers=headers)
        assert (reply.status_code, set(reply.json())) == (401, {"error"})
    for headers in ({"X-API-Key": KEY}, {"Authorization": f"bearer {KEY}"}, {"Authorization": basic(KEY)}):
        assert client.post("/segment", files={"file": photo}, headers=headers).status_code == 200
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200


def test_keys_in_a_file(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# of the project\nalice {HASH}\n\n{'0' * 64}\n")
    keys = Keys.of(Settings(api_keys_file=file))
    assert keys.admit({b"x-api-key": KEY.encode()}) == "alice"
    with pytest.raises(KeyRequiredError, match="not known"):
        keys.admit({b"x-api-key": b"other"})


def test_a_key_in_the_place_of_its_hash_is_refused_and_not_repeated():
    with pytest.raises(AddressError, match="Write the hash of the key") as caught:
        Keys.of(Settings(api_keys=SecretStr(KEY)))
    assert KEY not in str(caught.value)


def test_a_key_has_a_rate_of_its_own():
    now = [0.0]
    keys = Keys({"a": bytes.fromhex(HASH), "b": hashlib.sha256(b"b").digest()}, 60, clock=lambda: now[0])
    for _ in range(60):
        keys.admit({b"x-api-key": KEY.encode()})
    with pytest.raises(RateLimitError) as caught:
        keys.admit({b"x-api-key": KEY.encode()})
    assert (caught.value.status, caught.value.retry_after_seconds) == (429, 1)
    assert keys.admit({b"x-api-key": b"b"}) == "b"
    now[0] += 1
    assert keys.admit({b"x-api-key": KEY.encode()}) == "a"


@pytest.mark.parametrize(
    ("host", "public"),
    [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("::", True), ("box", True)],
)
def test_addresses_that_others_reach(host, public):
    assert is_public(host) == public
