"""The photos of a request are those in its body, or the one that was kept of an earlier request."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.http.request.parameters import KeptImage, PhotoParameters
from app.http.request.receive import receive_photos
from app.inference.errors import MissingImageError
from app.runtime.service import service_of
from app.runtime.upload_store import Upload

HASHED_AT_ONCE = 262_144  # The hash of so many bytes is there before a thread has begun.
IMAGE_COOKIE = "tag2mask_image"  # The cookie holds the id of the photo that was posted last.


async def obtain_uploads(request: Request, parameters: PhotoParameters) -> list[Upload]:
    """Return the photos in the body; for a GET the one kept under `image=`, else under the cookie."""
    service = service_of(request)
    if not isinstance(parameters, KeptImage):
        received = await receive_photos(request, service.settings.max_upload_bytes)
        return [await upload_of(data, name) for name, data in received]
    return [await kept_upload(request, parameters)]


async def upload_of(data: bytes, name: str | None) -> Upload:
    """Return a photo under the hash of its bytes."""
    if len(data) <= HASHED_AT_ONCE:
        return Upload.of(data, name)
    return await run_in_threadpool(Upload.of, data, name)


async def kept_upload(request: Request, parameters: KeptImage) -> Upload:
    """Return the photo kept under `image=`, else under the cookie. Raises MissingImageError, UnknownImageError, StoreGoneError."""
    image_id = parameters.image or request.cookies.get(IMAGE_COOKIE)
    if not image_id:
        raise MissingImageError(
            "no photo is named. Give image=ID (`image.id` in the reply, or the header X-Image-Id, of the POST that sent "
            "it), keep the cookie that POST /segment sets, or send the photo itself with POST.",
            parameter="image",
        )
    service = service_of(request)
    return await service.at_store(service.uploads.get, image_id.lower())


def set_image_cookie(request: Request, response: Response, upload: Upload) -> None:
    """Let a client that keeps cookies leave out `image=` in what follows."""
    max_age = int(service_of(request).settings.upload_ttl_seconds)
    secure = request.url.scheme == "https"
    path = request.scope.get("root_path") or "/"
    response.set_cookie(
        IMAGE_COOKIE, upload.id, max_age=max_age, path=path, secure=secure, httponly=True, samesite="lax"
    )
