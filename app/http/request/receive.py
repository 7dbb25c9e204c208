"""The photos in a request's body are taken out of it; a body that grows too large is refused while it streams."""

import re
from collections.abc import AsyncGenerator
from urllib.parse import unquote_to_bytes

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from app.inference.errors import ParameterError, UnsupportedTypeError, UploadError, UploadTooLargeError
from app.inference.image.kinds import kind_of

Received = tuple[str | None, bytes]  # They are the client's name of the file, and its bytes.
FILE_FIELD = "file"
UPLOAD_SETTING = "TAG2MASK_MAX_UPLOAD_BYTES"
# A number in a header has this many digits at most: longer ones are no lengths, and cost more to read than to send.
MAX_DIGITS = 18
MAX_FILES = 8  # One form may hold this many photos.
MAX_NAME = 255  # A file's name is kept up to this many characters.
HEAD_BYTES = 32  # A picture is recognised by this many of its first bytes.
# Clients that write these say nothing of the body: curl's --data-binary, browsers' unknown files, none at all.
TYPES_THAT_SAY_NOTHING = ("", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded")
EXTENDED_NAME = re.compile(rb"filename\*\s*=\s*\"?([\w.-]*)'[^']*'([^;\s\"]+)", re.IGNORECASE)
# A multipart body may add this many bytes to its file: boundaries and the headers of parts.
FRAMING_BYTES = 16_384
REMEDY = "Send the photo as multipart field 'file' (curl -F file=@photo.jpg) or as raw body of type image/*."


async def receive_photos(request: Request, max_bytes: int) -> list[Received]:
    """Return the photos in the body: the multipart fields `file`, or the whole body, which is recognised by its bytes
    where its type says nothing.

    Raises UploadTooLargeError, UnsupportedTypeError, UploadError, ParameterError (a form field besides the files).
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        photos = await _receive_form(request, max_bytes)
    elif content_type.startswith("image/") or content_type in TYPES_THAT_SAY_NOTHING:
        data = await receive_body(request, max_bytes)
        known = content_type.startswith("image/") or kind_of(data[:HEAD_BYTES])
        if not known and not content_type:
            raise UploadError(f"the request has no body, or no Content-Type. {REMEDY}")
        if not known:
            raise UnsupportedTypeError(
                f"a body of type {content_type[:100]!r} that is no picture is not read. {REMEDY}"
            )
        photos = [(None, data)]
    else:
        raise UnsupportedTypeError(f"a body of type {content_type[:100]!r} is not read. {REMEDY}")
    for _, data in photos:
        if len(data) > max_bytes:
            raise _too_large(len(data), max_bytes)
    return photos


def whole_number(text: str) -> int | None:
    """Return the number in a header; None for what is none, or has more digits than any length."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS else None


async def receive_body(request: Request, max_bytes: int, setting: str = UPLOAD_SETTING) -> bytes:
    """Return the whole body, whatever its type; `setting` is the one that holds its limit. Raises UploadTooLargeError."""
    return b"".join([chunk async for chunk in _limited(request, max_bytes, max_bytes, setting)])


async def wait_for_disconnect(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class PhotoFormParser(MultiPartParser):
    """It reads the parts that clients write: a name in `filename*` (RFC 5987), a file without a field name."""

    def on_headers_finished(self) -> None:
        part = self._current_part
        disposition = part.content_disposition or b"form-data"
        _, options = parse_options_header(disposition)
        extended = EXTENDED_NAME.search(disposition)
        if b"filename" not in options and extended:
            disposition += b'; filename="%s"' % _quoted(extended)
        if b"name" not in options:
            disposition += b'; name="%s"' % FILE_FIELD.encode()
            if b"filename" not in options and not extended:
                disposition += b'; filename=""'
        part.content_disposition = disposition
        super().on_headers_finished()

    def close_files(self) -> None:
        """Close what was begun: a body may end amid a part."""
        for file in self._files_to_close_on_error:
            file.close()


async def _receive_form(request: Request, max_bytes: int) -> list[Received]:
    stream = _from_boundary(request, _limited(request, max_bytes + FRAMING_BYTES, max_bytes))
    parser = PhotoFormParser(request.headers, stream, max_files=MAX_FILES, max_fields=MAX_FILES)
    parser.spool_max_size = max_bytes + FRAMING_BYTES  # Uploads stay in memory and never reach the disk.
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise UploadError(f"the multipart body cannot be read: {error.message} {REMEDY}") from error
    try:
        others = [name for name in form if name != FILE_FIELD]
        if others:
            raise ParameterError(
                f"the form field {others[0][:80]!r} is not read. The form holds photos as {FILE_FIELD!r} and nothing "
                f"else; parameters go into the query string (?name=value).",
                parameter=others[0][:80],
            )
        photos = form.getlist(FILE_FIELD)
        if not photos:
            raise UploadError(f"the form holds no {FILE_FIELD!r} field; one is needed at least. {REMEDY}")
        if not all(isinstance(photo, UploadFile) for photo in photos):
            raise UploadError(f"the form's {FILE_FIELD!r} is text, not a file. {REMEDY}")
        return [(_name_of(photo), await photo.read()) for photo in photos if isinstance(photo, UploadFile)]
    finally:
        await form.close()
        parser.close_files()


def _name_of(photo: UploadFile) -> str | None:
    """Return what the client calls its file, without the folders before it; None where it does not say."""
    name = re.split(r"[/\\]", photo.filename or "")[-1]
    return "".join(letter for letter in name if letter.isprintable())[:MAX_NAME] or None


def _quoted(extended: re.Match[bytes]) -> bytes:
    """Return the name of a `filename*`, as `filename` would have it."""
    charset, value = extended[1].decode("ascii") or "utf-8", unquote_to_bytes(extended[2])
    try:
        name = value.decode(charset)
    except (LookupError, UnicodeDecodeError):
        name = value.decode("latin-1")
    return name.encode().replace(b"\\", b"\\\\").replace(b'"', b'\\"')


async def _from_boundary(request: Request, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Return the body from its first boundary on: what stands before it is for programs that know no multipart."""
    _, options = parse_options_header(request.headers["content-type"])
    boundary = b"--" + options.get(b"boundary", b"")
    held: bytes | None = b""
    async for chunk in stream:
        if held is None:
            yield chunk
            continue
        held += chunk
        start = held.find(boundary)
        if start >= 0 or len(held) > FRAMING_BYTES:
            yield held[max(start, 0) :]
            held = None
    if held:
        yield held


async def _limited(
    request: Request, limit: int, stated_limit: int, setting: str = UPLOAD_SETTING
) -> AsyncGenerator[bytes, None]:
    """Return the body's chunks, up to `limit` bytes; by the Content-Length already before the first."""
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
        f"the upload has {megabytes(size)} or more; the limit is {megabytes(limit)}. Send a smaller or more compressed copy, "
        f"or raise {setting} where the service is yours.",
        limit=limit,
    )


def megabytes(size: int) -> str:
    """Return a number of bytes as people read it: 20.1 MB, or the bytes alone where that says no more."""
    return f"{size / 1e6:.1f} MB ({size} bytes)" if size >= 1e5 else f"{size} bytes"
