"""CURVE: both ends of a ZeroMQ connection prove that they hold a secret key.

Whoever binds is the server and shows each client's public key to a *gate*, which knows
who is let in. libzmq asks the gate by a message (ZAP, RFC 27) over inproc, one per
greeting and in its context: so a server has a context of its own, and no gate answers
for another's clients. The gate has no thread; whoever owns the socket looks at both.

Everything fails closed: without an answer from the gate nobody is let in.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections.abc import Callable, Iterator
from typing import Final

import zmq
from zmq.utils import z85

from bridge.errors import ConfigError
from bridge.sinks.keys import Clients, KeyPair, read_key_pair, read_public_key
from bridge.sinks.options import CurveOptions

__all__ = [
    "CALL_FAILED",
    "Client",
    "Curve",
    "Gate",
    "Server",
    "from_options",
    "renewed",
    "require_curve",
    "why_failed",
]

log = logging.getLogger(__name__)

# Before it a greeting could overrun the stack or fill the memory (CVE-2019-13132, CVE-2020-15166).
LIBZMQ_MIN: Final = (4, 3, 5)
# Half a greeting holds a socket for as long. Two machines that can hear each other need milliseconds.
HANDSHAKE_MS: Final = 5_000
CALL_FAILED: Final = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
SAID_S: Final = 60.0  # whoever may not come in may not fill the log either
_BURST: Final = 100
_ZAP: Final = "inproc://zeromq.zap.01"
_DOMAIN: Final = b"edgespool"


def require_curve() -> None:
    """Raises ConfigError when the libzmq here cannot do CURVE, or not safely."""
    if not zmq.has("curve"):
        raise ConfigError(
            "this libzmq was built without CURVE; pip install --force-reinstall pyzmq brings one with it"
        )
    if zmq.zmq_version_info() < LIBZMQ_MIN:
        wanted = ".".join(map(str, LIBZMQ_MIN))
        raise ConfigError(
            f"curve needs libzmq {wanted}, here is {zmq.zmq_version()}; pip install --upgrade pyzmq brings it"
        )


class Server:
    """The end that binds."""

    def __init__(self, keys: KeyPair, clients: Clients) -> None:
        require_curve()
        self.keys = keys
        self.clients = clients
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """To be done before it is bound."""
        socket.curve_server = True
        socket.curve_secretkey = self.keys.secret
        socket.zap_domain = _DOMAIN
        # Else libzmq lets everyone in when there is no gate.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


class Client:
    """The end that connects."""

    def __init__(self, keys: KeyPair, server_key: bytes) -> None:
        require_curve()
        self.keys = keys
        self.server_key = server_key
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """To be done before it is connected."""
        socket.curve_serverkey = self.server_key
        socket.curve_publickey = self.keys.public
        socket.curve_secretkey = self.keys.secret


Curve = Server | Client


def why_failed(event: int, value: int) -> str:
    """Why a call did not get through, from an event of the socket's monitor; "" for any other event.

    But for the last reason libzmq does not call again.
    """
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return "our public key is not among the clients there"
    if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
        if value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            return "one end uses keys (curve) and the other does not"
        return f"that end broke the protocol of ZeroMQ ({value:#x})"
    if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        return "the greeting broke off; is that the server key of that end, and does it use keys (curve)?"
    return ""


class Gate:
    """Answers libzmq's question about each client of one server."""

    def __init__(self, server: Server, turned_away: Callable[[str, str], None]) -> None:
        """`turned_away(public key, address)` is called for each stranger."""
        self.socket = server.context.socket(zmq.ROUTER)
        self._clients = server.clients
        self._turned_away = turned_away
        self._strangers = 0
        self._said_at = -SAID_S

    def open(self) -> bool:
        """Return False while the one before it in this context has not quite gone."""
        try:
            self.socket.bind(_ZAP)
        except zmq.ZMQError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
        return True

    def look(self) -> bool:
        """Answer whoever waits, but not for ever; return whether someone may wait still."""
        for _ in range(_BURST):
            if self.socket.closed or not int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                return False
            self._answer(self.socket.recv_multipart(zmq.NOBLOCK))
        return True

    def _answer(self, frames: list[bytes]) -> None:
        peer, delimiter, version, request, *question = frames
        code, text, name = b"400", b"not let in", ""
        match question:
            case [_domain, address, _identity, b"CURVE", key]:
                public = z85.encode(key).decode("ascii")
                known = self._clients.name_of(public)
                if known is None:
                    self._turn_away(public, address.decode("ascii", "replace"))
                else:
                    code, text, name = b"200", b"", known
        self.socket.send_multipart(
            (peer, delimiter, version, request, code, text, name.encode()[:255], b""), zmq.NOBLOCK
        )

    def _turn_away(self, key: str, address: str) -> None:
        self._strangers += 1
        self._turned_away(key, address)
        now = time.monotonic()
        if now - self._said_at >= SAID_S:
            self._said_at = now
            log.warning(
                "stranger turned away clients=%s address=%s key=%s in_all=%d",
                self._clients.path, address, key, self._strangers,
            )  # fmt: skip

    def close(self) -> None:
        """Safe twice."""
        self.socket.close(linger=0)


def from_options(options: CurveOptions) -> Curve:
    """Read the files that are named. Raises ConfigError that begins with the key it stands under."""
    with _at("secret_key"):
        keys = read_key_pair(options.secret_key)
    if options.clients is not None:
        with _at("clients"):
            return Server(keys, Clients(options.clients))
    assert options.server_key is not None  # the model has checked it
    with _at("server_key"):
        return Client(keys, read_public_key(options.server_key))


def renewed(options: CurveOptions, before: Curve | None) -> Curve:
    """The keys that are in the files now, for the next link; who is let in is always read anew.

    Raises ConfigError as `from_options` does, the first time; a file that is spoilt later
    stops no gateway. The context stays: a server's gate belongs to it.
    """
    if before is None:
        return from_options(options)
    try:
        fresh = from_options(options)
    except ConfigError as error:
        log.warning("keys are those of before reason=%s", error)
        return before
    before.keys = fresh.keys
    if isinstance(before, Client) and isinstance(fresh, Client):
        before.server_key = fresh.server_key
    return before


@contextlib.contextmanager
def _at(key: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None
