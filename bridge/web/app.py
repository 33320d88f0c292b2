"""The answers: each one is made from a snapshot taken while the question waits.

    /               what there is to ask
    /api/v1/status  the status document as JSON
    /metrics        the same for Prometheus
    /livez          200 while the event loop turns; restart the process when it does not answer
    /readyz         200 while messages can be taken safely, else 503 and why

`/livez` looks at nothing on purpose: a full disk or a dead link is not mended by
a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bridge.observe.metrics import registry
from bridge.observe.status import Status
from bridge.web.hosts import HostGuard

__all__ = ["create_app"]

# Every answer is of this moment, and nothing that a browser should guess about.
HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

INDEX = """\
edgespool

/api/v1/status  the status document as JSON
/metrics        the same for Prometheus
/livez          200 while the process is alive
/readyz         200 while messages can be taken safely, else 503 and why
"""


def create_app(snapshot: Callable[[], Status], names: Iterable[str] = ()) -> Starlette:
    """Return the app over `snapshot`, which is called on the event loop and must not wait.

    `names` are further Host names to answer to; see `bridge.web.hosts`.
    """
    metrics = registry(snapshot)
    encoder = msgspec.json.Encoder()

    async def index(_request: Request) -> Response:
        return PlainTextResponse(INDEX, headers=HEADERS)

    async def status(_request: Request) -> Response:
        return Response(encoder.encode(snapshot()), media_type="application/json", headers=HEADERS)

    async def scrape(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics), headers=HEADERS | {"content-type": content_type})

    async def livez(_request: Request) -> Response:
        return PlainTextResponse("ok\n", headers=HEADERS)

    async def readyz(_request: Request) -> Response:
        now = snapshot()
        if now.ready:
            return PlainTextResponse("ok\n", headers=HEADERS)
        reasons = now.reasons or ["not ready"]
        return PlainTextResponse("".join(f"{reason}\n" for reason in reasons), 503, headers=HEADERS)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/api/v1/status", status),
            Route("/metrics", scrape),
            Route("/livez", livez),
            Route("/readyz", readyz),
        ],
        middleware=[Middleware(HostGuard, names=tuple(names))],
    )
