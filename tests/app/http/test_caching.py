"""Entity tags, request ids and timings of the replies."""

import re

import pytest

from app.http.reply.caching import matches

TIMING = re.compile(r"queue;dur=[\d.]+, decode;dur=[\d.]+, predict;dur=[\d.]+(, encode;dur=[\d.]+)?")


@pytest.mark.parametrize("path", ["/segment?format=png", "/segment", "/cam?class=dog", "/pseudo-label?tags=dog"])
def test_a_result_the_client_has_is_not_sent_again(client, photo, path):
    image = client.post("/segment", files={"file": photo}).json()["image"]["id"]
    client.cookies.clear()
    address = f"{path}{'&' if '?' in path else '?'}image={image}"
    first = client.get(address)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    assert tag.startswith("W/") == (path == "/segment")  # its timings differ every time
    for sent in (tag, f'"other", {tag}', "*", tag.removeprefix("W/")):
        again = client.get(address, headers={"If-None-Match": sent})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
    assert client.get(address, headers={"If-None-Match": '"other"'}).content == first.content or path == "/segment"
    assert client.head(address, headers={"If-None-Match": tag}).status_code == 304


def test_the_tag_tells_results_apart(client, photo):
    image = client.post("/segment", files={"file": photo}).json()["image"]["id"]
    addresses = [
        "/cam?class=dog", "/cam?class=cat", "/cam?class=dog&flip=true", "/cam?class=dog&format=gray16",
        "/cam?class=dog&model=cam_colours", "/pseudo-label?tags=dog", "/segment?format=png",
    ]  # fmt: skip
    tags = [client.get(f"{address}&image={image}").headers["etag"] for address in addresses]
    assert len(set(tags)) == len(tags)
    assert client.get(f"/cam?class=dog&image={image}").headers["etag"] == tags[0]


def test_a_post_is_answered_whatever_the_client_has(client, photo):
    tag = client.post("/cam?class=dog", files={"file": photo}).headers["etag"]
    assert client.post("/cam?class=dog", files={"file": photo}, headers={"If-None-Match": tag}).status_code == 200


def test_what_the_header_may_hold():
    assert matches('"a"', '"b", W/"a"')
    assert matches('W/"a"', '"a"')
    assert not matches('"a"', "")
    assert not matches('"a"', '"ab"')


def test_stages_are_timed_in_a_header(client, photo):
    reply = client.post("/segment?format=png", files={"file": photo})
    assert TIMING.fullmatch(reply.headers["server-timing"])


def test_every_answer_has_an_id(client, photo):
    ids = {client.get("/healthz").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert client.get("/nothing", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert client.post("/segment", headers={"X-Request-Id": "a b"}).headers["x-request-id"] != "a b"
