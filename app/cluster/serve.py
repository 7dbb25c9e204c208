"""The service runs as a Ray Serve application: every replica is the application that `python -m app` serves, on a node of the cluster.

    serve run app.cluster.serve:build cpus=4 max_replicas=8

Settings come from the argument `settings`, and the others from the environment in which Ray builds the application. Other models
are an application of their own, with replicas of their own, under a prefix of its own (deploy/ray/serve.yaml).
"""

import asyncio
import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig

from app.guard.log_lines import log_to_stderr
from app.inference.errors import NotReadyError
from app.main import create_app
from app.runtime.service import Service
from app.runtime.settings import Settings
from app.runtime.workers.worker import leave_out_odd_metadata

POLL_SECONDS = 0.2  # A replica looks this often whether its models are loaded.
RETRY_AFTER_SECONDS = 2  # A client that Ray's proxy refuses is told to wait this long.


class Replicas(BaseModel):
    """They say how many replicas there are, and what each takes of its node."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpus: int = Field(default=1, ge=1, description="The cores of a replica; it works on as many photos at a time.")
    gpus: float = Field(default=0, ge=0, description="The GPUs of a replica, or the share of one.")
    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int = Field(default=2, ge=1)
    settings: dict[str, Any] = Field(default={}, description="Settings of the service by name (docs/settings.md).")

    def service_settings(self) -> Settings:
        """Return the settings of a replica. Raises ValidationError, which names the one that is wrong."""
        settings = Settings(**{"device": "cuda" if self.gpus else "cpu", **self.settings})
        cores = settings.network_threads
        workers = settings.workers or max(1, self.cpus // cores)
        return settings.model_copy(update={"workers": workers, "intra_op_threads": cores})


class Replica:
    """It is one replica, which runs the whole application."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._failure: Exception | None = None

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application, which Ray Serve asks for once, and starts."""
        # Ray lets a process have as many threads as it has cores; every worker process of it multiplies in its own thread.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        log_to_stderr(self._settings.log_level, self._settings.log_format)
        leave_out_odd_metadata()
        self._app = create_app(self._settings, on_failed_start=self._fail)
        return self._app

    def _fail(self, error: Exception) -> None:
        self._failure = error

    async def check_health(self) -> None:
        """Return once the models are loaded, so that no request comes before; raise what keeps them from it."""
        service: Service = self._app.state.service
        while self._failure is None:
            try:
                return service.check_ready()
            except NotReadyError:
                await asyncio.sleep(POLL_SECONDS)
        raise self._failure


def build(replicas: Replicas) -> serve.Application:
    """Return the application. Replicas come and go with the requests that are in work or waiting.

    The queue for photos is the replica's own, which answers 503 where it is full, as on one machine. Ray sends a replica no more
    requests than one machine takes connections; as many wait in Ray's proxy where all replicas have that many, or there is none yet.
    A replica that is wanted no longer is stopped once its photos are done.
    """
    settings = replicas.service_settings()
    assert settings.workers is not None
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name="tag2mask",
        ray_actor_options={"num_cpus": replicas.cpus, "num_gpus": replicas.gpus},
        max_ongoing_requests=settings.max_connections,
        max_queued_requests=settings.max_connections,
        backpressure_config=BackpressureConfig(retry_after_s=RETRY_AFTER_SECONDS),
        autoscaling_config=AutoscalingConfig(
            min_replicas=replicas.min_replicas,
            max_replicas=replicas.max_replicas,
            target_ongoing_requests=2 * settings.workers,  # one in work and one waiting for each worker
        ),
        graceful_shutdown_timeout_s=settings.drain_seconds,
    )
    return deployment.bind(settings)
