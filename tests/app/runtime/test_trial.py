"""A model that comes while the service runs is tried in a process of its own: what it does there costs nobody else."""

import time

import pytest

from app.inference.errors import ModelCardError
from app.runtime import trial
from app.runtime.model_store import ModelStore
from app.runtime.settings import Settings
from app.runtime.trial import try_apart
from tests.app.colour_models import loop_for_ever, write_cam_model


def test_a_good_model_passes(tmp_path):
    try_apart(write_cam_model(tmp_path), "cpu", 1, 120)


def test_what_is_wrong_is_said_in_the_words_of_the_one_who_loads(tmp_path):
    path = write_cam_model(tmp_path)
    path.write_bytes(b"broken")
    with pytest.raises(ModelCardError, match=f"{path} is not a model ONNX Runtime can load"):
        try_apart(path, "cpu", 1, 120)


def test_a_crash_ends_the_trial_alone(tmp_path, monkeypatch):
    crash = tmp_path / "crash"
    crash.mkdir()
    (crash / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(trial, "ROOT", crash)
    with pytest.raises(ModelCardError, match=r"ended the process that tried it \(status -11"):
        try_apart(write_cam_model(tmp_path), "cpu", 1, 120)


def test_an_endless_graph_is_refused_and_later_models_are_loaded(tmp_path):
    write_cam_model(tmp_path, "a", 1)
    store = ModelStore(Settings(models=tmp_path, device="cpu", model_trial_seconds=15))
    store.load()
    loop_for_ever(write_cam_model(tmp_path, "b", 1))
    start = time.monotonic()
    store.refresh(only_unchanged=False)
    assert "within 15 seconds" in store.catalog.refused["b", 1]
    write_cam_model(tmp_path, "c", 1)
    store.refresh(only_unchanged=False)
    assert list(store.catalog.engines) == [("a", 1), ("c", 1)]
    assert time.monotonic() - start < 120


def test_an_endless_graph_at_the_start_is_refused_too(tmp_path):
    write_cam_model(tmp_path, "a", 1)
    loop_for_ever(write_cam_model(tmp_path, "b", 1))
    catalog = ModelStore(Settings(models=tmp_path, device="cpu", model_trial_seconds=3)).load()
    assert list(catalog.engines) == [("a", 1)]
    assert "takes more than 3 seconds for its first runs" in catalog.refused["b", 1]
