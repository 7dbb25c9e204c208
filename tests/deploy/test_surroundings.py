"""What stands around the service: compose.yaml, the image, Prometheus, Grafana and autoscalers speak of what there is."""

import json
import re
from pathlib import Path

import pytest
import yaml

from app.guard.byte_budget import ByteBudget
from app.guard.metrics import Metrics
from app.runtime.service import Service
from app.runtime.settings import Settings, unknown_variables

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
FILES = [ROOT / "compose.yaml", ROOT / "Dockerfile", *(path for path in DEPLOY.rglob("*") if path.is_file())]


@pytest.fixture(scope="module")
def counted() -> set[str]:
    """The names of all numbers that the service shows."""
    metrics = Metrics(Service.of(Settings(models=ROOT / "models", device="cpu")), ByteBudget(1))
    names = set()
    for metric in metrics.registry.collect():
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(metric.type, [""])
        names |= {metric.name + ending for ending in endings}
    return names


@pytest.mark.parametrize(
    "path",
    ["grafana/tag2mask.json", "kubernetes/keda/scaled-object.yaml", "kubernetes/base/autoscaler.yaml"],
)
def test_numbers_that_are_asked_for_are_shown(path: str, counted: set[str]) -> None:
    asked = set(re.findall(r"\btag2mask_[a-z_]+", (DEPLOY / path).read_text(encoding="utf-8")))
    assert asked
    assert asked <= counted


def test_settings_that_are_set_exist() -> None:
    words = {word for path in FILES for word in re.findall(r"TAG2MASK_[A-Z_]+", path.read_text(encoding="utf-8"))}
    assert {"TAG2MASK_STORE", "TAG2MASK_PORT"} <= words
    assert not unknown_variables(dict.fromkeys(words, ""))


def test_the_dashboard_finds_its_numbers() -> None:
    (source,) = yaml.safe_load((DEPLOY / "grafana" / "provisioning.yaml").read_text(encoding="utf-8"))["datasources"]
    panels = json.loads((DEPLOY / "grafana" / "tag2mask.json").read_text(encoding="utf-8"))["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_what_compose_mounts_and_calls_is_there() -> None:
    services = COMPOSE["services"]
    for service in services.values():
        sources = [volume.partition(":")[0] for volume in service.get("volumes", ())]
        assert not [source for source in sources if not (ROOT / source).exists()]
        assert set(service.get("depends_on", ())) <= set(services)
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert services["tag2mask"]["environment"]["TAG2MASK_STORE"].removeprefix("redis://").partition(":")[0] in services
    assert f"AS {services['tag2mask']['build']['target']}\n" in DOCKERFILE


def test_the_image_is_made_of_files_that_docker_is_given() -> None:
    given = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for line in DOCKERFILE.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert copied == given
    assert all((ROOT / source).exists() for source in copied)


def test_serving_images_run_as_nobody_in_particular() -> None:
    stages = dict(re.findall(r"^FROM (\S+)(?: AS (\S+))?$", DOCKERFILE, re.MULTILINE))
    assert {"cpu", "gpu", "cluster"} <= set(re.findall(r"^FROM service AS (\S+)$", DOCKERFILE, re.MULTILINE))
    install, training = (
        DOCKERFILE.partition(f" AS {name}\n")[2].partition("\nFROM ")[0] for name in ("install", "training")
    )
    assert "USER root\n" in install  # the one stage that others begin with
    assert "\nUSER 10001:10001\n" in training
    assert list(stages)[-1] == "cpu"
    service = DOCKERFILE.partition(" AS service\n")[2].partition("\nFROM ")[0]
    assert "\nUSER 10001:10001\n" in service
