"""`/cam`: the heatmap in every format, of one class and of all, with its score."""

import io

import numpy as np
import pytest
from PIL import Image

from app.inference.image.encode import heat_palette
from app.inference.labels import VOC_CLASSES
from tests.app.colour_models import BLACK, DOG, GREEN, RED, SIDE, from_file, halves, to_file


def cam(client, photo, class_name="dog", **parameters):
    return client.post("/cam", params={"class": class_name, **parameters}, files={"file": photo})


def array_of(reply) -> np.ndarray:
    return np.load(io.BytesIO(reply.content))


def expected_map() -> np.ndarray:
    """Of the photo: 1 on the red half, 0 on the black one, and between the centres of the 8 px cells a line."""
    line = np.clip((SIDE / 2 + 4 - (np.arange(SIDE) + 0.5)) / 8, 0, 1)
    return np.tile(line / (1 + 1e-5), (SIDE, 1)).astype(np.float32)


def test_npy_is_the_map_computed_by_hand(client, photo):
    reply = cam(client, photo, format="npy")
    values = array_of(reply)
    assert reply.headers["content-type"] == "application/x-npy"
    assert (values.dtype, values.shape) == (np.float32, (SIDE, SIDE))
    assert np.abs(values - expected_map()).max() < 1e-5


def test_default_is_the_colour_png(client, photo):
    reply = cam(client, photo)
    assert reply.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(reply.content)) as picture:
        colours = np.asarray(picture.convert("RGB"))
    assert np.array_equal(colours, heat_palette()[np.rint(expected_map() * 255).astype(int)])


def test_gray_png_of_8_and_16_bits(client, photo):
    assert np.array_equal(from_file(cam(client, photo, format="gray8").content), np.rint(expected_map() * 255))
    fine = from_file(cam(client, photo, format="gray16").content)
    assert fine.dtype == np.uint16
    assert fine.max() > 65500
    assert np.abs(fine / 65535 - expected_map()).max() < 1e-5 + 1 / 65535


def test_overlay_shows_the_photo_where_the_map_is_low(client):
    reply = cam(client, to_file(halves(RED, GREEN)), format="overlay")
    assert reply.headers["content-type"] == "image/jpeg"
    picture = from_file(reply.content).astype(int)
    assert np.abs(picture[:, -16:] - GREEN).max() < 8
    assert np.abs(picture[:, :16] - (0.15 * np.array(RED) + 0.85 * heat_palette()[255])).max() < 8


@pytest.mark.parametrize("word", ["png", "overlay", "gray8", "gray16", "npy", "json"])
def test_every_heatmap_states_its_score(client, photo, word):
    assert float(cam(client, photo, "dog", format=word).headers["x-class-score"]) == 1
    assert float(cam(client, photo, "cat", format=word).headers["x-class-score"]) == 0


def test_json_describes_the_map(client, photo):
    body = cam(client, photo, format="json").json()
    assert (body["class"], body["label"], body["score"], body["present"]) == ("dog", DOG, 1, True)
    assert (body["image"]["width"], body["image"]["height"]) == (SIDE, SIDE)
    assert body["model"]["name"] == "drs_colours"
    assert body["thresholds"] == {"probability": None, "background": None, "foreground": None, "presence": {"dog": 0.5}}
    assert (body["refinement"], body["scales"], body["flip"]) == ("none", [1], False)
    assert set(body["links"]) == {"png", "overlay", "gray8", "gray16", "npy", "npz", "coco", "hf"}
    for word, link in body["links"].items():
        assert client.get(link).content == cam(client, photo, format=word).content
    assert cam(client, photo, "cat", format="json").json()["present"] is False


@pytest.mark.parametrize("path", ["/cam?class=all", "/analyze?"])
def test_present_is_what_reaches_the_threshold_that_stands_beside_it(client, path):
    photo = to_file(halves((77, 0, 0), BLACK))  # a dog of 77 / 255, about 0.3

    def dog(query: str) -> list:
        body = client.post(f"{path}{query}", files={"file": photo}).json()
        [entry] = [each for each in body.get("cam", body)["classes"] if each["class"] == "dog"]
        label = body.get("pseudo_label")
        assert label is None or ("dog" in label["present"]) == entry["present"]
        return [round(entry["score"], 3), entry["presence_threshold"], entry["present"]]

    assert dog("") == [0.302, 0.5, False]
    if path == "/analyze?":
        assert dog("&presence_threshold=0.25") == [0.302, 0.25, True]
    assert dog("&tags=dog") == [0.302, None, True]
    assert dog("&tags=cat") == [0.302, None, False]


def test_links_keep_the_parameters_of_the_request(client, photo):
    body = cam(client, photo, format="json", scales="0.5,1", flip="true").json()
    assert (body["scales"], body["flip"]) == ([0.5, 1], True)
    assert "scales=0.5,1&flip=true" in body["links"]["npy"]
    linked = client.get(body["links"]["npy"])
    assert linked.content == cam(client, photo, format="npy", scales="0.5,1", flip="true").content
    assert linked.content != cam(client, photo, format="npy").content


def test_kept_photo_gives_the_same_map_as_a_new_upload(client, photo):
    posted = cam(client, photo, format="npy")
    kept = client.get("/cam", params={"class": "dog", "format": "npy", "image": posted.headers["x-image-id"]})
    assert kept.content == posted.content
    assert "set-cookie" not in posted.headers


def test_all_classes_in_json_by_default(client, photo):
    reply = cam(client, photo, "all")
    assert reply.headers["content-type"] == "application/json"
    body = reply.json()
    assert body["class"] == "all"
    assert [entry["class"] for entry in body["classes"]] == list(VOC_CLASSES)
    assert [entry["class"] for entry in body["classes"] if entry["present"]] == ["dog"]
    assert array_of(client.get(body["links"]["npy"])).shape == (20, SIDE, SIDE)


def test_all_classes_in_one_array(client, photo):
    reply = cam(client, photo, "all", format="npy")
    maps = array_of(reply)
    assert (maps.dtype, maps.shape) == (np.float32, (20, SIDE, SIDE))
    assert np.abs(maps[VOC_CLASSES.index("dog")] - expected_map()).max() < 1e-5
    scores = [float(score) for score in reply.headers["x-class-score"].split(",")]
    assert scores == [float(name == "dog") for name in VOC_CLASSES]


def test_all_classes_have_no_picture(client, photo):
    reply = cam(client, photo, "all", format="png")
    assert reply.status_code == 422
    assert reply.json()["known"] == ["json", "npy", "npz", "coco", "hf"]
    reply = client.post("/cam?class=all", files={"file": photo}, headers={"Accept": "image/png"})
    assert reply.status_code == 406


def test_map_lies_in_range_at_the_uploads_size(client):
    for width, height in [(1, 1), (3, 200), (200, 3), (130, 90)]:
        noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
        values = array_of(cam(client, to_file(noise), format="npy"))
        assert values.shape == (height, width)
        assert values.min() >= 0
        assert values.max() <= 1


def test_large_jpeg_decoded_at_reduced_size_gives_the_map_of_the_full_one(client):
    image = halves(RED, BLACK, 601, 803)
    image[:300] = np.random.default_rng(0).integers(0, 60, (300, 803, 3), np.uint8)
    reduced = array_of(cam(client, to_file(image, "JPEG", quality=95), format="npy"))
    with Image.open(io.BytesIO(to_file(image, "JPEG", quality=95))) as picture:
        full = array_of(cam(client, to_file(picture), format="npy"))
    assert reduced.shape == full.shape == (601, 803)
    assert np.abs(reduced - full).max() < 0.02


def test_model_is_chosen_by_name_and_version(client, photo):
    def model_of(**parameters):
        return cam(client, photo, format="json", **parameters).json()["model"]

    assert model_of()["name"] == "drs_colours"
    assert (model_of(model="cam_colours")["name"], model_of(model="cam_colours")["version"]) == ("cam_colours", 10)
    assert model_of(model="cam_colours/2")["version"] == 2


def test_class_conditional_inference_is_a_choice_of_the_request(client):
    image = np.random.default_rng(0).integers(0, 120, (96, 128, 3), np.uint8)
    image[20:70, 30:60] = RED
    photo = to_file(image)
    plain = array_of(cam(client, photo, format="npy"))
    reply = cam(client, photo, format="npy", inference="class-conditional", scales="1")
    conditional = array_of(reply)
    assert reply.status_code == 200
    assert conditional.shape == plain.shape
    assert 0 <= conditional.min() <= conditional.max() <= 1
    assert (conditional >= plain - 0.05).mean() > 0.95  # it looks again where it has not found anything yet
    body = cam(client, photo, format="json", inference="class-conditional").json()
    assert (body["inference"], body["scales"], body["flip"]) == ("class-conditional", [1.0, 0.5, 1.5, 2.0], True)
    assert "inference=class-conditional" in body["links"]["npy"]
    assert cam(client, photo, format="json").json()["inference"] == "plain"


def test_class_conditional_inference_of_all_classes_is_refused(client, photo):
    reply = cam(client, photo, "all", inference="class-conditional")
    assert reply.status_code == 422
    assert "Name one class" in reply.json()["detail"]


def test_further_maps_of_a_photo_need_no_network_and_are_the_same(client):
    photo = to_file(halves(GREEN, RED))  # no other test sends it
    first = cam(client, photo, format="npy")
    kept = client.app.state.service.maps.size_bytes
    for reply in (
        cam(client, photo, format="npy"),
        client.get(f"/cam?class=dog&format=npy&image={first.headers['X-Image-Id']}"),
    ):
        assert reply.content == first.content
        assert reply.headers["X-Class-Score"] == first.headers["X-Class-Score"]
    assert client.app.state.service.maps.size_bytes == kept
    assert not np.array_equal(array_of(cam(client, photo, format="npy", flip="true", scales="2")), array_of(first))
    assert client.app.state.service.maps.size_bytes > kept
