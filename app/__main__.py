"""`python -m app` runs the service on uvicorn until SIGTERM or SIGINT; photos taken are finished first.

`python -m app serve` does the same, and takes `--host`, `--port` and `--models` besides the settings of the environment.
`python -m app label PHOTOS --out DIR` labels a folder instead (`app.batch.folder`), `python -m app triton` writes what NVIDIA's
Triton needs to serve the same models (`app.protocols.triton`). `python -m app annotations --out FILE` fetches what was annotated in the
configured project of Label Studio (`app.protocols.label_studio.annotations`).
"""

import argparse
import asyncio
import contextlib
import errno
import io
import logging
import os
import sys
from pathlib import Path
from typing import Any

# This stands before numpy is loaded: every worker of the pool multiplies in its own thread, and more threads would only get in the way.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from app.runtime.workers import forking

# To serve: what the workers need is imported while the rest is.
if __name__ == "__main__" and sys.argv[1:2] in ([], ["serve"]):
    forking.start_importing()

from pydantic import ValidationError

from app.batch.folder import label_folder
from app.batch.labellers import InProcess, Remote
from app.guard.keys import Keys, is_public
from app.guard.log_lines import log_to_stderr
from app.http.request.parameters import AnalyzeParameters
from app.inference.errors import AddressError, DataError, Tag2MaskError, reason_of
from app.inference.files.whole_file import refusal
from app.inference.spelling import nearest_name
from app.protocols.label_studio.annotations import fetch_annotations
from app.protocols.triton import write_configs
from app.runtime.service import Service
from app.runtime.settings import PREFIX, Settings, unknown_variables
from app.runtime.workers.worker import leave_out_odd_metadata

OPEN_DOOR = (
    "ANYBODY who reaches %s is served: the service listens there and no API key is set. Set TAG2MASK_API_KEYS "
    "(docs/operations.md), listen at 127.0.0.1, or let nobody in who should not be."
)
# This is what a line of the command begins with, as its user wrote it.
PROGRAM = "tag2mask" if Path(sys.argv[0]).stem == "tag2mask" else "python -m app"
FLAGS = {"host": "ADDRESS", "port": "PORT", "models": "DIR"}  # These settings may be given on the command line, too.
STOPPED = 130  # This is the exit status of what SIGINT has ended.
OF_REPLIES = ("tags", "format", "size", "fuse", "regions")  # These parameters have no place where a folder is labelled.
SETTABLE = [name for name in AnalyzeParameters.model_fields if name not in OF_REPLIES]

logger = logging.getLogger("app")


def main(arguments: list[str] | None = None) -> None:
    """Serve, or label a folder; end with a one-line error where that cannot be done."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # A terminal may know fewer letters than file names have.
            stream.reconfigure(errors="backslashreplace")
    options = parse(arguments)
    for name in FLAGS:
        if (value := getattr(options, name, None)) is not None:
            os.environ[PREFIX + name.upper()] = value
    for sentence in unknown_variables(os.environ):
        print(f"tag2mask: warning: {sentence}", file=sys.stderr)
    try:
        if options.verb == "label":
            try:
                said, complete = label(options)
            except KeyboardInterrupt:
                print("tag2mask: stopped; the same command goes on.", file=sys.stderr)
                sys.exit(STOPPED)
            print(said)
            sys.exit(0 if complete else 1)
        elif options.verb == "triton":
            print(*write_configs(Settings()), sep="\n")
        elif options.verb == "annotations":
            count = fetch_annotations(Settings(), options.out)
            print(f"{count} annotated tasks: {options.out}")
        else:
            serve(Settings())
    except ValidationError as error:
        first = error.errors()[0]
        sys.exit(f"tag2mask: TAG2MASK_{str(first['loc'][0]).upper()}={first['input']}: {reason_of(first['msg'])}.")
    except Tag2MaskError as error:
        sys.exit(f"tag2mask: {error}")
    except OSError as error:  # The disk, the rights or the network refuse something.
        sys.exit(f"tag2mask: {refusal(error)}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the command line."""
    fields = Settings.model_fields.items()
    settings = [
        f"  {PREFIX}{name.upper()} ({'none' if field.default is None else field.default})" for name, field in fields
    ]
    told: dict[str, Any] = {
        "epilog": "\n".join(["environment variables, with their defaults (docs/settings.md says more):", *settings]),
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
    parser = argparse.ArgumentParser(prog=PROGRAM, description="The tag2mask service.", **told)
    verbs = parser.add_subparsers(dest="verb", metavar="serve | label | triton | annotations")
    service = verbs.add_parser("serve", help="serve, as without a verb", **told)
    for name, metavar in FLAGS.items():
        service.add_argument(f"--{name}", metavar=metavar, help=f"the same as {PREFIX}{name.upper()}")
    command = verbs.add_parser("label", help="label a folder of photos instead of serving")
    command.add_argument(
        "photos",
        metavar="PHOTOS",
        help="folder of JPEG, PNG, WebP, TIFF, BMP and (with the extra heic) HEIC files; --engine ray takes more",
    )
    command.add_argument("--out", required=True, metavar="DIR", help="where the data set goes")
    command.add_argument("--tags", type=Path, metavar="labels.csv", help="the photos' known classes: name,classes")
    command.add_argument(
        "--choices", type=Path, metavar="choices.csv", help="what review.html saved; DIR/choices.csv where it is there"
    )
    command.add_argument("--server", metavar="URL", help="a running service; without it the models run here")
    command.add_argument("--models", metavar="DIR", help=f"the same as {PREFIX}MODELS")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"a parameter of POST /analyze: {', '.join(SETTABLE)}",
    )
    command.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="of photos with a tag that is no class; default fail",
    )
    command.add_argument(
        "--engine",
        choices=("threads", "ray"),
        default="threads",
        help="ray: the workers of a Ray cluster, also for s3://BUCKET/PREFIX and Parquet files (docs/scale.md); default threads",
    )
    command.add_argument("--prune", action="store_true", help="remove what was made of photos that are gone")
    verbs.add_parser("triton", help="write NAME/config.pbtxt into the models directory, for NVIDIA's Triton")
    export = verbs.add_parser(
        "annotations", help="fetch what was annotated in Label Studio, by the settings TAG2MASK_LABEL_STUDIO_*"
    )
    export.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="FILE",
        help="they go there, in the form of Label Studio's JSON export",
    )
    return parser.parse_args(arguments)


def label(options: argparse.Namespace) -> tuple[str, bool]:
    """Label a folder; returns what to say, and whether every photo was labelled. Raises Tag2MaskError."""
    given = dict(entry.partition("=")[::2] for entry in options.set)
    for name, value in given.items():
        if name not in SETTABLE or not value:
            nearest = nearest_name(name, SETTABLE) if name not in SETTABLE else None
            raise DataError(
                f"--set {name}={value}: {f'did you mean {nearest!r}? W' if nearest else 'w'}rite NAME=VALUE with one of "
                f"{', '.join(SETTABLE)}"
            )
    try:
        parameters = AnalyzeParameters.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"--set {first['loc'][-1]}={first['input']}: {reason_of(first['msg'])}") from None
    settings = Settings()
    if options.engine == "ray":
        return label_on_cluster(options, settings, parameters)
    api_key = settings.api_key.get_secret_value() if settings.api_key else None
    labeller = Remote(options.server, parameters, api_key) if options.server else InProcess(settings, parameters)
    photos, out = Path(options.photos), Path(options.out)
    skip = options.on_error == "skip"
    return label_folder(
        photos, out, labeller, options.tags, settings.worker_count, options.prune, choices=options.choices, skip=skip
    )


def label_on_cluster(
    options: argparse.Namespace, settings: Settings, parameters: AnalyzeParameters
) -> tuple[str, bool]:
    """Label photos by Ray, which is imported here alone. Raises Tag2MaskError, also where Ray is not installed."""
    if options.server:
        raise DataError("--server names a service that labels, --engine ray a cluster that does; leave one of them out")
    try:
        from app.cluster.label import label_by_ray
    except ImportError as error:
        raise DataError(
            f"--engine ray needs the extra `cluster` ({error}); install it: pip install '.[cluster]' in the checkout"
        ) from None
    return label_by_ray(
        options.photos,
        options.out,
        settings,
        parameters,
        tags=options.tags,
        prune=options.prune,
        choices=options.choices,
        skip=options.on_error == "skip",
    )


def serve(settings: Settings) -> None:
    """Run until told to stop. Raises Tag2MaskError where the models cannot be served, or not at that address."""
    log_to_stderr(settings.log_level, settings.log_format)
    keys = Keys.of(settings)
    if not keys.required and is_public(settings.host):
        logger.critical(OPEN_DOOR, settings.host)
    leave_out_odd_metadata()
    with contextlib.closing(Service.of(settings)) as service:
        asyncio.run(check_address(settings.host, settings.port))
        service.models.start_loading()
        # FastAPI and uvicorn take as long to import as the models to load.
        from app.server import run

        run(service)


async def check_address(host: str, port: int) -> None:
    """Raise AddressError where nothing can listen there, as uvicorn will, once all models are loaded."""
    try:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressError(
                f"port {port} is taken on {host}; set TAG2MASK_PORT to another one (make serve PORT=...)."
            ) from None
        raise AddressError(
            f"nothing can listen at {host}, port {port} ({error.strerror}); set TAG2MASK_HOST and TAG2MASK_PORT."
        ) from None
    server.close()
    await server.wait_closed()


if __name__ == "__main__":
    main()
