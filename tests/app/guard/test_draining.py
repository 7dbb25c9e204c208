"""SIGTERM: not ready first, then a time of grace in which everybody is still served, then the end."""

import signal
import time

import httpx2

from tests.app.server import start_server


def test_not_ready_at_once_and_gone_after_the_grace(models_directory, photo):
    with start_server(models_directory, workers=1, drain_grace_seconds=4) as server:
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
        with start_server(models_directory, workers=1, drain_grace_seconds=600) as server:
            server.wait_until_ready()
            for each in signals:
                server.process.send_signal(each)
                time.sleep(0.3)
            server.process.wait(60)
