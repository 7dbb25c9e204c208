"""The service may stand behind a proxy that strips a path prefix, or one that names whole addresses in the request line.

The prefix is the setting `root_path`, else what a trusted proxy says in `X-Forwarded-Prefix`. Links, redirects, `/docs` and
the page's files begin with it. From a trusted proxy `X-Forwarded-Host` is believed too, in redirects.
"""

import ipaddress
import re
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX, HOST = b"x-forwarded-prefix", b"x-forwarded-host"
PATH = re.compile(r"(/[\w.~!$&'()*+,;=:@%-]+)+", re.ASCII)
HOST_NAME = re.compile(rb"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
WHOLE_ADDRESS = re.compile(r"/?https?://[^/?#]*(/.*)?")
MAX_PREFIX = 200  # A path prefix has this many characters at most.


class BehindProxies:
    """This ASGI middleware is the outermost: it has to see the address of the peer itself."""

    def __init__(self, app: ASGIApp, root_path: str, trusted_proxies: Iterable[str]) -> None:
        self.app = app
        self.root_path = root_path
        self.everyone = "*" in trusted_proxies
        self.networks = [ipaddress.ip_network(entry, strict=False) for entry in trusted_proxies if entry != "*"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = self.rewritten(scope)
        await self.app(scope, receive, send)

    def rewritten(self, scope: Scope) -> Scope:
        """Return the scope with the prefix in it, as ASGI has it: `path` begins with `root_path`."""
        headers = dict(scope["headers"])
        trusted = self.trusts(scope.get("client"))
        prefix = self.root_path or (headers.get(PREFIX, b"").decode("latin-1") if trusted else "")
        prefix = prefix.rstrip("/")
        path, rest = scope["path"], {}
        if whole := WHOLE_ADDRESS.fullmatch(path):  # Clients of forward proxies write GET http://host/path.
            path = whole[1] or "/"
        if len(prefix) <= MAX_PREFIX and PATH.fullmatch(prefix) and ".." not in prefix.split("/"):
            rest["root_path"] = prefix
            if path != prefix and not path.startswith(f"{prefix}/"):  # The proxy has stripped it.
                path = prefix + path
        host = headers.get(HOST, b"")
        if trusted and HOST_NAME.fullmatch(host):
            others = [(name, value) for name, value in scope["headers"] if name != b"host"]
            rest["headers"] = [*others, (b"host", host)]
        return {**scope, **rest, "path": path}

    def trusts(self, client: tuple[str, int] | None) -> bool:
        """Tell whether what the peer says of whom it speaks for is believed."""
        if self.everyone or client is None:
            return self.everyone
        try:
            address = ipaddress.ip_address(client[0].partition("%")[0])
        except ValueError:  # The peer of a test has a name.
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self.networks)
