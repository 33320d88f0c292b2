"""One ZeroMQ socket on the loop of the house, bound or connected; it knows no protocol.

The descriptor of a ZeroMQ socket is edge-triggered: it speaks once when there is
news, and any other call may take that word away. So what is there is always taken
to the end, and every send looks again afterwards.

Bound it is a ROUTER and a peer has an identity; calling it is a DEALER with one
peer, whose identity is empty. With CURVE a gate stands beside a bound one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket as sockets
from collections.abc import Callable, Sequence
from typing import Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from bridge.errors import ConfigError
from bridge.sinks.curve import CALL_FAILED, HANDSHAKE_MS, Curve, Gate, Server, why_failed
from bridge.sinks.line import Movement

__all__ = ["Socket"]

FRAME_BYTES_MAX: Final = 64 << 10
HEARTBEAT_MS: Final = 2_000
HEARTBEAT_TIMEOUT_MS: Final = 6_000
# What we ask the other end for: on a slow line our heartbeats stand behind our messages, one of which
# may take a minute, and only a whole frame counts as a sign of life.
HEARTBEAT_TTL_MS: Final = 60_000
# Long enough for a last word to leave, short enough that nobody waits for it at the end of the process.
LINGER_MS: Final = 250
BACKLOG: Final = 1_024  # with ZeroMQ's hundred a crowd of strangers makes a receiver wait for seconds
HEARD_MAX: Final = 100  # messages from one peer that wait for us
_BURST: Final = 100
_GATE_S: Final = 5.0  # libzmq takes a millisecond to let go of the gate before it

_MADE: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_CONNECTED
_EVENTS: Final = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | _MADE


class Socket:
    """Calls `heard(identity, frames)` for each message, and `came()` or `went()` when a connection did.

    `failed(why)` is called when our call did not get through, `turned_away(key, address)`
    when a stranger's call to us did not.

    ZeroMQ does not say whose connection it was. It lets go of a port a moment after it
    was told to: `rebind_s` is how long to wait for one that we have just had. With `probe` a
    call announces itself, to a far end that speaks first.

    `plain` is a kind of socket that only listens, PULL or SUB: then there is no identity, and
    nothing is read while `wants()` is false. What waits meanwhile is up to `heard_max` messages
    from each peer; after that it is `look` that begins again.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        bind: bool,
        curve: Curve | None,
        rebind_s: float,
        heard: Callable[[bytes, list[bytes]], None],
        came: Callable[[], None],
        went: Callable[[], None],
        failed: Callable[[str], None],
        turned_away: Callable[[str, str], None],
        frame_bytes_max: int = FRAME_BYTES_MAX,
        probe: bool = False,
        plain: int | None = None,
        subscribe: Sequence[str] = (),
        heard_max: int = HEARD_MAX,
        wants: Callable[[], bool] = lambda: True,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._endpoint = endpoint
        self._binds = bind
        self._is_router = bind and plain is None
        self._plain = plain
        self._subscribe = subscribe
        self._heard_max = heard_max
        self._wants = wants
        self._rebind_s = rebind_s
        self._heard = heard
        self._came = came
        self._went = went
        self._failed = failed
        self._curve = curve
        self._frame_bytes_max = frame_bytes_max
        self._probe = probe
        context = zmq.Context.instance() if curve is None else curve.context
        kind = plain if plain is not None else zmq.ROUTER if bind else zmq.DEALER
        self._socket: zmq.Socket[bytes] | None = context.socket(kind)
        self._gate = Gate(curve, turned_away) if isinstance(curve, Server) else None
        self._monitor: zmq.Socket[bytes] | None = None
        self._connections: set[int] = set()  # descriptors of libzmq's own; only ever looked at
        self._movement = Movement()

    async def open(self) -> None:
        """Bind or connect. Raises ConfigError for an endpoint that cannot be bound."""
        socket = self._socket
        assert socket is not None
        # No high-water mark: the caller's window bounds what ZeroMQ holds for us, and at a
        # mark a ROUTER could only drop or refuse.
        socket.sndhwm = 0
        socket.setsockopt(zmq.MAXMSGSIZE, self._frame_bytes_max)
        # Answers are few; a peer that talks nonsense may not fill the memory with it.
        socket.rcvhwm = self._heard_max
        socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TTL_MS)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        if self._curve is not None:
            self._curve.secure(socket)
        if self._is_router:
            # Else a message to a receiver that has gone is dropped without a word.
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        if self._binds:
            socket.setsockopt(zmq.BACKLOG, BACKLOG)
        if self._plain is not None:
            for prefix in self._subscribe:
                socket.setsockopt(zmq.SUBSCRIBE, prefix.encode())
        elif not self._binds:
            # Else a message waits for a connection that may lead to another receiver.
            socket.setsockopt(zmq.IMMEDIATE, 1)
            socket.setsockopt(zmq.PROBE_ROUTER, self._probe)
        # Whose call to us failed is the gate's affair; why ours did, the operator's.
        self._monitor = socket.get_monitor_socket(_EVENTS if self._binds else _EVENTS | CALL_FAILED)
        self._loop.add_reader(self._monitor.fileno(), self._look_at_events)
        self._loop.add_reader(socket.fileno(), self.look)
        if self._gate is not None:
            await self._open(self._gate)
        if self._binds:
            await self._bind(socket)
        else:
            socket.connect(self._endpoint)
        self._look_at_events()
        self.look()

    async def _open(self, gate: Gate) -> None:
        deadline = self._loop.time() + _GATE_S
        while not gate.open():
            if self._loop.time() > deadline:
                raise ConfigError("the gate of an earlier link is still there")
            await asyncio.sleep(0.005)
        self._loop.add_reader(gate.socket.fileno(), self._look_at_gate)

    def _look_at_gate(self) -> None:
        if self._gate is not None and self._gate.look():
            self._loop.call_soon(self._look_at_gate)

    async def _bind(self, socket: zmq.Socket[bytes]) -> None:
        deadline = self._loop.time() + self._rebind_s
        while True:
            try:
                if _is_taken(self._endpoint):
                    raise zmq.ZMQError(errno.EADDRINUSE)
                socket.bind(self._endpoint)
                return
            except zmq.ZMQError as error:
                if error.errno == errno.EADDRINUSE and self._loop.time() < deadline:
                    await asyncio.sleep(0.05)
                    continue
                cause = (
                    "is already in use; choose another with --zeromq ENDPOINT"
                    if error.errno == errno.EADDRINUSE
                    else f"cannot be bound: {error}"
                )
                raise ConfigError(f"{self._endpoint} {cause}") from error

    def tell(self, identity: bytes, *frames: bytes) -> bool:
        """Send to one peer; False when there is no way to it any more."""
        if self._socket is None:
            return False
        try:
            self._socket.send_multipart((identity, *frames) if self._is_router else frames, zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        if _has_news(self._socket):
            self._loop.call_soon(self.look)
        return True

    def look(self) -> None:
        """Take what is there; after a burst the others of the loop get a turn."""
        for _ in range(_BURST):
            if not (self._wants() and _has_news(self._socket)):
                return
            assert self._socket is not None
            frames = self._socket.recv_multipart(zmq.NOBLOCK)
            self._heard(frames.pop(0) if self._is_router else b"", frames)
        self._loop.call_soon(self.look)

    def look_at_all(self) -> None:
        """Find whatever a descriptor may have failed to say."""
        self.look()
        self._look_at_gate()

    @property
    def connected(self) -> bool:
        """Whether anybody is there, as far as a connection tells."""
        return bool(self._connections)

    def moves(self) -> bool:
        """Whether a connection has carried something since the last look, and has more to carry."""
        return self._movement.look(self._connections)

    def _look_at_events(self) -> None:
        came = went = False
        while _has_news(self._monitor):
            assert self._monitor is not None
            told = recv_monitor_message(self._monitor, zmq.NOBLOCK)
            event = told["event"]
            if event & _MADE:
                self._connections.add(told["value"])
            elif event == zmq.EVENT_DISCONNECTED:
                self._connections.discard(told["value"])
            if why := why_failed(event, told["value"]):
                self._failed(why)
            came |= event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            went |= event == zmq.EVENT_DISCONNECTED
        if went:
            self._went()
        if came:
            self._came()

    def close(self) -> None:
        """Afterwards nothing is heard any more; last words still leave. Safe twice."""
        socket, self._socket = self._socket, None
        if socket is None:
            return
        self._loop.remove_reader(socket.fileno())
        if self._monitor is not None:
            self._loop.remove_reader(self._monitor.fileno())
            socket.disable_monitor()
            self._monitor.close(linger=0)
            self._monitor = None
        if self._gate is not None:
            if not self._gate.socket.closed:
                self._loop.remove_reader(self._gate.socket.fileno())
            self._gate.close()
            self._gate = None
        socket.close(linger=LINGER_MS)


def _has_news(socket: zmq.Socket[bytes] | None) -> bool:
    return socket is not None and bool(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)


def _is_taken(endpoint: str) -> bool:
    """True when someone listens on an ipc endpoint: ZeroMQ itself would take the file away from him."""
    transport, _, path = endpoint.partition("://")
    if transport != "ipc":
        return False
    with sockets.socket(sockets.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(path.replace("@", "\0", 1) if path.startswith("@") else path)
        return True
    return False
