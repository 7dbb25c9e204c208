"""Every request is looked at before anything is done for it: its host name, the length of its query, its API key.

Every answer gets the headers that keep a browser from taking it for something else.
"""

from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.guard.keys import Keys
from app.http.reply.problems import SAFE_HEADERS, problem_response
from app.inference.errors import ParameterError, ServiceError, UnknownHostError
from app.runtime.settings import is_named

MAX_PARAMETERS = 64  # A query may have this many parameters; no endpoint knows a third of it.
# Whatever watches over the service asks these, and has no key.
OPEN_TO_ALL = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in SAFE_HEADERS.items()]


class Admission:
    """This ASGI middleware refuses what is not to be served, and puts `SAFE_HEADERS` on every answer that lacks them.

    The name of the key goes into `request.state.key`.
    """

    def __init__(self, app: ASGIApp, keys: Keys, allowed_hosts: Sequence[str] = ()) -> None:
        self.app = app
        self.keys = keys
        self.allowed_hosts = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message.get("headers", ())}
                missing = [header for header in RAW_HEADERS if header[0] not in given]
                message["headers"] = [*message.get("headers", ()), *missing]
            await send(message)

        try:
            self._check(scope)
        except ServiceError as error:
            await problem_response(scope, error)(scope, receive, send_safely)
            return
        await self.app(scope, receive, send_safely)

    def _check(self, scope: Scope) -> None:
        """Raise UnknownHostError, ParameterError, KeyRequiredError or RateLimitError."""
        count = scope["query_string"].count(b"&") + 1
        if count > MAX_PARAMETERS:
            raise ParameterError(
                f"the query has {count} parameters; at most {MAX_PARAMETERS} are read. Leave out what is not needed.",
                limit=MAX_PARAMETERS,
            )
        if scope["path"].removeprefix(scope.get("root_path", "")) in OPEN_TO_ALL:
            return
        headers = dict(scope["headers"])
        host = _name_of(headers.get(b"host", b"").decode("latin-1"))
        if self.allowed_hosts and not is_named(host, self.allowed_hosts):
            raise UnknownHostError(
                f"nothing is served under the host name {host[:100]!r}. Ask for the service by one of its names "
                f"(TAG2MASK_ALLOWED_HOSTS)."
            )
        if self.keys.required and scope["method"] != "OPTIONS":
            scope["state"]["key"] = self.keys.admit(headers)


def _name_of(host: str) -> str:
    """Return the name in a Host header, without its port; an IPv6 address keeps its brackets."""
    end = host.find("]") + 1 if host.startswith("[") else host.find(":")
    return (host[:end] if end > 0 else host).lower()
