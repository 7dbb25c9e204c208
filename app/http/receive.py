"""Request body -> the bytes of one photo, refused while it streams where it grows too large."""

from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from app.inference.errors import ParameterError, UnsupportedTypeError, UploadError, UploadTooLargeError

FILE_FIELD = "file"
UPLOAD_SETTING = "TAG2MASK_MAX_UPLOAD_BYTES"
MAX_DIGITS = 18  # of a number in a header: longer ones are no lengths, and cost more to read than to send
FRAMING_BYTES = 16_384  # what a multipart body may add to its file: boundaries, part headers
REMEDY = "Send the photo as multipart field 'file' (curl -F file=@photo.jpg) or as raw body of type image/*."


async def receive_photo(request: Request, max_bytes: int) -> bytes:
    """The photo in the body: the multipart field `file`, or the whole body where its type is `image/*`.

    Raises UploadTooLargeError, UnsupportedTypeError, UploadError, ParameterError (a form field besides the file).
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        data = await _receive_form(request, max_bytes)
    elif content_type.startswith("image/"):
        data = await receive_body(request, max_bytes)
    elif content_type:
        raise UnsupportedTypeError(f"a body of type {content_type[:100]!r} is not read. {REMEDY}")
    else:
        raise UploadError(f"the request has no body, or no Content-Type. {REMEDY}")
    if len(data) > max_bytes:
        raise _too_large(len(data), max_bytes)
    return data


def whole_number(text: str) -> int | None:
    """The number in a header; None for what is none, or has more digits than any length."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS else None


async def receive_body(request: Request, max_bytes: int, setting: str = UPLOAD_SETTING) -> bytes:
    """The whole body, whatever its type; `setting` is the one that holds its limit. Raises UploadTooLargeError."""
    return b"".join([chunk async for chunk in _limited(request, max_bytes, max_bytes, setting)])


async def wait_for_disconnect(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _receive_form(request: Request, max_bytes: int) -> bytes:
    stream = _limited(request, max_bytes + FRAMING_BYTES, max_bytes)
    parser = MultiPartParser(request.headers, stream, max_files=8, max_fields=8)
    parser.spool_max_size = max_bytes + FRAMING_BYTES  # in memory, never on disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise UploadError(f"the multipart body cannot be read: {error.message} {REMEDY}") from error
    try:
        photos = [value for name, value in form.multi_items() if name == FILE_FIELD]
        others = [name for name in form if name != FILE_FIELD]
        if others:
            raise ParameterError(
                f"the form field {others[0][:80]!r} is not read. The form holds the photo as {FILE_FIELD!r} and nothing "
                f"else; parameters go into the query string (?name=value).",
                parameter=others[0][:80],
            )
        if len(photos) != 1:
            raise UploadError(f"the form holds {len(photos)} {FILE_FIELD!r} fields; one is needed. {REMEDY}")
        if not isinstance(photos[0], UploadFile):
            raise UploadError(f"the form's {FILE_FIELD!r} is text, not a file. {REMEDY}")
        return await photos[0].read()
    finally:
        await form.close()


async def _limited(
    request: Request, limit: int, stated_limit: int, setting: str = UPLOAD_SETTING
) -> AsyncGenerator[bytes, None]:
    """The body's chunks, up to `limit` bytes; by the Content-Length already before the first."""
    declared = whole_number(request.headers.get("content-length", ""))
    if declared is not None and declared > limit:
        raise _too_large(declared, stated_limit, setting)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise _too_large(received, stated_limit, setting)
        yield chunk


def _too_large(size: int, limit: int, setting: str = UPLOAD_SETTING) -> UploadTooLargeError:
    return UploadTooLargeError(
        f"the upload has {size} bytes or more; the limit is {limit}. Send a smaller or more compressed copy, "
        f"or raise {setting} where the service is yours.",
        limit=limit,
    )
