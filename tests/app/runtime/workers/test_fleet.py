"""The worker processes: what one of them does, or has done to it, costs nobody else anything."""

import gc
import logging
import operator
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from app.inference.errors import ModelCardError, NotReadyError, UnknownClassError, WorkerLostError, WorkTimeError
from app.inference.maps.localization import tagged_classes
from app.main import create_app
from app.runtime.model_store import ModelStore
from app.runtime.settings import Settings
from app.runtime.workers.fleet import Fleet
from app.runtime.workers.forking import LARGE_PAGES, ROOT
from app.runtime.workers.parcel import APART
from tests.app.colour_models import loop_for_ever, write_cam_model

RUN = operator.methodcaller("run", np.zeros((1, 64, 64, 3), np.uint8))
SLOW = "inference=class-conditional&scales=0.5,1,1.5,2&flip=true&refine=pamr&tags=dog"


def settings_of(models: Path, **others: object) -> Settings:
    return Settings(models=models, device="cpu", **others)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    write_cam_model(directory, "a", 1)
    return directory


@pytest.fixture
def store(models: Path) -> Iterator[ModelStore]:
    settings = settings_of(models, work_seconds=1)
    store = ModelStore(settings, Fleet(settings, 1))
    store.load()
    yield store
    store._loader.close()


@pytest.fixture
def fleet(store: ModelStore) -> Fleet:
    return store._loader


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_crash_costs_its_own_work_and_the_process_is_replaced(store, fleet, caplog):
    model = store.catalog.engines["a", 1]
    before = fleet.perform(os.getpid)
    with pytest.raises(WorkerLostError, match="has ended") as caught:
        fleet.perform(os.abort)
    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "2"})
    assert fleet.perform(os.getpid) not in (before, os.getpid())  # it waited for the next one
    assert fleet.perform(RUN, model)["scores"].shape == (1, 20)
    assert (fleet.living, fleet.ended) == (1, 1)
    assert f"worker process {before} has ended (signal 6)" in caplog.text


def test_processes_ask_for_large_pages_and_the_service_stays_as_it_was_started(fleet):
    assert fleet.perform(os.getenv, "GLIBC_TUNABLES") == LARGE_PAGES
    assert "GLIBC_TUNABLES" not in os.environ
    assert fleet.perform(gc.isenabled)
    assert fleet.perform(os.getenv, "PYTHONPATH").split(os.pathsep)[0] == str(ROOT)


def test_a_process_that_is_killed_while_it_is_idle_is_replaced(fleet):
    before = fleet.perform(os.getpid)
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: fleet.ended == 1 and fleet.living == 1)
    assert fleet.perform(os.getpid) != before


def test_work_that_heeds_no_deadline_is_ended_with_its_process(fleet):
    start = time.monotonic()
    with pytest.raises(WorkTimeError, match="more than 1 seconds, .* its process was ended") as caught:
        fleet.perform(time.sleep, 600)
    assert caught.value.status == 504
    assert time.monotonic() - start < 60
    assert fleet.perform(abs, -3) == 3


def test_closing_waits_for_no_work_that_does_not_end(models):
    settings = settings_of(models, work_seconds=600)
    fleet = Fleet(settings, 1)
    ModelStore(settings, fleet).load()
    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(fleet.perform, time.sleep, 600)
        wait_for(lambda: not fleet._free)
        start = time.monotonic()
        fleet.close()
        with pytest.raises(WorkerLostError):
            working.result()
    assert time.monotonic() - start < 60


def test_signals_that_mean_the_service_are_left_to_it(fleet):
    before = fleet.perform(os.getpid)
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(before, each)
    assert fleet.perform(os.getpid) == before


def test_errors_and_log_lines_come_back_whole(store, fleet, caplog):
    card = store.catalog.engines["a", 1].card
    with pytest.raises(UnknownClassError, match="Did you mean 'dog'") as caught:
        fleet.perform(tagged_classes, card, ("dgo",))
    assert (caught.value.details["nearest"], caught.value.known) == ("dog", card.classes)
    with pytest.raises(ValueError, match="invalid literal") as unexpected:
        fleet.perform(int, "x")
    assert "In the worker process:\nTraceback" in unexpected.value.__notes__[0]
    fleet.perform(logging.getLogger("there").warning, "a line of %s", "there")
    assert "a line of there" in caplog.text


def test_large_bytes_arrive_as_they_were(fleet):
    data = os.urandom(3_000_000)
    assert bytes(fleet.perform(bytes, data)) == data
    assert fleet.perform(type, data) is bytes
    returned = fleet.perform(bytes, data)
    assert bytes(fleet.perform(bytes, returned)) == data  # what came back may be sent again


def test_maps_that_are_too_large_for_the_pipe_are_known_again(serve, tmp_path, photo):
    write_cam_model(tmp_path, preferred_size=320)
    client = serve(settings_of(tmp_path, workers=1))
    address = "/cam?class=dog&scales=2,2&format=npy"
    first, second = (client.post(address, files={"file": photo}) for _ in range(2))
    maps = client.app.state.service.maps
    assert maps.size_bytes >= APART
    assert [first.status_code, second.status_code] == [200, 200]
    assert first.content == second.content
    assert maps.found == 1


def test_models_come_and_are_forgotten_once_no_request_holds_them(tmp_path):
    write_cam_model(tmp_path, "a", 1)
    settings = settings_of(tmp_path)
    fleet = Fleet(settings, 1)
    store = ModelStore(settings, fleet)
    store.load()
    first = fleet.perform(os.getpid)
    path = write_cam_model(tmp_path, "a", 2)
    assert store.refresh(only_unchanged=False)
    held = store.catalog.engines["a", 2]
    (process,) = fleet._all
    assert held.sha256 in process.models  # it learned of the model before a request asked for it
    path.unlink()
    assert store.refresh(only_unchanged=False)
    assert fleet.perform(RUN, held)["scores"].shape == (1, 20)  # a request that began before
    sha256 = held.sha256
    del held
    gc.collect()
    assert fleet.perform(os.getpid) == first
    assert sha256 not in process.models
    fleet.close()


def test_a_process_that_comes_late_makes_none_too_many(tmp_path, monkeypatch):
    """A new model is tried while the second process still loads the first: what tried it takes part, and the late one leaves."""
    settings, gate = settings_of(tmp_path), threading.Event()
    write_cam_model(tmp_path, "a", 1)
    fleet = Fleet(settings, 2)
    start = fleet._start_another
    monkeypatch.setattr(fleet, "_start_another", lambda: gate.wait() and start())
    store = ModelStore(settings, fleet)
    store.load()
    assert fleet.living == 1
    write_cam_model(tmp_path, "b", 1)
    store.refresh(only_unchanged=False)
    assert fleet.living == 2
    (late,) = [thread for thread in threading.enumerate() if thread.name == "starter"]
    gate.set()
    late.join(60)
    assert (late.is_alive(), fleet.living, len(fleet._free)) == (False, 2, 2)
    fleet.close()


def test_a_file_that_was_overwritten_is_not_taken_for_the_one_that_was_tried(tmp_path):
    write_cam_model(tmp_path, "a", 1)
    write_cam_model(tmp_path, "b", 1)
    settings = settings_of(tmp_path)
    fleet = Fleet(settings, 1)
    engines = ModelStore(settings, fleet).load().engines
    shutil.rmtree(tmp_path / "a")
    write_cam_model(tmp_path, "a", 1, method="amr")
    os.kill(fleet.perform(os.getpid), signal.SIGKILL)
    wait_for(lambda: fleet.ended)
    assert fleet.perform(RUN, engines["b", 1])["scores"].shape == (1, 20)
    with pytest.raises(NotReadyError, match="a/1 has changed since it was tried"):
        fleet.perform(RUN, engines["a", 1])
    fleet.close()


class Crash:
    """A path that ends the process which reads it, as a file may that the runtime cannot bear."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return os.abort, ()


def test_a_model_that_crashes_its_trial_is_refused(fleet, models):
    with pytest.raises(ModelCardError, match="ended the process that tried it"):
        fleet.load("a", 1, Crash())
    assert fleet.load("a", 1, models / "a/1/model.onnx").card.name == "a"
    assert fleet.perform(abs, -1) == 1


@pytest.mark.parametrize("processes", [True, False])
def test_an_endless_graph_is_refused_at_the_start_and_later(tmp_path, processes):
    write_cam_model(tmp_path, "a", 1)
    loop_for_ever(write_cam_model(tmp_path, "b", 1))
    settings = settings_of(tmp_path, model_trial_seconds=5, workers=1, worker_processes=processes)
    app = create_app(settings)
    store, fleet = app.state.service.models, app.state.service.fleet
    assert list(store.load().engines) == [("a", 1)]
    assert "5 seconds" in store.catalog.refused["b", 1]
    loop_for_ever(write_cam_model(tmp_path, "c", 1))
    write_cam_model(tmp_path, "d", 1)
    store.refresh(only_unchanged=False)
    assert list(store.catalog.engines) == [("a", 1), ("d", 1)]
    assert "5 seconds" in store.catalog.refused["c", 1]
    fleet.close()


def test_a_worker_that_is_killed_costs_one_request_of_many(serve, models_directory, photo):
    client = serve(settings_of(models_directory, workers=2, queue_size=32))
    fleet = client.app.state.service.fleet
    wait_for(lambda: fleet.living == 2)
    statuses: list[int] = []

    def post() -> None:
        statuses.append(client.post(f"/pseudo-label?format=png&{SLOW}", files={"file": photo}).status_code)

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_for(lambda: not fleet._free)
    fleet._all[0].kill()
    assert client.get("/readyz").status_code == 200
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * 7 + [503]
    wait_for(lambda: fleet.living == 2)
    assert "tag2mask_workers 2.0" in client.get("/metrics").text
    assert "tag2mask_workers_ended 1.0" in client.get("/metrics").text


def test_not_ready_while_no_worker_lives(serve, models_directory, monkeypatch):
    client = serve(settings_of(models_directory, workers=1))
    fleet = client.app.state.service.fleet
    with monkeypatch.context() as patch:
        patch.setattr(fleet, "_start_another", lambda: None)
        fleet._all[0].kill()
        wait_for(lambda: fleet.ended)
        reply = client.get("/readyz")
        assert (reply.status_code, reply.json()["title"]) == (503, "Not ready yet")
    fleet._start_another()
    assert client.get("/readyz").status_code == 200
