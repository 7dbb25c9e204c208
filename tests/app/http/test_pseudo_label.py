"""`/pseudo-label`: presence, tags, thresholds and refinement, and that it is what the shared rule gives."""

import io

import numpy as np
import pytest

from app.inference.analysis import Analyzer
from app.inference.engine import Engine
from app.inference.options import Options
from tests.app.colour_models import BLACK, BLUE, CAT, DOG, PERSON, RED, SIDE, from_file, halves, to_file
from tests.app.http.test_segment import decode_rle

DARK_BLUE = (0, 0, 100)  # a person of score 100/255, under the presence threshold of 0.5


def label_of_photo(client, photo, **parameters):
    return client.post("/pseudo-label", params=parameters, files={"file": photo})


def test_default_is_an_indexed_png(client, photo):
    reply = label_of_photo(client, photo)
    assert reply.headers["content-type"] == "image/png"
    # the map falls from 1 to 0 over the 8 px around the middle and passes the card's 0.25 two pixels right of it
    expected = np.where(np.arange(SIDE) < SIDE // 2 + 2, DOG, 0)
    assert np.array_equal(from_file(reply.content), np.tile(expected, (SIDE, 1)))


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"background_threshold": 0.1, "foreground_threshold": 0.7},
        {"refine": "pamr", "tags": "dog,person"},
        {"scales": "0.5,1,1.5", "flip": "true", "presence_threshold": 0.01},
    ],
)
def test_equals_the_rule_shared_with_training(client, models_directory, parameters):
    image = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)
    image[20:70, 20:80] = RED
    engine = Engine(models_directory / "drs_colours/1/model.onnx", device="cpu")
    options = Options(
        tags=tuple(parameters["tags"].split(",")) if "tags" in parameters else None,
        scales=tuple(map(float, parameters["scales"].split(","))) if "scales" in parameters else None,
        flip=True if "flip" in parameters else None,
        refine=parameters.get("refine", "none"),
        background_threshold=parameters.get("background_threshold"),
        foreground_threshold=parameters.get("foreground_threshold"),
        presence_threshold=parameters.get("presence_threshold"),
    )
    expected = Analyzer(options, (engine,)).look_at(image).pseudo_label.label_map
    reply = label_of_photo(client, to_file(image), format="npy", **parameters)
    assert np.array_equal(np.load(io.BytesIO(reply.content)), expected)


def test_absent_classes_are_left_out_unless_tagged(client):
    photo = to_file(halves(RED, DARK_BLUE))
    by_score = label_of_photo(client, photo, format="json").json()
    assert by_score["present"] == ["dog"]
    assert by_score["tags"] is None
    assert by_score["thresholds"]["presence"]["dog"] == 0.5
    tagged = label_of_photo(client, photo, format="json", tags="person,dog").json()
    assert (tagged["present"], tagged["tags"]) == (["dog", "person"], ["person", "dog"])
    assert tagged["thresholds"]["presence"] == {}
    assert {entry["class"]: entry["label"] for entry in tagged["classes"]} == {"dog": DOG, "person": PERSON}
    lowered = label_of_photo(client, photo, format="json", presence_threshold=0.3).json()
    assert lowered["present"] == ["dog", "person"]
    assert set(lowered["thresholds"]["presence"].values()) == {0.3}


def test_tags_without_that_class_give_no_such_label(client, photo):
    mask = from_file(label_of_photo(client, photo, tags="cat").content)
    assert CAT not in mask
    assert DOG not in mask


def test_between_the_thresholds_is_ignore(client, photo):
    parameters = {"background_threshold": 0.2, "foreground_threshold": 0.8}
    body = label_of_photo(client, photo, format="json", **parameters).json()
    mask = from_file(label_of_photo(client, photo, **parameters).content)
    assert set(np.unique(mask)) == {0, DOG, 255}
    ignore = body["ignore"]
    assert (ignore["pixels"], ignore["share"]) == ((mask == 255).sum(), (mask == 255).mean())
    np.testing.assert_array_equal(decode_rle(ignore["rle"]), mask == 255)
    assert (body["thresholds"]["background"], body["thresholds"]["foreground"]) == (0.2, 0.8)
    assert [entry["class"] for entry in body["classes"]] == ["dog"]


def test_json_states_everything_that_made_the_label(client, photo):
    body = label_of_photo(client, photo, format="json", refine="pamr", scales="1,1.5", tags="dog").json()
    assert (body["refinement"], body["scales"], body["flip"]) == ("pamr", [1, 1.5], False)
    assert body["model"]["method"] == "drs"
    assert body["scores"]["dog"] == 1
    assert len(body["scores"]) == 20
    (dog,) = body["classes"]
    assert (dog["class"], dog["score"]) == ("dog", 1)
    png = client.get(body["links"]["png"])
    assert png.content == label_of_photo(client, photo, refine="pamr", scales="1,1.5", tags="dog").content
    assert client.get(body["links"]["segment"]).status_code == 200


def test_nothing_present_is_all_background(client):
    body = label_of_photo(client, to_file(halves(BLACK, BLACK)), format="json").json()
    assert (body["present"], body["classes"]) == ([], [])
    assert body["ignore"] == {"pixels": 0, "share": 0, "rle": None}


def test_kept_photo_and_overlay(client):
    posted = label_of_photo(client, to_file(halves(BLUE, BLACK)), format="overlay")
    assert posted.headers["content-type"] == "image/jpeg"
    kept = client.get("/pseudo-label", params={"image": posted.headers["x-image-id"], "format": "overlay"})
    assert kept.content == posted.content


def test_class_conditional_maps_become_labels(client, photo):
    parameters = {"tags": "dog", "inference": "class-conditional", "scales": "1", "format": "json"}
    body = client.post("/pseudo-label", params=parameters, files={"file": photo}).json()
    assert body["inference"] == "class-conditional"
    assert body["present"] == ["dog"]
    assert [region["class"] for region in body["classes"]] == ["dog"]
