"""Every exception that an endpoint raises is answered in the one error shape (`app.http.reply.problems`)."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.http.reply.problems import SAFE_HEADERS, is_open_inference, problem_of, problem_response, respond
from app.http.reply.schemas import Problem
from app.inference.errors import ClientLeftError, ParameterError, ServiceError, reason_of


def add_error_handlers(app: FastAPI) -> None:
    """Answer every exception in the one error shape."""
    handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
        ServiceError: answer_service_error,
        RequestValidationError: answer_invalid_parameters,
        HTTPException: answer_http_exception,
        ClientDisconnect: answer_disconnect,
        Exception: answer_failure,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def answer_service_error(request: Request, error: Exception) -> Response:
    """Answer an error that was raised on purpose."""
    assert isinstance(error, ServiceError)
    return problem_response(request.scope, error)


async def answer_invalid_parameters(request: Request, error: Exception) -> Response:
    """Answer values that a parameter's type or bounds refuse."""
    assert isinstance(error, RequestValidationError)
    found = [
        {"parameter": str(entry["loc"][-1]), "value": str(entry.get("input"))[:80], "reason": reason_of(entry["msg"])}
        for entry in error.errors()
    ]
    message = "; ".join(f"{entry['parameter']}={entry['value']}: {entry['reason']}" for entry in found)
    refusal = ParameterError(f"{message}.", parameter=found[0]["parameter"], errors=found)
    return problem_response(request.scope, refusal)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    path, headers, detail = request.url.path, dict(error.headers or {}), str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"there is nothing at {path[:200]!r}; GET /docs lists the paths."
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = _methods_of(request) or headers.get("Allow", "GET")
        headers["Allow"] = allowed
        detail = f"{request.method[:20]} is not possible at {path[:200]!r}; use {allowed}."
    phrase = HTTPStatus(error.status_code).phrase
    kind = phrase.lower().replace(" ", "-")
    request.state.reason = kind
    details = {"error": detail} if is_open_inference(request.scope) else {}
    return respond(Problem.of(kind, phrase, error.status_code, detail, details), headers)


async def answer_disconnect(request: Request, error: Exception) -> Response:
    """Answer a client that left while it sent its photo: nobody reads this, but the log has a line of its own kind."""
    return problem_response(request.scope, ClientLeftError("the client left while it sent its photo."))


async def answer_failure(request: Request, error: Exception) -> Response:
    """Answer a fault of the service. The server logs the traceback; the client sees the id to ask for it by.

    This answer is given outside all middleware, so it names the id itself.
    """
    message = "the service failed at this request; its log says how. This is not the request's fault."
    return respond(
        problem_of(ServiceError(message)), {**SAFE_HEADERS, "X-Request-Id": getattr(request.state, "request_id", "")}
    )


def _methods_of(request: Request) -> str:
    """Return all methods of a path, as the OpenAPI document has them; routes know only their own."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    methods = [method.upper() for method in request.app.openapi()["paths"].get(path, {})]
    return ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
