"""Ray Serve: a deployment whose call is the loop, with a replica for each core."""

import signal
import sys
from pathlib import Path

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from benchmarks.bare_loop import CORES, bare_loop

READY = "/readyz"


@serve.deployment(num_replicas=CORES, max_ongoing_requests=4, ray_actor_options={"num_cpus": 1})
class Segmenter:
    """It answers with the mask of the form's file."""

    def __init__(self, model: str, preferred_size: int) -> None:
        self.answer = bare_loop(Path(model), preferred_size)

    async def __call__(self, request: Request) -> Response:
        if request.url.path == READY:
            return JSONResponse({"status": "ready"})
        form = await request.form()
        return Response(self.answer(await form["file"].read()), media_type="image/png")


if __name__ == "__main__":
    path, size, listening = sys.argv[1:]
    # A core more than there are, for the replicas beside the proxy.
    ray.init(num_cpus=CORES + 1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(listening)})
    serve.run(Segmenter.bind(path, int(size)))
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
