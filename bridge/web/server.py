"""The HTTP server, as a guest on the loop of the house.

uvicorn expects to own its process: it takes the signals and leaves with
`sys.exit` when a port is in use. Here it owns neither. The socket is bound by us
and handed over, so a port in use is an OSError like any other; and `_Guest`
leaves the signals with `bridge.app`, whose SIGTERM must reach the store first.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

__all__ = ["WebServer"]

# A status page has few readers. While there are more at once, further requests
# are answered 503 without asking for a snapshot.
CONNECTIONS_MAX = 64
KEEP_ALIVE_S = 5
# How long an answer on its way may take when the house is closing.
STOP_WAIT_S = 1
START_WAIT_S = 5


class _Guest(uvicorn.Server):
    """uvicorn, but the signals stay with the house, and it says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class WebServer:
    """Serves one app on one address, from `start` to `stop`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._server: _Guest | None = None
        self._serving: asyncio.Task[None] | None = None
        self.address: tuple[str, int] | None = None  # what was bound: the port is real even when 0 was asked

    async def start(self, host: str, port: int) -> None:
        """Afterwards `host:port` answers. Raises OSError when it cannot be bound."""
        assert self._serving is None, "started twice"
        listener = await _bind(host, port)
        self.address = listener.getsockname()[:2]
        config = uvicorn.Config(
            self._app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_WAIT_S,
        )
        self._server = _Guest(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="web")
        up = asyncio.create_task(self._server.up.wait())
        try:
            await asyncio.wait((self._serving, up), timeout=START_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
            if not self._server.started:
                self._serving.cancel()
                listener.close()
        if not self._server.started:
            await self.stop()
            raise OSError(f"{host}:{port} is bound, but the server did not start within {START_WAIT_S} s")

    async def stop(self) -> None:
        """Afterwards nothing answers and nothing is open. Safe at any time, any number of times."""
        serving, self._serving = self._serving, None
        if serving is None or self._server is None:
            return
        self._server.should_exit = True
        await asyncio.wait((serving,))
        if not serving.cancelled():
            serving.result()  # what went wrong in there is not kept quiet


async def _bind(host: str, port: int) -> socket.socket:
    """Return a listening socket on the first address of `host` that can be bound."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    failure: OSError | None = None
    for family, _, _, _, address in found:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            # A restart must not wait for the last one's connections to time out.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except OSError as error:
            listener.close()
            failure = failure or error
            continue
        listener.setblocking(False)
        return listener
    raise failure or OSError(f"{host} has no address")
