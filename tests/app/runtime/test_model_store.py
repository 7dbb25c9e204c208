"""The models directory: what is found, what is refused, which model answers."""

import re

import onnx
import pytest

from app.inference.errors import (
    DeviceError,
    ModelCardError,
    ModelStoreError,
    NoModelForTaskError,
    NotReadyError,
    UnknownModelError,
    WrongTaskError,
)
from app.runtime.model_files import find_misplaced, find_model_files
from app.runtime.model_store import ModelStore
from app.runtime.settings import Settings
from tests.app.colour_models import write_cam_model, write_segmentation_model


def load(directory, **settings):
    return ModelStore(Settings(models=directory, **{"device": "cpu", **settings})).load()


def test_finds_versions_and_leaves_other_things_alone(tmp_path):
    path = write_cam_model(tmp_path, "a", 1)
    for other in ("a/02", "a/x", "a/0", "a/-1", "a/\u0662", ".old/1", ".a/2"):
        (tmp_path / other).mkdir(parents=True)
        (tmp_path / other / "model.onnx").write_bytes(path.read_bytes())
    (tmp_path / "README.md").write_text("models")
    (tmp_path / "b" / "1").mkdir(parents=True)
    (tmp_path / "a" / "10").mkdir()
    (tmp_path / "a" / "10" / "model.onnx").write_bytes(b"")
    assert list(find_model_files(tmp_path)) == [("a", 1), ("a", 10)]


def test_misplaced_files_are_listed_with_the_remedy(serve, tmp_path, photo):
    whole = write_cam_model(tmp_path, "a", 1).read_bytes()
    for folder in ("a/old", "b", "b/v1", "a/.kept", ".git/x"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "model.onnx").write_bytes(whole)
    client = serve(Settings(models=tmp_path, device="cpu"))
    refused = client.get("/models").json()["refused"]
    assert [(entry["name"], entry["version"]) for entry in refused] == [("a", None), ("b", None), ("b", None)]
    for entry, fault in zip(
        refused, ("'old' is no version", "no folder of a version", "'v1' is no version"), strict=True
    ):
        assert fault in entry["reason"]
        assert f"Move it to {tmp_path / entry['name']}/VERSION/model.onnx" in entry["reason"]
    for wanted, where in {"b": "b/model.onnx", "b/v1": "b/v1/model.onnx", "a/old": "a/old/model.onnx"}.items():
        reply = client.post(f"/cam?class=dog&model={wanted}", files={"file": photo})
        assert reply.status_code == 404
        said = f"model {wanted!r} is refused (GET /models lists all that are): {tmp_path / where} is not served: "
        assert reply.json()["detail"].startswith(said)
        assert f"Move it to {tmp_path / where[0]}/VERSION/model.onnx" in reply.json()["detail"]
    assert (
        "no version 'new' of model 'a' is served; there are a/1."
        in client.post("/cam?class=dog&model=a/new", files={"file": photo}).json()["detail"]
    )


def test_onnx_files_of_other_names_are_listed_as_misplaced(tmp_path):
    whole = write_cam_model(tmp_path, "a", 1).read_bytes()
    (tmp_path / "a" / "1" / "as-it-was.onnx").write_bytes(whole)  # beside the one that is served: one's own affair
    (tmp_path / ".hidden.onnx").write_bytes(whole)
    (tmp_path / "stray.onnx").write_bytes(whole)
    (tmp_path / "b" / "2").mkdir(parents=True)
    (tmp_path / "b" / "2" / "net.onnx").write_bytes(whole)
    found = find_misplaced(tmp_path)
    assert {name: list(folders) for name, folders in found.items()} == {"stray": [""], "b": ["2"]}
    assert "it lies in no folder of a version. Move it to" in found["stray"][""]
    assert found["b"]["2"].endswith(f"its name is not model.onnx. Move it to {tmp_path}/b/2/model.onnx.")


def test_a_default_that_is_misplaced_ends_with_the_remedy(tmp_path):
    whole = write_cam_model(tmp_path, "a", 1).read_bytes()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "model.onnx").write_bytes(whole)
    with pytest.raises(ModelStoreError, match=r"TAG2MASK_CAM_MODEL=b: .*b/model\.onnx is not served: .*Move it to"):
        load(tmp_path, cam_model="b")


def test_misplaced_files_come_and_go_while_it_runs(tmp_path):
    path = write_cam_model(tmp_path, "a", 1)
    store = ModelStore(Settings(models=tmp_path, device="cpu"))
    assert store.load().misplaced == {}
    (tmp_path / "b").mkdir()
    moved = path.rename(tmp_path / "b" / "model.onnx")
    with pytest.raises(ModelStoreError, match="Move it to"):
        find_model_files(tmp_path)
    path.write_bytes(moved.read_bytes())
    assert store.refresh(only_unchanged=False)
    assert list(store.catalog.misplaced) == ["b"]
    moved.unlink()
    assert store.refresh(only_unchanged=False)
    assert store.catalog.misplaced == find_misplaced(tmp_path) == {}


def test_missing_and_empty_directories(tmp_path):
    with pytest.raises(ModelStoreError, match="TAG2MASK_MODELS"):
        ModelStore(Settings(models=tmp_path / "none"))
    with pytest.raises(ModelStoreError, match=r"holds no NAME/VERSION/model\.onnx"):
        ModelStore(Settings(models=tmp_path))


def test_not_ready_before_loading_and_after_a_failure(tmp_path):
    path = write_cam_model(tmp_path, "a", 1)
    store = ModelStore(Settings(models=tmp_path, device="cpu"))
    with pytest.raises(NotReadyError, match="still being loaded"):
        _ = store.catalog
    path.write_bytes(b"broken")
    with pytest.raises(ModelCardError, match=r"model\.onnx"):
        store.load()
    with pytest.raises(NotReadyError, match="could not be loaded"):
        store.check_ready()


def test_file_in_the_wrong_place(tmp_path):
    path = write_cam_model(tmp_path, "a", 1)
    path.parent.rename(tmp_path / "a" / "2")
    with pytest.raises(ModelCardError, match="describes itself as a/1"):
        load(tmp_path)


def test_choice_by_name_and_version(tmp_path):
    for name, version in (("a", 2), ("a", 10), ("b", 1)):
        write_cam_model(tmp_path, name, version)
    write_segmentation_model(tmp_path, "s", 1)
    catalog = load(tmp_path)

    def choose(wanted):
        card = catalog.choose("cam", wanted).card
        return card.name, card.version

    assert choose("a") == ("a", 10)
    assert choose("a/2") == ("a", 2)
    assert choose(None) == ("a", 10)
    with pytest.raises(WrongTaskError, match="a, b"):
        choose("s")
    for wanted in ("c", "a/3", "A", "", "/", "a//2", "s/2"):
        with pytest.raises(UnknownModelError):
            choose(wanted)


def test_default_prefers_the_method_then_the_name(tmp_path):
    write_cam_model(tmp_path, "a_edam", 1, method="edam")
    write_cam_model(tmp_path, "z_drs", 1, method="drs")
    write_cam_model(tmp_path, "y_drs", 3, method="drs")
    write_segmentation_model(tmp_path, "n", 1)
    write_segmentation_model(tmp_path, "m", 1)
    defaults = load(tmp_path).defaults
    assert (defaults["cam"].card.name, defaults["segmentation"].card.name) == ("y_drs", "m")


def test_default_can_be_set(tmp_path):
    write_cam_model(tmp_path, "a", 1)
    write_cam_model(tmp_path, "a", 2)
    write_cam_model(tmp_path, "b", 1)
    assert load(tmp_path, cam_model="b").defaults["cam"].card.name == "b"
    assert load(tmp_path, cam_model="a/1").defaults["cam"].card.version == 1
    with pytest.raises(ModelStoreError, match="TAG2MASK_CAM_MODEL=c"):
        load(tmp_path, cam_model="c")
    with pytest.raises(ModelStoreError, match="TAG2MASK_SEGMENTATION_MODEL=a"):
        load(tmp_path, segmentation_model="a")


def test_task_without_a_model(tmp_path):
    write_cam_model(tmp_path, "a", 1)
    with pytest.raises(NoModelForTaskError, match="segmentation model"):
        load(tmp_path).choose("segmentation", None)


def test_device_that_cannot_be_had(tmp_path):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("CUDA is here")
    write_cam_model(tmp_path, "a", 1)
    with pytest.raises(DeviceError, match="TAG2MASK_DEVICE"):
        load(tmp_path, device="cuda")


def test_a_new_model_is_served_once_its_file_stands_still(tmp_path):
    write_cam_model(tmp_path, "a", 1)
    store = ModelStore(Settings(models=tmp_path, device="cpu"))
    first = store.load()
    assert not store.refresh()
    path = write_cam_model(tmp_path, "a", 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert not store.refresh()  # seen for the first time: perhaps still being written
    path.write_bytes(whole)
    assert not store.refresh()  # indeed
    assert store.refresh()
    second = store.catalog
    assert sorted(second.engines) == [("a", 1), ("a", 2)]
    assert second.choose("cam", "a").card.version == 2
    assert second.engines["a", 1] is first.engines["a", 1]
    assert sorted(first.engines) == [("a", 1)]  # what a request in flight goes on with
    assert not store.refresh()


def test_a_broken_file_leaves_the_old_one_serving(tmp_path):
    path = write_cam_model(tmp_path, "a", 1)
    whole = path.read_bytes()
    store = ModelStore(Settings(models=tmp_path, device="cpu"))
    engine = store.load().engines["a", 1]
    path.write_bytes(b"broken")
    assert store.refresh(only_unchanged=False)
    assert store.catalog.engines == {("a", 1): engine}
    assert "not a model" in store.catalog.refused["a", 1]
    assert not store.refresh(only_unchanged=False)  # not tried again as it is
    path.write_bytes(whole)
    assert store.refresh(only_unchanged=False)
    assert store.catalog.engines["a", 1] is not engine
    assert store.catalog.refused == {}


def test_models_that_are_taken_away(tmp_path, caplog):
    for name in ("a", "b"):
        write_cam_model(tmp_path, name, 1)
    store = ModelStore(Settings(models=tmp_path, device="cpu", cam_model="b"))
    default = store.load().defaults["cam"]
    (tmp_path / "a" / "1" / "model.onnx").unlink()
    assert store.refresh(only_unchanged=False)
    assert sorted(store.catalog.engines) == [("b", 1)]
    write_cam_model(tmp_path, "c", 1)
    (tmp_path / "b" / "1" / "model.onnx").unlink()
    assert store.refresh(only_unchanged=False)
    assert sorted(store.catalog.engines) == [("b", 1), ("c", 1)]  # the default was asked for by name: it stays
    assert store.catalog.defaults["cam"] is default
    assert [record for record in caplog.messages if "set as default" in record] != []
    caplog.clear()
    for _ in range(3):  # what is gone is no news at the next looks
        assert not store.refresh(only_unchanged=False)
    assert caplog.messages == []
    (tmp_path / "c" / "1" / "model.onnx").unlink()
    for _ in range(3):
        assert not store.refresh(only_unchanged=False)  # an empty directory: a disk that went away, or a mistake
    assert len(caplog.messages) == 1
    assert sorted(store.catalog.engines) == [("b", 1), ("c", 1)]


def test_a_broken_file_keeps_no_other_from_being_served_at_the_start(tmp_path):
    write_cam_model(tmp_path, "a", 1)
    write_cam_model(tmp_path, "a", 2).write_bytes(b"broken")
    write_cam_model(tmp_path, "b", 1).parent.rename(tmp_path / "b" / "2")
    store = ModelStore(Settings(models=tmp_path, device="cpu"))
    catalog = store.load()
    assert sorted(catalog.engines) == [("a", 1)]
    assert sorted(catalog.refused) == [("a", 2), ("b", 2)]
    assert str(tmp_path / "b" / "1" / "model.onnx") in catalog.refused["b", 2]
    assert not store.refresh()
    with pytest.raises(ModelStoreError, match=r"TAG2MASK_CAM_MODEL=b: model 'b' is refused .*describes itself as b/1"):
        load(tmp_path, cam_model="b")


def test_a_request_for_a_refused_model_is_told_why(serve, tmp_path, photo):
    write_cam_model(tmp_path, "a", 1)
    write_cam_model(tmp_path, "a", 2).write_bytes(b"broken")
    write_cam_model(tmp_path, "b", 1).parent.rename(tmp_path / "b" / "2")
    client = serve(Settings(models=tmp_path, device="cpu"))
    for wanted, words in {
        "a/2": "model 'a/2' is refused (GET /models lists all that are): ",
        "b": "model 'b' is refused (GET /models lists all that are): ",
        "b/2": "describes itself as b/1",
        "b/3": "model 'b' is refused",
        "a/3": "no version '3' of model 'a' is served; there are a/1.",
        "c": "no model 'c' is served.",
    }.items():
        reply = client.post(f"/cam?class=dog&model={wanted}", files={"file": photo})
        assert (reply.status_code, reply.json()["title"]) == (404, "Unknown model")
        assert words in reply.json()["detail"], wanted
        assert reply.json()["known"] == (["a/1"] if wanted.startswith("a") else ["a"])
    assert client.post("/cam?class=dog&model=a", files={"file": photo}).headers["x-model"] == "a/1"


def test_all_faults_of_a_models_metadata_are_said_at_once(tmp_path):
    write_cam_model(tmp_path, "a", 1)
    path = write_cam_model(tmp_path, "b", 1)
    model = onnx.load(path)
    changed = {"output_stride": '"wide"', "scales": "{", "presence_thresholds": '["x", "y"]', "surprise": "1"}
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key not in ("classes", "paper")}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, kept | changed)
    onnx.save(model, path)
    reason = load(tmp_path).refused["b", 1]
    assert reason.startswith(f"{path}: metadata key ")
    assert set(re.findall(r"'([\w.]+)': ", reason)) == {"classes", "paper", "presence_thresholds.0", *changed} - {
        "presence_thresholds"
    }
    assert "'classes': Field required; " in reason
    assert "'scales': is not JSON" in reason
