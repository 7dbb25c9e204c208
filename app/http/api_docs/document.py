"""The OpenAPI document says here what holds of the whole service; `/docs` shows it, and all errors share one schema."""

from typing import Any

from fastapi import FastAPI

from app.http.reply.schemas import Problem

APPLICATION: dict[str, Any] = {
    "title": "tag2mask",
    "description": (
        "tag2mask gives class activation maps, pseudo-labels and segmentation masks of photos, by models trained on tags "
        "alone.\n\n"
        "Send a photo with POST; several in one form are answered as a list in JSON. Every result names it by `image.id` "
        "(header `X-Image-Id`), and GET with `image=ID` asks for its other results without a second upload. `format=` or the `Accept` header chooses the format.\n\n"
        "Every result has an `ETag`; a GET with `If-None-Match` is answered 304 while it holds. `Server-Timing` says where "
        "the time went, `X-Request-Id` (the client's own, where it sends one) is in the log.\n\n"
        "Errors come as `application/problem+json` (RFC 9457); `detail` states the value, the limit and the remedy."
    ),
    "license_info": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    "version": "1",
}

# `/docs` brings its viewer's files from this server, and the document goes nowhere to be validated.
VIEWER: dict[str, Any] = {
    "redoc_url": None,
    "favicon_url": "static/icon.svg",
    "swagger_ui_parameters": {"validatorUrl": None},
}


def add_shared_schemas(app: FastAPI) -> None:
    """Name the schema of problems once in the OpenAPI document: generators of clients make one class of it."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        document["components"]["schemas"].setdefault(Problem.__name__, Problem.model_json_schema())
        return document

    app.openapi = openapi  # type: ignore[method-assign]
