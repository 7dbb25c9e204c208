"""Photos of tasks, and the annotations of a project, are fetched from the configured Label Studio, and from nowhere else.

What a task names is resolved against that host; another host is refused before anything is sent, and so is a redirect to
one: whoever may write tasks must not make this service knock at doors inside its network, nor carry the token there. Redirects to
the hosts of cloud storage that a setting names are followed, without the token.
No proxy of the environment is used.

Label Studio has two kinds of tokens (https://labelstud.io/guide/access_tokens): the legacy one goes into the header as it
is, `Authorization: Token X`; a personal access token is a JWT that `/api/token/refresh/` exchanges for a short-lived one,
`Authorization: Bearer Y`.
"""

import json
import re
import secrets
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from app.inference.errors import ParameterError, SwitchedOffError, UnavailableError, UploadError, UploadTooLargeError
from app.protocols.label_studio.redirects import Redirects, no_access, same_origin, shown_path
from app.runtime.settings import Settings, separated

SILENCE_SECONDS = 10  # The host is given up after this time without a byte.
FETCH_SECONDS = 60  # A photo may take this long in all.
CHUNK_BYTES = 65_536
MAX_REPLY_BYTES = 65_536  # A reply that is no photo may have this many bytes.
REFRESH_PATH = "/api/token/refresh/"
# Label Studio serves photos under these paths: uploads, local files, and storages through itself. Its API is nobody's photo.
DATA_PATH = re.compile(r"/(?:data|storage-data)/.|/(?:tasks|projects)/[0-9]{1,18}/(?:resolve|presign)/?")
WHO_AM_I_PATH = "/api/current-user/whoami"
# Label Studio reads storages of these schemes for its users.
CLOUD_SCHEMES = ("s3", "s3s", "gs", "azure-blob", "azure-spi")
KEPT = "%/:=&?~+!$,;'@()*[]"  # These characters of an address are left as they are.


class NotThereError(UploadError):
    """Label Studio has nothing at an address."""


@dataclass(frozen=True)
class Limits:
    """A file of Label Studio may have this many bytes, take so long in all, and so long without a byte; the remedy says what to do."""

    max_bytes: int
    seconds: float
    silence_seconds: float
    remedy: str


PAGE_TASKS = 50  # So many tasks are asked for at a time.
OF_PAGES = Limits(400_000_000, 60, 60, "give the photos fewer regions, or several projects")  # They hold that many.


@dataclass(frozen=True)
class Host:
    """It is a Label Studio: its address, its token, its storage's hosts, and the header made of the token by `signed_in`."""

    url: str
    token: str = field(repr=False)
    max_bytes: int
    storage: frozenset[str] = frozenset()
    authorization: str = field(default="", repr=False)

    @classmethod
    def of(cls, settings: Settings) -> "Host":
        """Return the one of the settings. Raises SwitchedOffError where they name none."""
        if settings.label_studio_url is None or settings.label_studio_token is None:
            raise SwitchedOffError(
                "this service does not know which Label Studio it may fetch photos from. Start it with "
                "TAG2MASK_LABEL_STUDIO_URL (such as http://localhost:8080) and TAG2MASK_LABEL_STUDIO_TOKEN (an access "
                "token of a user there)."
            )
        token = settings.label_studio_token.get_secret_value().strip()
        storage = frozenset(name.lower() for name in separated(settings.label_studio_storage))
        return cls(settings.label_studio_url.rstrip("/"), token, settings.max_upload_bytes, storage)

    def signed_in(self) -> "Host":
        """Return the same with its header; exchanges a personal access token. Raises UnavailableError."""
        if not (self.token.isascii() and self.token.isprintable()):
            raise _bad_token("has characters that no token has")
        if self.token.count(".") != 2:  # A JWT has three parts; this is a legacy token.
            return replace(self, authorization=f"Token {self.token}")
        body = json.dumps({"refresh": self.token}).encode()
        request = Request(self.url + REFRESH_PATH, body, {"Content-Type": "application/json"})
        try:
            with self._open(request) as reply:
                access = json.loads(reply.read(MAX_REPLY_BYTES))["access"]
        except (UploadError, ParameterError) as error:
            raise _bad_token(f"cannot be exchanged at {REFRESH_PATH}: {error}") from None
        except (OSError, HTTPException, ValueError, LookupError, TypeError):
            raise _bad_token(
                f"cannot be exchanged at {REFRESH_PATH}: the answer is not that of a Label Studio"
            ) from None
        return replace(self, authorization=f"Bearer {access}")

    def check_access(self) -> None:
        """Raise UnavailableError where Label Studio does not take the token, or does not answer."""
        host = self.signed_in()
        try:
            with host._open(Request(self.url + WHO_AM_I_PATH, headers={"Authorization": host.authorization})):
                pass
        except UploadError as error:
            if not isinstance(error, NotThereError):  # Another release may have no such page.
                raise UnavailableError(str(error), retry_after_seconds=60) from None

    def add_task(self, project: int, name: str, data: bytes) -> str:
        """Make a task of a photo in a project; returns the address under which it is opened. Raises UploadError."""
        boundary = secrets.token_hex(16)
        named = name.replace('"', "%22")  # Browsers write it so; no name that is received has line breaks.
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{named}"\r\n\r\n'
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Authorization": self.authorization, "Content-Type": f"multipart/form-data; boundary={boundary}"}
        path = f"/api/projects/{project}/import?return_task_ids=true"
        try:
            with self._open(Request(self.url + path, body, headers)) as reply:
                [task] = json.loads(reply.read(MAX_REPLY_BYTES))["task_ids"]
                return f"{self.url}/projects/{project}/data?task={int(task)}"
        except (OSError, HTTPException, ValueError, LookupError, TypeError):
            raise UploadError(f"Label Studio makes no task of {name[:80]!r} in project {project}.") from None

    def address(self, image: str, task: int | str | None = None, way: str = "resolve") -> str:
        """Return where an image named by a task lies; one in cloud storage is had through Label Studio's own address
        for it.

        Raises ParameterError for any other host, and for a path that holds no photos.
        """
        own = urlsplit(self.url)
        if image.strip().partition("://")[0] in CLOUD_SCHEMES and task is not None:
            named = urlsafe_b64encode(image.strip().encode()).decode()
            image = f"/tasks/{quote(str(task), safe='')}/{way}/?fileuri={named}"
        try:
            parts = urlsplit(image.strip())
            foreign = (parts.scheme or parts.netloc) and not same_origin(parts.geturl(), self.url)
        except ValueError:
            raise _foreign(image, self.url) from None
        if foreign or "@" in parts.netloc:
            raise _foreign(image, self.url)
        path = "/" + parts.path.lstrip("/")
        if not (path == own.path or path.startswith(own.path + "/")):
            path = own.path + path
        _check_path(path.removeprefix(own.path), image)
        query = f"?{parts.query}" if parts.query else ""
        return f"{own.scheme}://{own.netloc}{quote(path + query, safe=KEPT)}"

    def fetch(self, image: str, task: int | str | None = None) -> bytes:
        """Return the file a task names. Raises ParameterError (another host), UploadError, UploadTooLargeError."""
        if image.startswith("data:"):
            return self._inline(image)
        try:
            return self._fetch(self.address(image, task))
        except NotThereError:
            other = self.address(image, task, "presign")  # Some releases have this address alone.
            if other == self.address(image, task):
                raise
            return self._fetch(other)

    def _inline(self, image: str) -> bytes:
        """Return the bytes of a data: address in base64."""
        header, _, text = image.partition(",")
        try:
            data = b64decode(unquote_to_bytes(text), validate=True) if header.endswith(";base64") else b""
        except ValueError:
            data = b""
        if not data:
            raise UploadError("the task's data: address holds no base64.")
        if len(data) > self.max_bytes:
            raise UploadTooLargeError(
                f"the file has more than {self.max_bytes} bytes, which is the limit.", limit=self.max_bytes
            )
        return data

    def _fetch(self, address: str) -> bytes:
        limits = Limits(self.max_bytes, FETCH_SECONDS, SILENCE_SECONDS, "TAG2MASK_MAX_UPLOAD_BYTES")
        return b"".join(self._chunks(address, limits))

    def tasks(self, project: int) -> Iterator[dict[str, Any]]:
        """Yield the tasks of a project, each with its annotations and predictions. Raises UploadError.

        Label Studio's own JSON export names predictions by number alone, so that nobody could say what was changed in a draft.
        """
        page, last = 1, 1
        while page <= last:
            path = f"/api/tasks?project={project}&fields=all&page={page}&page_size={PAGE_TASKS}"
            try:
                reply = json.loads(b"".join(self._chunks(self.url + path, OF_PAGES)))
                last = -(-int(reply["total"]) // PAGE_TASKS)
                tasks = [dict(task) for task in reply["tasks"]]
            except (ValueError, LookupError, TypeError):
                raise UploadError(f"Label Studio does not list the tasks of project {project} as it should.") from None
            yield from tasks
            page += 1

    def _chunks(self, address: str, limits: Limits) -> Iterator[bytes]:
        """Yield what is at an address. Raises UploadError, UploadTooLargeError."""
        end = time.monotonic() + limits.seconds
        count = 0
        try:
            request = Request(address, headers={"Authorization": self.authorization})
            with self._open(request, limits.silence_seconds) as reply:
                while chunk := reply.read1(CHUNK_BYTES):
                    count += len(chunk)
                    if count > limits.max_bytes:
                        raise UploadTooLargeError(
                            f"the file has more than {limits.max_bytes} bytes, which is the limit ({limits.remedy}).",
                            limit=limits.max_bytes,
                        )
                    if time.monotonic() > end:
                        raise UploadError(f"the file did not arrive within {limits.seconds} seconds.")
                    yield chunk
        except (OSError, HTTPException) as error:
            raise UploadError(f"the file did not arrive whole ({type(error).__name__}).") from None

    @contextmanager
    def _open(self, request: Request, silence_seconds: float = SILENCE_SECONDS) -> Iterator[Any]:
        """Yield the answer to a request. No message holds what was sent, for it holds the token."""
        try:
            reply = build_opener(ProxyHandler({}), Redirects(self.url, self.storage)).open(
                request, timeout=silence_seconds
            )
        except HTTPError as error:
            error.close()
            if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise no_access(f"answers {error.code}") from None
            kind = NotThereError if error.code == HTTPStatus.NOT_FOUND else UploadError
            raise kind(f"Label Studio answers {error.code} to {shown_path(request.full_url)}.") from None
        except URLError as error:
            reason = type(error.reason).__name__ if isinstance(error.reason, Exception) else "no connection"
            raise UploadError(f"Label Studio at {self.url} cannot be reached ({reason}).") from None
        except (OSError, HTTPException, ValueError) as error:
            reason = type(error).__name__
            raise UploadError(f"{shown_path(request.full_url)} cannot be asked of Label Studio ({reason}).") from None
        with reply:
            yield reply


def _check_path(path: str, image: str) -> None:
    """Raise ParameterError unless a path, that of the host's address taken off, is one of photos."""
    plain = unquote(path)
    if not DATA_PATH.match(plain) or "\\" in plain or {".", ".."} & set(plain.split("/")):
        raise ParameterError(
            f"the image {image[:200]!r} is none of Label Studio's paths of photos (/data/..., /storage-data/..., "
            f"/tasks/ID/resolve/, /projects/ID/resolve/). Upload it there, or serve it through Label Studio's storage.",
            parameter="data",
        )


def _foreign(image: str, url: str) -> ParameterError:
    return ParameterError(
        f"the image {image[:200]!r} lies outside {url}, the only host photos are fetched from. Upload it to Label Studio, "
        f"or serve it through Label Studio's storage.",
        parameter="data",
    )


def _bad_token(what: str) -> UnavailableError:
    message = f"the token in TAG2MASK_LABEL_STUDIO_TOKEN {what.removesuffix('.')}."
    return UnavailableError(message, retry_after_seconds=60)
