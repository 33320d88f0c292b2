"""Commands over ZeroMQ, each batch answered for when all of it is settled.

The wire is that of the uplink, on one page: deploy/receivers/PROTOCOL.md. Only the roles
are exchanged: a program in the cloud says what a gateway says there (WHO, BATCH, PING,
BYE), and we say what a receiver says (HELLO, REFUSE, ACK, BYE). So the sink of another
gateway is such a program too.

    BATCH ─▶ _inbox ─▶ receive() ─▶ settle() each ─┬─ rejected: REFUSE
                                                   └─ all of the batch: ACK

The far end knows only whole batches: what was settled of one that breaks off comes again
with the rest, under the same ids. `prefetch` is the window of our HELLO.

Bound we are a ROUTER with any number of senders, calling a DEALER with one, whose
identity is empty. The link is lost when the last of them has gone.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from bridge.errors import ConfigError, SinkUnavailable
from bridge.policy.incoming import Incoming
from bridge.sinks.curve import Curve, from_options, require_curve
from bridge.sinks.zeromq import VERSION, Hello, Who
from bridge.sinks.zeromq_socket import Socket
from bridge.sources.base import Settlement
from bridge.sources.options import ZeromqSourceOptions

__all__ = ["FRAME_BYTES_MAX", "LOOK_S", "REBIND_S", "ZeromqSource", "incoming_of"]

FRAME_BYTES_MAX: Final = 16 << 20  # the largest payload, or the metadata of a batch
SENDERS_MAX: Final = 64
REBIND_S: Final = 2.0
LOOK_S: Final = 1.0
DOUBTS: Final = 5  # libzmq may let go of a peer only after it has said that a connection went
_metadata: Final = msgspec.json.Decoder(list[dict[str, Any]]).decode


class _Batch:
    """One batch that was not answered. `left` of its messages are not settled."""

    __slots__ = ("identity", "left", "number", "spoilt")

    def __init__(self, identity: bytes, number: bytes, left: int) -> None:
        self.identity = identity
        self.number = number
        self.left = left
        self.spoilt = False  # a refusal went unheard: an answer would take that message for good


class ZeromqSource:
    """One endpoint and the senders that call on it, or that it calls."""

    stalled = lossy = False
    dropped = 0

    def __init__(self, name: str, options: ZeromqSourceOptions, prefetch: int, gateway: str) -> None:
        """Raises ConfigError when CURVE is asked for and libzmq cannot do it safely."""
        self.name = name
        self.waiting = ""
        self._options = options
        self._prefetch = prefetch
        self._hello = msgspec.json.encode(Hello(VERSION, prefetch, f"{gateway} {name}"))
        self._is_router = options.bind is not None
        self._doubts = 0  # looks that are still to be had at who is there, since somebody went
        self._was_open = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: Socket | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._met: asyncio.Future[None] | None = None
        self._lost: asyncio.Future[str] | None = None
        self._senders: set[bytes] = set()
        self._inbox: list[Incoming] = []
        self._news = asyncio.Event()
        self._out: dict[int, tuple[_Batch, int]] = {}  # tag → where it came from
        self._tag = 0  # never starts again: a tag of an earlier link must not name a message of this one
        if options.curve is not None:
            try:
                require_curve()
            except ConfigError as error:
                raise ConfigError(f"commands.{name}.from.zeromq.curve: {error}") from None

    # ---- the contract --------------------------------------------------------------

    async def open(self) -> None:
        """See Source. Bound, it waits for a sender as long as it takes; calling, `open_timeout`.

        Raises ConfigError for an endpoint that cannot be bound, and for keys that cannot be used.
        """
        await self.close()
        where = f"commands.{self.name}.from.zeromq"
        curve: Curve | None = None
        if self._options.curve is not None:
            try:
                curve = from_options(self._options.curve)  # each time: renewed keys count from the next link
            except ConfigError as error:
                raise ConfigError(f"{where}.curve.{error}") from None
        self._loop = asyncio.get_running_loop()
        self._doubts = 0
        self._met = self._loop.create_future()
        self._lost = self._loop.create_future()
        self.waiting = f"nobody has spoken on {self._options.endpoint}"
        self._socket = Socket(
            self._options.endpoint,
            bind=self._is_router,
            curve=curve,
            rebind_s=REBIND_S if self._was_open else 0,
            heard=self._heard,
            came=_nothing,
            went=self._went,
            failed=self._failed,
            turned_away=self._turned_away,
            frame_bytes_max=FRAME_BYTES_MAX,
            probe=True,
        )
        opened = False
        try:
            await self._socket.open()
            self._was_open = True
            self._tick()
            async with asyncio.timeout(None if self._is_router else self._options.open_timeout):
                await self._met
            opened = True
        except TimeoutError:
            raise SinkUnavailable(self.waiting) from None
        except ConfigError as error:
            raise ConfigError(f"{where}.bind: {error}") from error
        finally:
            if not opened:
                await self.close()

    async def receive(self) -> list[Incoming]:
        """See Source."""
        lost = self._lost
        if lost is None:
            raise SinkUnavailable(f"{self.name} is not open")
        if not self._inbox:
            news = asyncio.ensure_future(self._news.wait())
            try:
                await asyncio.wait((news, lost), return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
        if lost.done():
            raise SinkUnavailable(lost.result())
        inbox, self._inbox = self._inbox, []
        self._news.clear()
        return inbox

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """See Source. There is nowhere to send a reply to."""
        for settlement in settlements:
            if (found := self._out.pop(settlement.tag, None)) is None:
                continue
            batch, index = found
            batch.left -= 1
            if settlement.reason:
                reason = settlement.reason.encode()
                heard = self._tell(batch.identity, b"REFUSE", batch.number, b"%d" % index, reason)
                batch.spoilt = batch.spoilt or not heard
            if not batch.left and not batch.spoilt:
                self._tell(batch.identity, b"ACK", batch.number)

    async def lost(self) -> str:
        """See Source."""
        if self._lost is None:
            return f"{self.name} is not open"
        return await asyncio.shield(self._lost)

    async def close(self) -> None:
        """See Source."""
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        self._fail(f"{self.name} was closed")
        if self._socket is not None:
            for identity in self._senders:
                self._tell(identity, b"BYE")
            self._socket.close()
            self._socket = None
        self._senders.clear()
        self.waiting = ""

    def _fail(self, reason: str) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(reason)
        self._out.clear()
        self._inbox.clear()
        self._news.clear()

    def _tell(self, identity: bytes, *frames: bytes) -> bool:
        return self._socket is not None and self._socket.tell(identity, *frames)

    # ---- senders come and go -------------------------------------------------------

    def _went(self) -> None:
        self._doubts = DOUBTS if self._is_router else 0
        self._look_who_is_there()

    def _look_who_is_there(self) -> None:
        for identity in list(self._senders):
            # Whose connection it was is not said; a second HELLO changes nothing, and finds out.
            if not self._is_router or not self._tell(identity, b"HELLO", self._hello):
                self._gone(identity, "the connection to the sender broke")

    def _gone(self, identity: bytes, reason: str) -> None:
        """It will hand out again what was not answered, here or elsewhere."""
        if identity not in self._senders:
            return
        self._senders.discard(identity)
        self._out = {tag: found for tag, found in self._out.items() if found[0].identity != identity}
        self._inbox = [one for one in self._inbox if one.tag in self._out]
        if not self._senders:
            self._fail(f"{reason} on {self._options.endpoint}")

    def _failed(self, why: str) -> None:
        if self.waiting:
            self.waiting = f"nobody has spoken on {self._options.endpoint}: {why}"

    def _turned_away(self, key: str, address: str) -> None:
        if self.waiting:  # it may be the sender that is waited for
            self.waiting = (
                f"nobody has spoken on {self._options.endpoint}; "
                f"{address} was turned away, its key {key} is not among the clients"
            )

    def _tick(self) -> None:
        """Whatever a descriptor may have failed to say is found here at the latest."""
        assert self._loop is not None
        self._ticker = self._loop.call_later(LOOK_S, self._tick)
        if self._doubts:
            self._doubts -= 1
            self._look_who_is_there()
        if self._socket is not None:
            self._socket.look_at_all()

    # ---- what senders say ----------------------------------------------------------

    def _heard(self, identity: bytes, frames: list[bytes]) -> None:
        try:
            match frames:
                case [b"WHO", who, *_]:
                    self._met_sender(identity, msgspec.json.decode(who, type=Who))
                case [b"BATCH", number, about, *payloads] if identity in self._senders:
                    self._take(identity, number, _metadata(about), payloads)
                case [b"BYE"]:
                    self._gone(identity, "the sender said bye")
                case [b"SORRY", reason]:
                    self.waiting = f"{self._options.endpoint}: {reason.decode(errors='replace')}"
                    self._gone(identity, self.waiting)
                case _:  # PING, or a word of a later version
                    pass
        except (ValueError, KeyError, TypeError, RecursionError, msgspec.MsgspecError) as error:
            self._tell(identity, b"SORRY", str(error)[:1000].encode())

    def _met_sender(self, identity: bytes, who: Who) -> None:
        if who.version != VERSION:
            raise ValueError(f"version {who.version} is not spoken here; {VERSION} is")
        if identity not in self._senders and len(self._senders) >= SENDERS_MAX:
            raise ValueError(f"{SENDERS_MAX} senders are here already")
        self._senders.add(identity)
        self._tell(identity, b"HELLO", self._hello)
        self.waiting = ""
        if self._met is not None and not self._met.done():
            self._met.set_result(None)

    def _take(
        self, identity: bytes, number: bytes, about: list[dict[str, Any]], payloads: list[bytes]
    ) -> None:
        if len(about) != len(payloads):
            raise ValueError(f"batch has {len(about)} metadata and {len(payloads)} payloads")
        if self._out and len(self._out) + len(about) > self._prefetch:
            raise ValueError(f"the window is {self._prefetch} messages")
        messages = [
            incoming_of(self._tag + nth, meta, payload)
            for nth, (meta, payload) in enumerate(zip(about, payloads, strict=True), 1)
        ]
        self._tag += len(messages)
        batch = _Batch(identity, number, len(messages))
        for index, message in enumerate(messages):
            self._out[message.tag] = batch, index
        self._inbox += messages
        if messages:
            self._news.set()
        else:
            self._tell(identity, b"ACK", number)


def incoming_of(tag: int, meta: dict[str, Any], payload: bytes) -> Incoming:
    """One message in the words of AMQP; what has no word there is a header, as a sink writes it.

    Raises KeyError, TypeError or ValueError for metadata that is none.
    """
    headers = {**meta.get("headers", {}), "topic": meta["topic"]}
    for name in (
        "response_topic",
        "user_properties",
        "message_expiry_interval_s",
        "payload_format_indicator",
    ):
        if name in meta:
            headers[name] = meta[name]
    data, content_type = meta.get("correlation_data"), meta.get("content_type")
    address, message_id = meta["address"], meta["id"]
    if not (isinstance(address, str) and isinstance(message_id, str)):
        raise ValueError("id and address are text")
    return Incoming(
        tag,
        payload,
        address,
        headers,
        message_id,
        True,  # an id never names two messages here, so whatever comes may have come before
        content_type if isinstance(content_type, str) else None,
        None if data is None else b64decode(data, validate=True),
    )


def _nothing() -> None:
    """A sender that has come says so itself."""
