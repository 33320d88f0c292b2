"""Commands over a plain ZeroMQ socket, PULL or SUB, that acknowledges nothing: they may be lost.

    address | payload               one multipart message is one command; metadata is JSON,
    address | metadata | payload    as in deploy/receivers/PROTOCOL.md, and all of it optional

What is read from the socket is nobody else's any more. So PULL reads no more than
`prefetch` that are not settled: behind them up to `high_water_mark` from each sender wait
in libzmq, and behind those the sender waits, who is told so by its own socket. A PUB never
waits and drops without a word, so SUB reads on, keeps up to `high_water_mark`, and drops
here what comes then: that is counted. So is what is not settled when we close.

The link is never given up for a connection that broke: ZeroMQ makes it anew by itself, and
what was received before would go with the socket. Only where libzmq has stopped calling
(a refused key) and nothing waits any more, a new socket is needed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import zmq

from bridge.errors import ConfigError, SinkUnavailable
from bridge.policy.incoming import Incoming
from bridge.sinks.curve import Curve, from_options, require_curve
from bridge.sinks.zeromq_socket import Socket
from bridge.sources.base import Settlement
from bridge.sources.options import ZeromqSourceOptions
from bridge.sources.zeromq import FRAME_BYTES_MAX, LOOK_S, REBIND_S, incoming_of

__all__ = ["PlainZeromqSource"]

log = logging.getLogger(__name__)

INBOX_BYTES_MAX: Final = 16 << 20  # of a SUB, beside the mark: a message may have as many by itself
DRAIN_LOOKS: Final = 1_000  # of a hundred messages each
SAID_S: Final = 60.0  # the counter has each one that was dropped
_metadata: Final = msgspec.json.Decoder(dict[str, Any]).decode


class PlainZeromqSource:
    """One endpoint, and whoever sends there or is sent by. `dropped` counts what came here and no further."""

    stalled = False
    lossy = True

    def __init__(self, name: str, options: ZeromqSourceOptions, prefetch: int, gateway: str) -> None:
        """Raises ConfigError when CURVE is asked for and libzmq cannot do it safely."""
        self.name = name
        self.waiting = ""
        self._options = options
        self._prefetch = prefetch
        self._is_sub = options.socket == "sub"
        self._nobody = f"nobody is connected to {options.endpoint}"
        self._was_open = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: Socket | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._met: asyncio.Future[None] | None = None
        self._lost: asyncio.Future[str] | None = None
        self._gave_up = ""  # why libzmq does not call any more
        self._closing = False
        self._inbox: deque[Incoming] = deque()
        self._inbox_bytes = 0
        self._news = asyncio.Event()
        self._out: set[int] = set()
        # Handed out and not settled before a close: lost, unless somebody settles them yet.
        self._abandoned: set[int] = set()
        self._overflowed = 0
        self._said, self._said_at = 0, -SAID_S
        self._tag = 0  # never starts again: a tag of an earlier link must not name a message of this one
        if options.curve is not None:
            try:
                require_curve()
            except ConfigError as error:
                raise ConfigError(f"commands.{name}.from.zeromq.curve: {error}") from None

    @property
    def dropped(self) -> int:
        """See Source."""
        return self._overflowed + len(self._abandoned)

    @property
    def kept(self) -> int:
        """Messages that were read and are not handed out."""
        return len(self._inbox)

    # ---- the contract --------------------------------------------------------------

    async def open(self) -> None:
        """See Source. Bound, it waits for a sender as long as it takes; calling, `open_timeout`.

        Raises ConfigError for an endpoint that cannot be bound, and for keys that cannot be used.
        """
        await self.close()
        options, where = self._options, f"commands.{self.name}.from.zeromq"
        curve: Curve | None = None
        if options.curve is not None:
            try:
                curve = from_options(options.curve)  # each time: renewed keys count from the next link
            except ConfigError as error:
                raise ConfigError(f"{where}.curve.{error}") from None
        self._loop = asyncio.get_running_loop()
        self._met = self._loop.create_future()
        self._lost = self._loop.create_future()
        self._gave_up, self._closing = "", False
        self.waiting = self._nobody
        self._socket = Socket(
            options.endpoint,
            bind=options.bind is not None,
            curve=curve,
            rebind_s=REBIND_S if self._was_open else 0,
            heard=self._heard,
            came=self._came,
            went=self._went,
            failed=self._failed,
            turned_away=self._turned_away,
            frame_bytes_max=FRAME_BYTES_MAX,
            plain=zmq.SUB if self._is_sub else zmq.PULL,
            subscribe=(options.subscribe or [""]) if self._is_sub else (),
            heard_max=options.waiting_max,
            wants=self._wants,
        )
        opened = False
        try:
            await self._socket.open()
            self._was_open = True
            self._tick()
            async with asyncio.timeout(None if options.bind is not None else options.open_timeout):
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
        while not lost.done():
            if self._inbox and len(self._out) < self._prefetch:
                return self._hand_out()
            self._news.clear()
            news = asyncio.ensure_future(self._news.wait())
            try:
                await asyncio.wait((news, lost), return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
        raise SinkUnavailable(lost.result())

    def _hand_out(self) -> list[Incoming]:
        count = min(len(self._inbox), self._prefetch - len(self._out))
        batch = [self._inbox.popleft() for _ in range(count)]
        self._inbox_bytes -= sum(len(one.body) for one in batch)
        self._out.update(one.tag for one in batch)
        return batch

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """See Source. Nobody is told: there is only room for the next ones."""
        for settlement in settlements:
            self._out.discard(settlement.tag)
            self._abandoned.discard(settlement.tag)
        if self._socket is not None:
            self._news.set()
            self._socket.look()

    async def lost(self) -> str:
        """See Source."""
        if self._lost is None:
            return f"{self.name} is not open"
        return await asyncio.shield(self._lost)

    async def close(self) -> None:
        """See Source. What was received and is not settled is lost, unless it is settled yet."""
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(f"{self.name} was closed")
        if self._socket is not None:
            self._drain()
            self._socket.close()
            self._socket = None
            self._say()
        self.waiting = ""

    def _drain(self) -> None:
        """What libzmq still has goes with it, and would not be counted."""
        assert self._socket is not None
        self._overflowed += len(self._inbox)
        self._inbox.clear()
        self._inbox_bytes = 0
        self._abandoned |= self._out
        self._out.clear()
        self._closing = True
        # Bounded, since a sender that does not stop would never let it end.
        for _ in range(DRAIN_LOOKS):
            before = self._overflowed
            self._socket.look()
            if self._overflowed == before:
                break

    # ---- senders come and go -------------------------------------------------------

    def _came(self) -> None:
        self.waiting = self._gave_up = ""
        if self._met is not None and not self._met.done():
            self._met.set_result(None)

    def _went(self) -> None:
        # Not over what is known better, such as who was turned away: he hangs up too.
        if not self.waiting and self._socket is not None and not self._socket.connected:
            self.waiting = self._nobody

    def _failed(self, why: str) -> None:
        self.waiting = f"{self._nobody}: {why}"
        self._gave_up = self.waiting

    def _turned_away(self, key: str, address: str) -> None:
        if self.waiting:  # it may be the sender that is waited for
            self.waiting = (
                f"{self._nobody}; {address} was turned away, its key {key} is not among the clients"
            )

    def _tick(self) -> None:
        """Whatever a descriptor may have failed to say is found here at the latest."""
        assert self._loop is not None
        assert self._lost is not None
        self._ticker = self._loop.call_later(LOOK_S, self._tick)
        if self._socket is not None:
            self._socket.look_at_all()
        idle = not (self._inbox or self._out)
        if self._gave_up and idle and self._met is not None and self._met.done() and not self._lost.done():
            self._lost.set_result(self._gave_up)
        if self._loop.time() - self._said_at >= SAID_S:
            self._say()

    def _say(self) -> None:
        assert self._loop is not None
        if self.dropped > self._said:
            log.warning("commands lost source=%s count=%d", self.name, self.dropped - self._said)
            self._said, self._said_at = self.dropped, self._loop.time()

    # ---- what senders say ----------------------------------------------------------

    def _wants(self) -> bool:
        return self._is_sub or self._closing or len(self._inbox) + len(self._out) < self._prefetch

    def _is_full(self, more_bytes: int) -> bool:
        waiting = len(self._inbox)
        too_large = self._inbox_bytes + more_bytes > INBOX_BYTES_MAX
        return waiting >= self._options.waiting_max or (waiting > 0 and too_large)

    def _heard(self, _identity: bytes, frames: list[bytes]) -> None:
        payload = frames[-1]
        if self._closing or (self._is_sub and self._is_full(len(payload))):
            self._overflowed += 1
            return
        self._tag += 1
        self._inbox.append(_incoming(self._tag, frames))
        self._inbox_bytes += len(payload)
        self._news.set()


def _incoming(tag: int, frames: list[bytes]) -> Incoming:
    """One command; one that cannot be read is `unfit`, and so is rejected and counted like any other."""
    unread = ""
    try:
        match frames:
            case [address, payload]:
                return Incoming(tag, payload, address.decode())
            case [address, about, payload]:
                meta = {"id": "", "topic": "", **_metadata(about), "address": address.decode()}
                return incoming_of(tag, meta, payload)
            case _:
                unread = f"{len(frames)} frames; a command is address, payload or address, metadata, payload"
    except (ValueError, TypeError, RecursionError, msgspec.MsgspecError) as error:
        unread = f"its address or metadata cannot be read: {str(error)[:200]}"
    return Incoming(tag, frames[-1], unfit=unread)
