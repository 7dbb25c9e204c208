"""The application is built here: the service, its routes and its error handlers."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.guard import metrics
from app.guard.admission import Admission
from app.guard.byte_budget import ByteBudget
from app.guard.flow import Flow
from app.guard.keys import Keys
from app.guard.metrics import Metrics
from app.guard.request_log import RequestLog
from app.http import corrections
from app.http.api_docs.document import APPLICATION, VIEWER, add_shared_schemas
from app.http.behind import BehindProxies
from app.http.page import add_page
from app.http.reply.error_handlers import add_error_handlers
from app.http.routes import answer_head, router
from app.inference.errors import DataError
from app.protocols import open_inference
from app.protocols.label_studio import routes as label_studio
from app.runtime.model_store import Catalog
from app.runtime.service import Service
from app.runtime.settings import Settings, separated

if TYPE_CHECKING:  # The extra `traces` may not be installed.
    from app.guard.traces import Traces

logger = logging.getLogger(__name__)
# A page of another site may read these headers, which docs/api.md lists.
EXPOSED = (
    *(
        "ETag",
        "Retry-After",
        "Server-Timing",
        "X-Class-Score",
        "X-Image-Id",
        "X-Image-Note",
        "X-Model",
        "X-Model-Method",
        "X-Model-SHA256",
    ),
    *("X-Models-Left-Out", "X-Request-Id", "Inference-Header-Content-Length"),
)


def create_app(
    settings: Settings,
    on_failed_start: Callable[[Exception], None] | None = None,
    service: Service | None = None,
) -> FastAPI:
    """Build the application. Models are loaded and warmed in the background once it runs: `/healthz` answers at once.

    Args:
        settings: the configuration.
        on_failed_start: called with what kept the models from loading; without it the error is logged and `/readyz`
            goes on answering 503.
        service: the parts of the service, whose models may be loading already; without it they are made here.

    Raises ModelStoreError where the models directory holds no model, AddressError for an API key's hash that is none, DataError
    where the folder for corrections cannot be written, or traces are wanted and what makes them is not installed.
    """
    service = service or Service.of(settings)
    traces = traces_of(settings)
    corrections.check_folder(settings.corrections)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load_models(service, on_failed_start))
        following = asyncio.create_task(_follow_models(service, loading))
        yield
        following.cancel()
        await loading
        await asyncio.to_thread(service.close)
        if traces:
            await asyncio.to_thread(traces.close)

    app = FastAPIOffline(lifespan=lifespan, **VIEWER, **APPLICATION)
    answer_head(app.router)  # Its `/docs` is left out.
    add_shared_schemas(app)
    app.state.service = service
    app.include_router(router)
    app.include_router(corrections.router)
    app.include_router(label_studio.router)
    app.include_router(open_inference.router)
    add_page(app, settings)
    add_guard(app, service, settings, traces)
    add_surroundings(app, settings)
    add_error_handlers(app)
    return app


def add_guard(app: FastAPI, service: Service, settings: Settings, traces: "Traces | None" = None) -> None:
    """Put what stands between the network and the endpoints around them: a request passes the last one added first."""
    budget = ByteBudget(settings.max_bytes_in_flight)
    counted = Metrics(service, budget) if metrics.AVAILABLE else None
    if counted:

        async def show_metrics() -> Response:
            content, media_type = counted.render()
            return Response(content, media_type=media_type)

        app.add_api_route("/metrics", show_metrics, methods=["GET"], include_in_schema=False)
    app.add_middleware(Flow, settings=settings, budget=budget)
    app.add_middleware(Admission, keys=Keys.of(settings), allowed_hosts=separated(settings.allowed_hosts))
    app.add_middleware(RequestLog, metrics=counted, traces=traces)


def traces_of(settings: Settings) -> "Traces | None":
    """Return what traces requests, where that is wanted. Raises DataError where OpenTelemetry is not installed."""
    if settings.traces is None:
        return None
    try:
        from app.guard.traces import Traces
    except ImportError as error:
        raise DataError(
            f"TAG2MASK_TRACES={settings.traces} needs the extra `traces` ({error}); install it: pip install '.[traces]' in the checkout"
        ) from None
    return Traces(settings.traces)


def add_surroundings(app: FastAPI, settings: Settings) -> None:
    """Add what pages of other sites and proxies before the service need."""
    origins, proxies = separated(settings.cors_origins), separated(settings.trusted_proxies)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            allow_credentials="*" not in origins,
            expose_headers=EXPOSED,
        )
    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=proxies)
    app.add_middleware(BehindProxies, root_path=settings.root_path, trusted_proxies=proxies)


async def _load_models(service: Service, on_failed_start: Callable[[Exception], None] | None) -> bool:
    """Load and warm all models; returns whether they serve."""
    try:
        catalog = await asyncio.wrap_future(service.models.start_loading())
    except Exception as error:
        if on_failed_start is None:
            logger.exception("the models could not be loaded")
        else:
            on_failed_start(error)
        return False
    workers, places = service.pool.workers, service.pool.queue_size
    logger.info("ready: %d workers, %d may wait; models: %s", workers, places, _listed(catalog))
    return True


async def _follow_models(service: Service, loading: asyncio.Task[bool]) -> None:
    """Follow the models directory once they are loaded: at every SIGHUP, and every few seconds."""
    called = asyncio.Event()
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has no such signal.
    if hang_up is not None:
        with suppress(NotImplementedError, RuntimeError, ValueError):  # A thread receives no signals.
            asyncio.get_running_loop().add_signal_handler(hang_up, called.set)
    if not await asyncio.shield(loading):
        return
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(called.wait(), service.settings.models_poll_seconds or None)
        only_unchanged = not called.is_set()
        called.clear()
        if await asyncio.to_thread(service.models.refresh, only_unchanged):
            logger.info("models: %s", _listed(service.models.catalog))


def _listed(catalog: Catalog) -> str:
    return ", ".join(
        f"{name}/{version} ({engine.card.task}, {'+'.join(engine.providers)})"
        for (name, version), engine in catalog.engines.items()
    )
