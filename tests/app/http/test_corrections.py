"""`PUT /correction`: a corrected mask goes into a folder that training reads, and what does not fit is refused."""

import hashlib
from pathlib import Path

import httpx2
import numpy as np
import pytest
from starlette.testclient import TestClient

from app.inference.errors import DataError
from app.inference.files.tags import read_tags
from app.inference.image.encode import mask_to_png
from app.inference.label_maps.corrections import read_corrections
from app.inference.labels import IGNORE_INDEX, VOC_CLASSES
from app.main import create_app
from app.runtime.settings import Settings
from tests.app.colour_models import BLACK, BLUE, CAT, DOG, PERSON, RED, halves, to_file
from tests.app.conftest import wait_until_ready

PHOTO, OTHER = to_file(halves(RED, BLACK, 40, 60)), to_file(halves(BLUE, BLACK, 40, 60))
MASK = np.zeros((40, 60), np.uint8)
MASK[:, :20], MASK[:10, 20:], MASK[30:, 20:] = DOG, CAT, IGNORE_INDEX


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "corrections"


@pytest.fixture
def client(serve, models_directory: Path, folder: Path) -> TestClient:
    return serve(Settings(models=models_directory, device="cpu", corrections=folder, max_image_pixels=10_000))


def post(client: TestClient, data: bytes = PHOTO, name: str = "beach.png") -> str:
    """The id of a photo that the service keeps."""
    return str(client.post("/segment", files={"file": (name, data)}).json()["image"]["id"])


def put(client: TestClient, mask: np.ndarray | bytes = MASK, **query: object) -> httpx2.Response:
    body = mask if isinstance(mask, bytes) else mask_to_png(mask)
    return client.put("/correction", params=query, content=body, headers={"Content-Type": "image/png"})


def test_a_mask_is_kept_with_its_photo_and_where_it_comes_from(client: TestClient, folder: Path) -> None:
    reply = put(client, image=post(client), model="deeplab_colours/1", pixels_changed=600)
    assert reply.status_code == 200, reply.text
    assert (reply.json()["name"], reply.json()["classes"]) == ("beach", ["cat", "dog"])
    corrections = read_corrections(folder)
    assert corrections.classes == VOC_CLASSES
    np.testing.assert_array_equal(corrections.mask("beach", MASK.shape), MASK)
    row = corrections.rows["beach"]
    assert (row.draft_model, row.pixels_changed, row.source) == ("deeplab_colours/1", 600, "page")
    assert row.draft_checksum == reply.json()["model"]["sha256"]
    assert row.made_at
    assert (folder / "photos" / "beach.png").read_bytes() == PHOTO
    assert read_tags(folder / "photos" / "labels.csv") == {"beach": ("cat", "dog")}


def test_a_later_mask_takes_the_place_of_an_earlier_one(client: TestClient, folder: Path) -> None:
    photo = post(client)
    put(client, image=photo)
    put(client, np.full_like(MASK, PERSON), image=photo)
    put(client, image=post(client, OTHER, "street.png"))
    corrections = read_corrections(folder)
    assert set(np.unique(corrections.mask("beach"))) == {PERSON}
    tags = read_tags(folder / "photos" / "labels.csv")
    assert tags == {"beach": ("person",), "street": ("cat", "dog")}


def test_another_photo_of_the_same_name_is_refused(client: TestClient, folder: Path) -> None:
    put(client, image=post(client))
    reply = put(client, image=post(client, OTHER))
    assert reply.status_code == 409
    assert reply.json()["type"] == "urn:tag2mask:name-taken"
    assert (folder / "photos" / "beach.png").read_bytes() == PHOTO
    assert put(client, image=post(client, OTHER), name="street.png").status_code == 200
    assert set(read_corrections(folder).rows) == {"beach", "street"}


@pytest.mark.parametrize(
    ("mask", "query", "status", "said"),
    [
        (MASK.T.copy(), {}, 422, "stored turned"),
        (np.full_like(MASK, 21), {}, 422, "label 21"),
        (PHOTO, {}, 422, "colours"),
        (b"no picture", {}, 415, "Send JPEG, PNG"),
        (mask_to_png(np.zeros((200, 200), np.uint8)), {}, 413, "10000"),
        (b"0" * 20_000_001, {}, 413, "TAG2MASK_MAX_UPLOAD_BYTES"),
        (MASK, {"name": "../beach"}, 422, "not a photo's name"),
        (MASK, {"name": "a\0b"}, 422, "not a photo's name"),
        (MASK, {"name": "." * 255}, 422, "not a photo's name"),
        (MASK, {"pixels_changed": -1}, 422, "greater than or equal to 0"),
        (MASK, {"model": "nothing"}, 404, "'nothing'"),
        (MASK, {"image": "nothing"}, 404, "no photo is kept"),
        (MASK, {"imge": "x"}, 422, "Did you mean 'image'"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    client: TestClient, folder: Path, mask: np.ndarray | bytes, query: dict, status: int, said: str
) -> None:
    reply = put(client, mask, **{"image": post(client), **query})
    assert reply.status_code == status, reply.text
    assert said in reply.json()["detail"]
    assert not list(folder.rglob("*.*"))


def test_masks_of_other_classes_are_refused(client: TestClient, folder: Path) -> None:
    put(client, image=post(client))
    reply = put(client, np.zeros_like(MASK), image=post(client), model="cam_colours/2")
    assert reply.status_code == 422
    assert "a folder of their own" in reply.json()["detail"]


def test_a_photo_without_a_name_needs_one(client: TestClient) -> None:
    photo = client.post("/segment", content=PHOTO, headers={"Content-Type": "image/png"}).json()["image"]["id"]
    assert put(client, image=photo).json()["parameter"] == "name"
    assert put(client, image=photo, name="beach").status_code == 200


def test_a_disk_that_takes_nothing_is_said(client: TestClient, folder: Path) -> None:
    (folder / "masks").write_text("in the way")
    reply = put(client, image=post(client))
    assert reply.status_code == 507
    assert reply.json()["type"] == "urn:tag2mask:not-stored"


def test_who_made_it_is_the_name_of_the_key(models_directory: Path, folder: Path) -> None:
    keys = f"ann:{hashlib.sha256(b'secret').hexdigest()}"
    with serve_with(models_directory, corrections=folder, api_keys=keys) as client:
        client.headers["X-API-Key"] = "secret"
        wait_until_ready(client)
        assert put(client, image=post(client)).status_code == 200
        client.headers["X-API-Key"] = "guess"
        assert put(client, image="0").status_code == 401
    assert read_corrections(folder).rows["beach"].made_by == "ann"


def test_pages_of_other_sites_cannot_save(models_directory: Path, folder: Path) -> None:
    """A browser asks first whether another site may PUT; it may not, though it may ask for masks."""
    with serve_with(models_directory, corrections=folder, cors_origins="https://example.org") as client:
        wait_until_ready(client)
        headers = {"Origin": "https://example.org", "Access-Control-Request-Method": "PUT"}
        asked = client.options("/correction", headers=headers)
        assert asked.status_code == 400
        assert "PUT" not in asked.headers["access-control-allow-methods"]


def test_without_a_folder_none_is_taken(running: TestClient) -> None:
    reply = put(running, image=post(running))
    assert reply.status_code == 403
    assert "TAG2MASK_CORRECTIONS" in reply.json()["detail"]
    assert running.get("/static/limits.json").json()["corrections"] is False


def test_a_folder_that_cannot_be_written_is_said_at_the_start(models_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="TAG2MASK_CORRECTIONS"):
        create_app(Settings(models=models_directory, corrections=tmp_path / "file" / "folder"))


def serve_with(models_directory: Path, **settings: object) -> TestClient:
    return TestClient(create_app(Settings(models=models_directory, device="cpu", **settings)))
