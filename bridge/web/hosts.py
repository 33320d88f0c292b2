"""The guard of the web: a request that names a Host which is not ours is answered 421.

Which Hosts are ours, and why it matters, says `bridge.policy.hosts`. A request
without a Host (HTTP/1.0) comes from a load balancer's probe and from no browser;
it passes.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.policy.hosts import host_of, is_ours, names_of

__all__ = ["HostGuard"]


class HostGuard:
    """Lets a request through to the app if it names a Host of ours."""

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        self._app = app
        self._names = names_of(socket.gethostname()) | {name.lower() for name in names}

    def welcomes(self, header: str | None) -> bool:
        """Whether a request with this Host header is meant for us."""
        return header is None or is_ours(host_of(header), self._names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 421 (Misdirected Request), and not a byte more, when the Host is not ours."""
        if scope["type"] == "http" and not self.welcomes(Headers(scope=scope).get("host")):
            refusal = PlainTextResponse("421: this gateway does not go by that name; use its address\n", 421)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)
