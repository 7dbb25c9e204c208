"""Every request becomes a trace where `TAG2MASK_TRACES` names an OpenTelemetry collector: a span for it, one below for each stage.

The stages are measured where they happen, in the worker process; the spans are made here once the request is over, so that a
request waits for none of it. A request that is part of a trace already (`traceparent`) goes on with that one. No span holds what
a photo shows, or an address's query. The extra `traces` brings OpenTelemetry.
"""

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from starlette.types import Scope

SERVICE = "tag2mask"
PATH = "/v1/traces"  # OTLP over HTTP has it at this path of a collector.
EXPORT_SECONDS = 5  # The collector has this long for a batch of spans, also where the service stops.
SERVER_ERROR = 500  # A status from here on is the service's failure.


class Traces:
    """It sends spans in batches, by a thread of its own."""

    def __init__(self, address: str) -> None:
        exporter = OTLPSpanExporter(endpoint=address.rstrip("/") + PATH, timeout=EXPORT_SECONDS)
        self._provider = TracerProvider(resource=Resource.create({"service.name": SERVICE}), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(SERVICE)

    def record(self, scope: Scope, route: str, status: int, start: int, end: int) -> None:
        """Make the spans of a request that lasted from one moment to another, in nanoseconds since 1970."""
        state = scope["state"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        attributes = {
            "http.request.method": scope["method"],
            "http.route": route,
            "http.response.status_code": status,
            "tag2mask.request_id": state["request_id"],
            "tag2mask.reason": state.get("reason"),
            "tag2mask.model": state.get("model"),
        }
        span = self._tracer.start_span(
            f"{scope['method']} {route}",
            extract(headers),
            SpanKind.SERVER,
            {name: value for name, value in attributes.items() if value is not None},
            start_time=start,
        )
        below = set_span_in_context(span)
        for lap in state["stopwatch"].laps if "stopwatch" in state else ():
            self._tracer.start_span(lap.stage, below, start_time=lap.start).end(lap.end)
        if status >= SERVER_ERROR:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
