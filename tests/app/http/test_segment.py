"""`/segment`: the mask in every format, its links, the cookie."""

import hashlib
import io
import warnings

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from app.inference.label_maps.segmentation import keep_classes
from app.inference.labels import VOC_CLASSES, voc_palette
from app.runtime.settings import Settings
from tests.app.colour_models import (
    BLACK,
    BLUE,
    CAT,
    DOG,
    GREEN,
    RED,
    SIDE,
    WHITE,
    from_file,
    halves,
    to_file,
    write_segmentation_model,
)

TRANSPOSE = Image.Transpose
# Orientation -> how an upright picture is stored so that the orientation makes it upright again.
UNDO = {
    2: TRANSPOSE.FLIP_LEFT_RIGHT,
    3: TRANSPOSE.ROTATE_180,
    4: TRANSPOSE.FLIP_TOP_BOTTOM,
    5: TRANSPOSE.TRANSPOSE,
    6: TRANSPOSE.ROTATE_90,
    7: TRANSPOSE.TRANSVERSE,
    8: TRANSPOSE.ROTATE_270,
}


def decode_rle(run_lengths: dict) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools 2.0.11 under numpy 2
        return coco_mask.decode(run_lengths).astype(bool)


def test_json_of_a_two_coloured_photo(client, photo):
    reply = client.post("/segment", files={"file": photo})
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    body = reply.json()
    assert (body["image"]["width"], body["image"]["height"]) == (SIDE, SIDE)
    assert {**body["model"], "sha256": ""} == {
        "name": "deeplab_colours",
        "version": 1,
        "sha256": "",
        "method": "deeplabv3",
    }
    assert len(body["model"]["sha256"]) == 64
    assert set(body["timings_ms"]) == {"queue", "decode", "predict", "encode"}
    (dog,) = body["classes"]
    assert (dog["class"], dog["label"], dog["pixels"], dog["share"]) == ("dog", DOG, SIDE * SIDE // 2, 0.5)
    assert dog["box"] == [0, 0, SIDE // 2, SIDE]
    # logits of a red pixel: 20 for dog, 10 for the background, -20 for cat and person, 0 for the other 17
    assert dog["score"] == pytest.approx(1 / (1 + np.exp(-10) + 17 * np.exp(-20) + 2 * np.exp(-40)), abs=1e-6)
    expected = np.zeros((SIDE, SIDE), bool)
    expected[:, : SIDE // 2] = True
    assert np.array_equal(decode_rle(dog["rle"]), expected)


def test_classes_come_largest_first_and_background_is_none_of_them(client):
    image = halves(GREEN, BLACK)
    image[:8, :8] = RED
    body = client.post("/segment", files={"file": to_file(image)}).json()
    found = [(entry["class"], entry["label"], entry["pixels"]) for entry in body["classes"]]
    assert found == [("cat", CAT, SIDE * SIDE // 2 - 64), ("dog", DOG, 64)]


def test_nothing_found(client):
    body = client.post("/segment", files={"file": to_file(halves(BLACK, BLACK))}).json()
    assert body["classes"] == []
    assert body["links"]["cam"] == {}


def test_raw_body_equals_multipart(client, photo):
    raw = client.post("/segment", content=photo, headers={"Content-Type": "image/png"})
    form = client.post("/segment", files={"file": photo})
    assert raw.json()["classes"] == form.json()["classes"]
    assert raw.json()["image"] == form.json()["image"]


def test_the_bytes_decide_and_not_the_declared_image_type(client, photo):
    assert client.post("/segment", content=photo, headers={"Content-Type": "image/jpeg"}).status_code == 200


def test_png_holds_the_labels_and_the_voc_palette(client, photo):
    reply = client.post("/segment", files={"file": photo}, headers={"Accept": "image/png"})
    assert reply.headers["content-type"] == "image/png"
    assert np.array_equal(from_file(reply.content), halves((DOG,) * 3, (0,) * 3)[..., 0])
    assert np.array_equal(palette_of(reply.content), voc_palette())


@pytest.mark.parametrize(("word", "media_type"), [("gray8", "image/png"), ("npy", "application/x-npy")])
def test_plain_labels(client, photo, word, media_type):
    reply = client.post("/segment", params={"format": word}, files={"file": photo})
    assert reply.headers["content-type"] == media_type
    labels = np.load(io.BytesIO(reply.content)) if word == "npy" else from_file(reply.content)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, halves((DOG,) * 3, (0,) * 3)[..., 0])


def test_overlay_colours_the_dog_and_leaves_the_background(client):
    reply = client.post("/segment?format=overlay", files={"file": to_file(halves(RED, WHITE))})
    assert reply.headers["content-type"] == "image/jpeg"
    picture = from_file(reply.content).astype(int)
    blended = 0.45 * np.array(RED) + 0.55 * voc_palette()[DOG]
    assert np.abs(picture[:, :20] - blended).max() < 6
    assert np.abs(picture[:, -20:] - 255).max() < 6


def test_every_reply_states_its_provenance_in_headers(client, photo):
    reply = client.post("/segment?format=png", files={"file": photo})
    assert reply.headers["x-model"] == "deeplab_colours/1"
    assert reply.headers["x-model-method"] == "deeplabv3"
    assert len(reply.headers["x-model-sha256"]) == 64
    assert reply.headers["x-image-id"] == hashlib.sha256(photo).hexdigest()
    assert reply.headers["vary"] == "Accept, Cookie"


def test_links_lead_to_the_other_results(client, photo):
    links = client.post("/segment", files={"file": photo}).json()["links"]
    client.cookies.clear()
    assert set(links) == {
        *("png", "overlay", "gray8", "gray16", "npy", "npz", "coco", "hf"),
        *("segment", "pseudo_label", "cam"),
    }
    assert set(links["cam"]) == {"dog"}
    for link in [*(links[name] for name in links if name != "cam"), links["cam"]["dog"]]:
        assert client.get(link).status_code == 200, link
    assert client.get(links["png"]).content == client.post("/segment?format=png", files={"file": photo}).content


def test_cookie_stands_for_the_last_segmented_photo(client, photo):
    body = client.post("/segment", files={"file": photo}).json()
    assert client.cookies["tag2mask_image"] == body["image"]["id"]
    assert client.get("/cam?class=dog").headers["x-image-id"] == body["image"]["id"]
    other = client.post("/segment", files={"file": to_file(halves(BLUE, BLACK))}).json()["image"]["id"]
    assert client.get("/cam?class=person").headers["x-image-id"] == other
    named = client.get("/cam", params={"class": "dog", "image": body["image"]["id"]})
    assert named.headers["x-image-id"] == body["image"]["id"]


def test_cookie_is_out_of_reach_of_scripts_and_other_sites(client, photo):
    cookie = client.post("/segment", files={"file": photo}).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "max-age=3600" in cookie


def test_results_have_the_size_of_the_upload(client):
    for width, height in [(200, 40), (40, 200), (1, 1), (1, 300), (300, 1), (37, 53)]:
        data = to_file(halves(RED, RED, height, width))
        body = client.post("/segment", files={"file": data}).json()
        assert (body["image"]["width"], body["image"]["height"]) == (width, height)
        (dog,) = body["classes"]
        assert (dog["pixels"], dog["box"]) == (width * height, [0, 0, width, height])
        assert dog["rle"]["size"] == [height, width]
        assert from_file(client.post("/segment?format=png", files={"file": data}).content).shape == (height, width)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(client, orientation):
    upright = halves(RED, BLACK, 40, 80)
    upright[:20, 40:] = GREEN  # red left, green upper right, black lower right
    stored = Image.fromarray(upright)
    if orientation in UNDO:
        stored = stored.transpose(UNDO[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 100, "subsampling": 0})):
        data = to_file(stored, kind, exif=exif, **options)
        body = client.post("/segment", files={"file": data}).json()
        assert (body["image"]["width"], body["image"]["height"]) == (80, 40)
        mask = from_file(client.post("/segment?format=png", files={"file": data}).content)
        assert mask[20, 10] == DOG
        assert mask[5, 70] == CAT
        assert mask[35, 70] == 0


def palette_of(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.reshape(picture.getpalette(), (256, 3))


def test_classes_that_are_not_there_leave_their_share_to_those_that_are() -> None:
    probabilities = np.array([[0.2, 0.5], [0.2, 0.25], [0.6, 0.25], [0.0, 0.0]], np.float32)[:, None]  # (C + 1, 1, 2)
    kept = keep_classes(probabilities, (0, 2), True)
    np.testing.assert_allclose(kept[:, 0], [[0.2, 0.5], [0.8, 0.5], [0, 0], [0, 0]], atol=1e-5)
    np.testing.assert_allclose(keep_classes(probabilities, (0, 1), True)[:, 0, 0], [0.2, 0.2, 0.6, 0], atol=1e-5)
    np.testing.assert_allclose(keep_classes(probabilities, (2,), True)[:, 0, 0], [0.2, 0, 0, 0.8], atol=1e-5)
    np.testing.assert_allclose(keep_classes(probabilities, (0,), False)[:, 0, 0], [0.5, 0.5, 0, 0], atol=1e-5)
    for complete in (True, False):
        np.testing.assert_array_equal(keep_classes(probabilities, (), complete)[:, 0, 0], [1, 0, 0, 0])


def test_small_regions_are_left_out_of_every_result(client):
    picture = halves(RED, BLACK)
    picture[: SIDE // 4, -SIDE // 4 :] = BLUE  # a person of a sixteenth of the photo
    photo = to_file(picture)
    for path, reader in (("/segment", "classes"), ("/pseudo-label", "classes")):
        found = {}
        for share in (0, 0.05, 0.2):
            reply = client.post(f"{path}?smallest_region={share}&format=json&size=model", files={"file": photo})
            found[share] = [region["class"] for region in reply.json()[reader]]
        assert "person" in found[0]
        assert "person" not in found[0.2]
        assert "dog" in found[0.2]
    mask = client.post("/segment?smallest_region=0.2&format=png", files={"file": photo})
    assert set(np.unique(from_file(mask.content))) == {0, DOG}
    assert client.post("/segment?smallest_region=2", files={"file": photo}).status_code == 422


def test_a_class_that_the_whole_photo_hardly_shows_is_left_out_unless_it_is_asked_for(serve, tmp_path):
    write_segmentation_model(tmp_path, presence_thresholds=(0.6,) * len(VOC_CLASSES))
    client = serve(Settings(models=tmp_path, device="cpu", workers=1))
    photo = to_file(halves(RED, BLACK))  # half of it is dog: a score of 0.5

    def found(query: str) -> tuple[list[str], dict[str, float]]:
        body = client.post(f"/segment{query}", files={"file": photo}).json()
        assert body["scores"]["dog"] == pytest.approx(0.5)
        return [entry["class"] for entry in body["classes"]], body["thresholds"]["presence"]

    assert found("") == ([], dict.fromkeys(VOC_CLASSES, 0.6))
    assert found("?presence_threshold=0.4") == (["dog"], dict.fromkeys(VOC_CLASSES, 0.4))
    assert found("?tags=dog") == (["dog"], {})
    assert client.post("/segment?presence_threshold=2", files={"file": photo}).status_code == 422
