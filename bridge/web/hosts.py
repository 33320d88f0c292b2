"""Which Host a request may name: the guard against DNS rebinding.

A page from the internet may not read http://127.0.0.1:8080 in the browser of
whoever visits it: that is another origin. Its author gets around this by letting
a name of his own point at 127.0.0.1; then the page and the gateway are one
origin to the browser. What he cannot change is that the browser sends his name
as the Host. So:

- an address is welcome, whichever it is: rebinding needs a name. This is how a
  gateway bound to 0.0.0.0 is reached, and how probes of orchestrators ask;
- `localhost` and what ends in `.localhost` are welcome: no public name does;
- this machine's own name is welcome, bare and with `.local`;
- names that the operator lists are welcome: in a network of containers, say;
- any other name is answered 421 (Misdirected Request) and not a byte more.

That we are bound to 0.0.0.0 does not widen the list. It says that the network
may read the status, not that every page on the internet may.

A request without a Host (HTTP/1.0) comes from a load balancer's probe and from
no browser; it passes.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["HostGuard", "host_of", "own_names"]


def own_names() -> set[str]:
    """The names this machine gives itself. No resolver is asked: it may be slow, or lie."""
    name = socket.gethostname().lower()
    return {name, f"{name}.local"} if name else set()


def host_of(header: str) -> str:
    """The name or address in a Host header, in lower case, without port, brackets and last dot."""
    header = header.strip().lower()
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].removesuffix(".")


class HostGuard:
    """Lets a request through to the app if it names a Host of ours."""

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        self._app = app
        self._names = own_names() | {name.lower() for name in names}

    def welcomes(self, header: str | None) -> bool:
        """Whether a request with this Host header is meant for us."""
        if header is None:
            return True
        host = host_of(header)
        if host == "localhost" or host.endswith(".localhost") or host in self._names:
            return True
        try:
            ip_address(host)
        except ValueError:
            return False
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 421 in the app's place when the Host is not ours."""
        if scope["type"] == "http" and not self.welcomes(Headers(scope=scope).get("host")):
            refusal = PlainTextResponse("421: this gateway does not go by that name; use its address\n", 421)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)
