"""`GET /metrics` answers in Prometheus' text format: requests, refusals, stages, the queue, the bytes in flight, the models.

The numbers of each are those of this process since its start. Without the package prometheus-client, which the project's
dependencies bring, nothing is counted and there is no `/metrics`.
"""

from collections.abc import Callable, Mapping

from app.guard.byte_budget import ByteBudget
from app.inference.errors import NotReadyError
from app.runtime.service import Service

try:
    import prometheus_client

    AVAILABLE = True
except ModuleNotFoundError:  # It runs from a checkout whose dependencies came another way.
    AVAILABLE = False

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """They are counted in a registry of their own: several services may run in one process."""

    def __init__(self, service: Service, budget: ByteBudget) -> None:
        self._service = service
        self.registry = registry = prometheus_client.CollectorRegistry()
        self._requests = prometheus_client.Counter(
            "tag2mask_requests",
            "Requests by route, method and status.",
            ["route", "method", "status"],
            registry=registry,
        )
        self._seconds = prometheus_client.Histogram(
            "tag2mask_request_seconds",
            "From the first byte to the last.",
            ["route"],
            registry=registry,
            buckets=SECONDS,
        )
        self._stages = prometheus_client.Histogram(
            "tag2mask_stage_seconds", "Of a photo's work.", ["stage"], registry=registry, buckets=SECONDS
        )
        self._refusals = prometheus_client.Counter(
            "tag2mask_refusals", "Requests refused, by reason.", ["reason"], registry=registry
        )
        self._models = prometheus_client.Gauge(
            "tag2mask_model", "1 for every model served.", ["name", "version", "task", "sha256"], registry=registry
        )
        self._gauge("tag2mask_jobs", "Photos being worked on or waiting.", lambda: service.pool.jobs)
        self._gauge("tag2mask_job_limit", "Most of them.", lambda: service.pool.workers + service.pool.queue_size)
        self._gauge("tag2mask_workers", "Worker processes that take part.", lambda: service.fleet.living)
        self._gauge("tag2mask_workers_ended", "Worker processes that were replaced.", lambda: service.fleet.ended)
        self._gauge("tag2mask_bytes_in_flight", "Of bodies and replies.", lambda: budget.used)
        self._gauge("tag2mask_upload_store_bytes", "Of photos kept.", lambda: service.uploads.size_bytes)
        self._gauge(
            "tag2mask_upload_store_answers", "1 where photos kept can be looked up.", lambda: service.uploads.answers
        )
        self._gauge("tag2mask_map_store_bytes", "Of maps kept.", lambda: service.maps.size_bytes)
        self._gauge("tag2mask_maps_found", "Maps of a model that were kept when asked for.", lambda: service.maps.found)
        self._gauge("tag2mask_maps_missing", "Maps of a model that were not.", lambda: service.maps.missing)

    def count(self, route: str, method: str, status: int, seconds: float, reason: str | None) -> None:
        """Count one request."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if reason:
            self._refusals.labels(reason).inc()

    def count_stages(self, milliseconds: Mapping[str, float]) -> None:
        """Count the stages of one photo's work."""
        for stage, value in milliseconds.items():
            self._stages.labels(stage).observe(value / 1000)

    def render(self) -> tuple[bytes, str]:
        """Return the numbers as they are now, and their media type."""
        self._models.clear()
        try:
            for (name, version), engine in self._service.models.catalog.engines.items():
                self._models.labels(name, str(version), engine.card.task, engine.sha256[:12]).set(1)
        except NotReadyError:  # There is no model yet.
            pass
        return prometheus_client.generate_latest(self.registry), prometheus_client.CONTENT_TYPE_LATEST

    def _gauge(self, name: str, description: str, read: Callable[[], float]) -> None:
        prometheus_client.Gauge(name, description, registry=self.registry).set_function(read)
