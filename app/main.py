"""Builds the application: the service, its routes and its error handlers."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import api_docs
from app.problems import add_error_handlers
from app.request_log import RequestLog
from app.routes import router
from app.service import Service
from app.settings import Settings

logger = logging.getLogger(__name__)


def create_app(settings: Settings, on_failed_start: Callable[[Exception], None] | None = None) -> FastAPI:
    """The application. Models are loaded and warmed in the background once it runs: `/healthz` answers at once.

    Args:
        settings: the configuration.
        on_failed_start: called with what kept the models from loading; without it the error is logged and `/readyz`
            goes on answering 503.

    Raises ModelStoreError where the models directory holds no model.
    """
    service = Service.of(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load_models(service, on_failed_start))
        yield
        await loading
        await asyncio.to_thread(service.pool.close)

    app = FastAPI(lifespan=lifespan, **api_docs.APPLICATION)
    app.state.service = service
    app.include_router(router)
    app.add_middleware(RequestLog)
    add_error_handlers(app)
    return app


async def _load_models(service: Service, on_failed_start: Callable[[Exception], None] | None) -> None:
    try:
        catalog = await asyncio.to_thread(service.models.load)
    except Exception as error:
        if on_failed_start is None:
            logger.exception("the models could not be loaded")
        else:
            on_failed_start(error)
        return
    listed = ", ".join(
        f"{name}/{version} ({engine.card.task}, {'+'.join(engine.providers)})"
        for (name, version), engine in catalog.engines.items()
    )
    logger.info("ready: %d workers, %d may wait; models: %s", service.pool.workers, service.pool.queue_size, listed)
