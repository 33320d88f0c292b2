"""One address on which devices are taken in, whatever lies between the socket and the Link.

    mqtt, unix    socket → Link
    mqtts         socket → TLS → Link
    ws            socket → WebSocket → Link
    wss           socket → TLS → WebSocket → Link

TLS is the event loop's, the WebSocket is `websocket`; a Link gets bytes and sees none
of it. We accept by ourselves: so a stranger is counted before the first byte of a
handshake, a reload is one attribute (whoever is inside or half-way keeps the context
of before, and the queue of the kernel loses nobody), and a process that has run out
of descriptors waits for them instead of trying again at once, for ever.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from bridge.broker.broker import Broker
from bridge.broker.crowd import SPARE_DESCRIPTORS
from bridge.broker.door import Door
from bridge.broker.link import Link
from bridge.broker.sockets import listen_tcp, listen_unix, unlink_unix
from bridge.broker.tls import HANDSHAKE_WAIT_S, SHUTDOWN_WAIT_S, TlsFiles, build_context, handshaking
from bridge.errors import ConfigError

__all__ = ["Listener", "Place"]

log = logging.getLogger(__name__)

_ACCEPTS_PER_TURN: Final = 64  # of the loop: a storm may not keep the devices inside waiting
_PATIENCE_TURNS: Final = 3  # what asyncio needs from the end of a connection to the count
_NO_ROOM_WAIT_S: Final = 1.0
_NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# Handshakes under way. The processor does some hundred in a second, so of more at once the
# last ones would miss their deadline; they wait in the kernel's queue, where none runs.
HANDSHAKES_MAX: Final = 256
# When all places are taken, whoever has held one for so long gives it up.
_HANDSHAKE_PATIENCE_S: Final = 2.0


class Place(msgspec.Struct, frozen=True):
    """Where a listener is, and how one speaks to it. `path` and `origins` are for WebSockets."""

    kind: Literal["mqtt", "mqtts", "ws", "wss", "unix"]
    host: str = ""
    port: int = 0
    unix: Path | None = None
    mode: int = 0o660
    tls: TlsFiles | None = None
    path: str | None = None
    origins: tuple[str, ...] = ()


class Listener:
    """One address. `handshakes_failed` counts those whose TLS came to nothing since the start."""

    def __init__(self, broker: Broker, door: Door, place: Place) -> None:
        self.broker = broker
        self.door = door
        self.place = place
        self.handshakes_failed = 0
        self._context: ssl.SSLContext | None = None
        self._sockets: list[socket.socket] = []
        self._inode = (0, 0)
        self._entering: dict[asyncio.Task[None], float] = {}  # since when; the oldest first
        self._waiting: asyncio.TimerHandle | None = None
        self._patience = 0  # turns of the loop since somebody knocked at a full house
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        """Afterwards devices can connect. Raises ConfigError that names the port, or the file."""
        place = self.place
        self._prepare(place)
        if place.unix is not None:
            path = str(place.unix)
            self._sockets = [listen_unix(path, place.mode)]
            found = os.lstat(path)
            self._inode = (found.st_dev, found.st_ino)
        else:
            self._sockets = await listen_tcp(place.host, place.port)
        self._listen()

    def reload(self, place: Place) -> None:
        """Take the files as they are now, and the rules of `place`, for whoever comes next.

        Raises ConfigError with everything as it was. Where it listens does not change.
        """
        self._prepare(place)
        self.place = place

    def _prepare(self, place: Place) -> None:
        context = build_context(place.tls) if place.tls is not None else None
        if place.kind in ("ws", "wss"):
            try:
                from bridge.broker import websocket  # noqa: F401 - before the first device needs it
            except ImportError:
                raise ConfigError(f"{place.kind} needs websockets; pip install 'websockets>=16'") from None
        self._context = context

    async def stop(self) -> None:
        """Take nobody in any more; those who are here stay."""
        self._pause()
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            if self.place.unix is not None:
                unlink_unix(sock, str(self.place.unix), self._inode)
            else:
                sock.close()
        entering = list(self._entering)
        for task in entering:
            task.cancel()
        await asyncio.gather(*entering, return_exceptions=True)

    @property
    def address(self) -> str:
        """`host:port` as it is really bound, or the path of a Unix socket."""
        if self.place.unix is not None:
            return str(self.place.unix)
        host, port = (
            self._sockets[0].getsockname()[:2] if self._sockets else (self.place.host, self.place.port)
        )
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def url(self) -> str:
        """The same as one would write it for a client: `mqtts://0.0.0.0:8883`."""
        return f"{self.place.kind}://{self.address}"

    # ---- who comes -----------------------------------------------------------------

    def _listen(self) -> None:
        self._waiting = None
        for sock in self._sockets:
            self._loop.add_reader(sock, self._accept, sock)

    def _pause(self, wait_s: float = 0.0) -> None:
        """Leave those who come to the kernel, for so long or, with 0, until told otherwise."""
        for sock in self._sockets:
            self._loop.remove_reader(sock)
        if wait_s and self._waiting is None:
            self._waiting = self._loop.call_later(wait_s, self._listen)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            if not self._may_enter():
                return
            if self.broker.crowd.full(self.door, self.broker.limits.connections_max):
                # Whoever comes in place of one who has just left is often seen before the other's end.
                self._patience += 1
                if self._patience <= _PATIENCE_TURNS:
                    return
            self._patience = 0
            try:
                sock, peer = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._no_room(os.strerror(error.errno or 0))
                    return
                continue  # it was gone before we looked
            if sock.fileno() >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS:
                sock.close()
                self._no_room("too many open files")
                return
            address = peer[0] if isinstance(peer, tuple) else ""
            broker = self.broker
            if refusal := broker.crowd.admit(self.door, address, broker.limits.connections_max):
                sock.close()
                if broker.may_log():
                    log.warning("connection refused peer=%s %s", peer or "unix", refusal)
                continue
            task = self._loop.create_task(self._enter(sock, address))
            self._entering[task] = self._loop.time()
            task.add_done_callback(self._entered)

    def _no_room(self, why: str) -> None:
        self.broker.crowd.turned_away += 1
        if self.broker.may_log():
            log.warning("no room for connections listener=%s reason=%s", self.door.url, why)
        self._pause(_NO_ROOM_WAIT_S)

    def _may_enter(self) -> bool:
        """Whether a handshake more may begin; one that has held its place for long makes room."""
        if self._context is None or len(self._entering) < HANDSHAKES_MAX:
            return True
        oldest, since = next(iter(self._entering.items()))
        held_s = self._loop.time() - since
        if held_s < _HANDSHAKE_PATIENCE_S:
            self._pause(_HANDSHAKE_PATIENCE_S - held_s)
            return False
        oldest.cancel()
        del self._entering[oldest]
        return True

    def _entered(self, task: asyncio.Task[None]) -> None:
        self._entering.pop(task, None)
        if self._waiting is not None and self._context is not None and len(self._entering) < HANDSHAKES_MAX:
            self._waiting.cancel()
            self._listen()

    async def _enter(self, sock: socket.socket, address: str) -> None:
        """Hand the socket to the event loop; afterwards a Link has it, or it is closed and forgotten."""
        guest = _Guest(self, address)
        try:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is None:
                await self._loop.connect_accepted_socket(self._protocol(guest), sock)
            else:
                handshaking.set(sock)
                await self._loop.connect_accepted_socket(
                    self._protocol(guest),
                    sock,
                    ssl=self._context,
                    ssl_handshake_timeout=HANDSHAKE_WAIT_S,
                    ssl_shutdown_timeout=SHUTDOWN_WAIT_S,
                )
        except (OSError, asyncio.CancelledError) as error:
            self.handshakes_failed += self._context is not None
            if self.broker.may_log():
                log.info(
                    "no connection came of it listener=%s peer=%s reason=%s",
                    self.door.url,
                    address or "unix",
                    _reason(error),
                )
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            if not guest.inside:
                guest.leave()
                sock.close()

    def _protocol(self, guest: _Guest) -> Callable[[], asyncio.Protocol]:
        if self.place.kind not in ("ws", "wss"):
            return lambda: guest
        from bridge.broker.websocket import WebSocket

        return lambda: WebSocket(guest, self.place.path, self.place.origins)


class _Guest(Link):
    """A Link that was counted in, and takes that back once. `inside` is whether it ever became one."""

    __slots__ = ("_came_from", "_counted", "_listener", "inside")

    def __init__(self, listener: Listener, came_from: str) -> None:
        super().__init__(listener.broker, listener.door)
        self._listener = listener
        self._came_from = came_from
        self._counted = True
        self.inside = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.inside = True
        shown = transport.get_extra_info("peercert")
        if shown:
            self.certificate_user = shown.get("user")
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.leave()
        super().connection_lost(exc)

    def leave(self) -> None:
        """It is gone, or never came. Safe to call again."""
        if self._counted:
            self._counted = False
            self._listener.broker.crowd.leave(self.door, self._came_from)


def _reason(error: BaseException) -> str:
    """Why a handshake came to nothing, in words of OpenSSL or ours; nothing the stranger wrote."""
    if isinstance(error, asyncio.CancelledError):
        return "others wait for its place"
    if isinstance(error, ssl.SSLError):
        told = getattr(error, "verify_message", "") or error.reason or str(error)
        return told.replace("_", " ").lower()
    return str(error) or type(error).__name__
