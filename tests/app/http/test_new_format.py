"""A format from outside the tree: the blocks of `docs/extending.md`, one `Format` and one entry, and the whole service offers it."""

import io

import numpy as np
import pytest

from tests.extending import added


@pytest.fixture
def _share():
    """The share of a photo that is not background, as text."""
    with added("app.http.formats") as modules:
        assert len(modules) == 1
        yield


@pytest.mark.usefixtures("_share")
def test_a_format_is_one_file_and_one_entry(serve, settings, photo):
    client = serve(settings.model_copy(update={"worker_processes": False}))  # the entry is in this process alone
    for path in ("/segment", "/pseudo-label"):
        mask = np.load(io.BytesIO(client.post(f"{path}?format=npy", files={"file": photo}).content))
        expected = f"{np.count_nonzero(mask) / mask.size:.2f}"
        for asked in ({"params": {"format": "share"}}, {"headers": {"accept": "text/plain"}}):
            reply = client.post(path, files={"file": photo}, **asked)
            assert (reply.status_code, reply.headers["content-type"]) == (200, "text/plain; charset=utf-8"), reply.text
            assert reply.text == expected
    reply = client.post("/cam?class=dog&format=share", files={"file": photo})
    assert list(reply.json()) == ["dog"]
    body = client.post("/segment", files={"file": photo}).json()
    assert client.get(body["links"]["share"]).text == "0.50"  # the links of other replies lead to it
    refused = client.post("/cam?class=all&format=share", files={"file": photo}).json()  # it shows one map, not all
    assert "share" not in refused["known"]
    assert "share" in client.post("/segment?format=shrae", files={"file": photo}).json()["known"]


def test_without_the_entry_it_is_unknown(client, photo):
    assert client.post("/segment?format=share", files={"file": photo}).status_code == 422
