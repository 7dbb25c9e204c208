"""Requests as clients really write them: forms, types, names of files and of classes."""

import io
import json

import pytest
from fastapi.testclient import TestClient

from app.inference.class_names import find_class
from app.inference.labels import VOC_CLASSES
from app.runtime.settings import Settings
from tests.app.colour_models import BLACK, BLUE, RED, halves, to_file, write_cam_model, write_segmentation_model

DOG = to_file(halves(RED, BLACK))
PERSON = to_file(halves(BLUE, BLACK))
BOUNDARY = b"bnd123"
FORM = {"Content-Type": "multipart/form-data; boundary=bnd123"}


def part(disposition: bytes | None, data: bytes = DOG) -> bytes:
    header = b"" if disposition is None else b"Content-Disposition: form-data" + disposition + b"\r\n"
    return b"--" + BOUNDARY + b"\r\n" + header + b"Content-Type: image/png\r\n\r\n" + data + b"\r\n"


END = b"--" + BOUNDARY + b"--\r\n"


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        (b'; name="file"; filename="a.png"', "a.png"),
        (b"; name=\"file\"; filename*=UTF-8''k%C3%A4fer.png", "käfer.png"),
        (b"; name=file; filename*=iso-8859-1'en'k%E4fer.png", "käfer.png"),
        (b"; name=\"file\"; filename*=klingon''a%FF.png", "aÿ.png"),
        (b"; filename=\"a.png\"", "a.png"),
        (b"; filename*=UTF-8''a%22b%5C.png", '.png'),
        (b"", None),
        (None, None),
        (b'; name="file"; filename=""', None),
        (b'; name="file"; filename="C:\\\\Users\\\\me\\\\a.png"', "a.png"),
        (b'; name="file"; filename="../../etc/passwd"', "passwd"),
        ('; name="file"; filename="käfer 猫.png"'.encode(), "käfer 猫.png"),
        ('; name="file"; filename="käfer.png"'.encode("latin-1"), "käfer.png"),
    ],
)  # fmt: skip
def test_a_part_is_read_however_it_names_its_file(client, disposition, name):
    reply = client.post("/segment?format=coco", content=part(disposition) + END, headers=FORM)
    assert reply.status_code == 200, reply.text
    document = reply.json()
    assert document["images"][0]["file_name"] == (name or document["info"]["image_id"])


def test_what_stands_before_the_first_part_is_left_out(client):
    for before in (b"\r\n", b"This is a multi-part message in MIME format.\r\n"):
        body = before + part(b'; name="file"; filename="a.png"') + END
        assert client.post("/segment", content=body, headers=FORM).status_code == 200
    assert client.post("/segment", content=b"nothing", headers=FORM).status_code == 400
    assert client.post("/segment", content=b"x" * 40_000, headers=FORM).status_code == 400


@pytest.mark.parametrize(
    "content_type",
    [None, "application/octet-stream", "application/x-www-form-urlencoded", "image/gif", "binary/octet-stream"],
)
def test_a_body_whose_type_says_nothing_is_recognised_by_its_bytes(client, content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    assert client.post("/segment", content=DOG, headers=headers).json()["classes"][0]["class"] == "dog"
    refused = client.post("/segment", content=b"no picture", headers=headers)
    assert refused.status_code == (415 if content_type else 400)
    assert "multipart field 'file'" in refused.text or "Send JPEG" in refused.text


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "video/mp4"])
def test_a_body_that_is_said_to_be_something_else_is_refused(client, content_type):
    assert client.post("/segment", content=DOG, headers={"Content-Type": content_type}).status_code == 415


@pytest.mark.parametrize("path", ["/segment", "/cam?class=dog&format=json", "/pseudo-label?format=json", "/analyze"])
def test_several_photos_are_answered_as_a_list(client, path):
    files = [("file", ("a.png", DOG)), ("file", ("b.png", b"no photo")), ("file", ("c.png", PERSON))]
    first, broken, third = client.post(path, files=files).json()
    alone = [client.post(path, files={"file": data}).json() for data in (DOG, PERSON)]
    assert [first["image"], third["image"]] == [reply["image"] for reply in alone]
    assert (broken["status"], broken["type"]) == (415, "urn:tag2mask:unsupported-type")
    assert client.get(f"/segment?image={third['image']['id']}").json()["classes"][0]["class"] == "person"


def test_several_photos_are_no_picture(client):
    files = [("file", ("a.png", DOG)), ("file", ("c.png", PERSON))]
    refused = client.post("/segment?format=png", files=files)
    assert (refused.status_code, refused.json()["parameter"]) == (422, "format")
    assert "list of json, coco, hf" in refused.json()["detail"]
    names = [document["images"][0]["file_name"] for document in client.post("/segment?format=coco", files=files).json()]
    assert names == ["a.png", "c.png"]
    assert client.post("/segment", files=[("file", (f"{n}.png", DOG)) for n in range(9)]).status_code == 400


def test_the_name_of_a_file_is_part_of_what_is_asked(client):
    client.post("/segment", files={"file": ("a.png", DOG)})
    one = client.get("/segment?format=coco")
    client.post("/segment", files={"file": ("b.png", DOG)})
    two = client.get("/segment?format=coco", headers={"If-None-Match": one.headers["etag"]})
    assert (two.status_code, two.json()["images"][0]["file_name"]) == (200, "b.png")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dog", "dog"), ("Dog", "dog"), (" DOG ", "dog"), ("tv", "tvmonitor"), ("TV-Monitor", "tvmonitor"), ("couch", "sofa"),
        ("bike", "bicycle"), ("motorcycle", "motorbike"), ("Airplane", "aeroplane"), ("dining table", "diningtable"),
        ("potted_plant", "pottedplant"), ("people", "person"), ("wolf", None), ("", None), ("do\0g", None),
    ],
)  # fmt: skip
def test_what_a_name_means(name, expected):
    index = find_class(name, VOC_CLASSES)
    assert (None if index is None else VOC_CLASSES[index]) == expected


def test_a_name_that_means_two_classes_means_none():
    assert find_class("DOG", ("Dog", "dog")) is None
    assert find_class("dog", ("Dog", "dog")) == 1
    assert find_class("tv", ("television", "tv monitor")) is None
    assert find_class("tv", ("television", "tv monitor"), {"television": ("TV",)}) == 0
    assert find_class("hound", ("dog",), {"dog": ("hound", "puppy")}) == 0
    assert find_class("couch", ("couch", "sofa")) == 0


def test_classes_may_be_named_as_people_write_them(client):
    for path in ("/cam?class=Dog&format=json", "/segment?tags=DOG", "/pseudo-label?format=json&tags=Dog, TV"):
        reply = client.post(path, files={"file": DOG}).json()
        found = reply.get("class") or reply["classes"][0]["class"]
        assert found == "dog"
    assert client.post("/cam?class=wolf", files={"file": DOG}).json()["type"] == "urn:tag2mask:unknown-class"


def test_a_class_called_all(serve, tmp_path):
    classes = ("dog", "all")
    write_cam_model(tmp_path, "drs_colours", 1, classes=classes, synonyms={"dog": ["hound"]})
    write_segmentation_model(tmp_path, "deeplab_colours", 1, classes=classes)
    client: TestClient = serve(Settings(models=tmp_path, device="cpu"))
    one = client.post("/cam?class=all&format=json", files={"file": DOG}).json()
    assert one["class"] == "all"
    every = client.post("/cam?class=*", files={"file": DOG}).json()
    assert [entry["class"] for entry in every["classes"]] == ["dog", "all"]
    assert "class=%2A" in every["links"]["npz"] or "class=*" in every["links"]["npz"]
    assert client.get(every["links"]["npz"]).status_code == 200
    assert client.post("/cam?class=Hound&format=json", files={"file": DOG}).json()["class"] == "dog"
    assert client.post("/segment?tags=all", files={"file": DOG}).status_code == 200


def test_star_is_every_type(client):
    for accept in ("*", "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"):
        reply = client.post("/segment", files={"file": DOG}, headers={"Accept": accept})
        assert reply.status_code == 200


def test_tensors_as_javascript_writes_them(client):
    values = [float(value) for value in halves(RED, BLACK, 32, 32).ravel()]
    tensor = {"name": "image", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": values, "parameters": None}
    body = {"id": 7, "parameters": None, "inputs": [tensor], "outputs": None}
    reply = client.post("/v2/models/deeplab_colours/infer", content=json.dumps(body))
    assert (reply.status_code, reply.json()["id"]) == (200, "7")
    for bad in (0.5, 256.0, -1.0, float("inf"), float("nan")):
        tensor["data"] = [bad, *values[1:]]
        assert client.post("/v2/models/deeplab_colours/infer", content=json.dumps(body)).status_code == 422


def test_a_truncated_jpeg_is_answered_and_said_to_be_one(client):
    file = io.BytesIO(to_file(halves(RED, BLACK, 200, 300), "JPEG", quality=95))
    cut = file.getvalue()[:-30]
    reply = client.post("/segment", files={"file": cut})
    assert "ends early" in reply.json()["image"]["note"]
    picture = client.post("/segment?format=png", files={"file": cut})
    assert picture.headers["x-image-note"] == reply.json()["image"]["note"]
    assert "note" not in client.post("/segment", files={"file": DOG}).json()["image"]
