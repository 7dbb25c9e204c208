"""Requests that Schemathesis makes of the service's own description, on a running service: the command for long runs.

    python -m tests.contract.schema_attack --examples 500

The description holds `/v2` and `/label-studio` too, which `/openapi.json` leaves out. Whatever is sent, an answer must come that is
no fault of the service, and whatever the description promises of an answer must hold.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.main import create_app
from app.protocols import open_inference
from app.protocols.label_studio import routes as label_studio
from app.protocols.tensors import InferRequest
from app.runtime.settings import Settings
from tests.app.photo_host import TOKEN, run_host
from tests.app.server import ROOT, start_server

BODIES: dict[str, type[BaseModel]] = {
    "/v2/models/{name}/infer": InferRequest,
    "/v2/models/{name}/versions/{version}/infer": InferRequest,
    "/v2/repository/index": open_inference.IndexRequest,
    "/label-studio/predict": label_studio.PredictBody,
    "/label-studio/setup": label_studio.SetupBody,
    "/label-studio/setup/{said}": label_studio.SetupBody,
    "/label-studio/webhook": label_studio.WebhookBody,
    "/label-studio/webhook/{said}": label_studio.WebhookBody,
}
NAMES = {
    "name": "drs",
    "version": "3",
    "said": "refused",
}  # one of the values that Schemathesis tries for a part of a path
OPTIONS = "--phases examples,fuzzing --mode all --continue-on-failure --request-timeout 120 --warnings off --suppress-health-check all"
CHECKS = "not_a_server_error,content_type_conformance,response_schema_conformance"


@contextmanager
def described(*routers: APIRouter) -> Iterator[None]:
    """Put routers into the description that leaves them out, for the `with`."""
    hidden = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    for route in hidden:
        route.include_in_schema = True
    for router in routers:
        router.include_in_schema = True
    try:
        yield
    finally:
        for route in hidden:
            route.include_in_schema = False
        for router in routers:
            router.include_in_schema = False


def description(models: Path) -> dict[str, Any]:
    """Return the OpenAPI document of all endpoints, those of the other protocols with the bodies that they read."""
    with described(open_inference.router, label_studio.router):
        document = create_app(Settings(models=models, device="cpu")).openapi()
    definitions = document["components"]["schemas"]
    for path, kind in BODIES.items():
        schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        definitions |= schema.pop("$defs", {})
        document["paths"][path]["post"]["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    parameter["example"] = NAMES[parameter["name"]]
            if path.startswith(("/v2", "/label-studio")):  # their replies are described by their protocols
                operation["responses"] = {"default": {"description": "An answer of the protocol."}}
    return document


def attack(python: Path, examples: int, models: Path, seed: int = 0) -> subprocess.CompletedProcess[str]:
    """Run Schemathesis, which the Python named has, on a service of these models."""
    with ExitStack() as stack:
        folder, host = stack.enter_context(tempfile.TemporaryDirectory()), stack.enter_context(run_host())
        named = {"label_studio_url": host.url, "label_studio_token": TOKEN}
        server = stack.enter_context(start_server(models, workers=2, log_level="error", **named))
        document = Path(folder) / "openapi.json"
        document.write_text(json.dumps(description(models)))
        server.wait_until_ready()
        options = f"--checks {CHECKS} --max-examples {examples} --seed {seed} {OPTIONS}".split()
        command = [str(python), "-m", "schemathesis.cli", "run", str(document), "--url", server.url, *options]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if server.process.poll() is not None or "Traceback" in server.log.read_text():
            raise AssertionError(server.log.read_text())
        return done


def main() -> int:
    """Attack the models of the repository; returns the exit status of Schemathesis."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    done = attack(Path(sys.executable), options.examples, ROOT / "models", options.seed)
    sys.stdout.write(done.stdout + done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
