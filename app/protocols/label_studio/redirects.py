"""Redirects are followed within Label Studio's own host and to the storage that a setting names, and the token goes nowhere else."""

from http.client import HTTPMessage
from typing import IO
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request

from app.inference.errors import ParameterError, UploadError
from app.runtime.settings import is_named

DEFAULT_PORTS = {"http": 80, "https": 443}
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
SIGN_IN_PATH = "/user/login"
Origin = tuple[str, str, int | None]


class Redirects(HTTPRedirectHandler):
    """It follows a redirect within the host, but not to its sign-in page, and one to its storage, without the token."""

    def __init__(self, url: str, storage: frozenset[str]) -> None:
        self._url = url
        self._storage = storage

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if not same_origin(newurl, self._url):
            host = (urlsplit(newurl).hostname or "").lower()
            if is_named(host, self._storage):
                fp.close()
                return Request(newurl)
            fp.close()
            raise ParameterError(
                f"Label Studio sends on from {shown_path(req.full_url)} to another host, {host[:100]!r}, which is not followed. Name it in "
                f"TAG2MASK_LABEL_STUDIO_STORAGE, or switch the storage's pre-signed addresses off.",
                parameter="data",
            )
        if urlsplit(newurl).path.startswith(urlsplit(self._url).path + SIGN_IN_PATH):
            fp.close()
            raise no_access("asks to sign in")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def origin_of(url: str) -> Origin:
    """Return (scheme, host, port) of an address. Raises ValueError."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme)


def same_origin(url: str, other: str) -> bool:
    """Tell whether two addresses name one server; the names of this machine are one."""
    (scheme, host, port), (other_scheme, other_host, other_port) = origin_of(url), origin_of(other)
    same_host = host == other_host or {host, other_host} <= LOOPBACK
    return (scheme, port) == (other_scheme, other_port) and same_host


def shown_path(url: str) -> str:
    return repr(urlsplit(url).path[:200])


def no_access(what: str) -> UploadError:
    return UploadError(
        f"Label Studio {what}: the token in TAG2MASK_LABEL_STUDIO_TOKEN is not valid there, its user may not see the file, "
        f"or Label Studio does not take tokens of this kind (Organization > Access Token Settings)."
    )
