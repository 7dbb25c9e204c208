"""The application runs on uvicorn here, until the service is told to stop."""

import contextlib

import uvicorn

from app.guard.connections import connections_of
from app.guard.draining import DrainingServer
from app.main import create_app
from app.runtime.service import Service

# The system holds this many connections ready, which Python takes in one go, above the limit of connections too.
BACKLOG = 100


def run(service: Service) -> None:
    """Serve until SIGTERM or SIGINT. Raises Tag2MaskError where the models cannot be served."""
    settings, failures = service.settings, list[Exception]()

    def stop(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    app = create_app(settings, on_failed_start=stop, service=service)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        proxy_headers=False,  # The application reads them itself, once it has seen who the peer is.
        access_log=False,
        server_header=False,
        http=connections_of(settings),
        ws="none",
        backlog=BACKLOG,
        timeout_graceful_shutdown=settings.drain_seconds,
    )
    server = DrainingServer(config, service, settings.drain_grace_seconds)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn hands it on after its orderly shutdown.
        server.run()
    if failures:
        raise failures[0]
