"""Whatever a client sends, it gets a 4xx in the one error shape that says what, the limit and the remedy."""

import hashlib
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.inference.errors import ServiceError, Tag2MaskError
from app.runtime.settings import Settings
from tests.app.colour_models import BLACK, RED, halves, to_file, write_cam_model, write_segmentation_model

POSTS = ["/segment", "/cam?class=dog", "/pseudo-label"]


def check_problem(reply, status: int, *needles: str) -> dict:
    """The body of a problem reply, checked for its shape and for words its detail must hold."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    body = reply.json()
    assert body["status"] == status
    assert body["type"].startswith("urn:tag2mask:")
    assert body["title"]
    for needle in needles:
        assert needle in body["detail"], (needle, body["detail"])
    return body


def png_header(width: int, height: int) -> bytes:
    """A PNG file of a few bytes that claims any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def webp_header(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size


JPEG = to_file(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8), "JPEG")
WEBP = to_file(halves(RED, BLACK), "WEBP")
PNG = to_file(halves(RED, BLACK))


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        pytest.param(b"", 400, ("0 bytes", "JPEG, PNG, WebP, TIFF"), id="empty"),
        pytest.param(b"hello, not a picture", 415, ("JPEG, PNG, WebP, TIFF",), id="text"),
        pytest.param(to_file(halves(RED, BLACK), "GIF"), 415, ("GIF", "JPEG, PNG, WebP, TIFF"), id="gif"),
        pytest.param(to_file(halves(RED, BLACK), "BMP")[:500], 422, ("BMP", "whole file"), id="half-bmp"),
        pytest.param(to_file(halves(RED, BLACK), "TIFF")[:500], 422, ("TIFF", "whole file"), id="half-tiff"),
        pytest.param(b"BMW is a maker of cars, and no picture", 415, ("not a picture",), id="text-that-begins-as-bmp"),
        pytest.param(b"\0\0\0\x18ftypavif" + b"\0" * 40, 415, ("AVIF",), id="avif"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, ("SVG",), id="svg"),
        pytest.param(JPEG[: len(JPEG) // 2], 422, ("JPEG", "truncated", "whole file"), id="half-jpeg"),
        pytest.param(JPEG[:4], 422, ("JPEG", "whole file"), id="start-of-jpeg"),
        pytest.param(PNG[: len(PNG) // 2], 422, ("PNG", "whole file"), id="half-png"),
        pytest.param(WEBP[: len(WEBP) // 2], 422, ("WebP", "whole file"), id="half-webp"),
        pytest.param(b"RIFF\0\0\0\0WEBP", 422, ("WebP", "whole file"), id="start-of-webp"),
        pytest.param(b"RIFF\x20\0\0\0WEBPJUNK" + b"\0" * 20, 422, ("WebP",), id="unknown-webp"),
        pytest.param(png_header(60_000, 60_000), 413, ("60000 x 60000", "25000000", "smaller"), id="png-bomb"),
        pytest.param(png_header(2**31 - 1, 2**31 - 1), 413, ("65500",), id="largest-png"),
        pytest.param(png_header(1, 70_000), 413, ("1 x 70000", "65500"), id="too-long-a-side"),
        pytest.param(png_header(0, 10), 422, ("PNG",), id="png-without-width"),
        pytest.param(png_header(5_001, 5_000), 413, ("25005000",), id="just-too-many-pixels"),
        pytest.param(webp_header(16_000, 16_000), 413, ("16000 x 16000", "25000000"), id="webp-bomb"),
    ],
)
def test_bodies_that_are_no_photo(client, path, data, status, words):
    check_problem(client.post(path, files={"file": ("photo.jpg", data)}), status, *words)
    check_problem(client.post(path, content=data, headers={"Content-Type": "image/jpeg"}), status, *words)


def test_photo_of_exactly_the_limit_is_accepted(serve, models_directory):
    client = serve(Settings(models=models_directory, device="cpu", max_image_pixels=64 * 64))
    assert client.post("/segment", files={"file": PNG}).status_code == 200
    reply = client.post("/segment", files={"file": to_file(halves(RED, BLACK, 64, 65))})
    body = check_problem(reply, 413, "4160", "4096")
    assert (body["limit"], body["width"], body["height"]) == (4096, 65, 64)


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "video/mp4"])
def test_other_content_types(client, photo, content_type):
    reply = client.post("/segment", content=photo, headers={"Content-Type": content_type})
    check_problem(reply, 415, content_type, "multipart field 'file'")


def test_no_body_at_all(client):
    check_problem(client.post("/segment"), 400, "no body")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ({"files": {"image": PNG}}, 422, ("'image'", "'file'")),
        ({"files": {"file": PNG}, "data": {"class": "dog"}}, 422, ("'class'", "query")),
        ({"data": {"file": "text"}, "files": {"x": b""}}, 422, ("'x'",)),
        ({"content": b"--b\r\n\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, ()),
        ({"content": b"junk", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, ()),
        ({"content": b"junk", "headers": {"Content-Type": "multipart/form-data"}}, 400, ("boundary",)),
        ({"content": b"", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, ("no 'file' field",)),
    ],
)
def test_forms_that_hold_no_photo(client, arguments, status, words):
    check_problem(client.post("/segment", **arguments), status, *words)


def test_form_field_that_is_no_file(client):
    body = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc\r\n--b--\r\n'
    reply = client.post("/segment", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    check_problem(reply, 400, "is text, not a file")


def test_too_many_bytes(client, settings):
    data = b"\xff\xd8\xff" + bytes(settings.max_upload_bytes)
    for arguments in (
        {"files": {"file": data}},
        {"content": data, "headers": {"Content-Type": "image/jpeg"}},
        {
            "content": (data[i : i + 65536] for i in range(0, len(data), 65536)),
            "headers": {"Content-Type": "image/jpeg"},
        },
    ):
        body = check_problem(client.post("/segment", **arguments), 413, str(settings.max_upload_bytes), "smaller")
        assert body["limit"] == settings.max_upload_bytes


@pytest.mark.parametrize("given", ["dgo", "dogs"])
def test_unknown_class_names_the_nearest(client, photo, given):
    body = check_problem(client.post("/cam", params={"class": given}, files={"file": photo}), 422, given, "'dog'")
    assert body["nearest"] == "dog"
    assert len(body["known"]) == 20


@pytest.mark.parametrize("given", ["", "zzzz", "\u2603", "a" * 99])
def test_unknown_class_without_anything_near(client, photo, given):
    body = check_problem(client.post("/cam", params={"class": given}, files={"file": photo}), 422, "aeroplane")
    assert body["nearest"] is None


def test_unknown_tag(client, photo):
    body = check_problem(client.post("/pseudo-label?tags=dog,perso", files={"file": photo}), 422, "'person'")
    assert body["parameter"] == "tags"
    check_problem(client.post("/pseudo-label?tags=,", files={"file": photo}), 422, "tags")


def test_missing_class(client, photo):
    check_problem(client.post("/cam", files={"file": photo}), 422, "'class'", "GET /classes")


@pytest.mark.parametrize("path", ["/segment", "/cam", "/pseudo-label"])
def test_unknown_query_parameter_lists_the_known(client, photo, path):
    body = check_problem(client.post(f"{path}?fromat=png", files={"file": photo}), 422, "'fromat'", "'format'")
    assert body["nearest" if "nearest" in body else "parameter"]
    assert "format" in body["known"]
    assert "image" not in body["known"]
    body = check_problem(client.get(f"{path}?imgae=1"), 422, "'image'")
    assert "image" in body["known"]


@pytest.mark.parametrize("path", ["/models", "/healthz", "/readyz", "/classes"])
def test_unknown_query_parameter_elsewhere(client, path):
    check_problem(client.get(f"{path}?x=1"), 422, "'x'")


def test_repeated_query_parameter(client, photo):
    check_problem(client.post("/cam?class=dog&class=cat", files={"file": photo}), 422, "'class'", "more than once")


@pytest.mark.parametrize("name", ["background_threshold", "foreground_threshold", "presence_threshold"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-0.1", "1.1", "1e999", "9" * 400, "abc", "", "0x1", "0,5"])
def test_malformed_thresholds(client, photo, name, value):
    body = check_problem(client.post("/pseudo-label", params={name: value}, files={"file": photo}), 422, name)
    assert body["parameter"] == name


@pytest.mark.parametrize(
    "value", ["0", "-1", "nan", "inf", "9", "1,1,1,1,1,1,1", "a", ",", "1;2", "1e99", "\u0661\u0662"]
)
def test_malformed_scales(client, photo, value):
    check_problem(client.post("/pseudo-label", params={"scales": value}, files={"file": photo}), 422, "scales")


@pytest.mark.parametrize(
    "query",
    [
        "flip=perhaps",
        "refine=crf",
        "format=jpeg",
        "size=half",
        "regions=boxes",
        "fuse=drs_colours",
        "fuse=,",
        "format=",
        "tags=" + "a" * 5000,
        "model=",
    ],
)
def test_other_malformed_parameters(client, photo, query):
    reply = client.post(f"/pseudo-label?{query}", files={"file": photo})
    assert reply.status_code in (404, 422)
    check_problem(reply, reply.status_code)


def test_unknown_format_lists_the_known(client, photo):
    body = check_problem(client.post("/segment?format=pgn", files={"file": photo}), 422, "'png'", "overlay")
    assert body["known"] == ["json", "png", "overlay", "gray8", "gray16", "npy", "npz", "coco", "hf"]


def test_not_acceptable_lists_what_is(client, photo):
    reply = client.post("/segment", files={"file": photo}, headers={"Accept": "text/html, image/gif;q=0.5"})
    body = check_problem(reply, 406, "application/json")
    assert {"format": "png", "type": "image/png"} in body["available"]


@pytest.mark.parametrize("path", ["/segment", "/cam?class=dog", "/pseudo-label"])
def test_get_without_a_photo_says_how_to_name_one(client, path):
    check_problem(client.get(path), 400, "image=ID", "cookie", "POST")


@pytest.mark.parametrize("image_id", ["0" * 64, "x", "../../etc/passwd", "\u2603", "%00"])
def test_unknown_image(client, image_id):
    check_problem(client.get("/cam", params={"class": "dog", "image": image_id}), 404, "POST")


def test_unknown_image_in_the_cookie(client):
    client.cookies.set("tag2mask_image", "0" * 64)
    check_problem(client.get("/cam?class=dog"), 404, "POST")


def test_photo_that_was_refused_is_not_kept(client):
    client.post("/segment", files={"file": JPEG[:1000]})
    image_id = hashlib.sha256(JPEG[:1000]).hexdigest()
    check_problem(client.get("/segment", params={"image": image_id}), 404)


def test_unknown_model_names_the_nearest(client, photo):
    body = check_problem(client.post("/cam?class=dog&model=drs_colour", files={"file": photo}), 404, "'drs_colours'")
    assert body["known"] == ["cam_colours", "deeplab_colours", "drs_colours"]
    body = check_problem(
        client.post("/cam?class=dog&model=cam_colours/3", files={"file": photo}), 404, "cam_colours/2, cam_colours/10"
    )
    assert body["known"] == ["cam_colours/2", "cam_colours/10"]
    for wrong in ("cam_colours/x", "cam_colours/02", "cam_colours/-1", "a/b/c"):
        check_problem(client.post(f"/cam?class=dog&model={wrong}", files={"file": photo}), 404)


def test_model_of_the_wrong_task(client, photo):
    body = check_problem(
        client.post("/segment?model=drs_colours", files={"file": photo}), 422, "cam model", "segmentation"
    )
    assert body["known"] == ["deeplab_colours"]
    check_problem(client.post("/cam?class=dog&model=deeplab_colours", files={"file": photo}), 422, "drs_colours")


@pytest.mark.parametrize("write", [write_cam_model, write_segmentation_model])
def test_no_model_of_the_task(serve, tmp_path, photo, write):
    write(tmp_path)
    client = serve(Settings(models=tmp_path, device="cpu"))
    cam, segment = (client.post(path, files={"file": photo}) for path in ("/cam?class=dog&format=json", "/segment"))
    missing, served = (segment, cam) if write is write_cam_model else (cam, segment)
    check_problem(missing, 404, "none is served", "GET /models")
    assert served.status_code == 200
    assert client.get("/classes").json()["classes"][11]["class"] == "dog"
    if write is write_cam_model:
        links = client.post("/pseudo-label?format=json", files={"file": photo}).json()["links"]
        assert "segment" not in links
    else:
        assert not {"cam", "pseudo_label"} & set(served.json()["links"])


def test_all_maps_of_a_large_photo_are_refused(serve, models_directory):
    client = serve(Settings(models=models_directory, device="cpu", max_reply_bytes=4 * 20 * 64 * 64))
    assert client.post("/cam?class=all&format=npy", files={"file": PNG}).status_code == 200
    large = to_file(halves(RED, BLACK, 64, 66))
    body = check_problem(client.post("/cam?class=all&format=npy", files={"file": large}), 422, "327680", "one class")
    assert body["limit"] == 327680
    assert client.post("/cam?class=dog&format=npy", files={"file": large}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/nothing", 404, ("/nothing", "/docs")),
        ("POST", "/models", 405, ("POST", "GET")),
        ("DELETE", "/cam", 405, ("POST, GET",)),
        ("PUT", "/segment", 405, ()),
        ("OPTIONS", "/segment", 405, ()),
        ("PATCH", "/healthz", 405, ()),
    ],
)
def test_unknown_paths_and_methods(client, method, path, status, words):
    reply = client.request(method, path)
    body = check_problem(reply, status)
    if status == 405:
        assert set(reply.headers["allow"].split(", ")) >= {"GET"}
        assert reply.headers["allow"] in body["detail"]
    if path == "/cam":
        assert set(reply.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


def test_head_answers_like_get_without_a_body(client):
    for path in ("/healthz", "/readyz", "/models", "/classes"):
        reply = client.head(path)
        assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    for path in ("/docs", "/docs/oauth2-redirect"):
        reply, whole = client.head(path), client.get(path)
        assert (reply.status_code, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert reply.headers["content-length"] == str(len(whole.content))
    assert client.head("/cam?class=dog").status_code == 400
    assert client.head("/nothing").status_code == 404


def test_failure_of_the_service_is_a_problem_without_inner_details(serve, settings, photo, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("app.inference.analysis.segment", fail)
    app = serve(settings.model_copy(update={"worker_processes": False})).app
    quiet = TestClient(app, raise_server_exceptions=False)
    body = check_problem(quiet.post("/segment", files={"file": photo}), 500)
    assert "secret" not in str(body)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_random_bytes_and_damaged_files_never_break_the_service(client, settings):
    chance = random.Random(0)
    whole = [
        JPEG,
        PNG,
        WEBP,
        to_file(Image.fromarray(halves(RED, BLACK)).quantize(4)),
        to_file(halves(RED, BLACK)[..., 0]),
    ]
    for _ in range(300):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.choice((1, 3, 30))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        if chance.random() < 0.1:
            data = bytearray(data[:12]) + chance.randbytes(200)
        path = chance.choice(POSTS)
        reply = client.post(path, content=bytes(data), headers={"Content-Type": "image/png"})
        if reply.status_code != 200:
            assert reply.status_code in (400, 413, 415, 422)
            check_problem(reply, reply.status_code)


def test_the_tree_in_the_docstring_is_the_tree():
    import app.inference.errors

    lines = [line for line in app.inference.errors.__doc__.splitlines() if "── " in line]
    stated = {line.split("── ")[1].split()[0] for line in lines}
    defined = {kind.__name__ for kind in vars(app.inference.errors).values() if isinstance(kind, type)} - {"Any"}
    assert stated | {"Tag2MaskError"} == defined
    for line in lines:
        name, *rest = line.split("── ")[1].split()
        kind = getattr(app.inference.errors, name)
        assert issubclass(kind, Tag2MaskError)
        if issubclass(kind, ServiceError) and kind is not ServiceError:
            assert kind.status == int(rest[0])
