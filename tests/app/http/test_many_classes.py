"""A model of 1,000 classes: its maps are served, a label map of it is refused, for labels end at 254."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.inference.analysis import Analyzer
from app.inference.engine import Engine
from app.inference.errors import TooManyClassesError
from app.inference.label_maps.pseudo_label import label_from_maps
from app.inference.labels import MAX_CLASSES, MAX_MAP_CLASSES, label_of, voc_colours, voc_palette
from app.inference.model_card import ModelCard
from app.inference.options import Options
from app.main import create_app
from app.runtime.settings import Settings
from tests.app.colour_models import BLACK, RED, SIDE, halves, to_file, write_cam_model
from tests.app.conftest import wait_until_ready

CLASSES = (*(f"thing {index}" for index in range(999)), "dog")  # the dog is class 999


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("many")
    write_cam_model(directory, "thousand", classes=CLASSES, method="cam")
    return directory


@pytest.fixture(scope="module")
def thousand(models: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(models=models, device="cpu", workers=1))) as client:
        wait_until_ready(client)
        yield client


@pytest.fixture
def image_id(thousand: TestClient, photo: bytes) -> str:
    return thousand.post("/cam?class=dog", files={"file": photo}).headers["x-image-id"]


def test_the_map_of_the_last_class_is_served(thousand: TestClient, image_id: str) -> None:
    reply = thousand.get("/cam", params={"class": "dog", "image": image_id, "format": "npy"})
    assert reply.status_code == 200
    values = np.load(io.BytesIO(reply.content))
    assert values[:, : SIDE // 2 - 4].min() > 0.99
    assert values[:, SIDE // 2 + 4 :].max() == 0
    body = thousand.get("/cam", params={"class": "dog", "image": image_id, "format": "json"}).json()
    assert (body["class"], body["label"], body["score"], body["present"]) == ("dog", 1000, 1, True)
    assert thousand.get(body["links"]["png"]).headers["content-type"] == "image/png"


def test_all_maps_are_described(thousand: TestClient, image_id: str) -> None:
    body = thousand.get("/cam", params={"class": "all", "image": image_id}).json()
    assert [entry["class"] for entry in body["classes"]] == list(CLASSES)
    assert [entry["class"] for entry in body["classes"] if entry["present"]] == ["dog"]
    assert len(body["thresholds"]["presence"]) == 1000


def test_all_maps_of_a_large_photo_are_refused_before_they_are_computed(thousand: TestClient) -> None:
    photo = to_file(halves(RED, BLACK, 400, 400))
    reply = thousand.post("/cam?class=all&format=npy", files={"file": photo})
    assert (reply.status_code, reply.json()["type"]) == (422, "urn:tag2mask:reply-too-large")


@pytest.mark.parametrize("parameters", [{}, {"tags": "dog"}, {"tags": "thing 3"}, {"format": "json"}])
def test_a_pseudo_label_is_refused_with_the_remedy(thousand: TestClient, image_id: str, parameters: dict) -> None:
    reply = thousand.get("/pseudo-label", params={"image": image_id, **parameters})
    assert reply.status_code == 422
    body = reply.json()
    assert (body["type"], body["parameter"], body["limit"]) == ("urn:tag2mask:too-many-classes", "model", MAX_CLASSES)
    assert "1000" in body["detail"]
    assert "GET /cam" in body["detail"]
    assert "--classes" in body["detail"]


def test_an_unknown_class_is_answered_without_a_list_of_a_thousand(thousand: TestClient, image_id: str) -> None:
    body = thousand.get("/cam", params={"class": "dig", "image": image_id}).json()
    assert body["nearest"] == "dog"
    assert "GET /classes" in body["detail"]
    assert len(body["detail"]) < 200
    assert len(body["known"]) == 1000


def test_the_models_are_listed(thousand: TestClient) -> None:
    (model,) = thousand.get("/models").json()["models"]
    assert len(model["classes"]) == 1000


def test_the_rule_shared_with_training_refuses_too(models: Path) -> None:
    engine = Engine(models / "thousand/1/model.onnx", device="cpu")
    image = halves(RED, BLACK)
    with pytest.raises(TooManyClassesError, match="labels up to 1000"):
        _ = Analyzer(Options(tags=("dog",)), (engine,)).look_at(image).pseudo_label
    maps = np.ones((1, SIDE, SIDE), np.float32)
    assert label_from_maps(image, maps, (MAX_CLASSES - 1,), (0.2, 0.2)).min() == MAX_CLASSES
    with pytest.raises(TooManyClassesError):  # its label would read "ignore"
        label_from_maps(image, maps, (MAX_CLASSES,), (0.2, 0.2))


@pytest.mark.parametrize(("task", "limit"), [("cam", MAX_MAP_CLASSES), ("segmentation", MAX_CLASSES)])
def test_a_card_holds_as_many_classes_as_its_task_can_name(task: str, limit: int) -> None:
    def card(count: int) -> ModelCard:
        return ModelCard(
            name="many", version=1, task=task, method="m", paper="p", backbone="b", output_stride=8, preferred_size=64,
            classes=tuple(map(str, range(count))), presence_thresholds=(0.5,) * (count if task == "cam" else 0),
            data="d", data_licence="l",
        )  # fmt: skip

    assert len(card(limit).classes) == limit
    with pytest.raises(ValueError, match=f"a {task} model has at most {limit} classes, this one has {limit + 1}"):
        card(limit + 1)


def test_colours_go_on_where_the_palette_ends() -> None:
    colours = voc_colours(label_of(np.arange(MAX_MAP_CLASSES)))
    assert len(np.unique(colours, axis=0)) == MAX_MAP_CLASSES
    assert np.array_equal(colours[:MAX_CLASSES], voc_palette()[label_of(np.arange(MAX_CLASSES))])


def test_every_class_has_its_label_and_colour(thousand: TestClient) -> None:
    reply = thousand.get("/classes")
    assert reply.status_code == 200
    classes = reply.json()["classes"]
    assert [entry["label"] for entry in classes] == list(range(1, 1001))
    assert len({entry["color"] for entry in classes}) == 1000


def test_no_link_leads_to_a_refusal(thousand: TestClient, image_id: str) -> None:
    assert "x-class-score" not in thousand.get("/cam", params={"class": "all", "image": image_id}).headers
    body = thousand.get("/cam", params={"class": "dog", "image": image_id, "format": "json"}).json()
    assert all(thousand.get(link).status_code == 200 for link in body["links"].values())
