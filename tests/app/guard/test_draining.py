"""SIGTERM: not ready first, then a time of grace in which everybody is still served, then the end."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

from tests.app.colour_models import BLACK, RED, halves, to_file
from tests.app.server import start_server


def test_not_ready_at_once_and_gone_after_the_grace(models_directory, photo):
    with start_server(models_directory, drain_grace_seconds=4) as server:
        server.wait_until_ready()
        server.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 3
        while (reply := httpx2.get(f"{server.url}/readyz")).status_code != 503:
            assert time.monotonic() < end
        assert reply.json()["title"] == "Shutting down"
        assert httpx2.get(f"{server.url}/v2/health/ready").status_code == 503
        assert httpx2.get(f"{server.url}/healthz").status_code == 200
        assert httpx2.post(f"{server.url}/segment", files={"file": photo}, timeout=30).status_code == 200
        assert server.process.wait(60) in (0, -signal.SIGTERM)


def test_ctrl_c_and_a_second_signal_leave_out_the_grace(models_directory):
    for signals in ([signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]):
        with start_server(models_directory, drain_grace_seconds=600) as server:
            server.wait_until_ready()
            for each in signals:
                server.process.send_signal(each)
                time.sleep(0.3)
            server.process.wait(60)


def test_a_signal_to_all_processes_of_the_service_loses_no_photo(models_directory, photo):
    """As systemd and `kill -- -GROUP` send it."""
    with start_server(models_directory, workers=2, drain_grace_seconds=3) as server, ThreadPoolExecutor(12) as clients:
        server.wait_until_ready()
        children = server.descendants()
        assert len(children) >= 2
        url = f"{server.url}/pseudo-label?format=png&inference=class-conditional&tags=dog"
        replies = [clients.submit(httpx2.post, url, files={"file": photo}, timeout=120) for _ in range(12)]
        for pid in (*children, server.process.pid):
            os.kill(pid, signal.SIGTERM)
        assert [reply.result().status_code for reply in replies] == [200] * 12
        assert server.process.wait(60) in (0, -signal.SIGTERM)
        assert "Traceback" not in server.log.read_text()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_workers_end_with_a_service_that_is_killed(models_directory):
    with start_server(models_directory, workers=2) as server:
        server.wait_until_ready()
        children = server.descendants()
        server.process.kill()
        end = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in children):
            assert time.monotonic() < end
            time.sleep(0.1)


def test_what_cannot_be_finished_in_time_is_told_so(models_directory):
    photo = to_file(halves(RED, BLACK, 4000, 4000))
    with start_server(models_directory, drain_seconds=0) as server, ThreadPoolExecutor(1) as clients:
        server.wait_until_ready()
        url = f"{server.url}/pseudo-label?format=png&inference=class-conditional&refine=pamr&tags=dog"
        reply = clients.submit(httpx2.post, url, files={"file": photo}, timeout=120)
        end = time.monotonic() + 60
        while "tag2mask_jobs 1.0" not in httpx2.get(f"{server.url}/metrics", timeout=60).text:
            assert time.monotonic() < end
        server.process.send_signal(signal.SIGINT)
        assert (reply.result().status_code, reply.result().json()["title"]) == (503, "Shutting down")
        server.process.wait(60)
        assert "Traceback" not in server.log.read_text()
