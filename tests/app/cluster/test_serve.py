"""The service on Ray Serve gives the bytes of one machine, its queues have an end, and a killed replica or node costs no answer."""

import logging
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import httpx2
import pytest
import yaml
from pydantic import ValidationError
from starlette.testclient import TestClient

from tests.app.balancer import run_nginx
from tests.app.cluster.ray_nodes import ROOT, Nodes, free_port
from tests.app.colour_models import BLACK, RED, halves, to_file

pytestmark = [pytest.mark.environment("cluster"), pytest.mark.filterwarnings("default")]  # Ray warns of itself
logger = logging.getLogger(__name__)
DEPLOY = ROOT / "deploy"
PREFIX = "/photos"  # of the application
PNG = {"content-type": "image/png"}
QUEUE = 3  # So many photos may wait in a replica.
CLIENTS = 1 + QUEUE  # One replica has room for their photos.
PATIENCE = 600  # seconds, for a machine that does other things too
# docs/scale.md says these changes: Ray's proxy answers 500 for a replica that has died, and no proxy is left out for that.
CHANGES = {
    "max_fails=1 fail_timeout=2s": "max_fails=0",
    "next_upstream error timeout non": "next_upstream error timeout http_500 non",
}
# These headers are of the moment, or of a body with the path prefix in it; Ray's proxy adds the id of a request a second time.
OF_THE_MOMENT = {"content-length", "date", "etag", "server", "server-timing", "set-cookie", "x-request-id"}
TIMES = re.compile(rb'"timings_ms":\{[^}]*\}')  # in JSON
ASKED = [
    ("/segment", {"tags": "dog"}, "application/json"),
    ("/segment", {}, "image/png"),
    ("/cam", {"class": "dog"}, "image/png"),
    ("/pseudo-label", {"tags": "dog"}, "image/png"),
    ("/analyze", {"format": "npz"}, "*/*"),
    ("/segment", {"tags": "unicorn"}, "application/json"),
]


@pytest.fixture(scope="module")
def address(nodes: Nodes, models_directory: Path) -> Iterator[str]:
    """The address of the service on Ray Serve: one replica, to which the load may bring a second on the other node."""
    from ray import serve

    from app.cluster.serve import Replicas, build

    port = free_port()
    serve.start(proxy_location="EveryNode", http_options={"host": "127.0.0.1", "port": port})
    settings = {"models": str(models_directory), "log_level": "warning", "queue_size": QUEUE}
    serve.run(build(Replicas(max_replicas=2, settings=settings)), route_prefix=PREFIX)
    yield f"http://127.0.0.1:{port}{PREFIX}"
    serve.shutdown()


def test_one_machine_and_the_cluster_answer_with_the_same_bytes(address: str, client: TestClient, photo: bytes) -> None:
    for path, query, accept in ASKED:
        headers = {**PNG, "accept": accept}
        here = client.post(path, params=query, content=photo, headers=headers)
        there = httpx2.post(address + path, params=query, content=photo, headers=headers, timeout=PATIENCE)
        content = there.content.replace(f'"{PREFIX}/'.encode(), b'"/')  # in links
        assert (there.status_code, TIMES.sub(b"", content)) == (here.status_code, TIMES.sub(b"", here.content))
        kept = [
            {name: value for name, value in reply.headers.items() if name not in OF_THE_MOMENT}
            for reply in (here, there)
        ]
        assert kept[0] == kept[1]


def test_links_begin_with_the_prefix_of_the_application(address: str) -> None:
    page = httpx2.get(f"{address}/docs", timeout=PATIENCE)
    assert page.status_code == 200
    assert f"{PREFIX}/openapi.json" in page.text


def test_a_full_queue_refuses_as_on_one_machine(address: str) -> None:
    large = to_file(halves(RED, BLACK, 2000, 2000))

    def ask(_: int) -> httpx2.Response:
        headers = {**PNG, "accept": "image/png"}
        return httpx2.post(f"{address}/segment", content=large, headers=headers, timeout=PATIENCE)

    places = 1 + QUEUE  # of one replica; how many come to the other is Ray's affair
    with ThreadPoolExecutor(8 * places) as pool:
        replies = list(pool.map(ask, range(8 * places)))
    answered = [reply for reply in replies if reply.status_code == 200]
    refused = [reply for reply in replies if reply.status_code == 503]
    assert len(answered) + len(refused) == len(replies)
    assert len(answered) >= places
    assert refused
    assert len({reply.content for reply in answered}) == 1
    assert {reply.json()["type"] for reply in refused} == {"urn:tag2mask:queue-full"}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)


def test_a_setting_that_does_not_exist_is_named() -> None:
    from app.cluster.serve import Replicas

    with pytest.raises(ValidationError, match="model_folder"):
        Replicas(settings={"model_folder": "models"}).service_settings()
    settings = Replicas(cpus=4, settings={"intra_op_threads": 2}).service_settings()
    assert (settings.workers, settings.device) == (2, "cpu")


def test_what_is_deployed_is_what_ray_and_the_service_take() -> None:
    from ray.serve.schema import ServeDeploySchema

    from app.cluster.serve import Replicas

    service, _ = yaml.safe_load_all((DEPLOY / "kubernetes" / "ray" / "rayservice.yaml").read_text(encoding="utf-8"))
    for text in (service["spec"]["serveConfigV2"], (DEPLOY / "ray" / "serve.yaml").read_text(encoding="utf-8")):
        for application in ServeDeploySchema.model_validate(yaml.safe_load(text)).applications:
            assert application.import_path == "app.cluster.serve:build"
            Replicas.model_validate(application.args).service_settings()


@dataclass
class Load:
    """Clients that send a photo over and over, through nginx."""

    client: httpx2.Client
    photo: bytes
    replies: list[tuple[float, float, int, bytes]] = field(default_factory=list)  # begin, end, status, content
    _stop: Event = field(default_factory=Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor(CLIENTS) as pool:
            asking = [pool.submit(self._ask) for _ in range(CLIENTS)]
            try:
                yield
            finally:
                self._stop.set()
        for each in asking:
            each.result()

    def _ask(self) -> None:
        while not self._stop.is_set():
            begin = time.monotonic()
            reply = self.client.post("/segment", content=self.photo, headers={**PNG, "accept": "image/png"})
            self.replies.append((begin, time.monotonic(), reply.status_code, reply.content))

    def go_on(self) -> None:
        """Return after some answers to requests that are begun from now on."""
        now = time.monotonic()
        wait_until(lambda: sum(begin > now and status == 200 for begin, _, status, _ in self.replies) >= 4 * CLIENTS)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "is the machine too busy?"
        time.sleep(0.1)


def replicas_running() -> int:
    from ray import serve

    (application,) = serve.status().applications.values()
    return application.deployments["tag2mask"].replica_states.get("RUNNING", 0)


def test_a_killed_replica_and_a_killed_node_cost_no_answer(
    nodes: Nodes, address: str, photo: bytes, tmp_path: Path
) -> None:
    """The load brings a second replica. This test comes last, for it leaves one node."""
    port, tries = int(address.split(":")[2].partition("/")[0]), tmp_path / "tries"
    logged = {
        "upstream tag2mask {": "log_format tries '$upstream_status'; upstream tag2mask {",
        "location / {": f"location / {{ access_log {tries} tries;",
    }
    with (
        run_nginx(tmp_path, [port, port], CHANGES | logged) as (balancer, trusted),
        httpx2.Client(base_url=balancer + PREFIX, verify=trusted, timeout=PATIENCE) as client,
    ):
        load, said = Load(client, photo), []

        def kill(what: str, end: Callable[[], None]) -> None:
            """Note what it cost that something was killed: answers, those among them that a second proxy gave, those lost."""
            before, again = len(load.replies), tries.read_text().count(",")
            end()
            load.go_on()
            load.go_on()
            new = load.replies[before:]
            lost = sum(status != 200 for _, _, status, _ in new)
            again = tries.read_text().count(",") - again
            said.append(f"{what}: {len(new)} answers, {again} by a second proxy, {lost} lost")

        with load.running():
            wait_until(lambda: replicas_running() == 2)
            load.go_on()
            kill("a replica", lambda: os.kill(nodes.pids_of("ray::ServeReplica")[0], signal.SIGKILL))
            wait_until(lambda: replicas_running() < 2)
            wait_until(lambda: replicas_running() == 2)
            kill("a node", lambda: nodes.kill(1))
    logger.info("%s", "; ".join(said))  # shown by --log-cli-level=info
    assert {status for _, _, status, _ in load.replies} == {200}, said
    assert len({content for *_, content in load.replies}) == 1
