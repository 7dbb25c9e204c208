"""An error becomes `application/problem+json` (RFC 9457), the one error shape of every endpoint.

Worker processes write such documents too, so this module does without FastAPI, which takes them a fifth of their imports' time
(`app.http.reply.error_handlers` is the part that needs it).
"""

import re

from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from app.http.reply.schemas import Problem
from app.inference.errors import ServiceError

MEDIA_TYPE = "application/problem+json"
# Every answer that says nothing else carries these (`app.guard.admission`).
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "frame-ancestors 'none'",
}


def problem_of(error: ServiceError) -> Problem:
    """Return the problem document of an error."""
    return Problem.of(kind_of(error), error.title, error.status, str(error), error.details)


def kind_of(error: ServiceError) -> str:
    """Return the error's class name, hyphenated: `type` ends with it, and it is the reason in the log."""
    name = type(error).__name__.removesuffix("Error")
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def problem_response(scope: Scope, error: ServiceError) -> Response:
    """Return the answer to a request that is refused, under /v2 in the shape of its protocol; the reason goes into its state, for the log."""
    scope.setdefault("state", {})["reason"] = kind_of(error)
    if is_open_inference(scope):
        return JSONResponse({"error": str(error)}, error.status, error.headers)
    return respond(problem_of(error), error.headers)


def is_open_inference(scope: Scope) -> bool:
    """Tell whether clients of the Open Inference Protocol ask there, which read `error`."""
    return scope["path"].removeprefix(scope.get("root_path", "")).startswith("/v2")


def respond(problem: Problem, headers: dict[str, str]) -> Response:
    """Return the answer that holds a problem document."""
    return Response(problem.model_dump_json(), problem.status, headers, MEDIA_TYPE)
