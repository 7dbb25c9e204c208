"""`python -m app`: the service on uvicorn, one process, until SIGTERM or SIGINT; photos taken are finished first."""

import argparse
import contextlib
import logging
import os
import sys
import warnings

# Before numpy is loaded: every worker of the pool multiplies in its own thread, more threads would only get in the way.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import uvicorn
from pydantic import ValidationError

from app.errors import Tag2MaskError
from app.main import create_app
from app.settings import Settings


def main() -> None:
    """Serve; end with a one-line error where the service cannot start."""
    names = ", ".join(f"TAG2MASK_{name.upper()}" for name in Settings.model_fields)
    argparse.ArgumentParser(
        prog="python -m app", description="The tag2mask service.", epilog=f"Settings by environment variables: {names}."
    ).parse_args()
    try:
        serve(Settings())
    except ValidationError as error:
        first = error.errors()[0]
        sys.exit(f"tag2mask: TAG2MASK_{str(first['loc'][0]).upper()}={first['input']}: {first['msg']}.")
    except Tag2MaskError as error:
        sys.exit(f"tag2mask: {error}")


def serve(settings: Settings) -> None:
    """Run until told to stop. Raises Tag2MaskError where the models cannot be served."""
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # What Pillow says of odd metadata in an upload is no news to whoever runs the service.
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
    failures: list[Exception] = []

    def stop(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    config = uvicorn.Config(
        create_app(settings, on_failed_start=stop),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=settings.drain_seconds,
    )
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn hands it on after its orderly shutdown
        server.run()
    if failures:
        raise failures[0]


if __name__ == "__main__":
    main()
