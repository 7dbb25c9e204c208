"""Every format of every endpoint, against the arrays it is made of; `/analyze`; sizes, thresholds, tags, fusion."""

import base64
import contextlib
import io
import json
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from app.batch.labellers import InProcess
from app.http.request.parameters import AnalyzeParameters
from app.inference import analysis
from app.inference.engine import Engine
from app.inference.label_maps.regions import polygons_of
from app.inference.label_maps.segmentation import segment
from app.inference.labels import VOC_CLASSES
from app.inference.maps.fusion import fuse_maps
from app.inference.maps.pamr import refine_pamr
from app.runtime.settings import Settings
from tests.app.colour_models import (
    BLACK,
    BLUE,
    CAT,
    DOG,
    GREEN,
    RED,
    SIDE,
    halves,
    to_file,
    write_cam_model,
    write_segmentation_model,
)

# pycocotools 2.0.11 under numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
LEFT = np.zeros((SIDE, SIDE), bool)
LEFT[:, : SIDE // 2] = True


def ask(client, path, photo, **parameters):
    reply = client.post(path, params=parameters, files={"file": photo})
    assert reply.status_code == 200, reply.text
    return reply


def npz_of(reply):
    assert reply.headers["content-type"] == "application/x-npz"
    return dict(np.load(io.BytesIO(reply.content), allow_pickle=False))


def coco_of(reply, path: Path) -> COCO:
    """The reply as pycocotools reads it from a file."""
    path.write_bytes(reply.content)
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


@pytest.mark.parametrize("path", ["/segment", "/pseudo-label", "/cam?class=dog"])
def test_coco_loads_and_holds_the_region(client, photo, tmp_path, path):
    for regions, tolerance in (("rle", 0.0), ("polygons", 0.03)):
        separator = "&" if "?" in path else "?"
        reply = client.post(f"{path}{separator}format=coco&regions={regions}", files={"file": photo})
        assert reply.headers["content-type"] == "application/json"
        coco = coco_of(reply, tmp_path / "coco.json")
        [annotation] = coco.dataset["annotations"]
        assert coco.loadCats(annotation["category_id"]) == [{"id": DOG, "name": "dog"}]
        assert coco.dataset["images"][0]["file_name"] == "upload"  # what this client calls the file
        assert coco.dataset["info"]["models"][0]["name"] == reply.headers["x-model"]
        found = coco.annToMask(annotation).astype(bool)
        if path != "/segment":  # the map of the colour model falls off within a cell of 8 px
            found[:, SIDE // 2 : SIDE // 2 + 8] = False
        assert (found != LEFT).mean() <= tolerance
        assert annotation["area"] >= LEFT.sum()
        assert annotation["score"] > 0.99


@pytest.mark.parametrize("path", ["/segment", "/pseudo-label", "/cam?class=dog", "/cam?class=all"])
def test_hugging_face_masks(client, photo, path):
    separator = "&" if "?" in path else "?"
    [segment] = client.post(f"{path}{separator}format=hf", files={"file": photo}).json()
    assert set(segment) == {"label", "score", "mask"}
    assert (segment["label"], segment["score"]) == ("dog", pytest.approx(1, abs=1e-3))
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(segment["mask"]))))
    assert set(np.unique(mask)) == {0, 255}
    assert (mask[:, : SIDE // 2] == 255).all()
    assert (mask[:, SIDE // 2 + 8 :] == 0).all()


def test_npz_holds_what_the_other_formats_are_made_of(client, photo):
    found = npz_of(ask(client, "/segment", photo, format="npz"))
    png = np.asarray(Image.open(io.BytesIO(ask(client, "/segment", photo, format="png").content)))
    np.testing.assert_array_equal(found["mask"], png)
    assert found["probabilities"].shape == (len(VOC_CLASSES) + 1, SIDE, SIDE)
    np.testing.assert_allclose(found["probabilities"].sum(axis=0), 1, atol=1e-5)
    assert tuple(found["classes"]) == VOC_CLASSES
    label = npz_of(ask(client, "/pseudo-label", photo, format="npz", tags="dog,cat"))
    assert label["label_map"].shape == (SIDE, SIDE)
    assert label["maps"].shape == (2, SIDE, SIDE)
    assert [VOC_CLASSES[index] for index in label["class_indices"]] == ["cat", "dog"]
    one = npz_of(ask(client, "/cam", photo, format="npz", **{"class": "dog"}))
    every = npz_of(ask(client, "/cam", photo, format="npz", **{"class": "all"}))
    np.testing.assert_array_equal(one["maps"][0], every["maps"][DOG - 1])
    assert one["scores"] == pytest.approx([1])


def test_masks_in_16_bits_are_the_labels(client, photo):
    picture = Image.open(io.BytesIO(ask(client, "/segment", photo, format="gray16").content))
    assert picture.mode.startswith("I")
    np.testing.assert_array_equal(np.asarray(picture), np.where(LEFT, DOG, 0))


def test_polygons_follow_the_borders():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:120, :160]
    for _ in range(5):
        row, column, radius = rng.integers(10, 110), rng.integers(10, 150), rng.integers(4, 40)
        disc = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        two = disc | ((rows < 6) & (columns > 150))
        for region in (disc, two):
            polygons = polygons_of(region)
            drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, 120, 160))).astype(bool)
            assert (drawn & region).sum() / (drawn | region).sum() > 0.95
            assert sum(map(len, polygons)) < 200
    ring = (rows - 60) ** 2 + (columns - 80) ** 2 < 900
    holed = ring & ((rows - 60) ** 2 + (columns - 80) ** 2 > 100)
    assert polygons_of(holed) == polygons_of(ring)
    dot = np.zeros((5, 5), bool)
    dot[2, 3] = True
    [polygon] = polygons_of(dot)
    assert np.reshape(polygon, (-1, 2)).mean(axis=0).tolist() == [3.5, 2.5]  # a pixel's centre


def test_json_with_polygons(client, photo):
    [region] = ask(client, "/segment", photo, regions="polygons").json()["classes"]
    assert region["rle"] is None
    assert len(region["polygons"][0]) >= 8


def test_results_at_the_models_size(client):
    photo = to_file(halves(RED, BLACK, 100, 200))
    for path, extra in (("/segment", {}), ("/pseudo-label", {}), ("/cam", {"class": "dog"})):
        small = np.load(io.BytesIO(ask(client, path, photo, format="npy", size="model", **extra).content))
        large = np.load(io.BytesIO(ask(client, path, photo, format="npy", **extra).content))
        assert small.shape == (SIDE // 2, SIDE)
        assert large.shape == (100, 200)
        picture = Image.open(io.BytesIO(ask(client, path, photo, format="overlay", size="model", **extra).content))
        assert picture.size == (SIDE, SIDE // 2)
    [region] = ask(client, "/segment", photo, size="model").json()["classes"]
    assert region["rle"]["size"] == [SIDE // 2, SIDE]


def test_tags_gate_masks_and_maps(client):
    photo = to_file(halves(RED, GREEN))
    both = {region["class"] for region in ask(client, "/segment", photo).json()["classes"]}
    assert both == {"dog", "cat"}
    gated = ask(client, "/segment", photo, tags="cat").json()
    assert {region["class"] for region in gated["classes"]} == {"cat"}
    assert gated["tags"] == ["cat"]
    assert (
        np.load(io.BytesIO(ask(client, "/cam", photo, format="npy", tags="cat", **{"class": "dog"}).content)).max() == 0
    )
    maps = npz_of(ask(client, "/cam", photo, format="npz", tags="cat", **{"class": "all"}))["maps"]
    assert np.flatnonzero(maps.max(axis=(1, 2))).tolist() == [CAT - 1]
    for path in ("/segment", "/cam?class=dog"):
        reply = client.post(path + ("&" if "?" in path else "?") + "tags=cta", files={"file": photo})
        assert (reply.status_code, reply.json()["parameter"]) == (422, "tags")


def test_a_threshold_cuts_masks_and_maps(client, photo):
    assert ask(client, "/segment", photo, threshold=0.5).json()["classes"]
    strict = ask(client, "/segment", photo, threshold=1).json()
    assert (strict["classes"], strict["thresholds"]["probability"]) == ([], 1)
    plain = np.load(io.BytesIO(ask(client, "/cam", photo, format="npy", **{"class": "dog"}).content))
    cut = np.load(io.BytesIO(ask(client, "/cam", photo, format="npy", threshold=0.6, **{"class": "dog"}).content))
    np.testing.assert_array_equal(cut, np.where(plain > 0.6, plain, 0))


def test_refined_maps_and_masks(client, photo):
    raw = npz_of(ask(client, "/cam", photo, format="npz", **{"class": "dog"}))["maps"]
    refined = npz_of(ask(client, "/cam", photo, format="npz", refine="pamr", **{"class": "dog"}))["maps"]
    np.testing.assert_allclose(refined, refine_pamr(halves(RED, BLACK), raw), atol=1e-6)
    reply = ask(client, "/segment", photo, refine="pamr").json()
    assert reply["refinement"] == "pamr"
    assert [region["class"] for region in reply["classes"]] == ["dog"]


def test_masks_of_several_views(client, photo):
    reply = ask(client, "/segment", photo, scales="0.5,1", flip=True).json()
    assert (reply["scales"], reply["flip"]) == ([0.5, 1], True)
    assert [region["class"] for region in reply["classes"]] == ["dog"]


def test_all_models_are_those_that_know_the_class(serve, tmp_path, photo):
    """A model of one's own beside the others neither keeps them from being fused nor is it fused with them."""
    few = ("sofa", "dog")
    for name, classes in (("a", None), ("b", None), ("own", few), ("own2", few), ("other", ("lamp",))):
        write_cam_model(tmp_path, name, **({"classes": classes} if classes else {}))
    write_segmentation_model(tmp_path)
    write_segmentation_model(tmp_path, "of_few", classes=few)
    client = serve(Settings(models=tmp_path, device="cpu", cam_model="a", segmentation_model="deeplab_colours"))

    def fused(**asked: str) -> list[str]:
        reply = ask(client, "/cam", photo, fuse="all", format="json", **asked)
        assert reply.status_code == 200, reply.text
        return [model["name"] for model in (reply.json()["model"], *reply.json()["fused_with"])]

    assert fused(**{"class": "dog"}) == ["a", "b"]  # the default's classes go first
    assert fused(**{"class": "lamp"}) == ["other"]
    described = ask(client, "/cam", photo, fuse="all", format="json", **{"class": "dog"}).json()
    assert described["left_out"] == ["other/1", "own/1", "own2/1"]
    assert (
        ask(client, "/cam", photo, fuse="all", **{"class": "dog"}).headers["x-models-left-out"]
        == "other/1, own/1, own2/1"
    )
    named = ask(client, "/cam", photo, fuse="a,b", format="json", **{"class": "dog"})
    assert (named.json()["left_out"], "x-models-left-out" in named.headers) == ([], False)
    reply = client.post("/cam?class=lmap&fuse=all", files={"file": photo})
    assert reply.json()["type"] == "urn:tag2mask:unknown-class"
    for model, segmenter in (("a", "deeplab_colours"), ("own", "of_few"), ("other", "deeplab_colours")):
        body = ask(client, "/analyze", photo, model=model).json()
        assert body["segment"]["model"]["name"] == segmenter


def test_fused_maps(serve, tmp_path):
    weights = dict.fromkeys(("dog",), (1, -1, -1))
    assert weights
    write_cam_model(tmp_path, "a", 1)
    write_cam_model(tmp_path, "b", 3, scales=(1.0, 2.0))
    write_cam_model(tmp_path, "few", 1, classes=("cat", "dog"))
    client = serve(Settings(models=tmp_path, device="cpu"))
    photo = to_file(halves(RED, BLUE, 50, 40))
    asked = {"format": "npz", "class": "dog"}
    parts = [npz_of(ask(client, "/cam", photo, model=name, **asked))["maps"] for name in ("a", "b")]
    reply = ask(client, "/cam", photo, fuse="a,b", **asked)
    assert reply.headers["x-model"] == "a/1, b/3"
    np.testing.assert_allclose(npz_of(reply)["maps"], fuse_maps(parts), atol=1e-6)
    described = ask(client, "/cam", photo, fuse="a,b/3", format="json", **{"class": "dog"}).json()
    assert [model["name"] for model in (described["model"], *described["fused_with"])] == ["a", "b"]
    for link in described["links"].values():
        assert "fuse=a/1,b/3" in link
        assert client.get(link).status_code == 200
    label = ask(client, "/pseudo-label", photo, fuse="a,b", format="json").json()
    assert label["present"] == ["dog", "person"]
    assert "fuse=a/1,b/3" in label["links"]["cam"]["dog"]
    refused = {
        "a": "2 to 8",
        "a,a/1": "2 to 8",
        "a,few": "different classes",
        "a,none": "'none'",
    }
    for names, reason in refused.items():
        reply = client.post("/cam", params={"class": "dog", "fuse": names}, files={"file": photo})
        assert reply.status_code in (404, 422), names
        assert reason in reply.json()["detail"]
        assert reply.json()["parameter"] == "fuse"
    reply = client.post("/cam?class=dog&fuse=a,b&model=a", files={"file": photo})
    assert (reply.status_code, reply.json()["parameter"]) == (422, "fuse")


def test_scores_of_several_models_are_held_against_their_thresholds_together(serve, tmp_path):
    for name, threshold in (("a", 0.1), ("b", 0.6)):
        write_cam_model(tmp_path, name, presence_thresholds=(threshold,) * len(VOC_CLASSES))
    client = serve(Settings(models=tmp_path, device="cpu"))
    photo = to_file(halves((51, 0, 0), BLUE))  # a dog of 0.2, a person of 1
    for word, present in (("a", ["dog", "person"]), ("b", ["person"]), ("all", ["person"])):
        asked = {"fuse": "all"} if word == "all" else {"model": word}
        label = ask(client, "/pseudo-label", photo, format="json", **asked).json()
        assert label["present"] == present
        of_all = ask(client, "/cam", photo, **{"class": "all"}, **asked).json()
        assert [entry["class"] for entry in of_all["classes"] if entry["present"]] == present
    assert {entry["presence_threshold"] for entry in of_all["classes"]} == {0.35}


def test_of_all_fused_the_first_by_name_leads_whenever_it_came(serve, tmp_path, photo):
    write_cam_model(tmp_path, "b", 1, background_threshold=0.6)
    client = serve(Settings(models=tmp_path, device="cpu", models_poll_seconds=0))
    write_cam_model(tmp_path, "a", 1, background_threshold=0.2)
    write_cam_model(tmp_path, "a", 2, background_threshold=0.3)
    assert client.app.state.service.models.refresh(only_unchanged=False)
    label = ask(client, "/pseudo-label", photo, fuse="all", format="json").json()
    used = [(model["name"], model["version"]) for model in (label["model"], *label["fused_with"])]
    assert used == [("a", 2), ("b", 1)]
    assert label["thresholds"]["background"] == 0.3


def test_analyze_answers_all_at_once(client, photo):
    reply = ask(client, "/analyze", photo, tags="dog", refine="pamr")
    body = reply.json()
    client.cookies.clear()
    assert set(body) == {"image", "segment", "cam", "pseudo_label", "timings_ms"}
    for part, path, own in (
        ("segment", "/segment", {}), ("cam", "/cam", {"class": "all"}), ("pseudo_label", "/pseudo-label", {})
    ):  # fmt: skip
        alone = ask(client, path, photo, tags="dog", refine="pamr", format="json", **own).json()
        assert list(alone["timings_ms"])[:3] == ["queue", "decode", "predict"]
        for results in (body[part], alone):  # how long it took differs from run to run
            del results["timings_ms"]
        assert body[part] == alone
    for links in (body["segment"]["links"], body["cam"]["links"], body["pseudo_label"]["links"]):
        for link in links.values():
            assert isinstance(link, dict) or client.get(link).status_code == 200, link
    assert client.get("/analyze", params={"image": body["image"]["id"], "tags": "dog"}).status_code == 200


def test_the_time_of_a_stage_is_added_up_over_the_models(serve, settings, monkeypatch):
    """The maps and the mask take 200 ms each here: both are part of "predict", in the body and in the header."""

    def slowly(work):
        def answer(*arguments, **named):
            time.sleep(0.2)
            return work(*arguments, **named)

        return answer

    for name in ("scale_cams", "segment"):
        monkeypatch.setattr(analysis, name, slowly(getattr(analysis, name)))
    client = serve(settings.model_copy(update={"worker_processes": False}))
    start = time.perf_counter()
    reply = ask(
        client, "/analyze", to_file(halves(BLACK, RED, 70, 70))
    )  # no other test sends it: nothing of it is kept
    passed = 1000 * (time.perf_counter() - start)
    timings = reply.json()["timings_ms"]
    assert list(timings) == ["queue", "decode", "predict", "encode"]
    assert 400 <= timings["predict"] <= sum(timings.values()) <= passed
    header = dict(entry.split(";dur=") for entry in reply.headers["server-timing"].split(", "))
    assert float(header["predict"]) == pytest.approx(timings["predict"], rel=1e-3)


def test_links_lead_to_the_models_that_answered(client, photo):
    body = ask(client, "/analyze", photo, model="cam_colours/2", segmenter="deeplab_colours").json()
    for part in ("segment", "pseudo_label"):
        links = body[part]["links"]
        assert links["pseudo_label"].endswith("&model=cam_colours/2")
        assert links["cam"]["dog"].endswith("&model=cam_colours/2")
        assert links["segment"].endswith("&model=deeplab_colours/1")
    alone = ask(client, "/segment", photo).json()  # no cam model answered: the link leads to the default one
    assert alone["links"]["pseudo_label"].endswith("&model=drs_colours/1")


def test_a_segmenter_is_looked_at_with_the_views_of_its_card(serve, tmp_path, photo):
    scales = (0.5, 1.0)
    write_cam_model(tmp_path)
    path = write_segmentation_model(tmp_path, scales=scales, flip=True)
    client = serve(Settings(models=tmp_path, device="cpu"))
    body = ask(client, "/segment", photo, format="json").json()
    assert (body["scales"], body["flip"]) == ([0.5, 1.0], True)
    image = np.asarray(Image.open(io.BytesIO(photo)).convert("RGB"))
    expected = segment(Engine(path, device="cpu"), image, scales=scales, flip=True).probabilities
    for endpoint in ("/segment", "/analyze"):
        found = npz_of(ask(client, endpoint, photo, format="npz"))
        np.testing.assert_array_equal(found["probabilities"], expected)
    labeller = InProcess(Settings(models=tmp_path, device="cpu"), AnalyzeParameters())
    np.testing.assert_array_equal(labeller.label(photo, None).probabilities, expected)
    own = ask(client, "/segment", photo, format="json", scales="1", flip="false").json()
    assert (own["scales"], own["flip"]) == ([1.0], False)


@pytest.mark.parametrize("form", ["coco", "hf"])
def test_regions_of_all_classes_hold_one_full_size_map_at_a_time(client, form):
    """16 tagged classes have a map; all at once, at 2000 x 1000, they would take 128 MB."""
    classes = (*VOC_CLASSES[:15], "person")
    height, width = 1000, 2000
    large = to_file(halves(RED, BLACK, height, width))
    ask(client, "/cam", large, format="json", **{"class": "all"})  # what is made once is there
    tracemalloc.start()
    try:
        ask(client, "/cam", large, format=form, tags=",".join(classes), **{"class": "all"})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    one_map = height * width * np.dtype(np.float32).itemsize
    assert peak < 6 * one_map


def test_analyze_as_arrays(client, photo):
    found = npz_of(ask(client, "/analyze", photo, format="npz"))
    mask = npz_of(ask(client, "/segment", photo, format="npz"))
    np.testing.assert_array_equal(found["mask"], mask["mask"])
    label = npz_of(ask(client, "/pseudo-label", photo, format="npz"))
    np.testing.assert_array_equal(found["label_map"], label["label_map"])
    every = npz_of(ask(client, "/cam", photo, format="npz", **{"class": "all"}))
    np.testing.assert_array_equal(found["maps"], every["maps"])


def test_analyze_where_no_segmenter_is_served_or_another_is_named(serve, tmp_path, client, photo):
    write_cam_model(tmp_path, "a", 1)
    alone = serve(Settings(models=tmp_path, device="cpu"))
    body = ask(alone, "/analyze", photo).json()
    assert body["segment"] is None
    assert body["pseudo_label"]["present"] == ["dog"]
    conditional = ask(alone, "/analyze", photo, inference="class-conditional", scales="1").json()
    assert [entry["class"] for entry in conditional["cam"]["classes"]] == ["dog"]
    reply = alone.post("/analyze?segmenter=none", files={"file": photo})
    assert (reply.status_code, reply.json()["parameter"]) == (404, "segmenter")
    reply = client.post("/analyze?segmenter=drs_colours", files={"file": photo})
    assert (reply.status_code, reply.json()["parameter"]) == (422, "segmenter")
    assert json.loads(ask(client, "/analyze", photo, segmenter="deeplab_colours").content)["segment"] is not None


def test_thresholds_in_the_wrong_order(client, photo):
    query = "background_threshold=0.5&foreground_threshold=0.2"
    for path in ("/pseudo-label", "/analyze"):
        reply = client.post(f"{path}?{query}", files={"file": photo})
        assert (reply.status_code, reply.json()["parameter"]) == (422, "foreground_threshold")
