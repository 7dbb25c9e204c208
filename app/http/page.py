"""The web page is served at `/` and its files under `/static`; nothing in them asks for an address outside this server."""

from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.inference.class_names import SYNONYMS
from app.runtime.settings import Settings

DIRECTORY = Path(__file__).parents[1] / "static"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # The browser asks whether its copy still holds, so a new version shows at once.
}


class PageFiles(StaticFiles):
    """It serves the files of the page, with the headers that keep a browser to them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def add_page(app: FastAPI, settings: Settings) -> None:
    """Serve the page, the limits by which it shrinks photos before it sends them, the words it takes for classes, and
    whether corrections can be made here or in Label Studio; the OpenAPI document lists none of it.
    """
    files = PageFiles(directory=DIRECTORY)

    async def index(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    async def limits() -> Response:
        names = ("max_upload_bytes", "max_image_pixels")
        known = {name: getattr(settings, name) for name in names}
        own = {
            "synonyms": SYNONYMS,
            "corrections": settings.corrections is not None,
            "label_studio": None
            not in (settings.label_studio_url, settings.label_studio_token, settings.label_studio_project),
        }
        return JSONResponse({**known, **own}, headers=HEADERS)

    app.add_api_route("/static/limits.json", limits, methods=["GET"], include_in_schema=False)
    app.add_api_route("/", index, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/static", files)
