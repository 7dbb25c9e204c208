"""Settings from the environment."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

import app.runtime.settings
from app.runtime.settings import Settings, available_cores


def test_environment_with_prefix(monkeypatch):
    monkeypatch.setenv("TAG2MASK_PORT", "8123")
    monkeypatch.setenv("TAG2MASK_DEVICE", "cpu")
    monkeypatch.setenv("TAG2MASK_WORKERS", "")
    settings = Settings()
    assert (settings.port, settings.device, settings.workers) == (8123, "cpu", None)


def test_defaults_stated_in_the_documentation():
    settings = Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert (settings.max_upload_bytes, settings.max_image_pixels) == (20_000_000, 25_000_000)


@pytest.mark.parametrize("wrong", [{"device": "tpu"}, {"port": -1}, {"workers": 0}, {"max_upload_bytes": "many"}])
def test_wrong_values(wrong):
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_frozen():
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_workers_are_cores_by_threads(monkeypatch):
    monkeypatch.setattr(app.runtime.settings, "available_cores", lambda: 8)
    assert Settings().worker_count == 8
    assert Settings(intra_op_threads=4).worker_count == 2
    assert Settings(intra_op_threads=16).worker_count == 1
    assert Settings(workers=3).worker_count == 3


def test_the_service_shares_cores_between_photos_unless_threads_are_set(monkeypatch):
    monkeypatch.setattr(app.runtime.settings, "available_cores", lambda: 8)
    assert (Settings().network_threads, Settings().for_service().network_threads) == (1, 2)
    assert Settings(intra_op_threads=1).for_service().network_threads == 1
    monkeypatch.setattr(app.runtime.settings, "available_cores", lambda: 1)
    assert Settings().for_service().network_threads == 1


@pytest.mark.parametrize(
    ("content", "cores"), [("max 100000", 64), ("250000 100000", 2), ("50000 100000", 1), ("junk", 64)]
)
def test_quota_of_a_container(monkeypatch, tmp_path, content, cores):
    limit = tmp_path / "cpu.max"
    limit.write_text(content)
    monkeypatch.setattr(app.runtime.settings, "CGROUP_CPU_LIMIT", limit)
    monkeypatch.setattr(app.runtime.settings.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert available_cores() == cores


def test_every_setting_stands_in_the_manual_with_its_default():
    page = Path("docs/settings.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `TAG2MASK_([A-Z_]+)` \| `?([^`|]*?)`? ?\|", page, re.MULTILINE))
    fields = Settings.model_fields.items()
    assert rows == {name.upper(): "" if field.default is None else str(field.default) for name, field in fields}


def test_connections_leave_files_for_everything_else(monkeypatch):
    monkeypatch.setattr(app.runtime.settings.resource, "getrlimit", lambda _: (512, 4096))
    assert Settings().connection_limit == 352
    assert Settings(max_connections=1000).connection_limit == 352
    assert Settings(max_connections=10).connection_limit == 10
    monkeypatch.setattr(app.runtime.settings.resource, "getrlimit", lambda _: (100, 100))
    assert Settings().connection_limit == 1
