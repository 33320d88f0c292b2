"""Batches over ZeroMQ, each one kept until a receiver has answered for it.

The wire is on one page: deploy/receivers/PROTOCOL.md. Both ways of connecting
speak the same; bound we are a ROUTER with many receivers, calling a DEALER with
one, and the name of that one is empty.

    _line ──▶ _in_flight ──ACK──▶ settled
                  │
                  └─ the active receiver is gone ─▶ _again ──▶ _in_flight of the next

What a call hands us is cut into chunks, one multipart message each. A chunk
belongs to no receiver until one has answered for it, so when the active one
goes, the next in line gets the chunks again before anything new. Only when there
is no next one is the link lost.

All state changes between two turns of the loop, in callbacks or before the
first await of a call; that is why there is no lock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from bridge.errors import ConfigError, SinkUnavailable
from bridge.sinks.base import PATIENCE_LOOKS, Outgoing, Refusal
from bridge.sinks.curve import Curve, renewed, require_curve
from bridge.sinks.metadata import metadata
from bridge.sinks.options import ZeromqOptions
from bridge.sinks.zeromq_socket import Socket

__all__ = ["VERSION", "Hello", "Who", "ZeromqSink"]

VERSION: Final = 1

# Large enough that its cost per message no longer shows, small enough that the loop is not held.
CHUNK_MESSAGES: Final = 500
CHUNK_BYTES: Final = 1 << 20
# ZeroMQ copies what it is given, so this is the memory a slow receiver costs.
IN_FLIGHT_BYTES_MAX: Final = 16 << 20
RECEIVERS_MAX: Final = 64
PING_S: Final = 1.0
REBIND_S: Final = 2.0


class Who(msgspec.Struct, frozen=True):
    """What a gateway says of itself."""

    version: int
    gateway: str


class Hello(msgspec.Struct, frozen=True):
    """What a receiver says of itself."""

    version: int
    window: int
    name: str = ""


class _Call:
    """One `send_batch` that has not returned: `cut` messages are in chunks, `unanswered` chunks are open."""

    __slots__ = ("batch", "cut", "done", "refusals", "unanswered")

    def __init__(self, batch: Sequence[Outgoing], done: asyncio.Future[list[Refusal]]) -> None:
        self.batch = batch
        self.done = done
        self.cut = 0
        self.unanswered = 0
        self.refusals: list[Refusal] = []


class _Chunk(msgspec.Struct, gc=False):
    """`call.batch[begin:end]`, which travels as one multipart message."""

    call: _Call
    begin: int
    end: int
    payload_bytes: int


class ZeromqSink:
    """One endpoint and the receivers that answer on it, the active one first."""

    def __init__(self, name: str, options: ZeromqOptions, gateway: str) -> None:
        """Raises ConfigError when CURVE is asked for and libzmq cannot do it safely."""
        self.name = name
        self.waiting = ""  # why nothing goes out although nothing is broken; for the status
        self.stalled = False  # given up because nothing was confirmed
        self._options = options
        self._who = [b"WHO", msgspec.json.encode(Who(VERSION, gateway))]
        self._is_router = options.bind is not None
        self._curve: Curve | None = None
        self._was_open = False
        self._socket: Socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._hello: asyncio.Future[None] | None = None
        self._lost: asyncio.Future[str] | None = None
        self._receivers: dict[bytes, Hello] = {}
        self._line: deque[_Call] = deque()  # calls that are not cut to the end
        self._again: deque[_Chunk] = deque()
        self._in_flight: dict[int, _Chunk] = {}
        self._in_flight_messages = 0
        self._in_flight_bytes = 0
        # Never starts again: an answer to an earlier link must not name a batch of this one.
        self._number = 0
        self._progress_at = 0.0  # when the oldest chunk in flight became the oldest
        if options.curve is not None:
            try:
                require_curve()
            except ConfigError as error:
                raise ConfigError(f"sinks.{name}.zeromq.curve: {error}") from None

    @property
    def receivers(self) -> list[str]:
        """Who has said hello, the active one first."""
        return [hello.name or identity.hex() for identity, hello in self._receivers.items()]

    # ---- the contract --------------------------------------------------------------

    async def open(self) -> None:
        """See Sink. Bound, it waits for a receiver as long as it takes; calling, `open_timeout`.

        Raises ConfigError for an endpoint that cannot be bound, and for keys that cannot be used.
        """
        await self.close()
        if self._options.curve is not None:
            try:
                self._curve = renewed(self._options.curve, self._curve)
            except ConfigError as error:
                raise ConfigError(f"sinks.{self.name}.zeromq.curve.{error}") from None
        self._loop = asyncio.get_running_loop()
        self.stalled = False
        self._hello = self._loop.create_future()
        self._lost = self._loop.create_future()
        self.waiting = f"no receiver has said hello on {self._options.endpoint}"
        self._socket = Socket(
            self._options.endpoint,
            bind=self._is_router,
            curve=self._curve,
            rebind_s=REBIND_S if self._was_open else 0,
            heard=self._heard,
            came=self._came,
            went=self._went,
            failed=self._failed,
            turned_away=self._turned_away,
        )
        try:
            await self._socket.open()
            self._was_open = True
            self._tick()
            async with asyncio.timeout(None if self._is_router else self._options.open_timeout):
                await self._hello
        except TimeoutError:
            reason = self.waiting
            await self.close()
            raise SinkUnavailable(reason) from None
        except ConfigError as error:
            await self.close()
            raise ConfigError(f"sinks.{self.name}.zeromq.bind: {error}") from error
        except BaseException:
            await self.close()
            raise

    async def send_batch(self, batch: Sequence[Outgoing]) -> list[Refusal]:
        """See Sink."""
        if self._loop is None or self._lost is None or not self._receivers:
            raise SinkUnavailable(self._why_not())
        if not batch:
            return []
        call = _Call(batch, self._loop.create_future())
        self._line.append(call)
        self._pump()
        try:
            return await call.done
        finally:
            # Cancelled: what is on its way is answered for nobody, the rest does not leave.
            if call.cut < len(batch) and call in self._line:
                self._line.remove(call)

    async def lost(self) -> str:
        """See Sink."""
        if self._lost is None:
            return self._why_not()
        return await asyncio.shield(self._lost)

    async def close(self) -> None:
        """See Sink."""
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        # Closed first, so that a farewell to one receiver does not move the batches to another.
        self._fail(f"{self.name} was closed")
        if self._socket is not None:
            for identity in self._receivers:
                self._tell(identity, b"BYE")
            self._socket.close()
            self._socket = None
        self._receivers.clear()
        self._hello = None
        self.waiting = ""

    def _why_not(self) -> str:
        if self._lost is not None and self._lost.done():
            return self._lost.result()
        return self.waiting or f"{self.name} is not open"

    def _tell(self, identity: bytes, *frames: bytes) -> bool:
        return self._socket is not None and self._socket.tell(identity, *frames)

    # ---- connections come and go ---------------------------------------------------

    def _came(self) -> None:
        if not self._is_router:  # bound, we wait for the probe: that has an identity
            self._tell(b"", *self._who)

    def _went(self) -> None:
        if self._is_router:
            self._ping()  # tells who it was
        else:
            self._gone(b"", "the connection to the receiver broke")

    def _failed(self, why: str) -> None:
        if self.waiting:
            self.waiting = f"no receiver has said hello on {self._options.endpoint}: {why}"

    def _turned_away(self, key: str, address: str) -> None:
        if self.waiting:  # it may be the receiver that is waited for
            self.waiting = (
                f"no receiver has said hello on {self._options.endpoint}; "
                f"{address} was turned away, its key {key} is not among the clients"
            )

    # ---- what receivers say --------------------------------------------------------

    def _heard(self, identity: bytes, frames: list[bytes]) -> None:
        try:
            match frames:
                case [b""]:
                    # A new connection. Under a known name it is another one than we sent to.
                    self._gone(identity, "the receiver connected anew")
                    self._tell(identity, *self._who)
                case [b"HELLO", text]:
                    self._said_hello(identity, msgspec.json.decode(text, type=Hello))
                case [b"ACK" | b"REFUSE" | b"BYE", *_] if identity not in self._receivers:
                    self._tell(identity, *self._who)
                case [b"ACK", number]:
                    self._answered(identity, int(number))
                case [b"REFUSE", number, index, reason]:
                    self._refused(identity, int(number), int(index), reason.decode(errors="replace"))
                case [b"BYE"]:
                    self._gone(identity, "the receiver said bye")
                case _:
                    raise ValueError("this is not a message of the protocol")
        except (ValueError, msgspec.MsgspecError) as error:
            self._tell(identity, b"SORRY", str(error).encode())

    def _said_hello(self, identity: bytes, hello: Hello) -> None:
        if hello.version != VERSION:
            self.waiting = (
                f"a receiver on {self._options.endpoint} speaks version {hello.version}, not {VERSION}"
            )
            raise ValueError(f"version {hello.version} is not spoken here; {VERSION} is")
        if hello.window < 1:
            raise ValueError("a window of at least 1, please")
        if identity not in self._receivers and len(self._receivers) >= RECEIVERS_MAX:
            raise ValueError(f"{RECEIVERS_MAX} receivers are here already")
        self._receivers[identity] = hello
        self._tell(identity, b"PING", b"active" if identity == self._active else b"standby")
        self.waiting = ""
        if self._hello is not None and not self._hello.done():
            self._hello.set_result(None)

    def _answered(self, identity: bytes, number: int) -> None:
        # From a receiver that has lost its place the answer is as good as any, but its batch is already
        # on its way to the next one, under another number.
        if identity != self._active or number not in self._in_flight:
            return
        assert self._loop is not None
        if number == next(iter(self._in_flight)):
            self._progress_at = self._loop.time()
        chunk = self._in_flight.pop(number)
        self._in_flight_messages -= chunk.end - chunk.begin
        self._in_flight_bytes -= chunk.payload_bytes
        call = chunk.call
        call.unanswered -= 1
        if not call.unanswered and call.cut == len(call.batch) and not call.done.done():
            call.done.set_result(sorted(call.refusals, key=lambda refusal: refusal.index))
        self._pump()

    def _refused(self, identity: bytes, number: int, index: int, reason: str) -> None:
        if identity != self._active or number not in self._in_flight:
            return
        chunk = self._in_flight[number]
        if not 0 <= index < chunk.end - chunk.begin:
            raise ValueError(f"batch {number} has no message {index}")
        chunk.call.refusals.append(Refusal(chunk.begin + index, reason or "refused"))

    @property
    def _active(self) -> bytes | None:
        return next(iter(self._receivers), None)

    def _gone(self, identity: bytes, reason: str) -> None:
        """One receiver is not there any more. Whatever it did not answer goes to the next one."""
        was_active = identity == self._active
        if self._receivers.pop(identity, None) is None or not was_active:
            return
        if self._active is None:
            self._fail(f"{reason} on {self._options.endpoint}")
            return
        for chunk in self._in_flight.values():
            # It may judge differently.
            chunk.call.refusals = [
                refusal for refusal in chunk.call.refusals if not chunk.begin <= refusal.index < chunk.end
            ]
        self._again.extendleft(reversed(self._in_flight.values()))
        self._in_flight.clear()
        self._in_flight_messages = self._in_flight_bytes = 0
        if self._tell(self._active, b"PING", b"active"):
            self._pump()
        else:
            self._gone(self._active, reason)

    def _fail(self, reason: str) -> None:
        """The link is lost: nothing that is under way is promised."""
        if self._lost is None or self._lost.done():
            return
        self._lost.set_result(reason)
        unfinished = {
            id(call): call
            for call in (*self._line, *(chunk.call for chunk in (*self._again, *self._in_flight.values())))
        }
        open_chunks = (*self._again, *self._in_flight.values())
        for call in unfinished.values():
            if not call.done.done():
                begins = [chunk.begin for chunk in open_chunks if chunk.call is call]
                refused = [refusal.index for refusal in call.refusals]
                confirmed = min((*begins, *refused), default=call.cut)
                call.done.set_exception(SinkUnavailable(reason, min(confirmed, call.cut)))
        self._line.clear()
        self._again.clear()
        self._in_flight.clear()
        self._in_flight_messages = self._in_flight_bytes = 0

    # ---- sending -------------------------------------------------------------------

    def _pump(self) -> None:
        """Send while the window has room. One chunk may always go, however large it is."""
        while (active := self._active) is not None:
            window = min(self._options.window, self._receivers[active].window)
            chunk = self._again[0] if self._again else self._cut(window)
            if chunk is None:
                return
            count = chunk.end - chunk.begin
            if self._in_flight and (
                self._in_flight_messages + count > window
                or self._in_flight_bytes + chunk.payload_bytes > IN_FLIGHT_BYTES_MAX
            ):
                if not self._again:
                    self._again.append(chunk)
                return
            if self._again:
                self._again.popleft()
            self._post(active, chunk)

    def _cut(self, window: int) -> _Chunk | None:
        """Take the next messages that travel together from the head of the line."""
        if not self._line:
            return None
        call = self._line[0]
        begin = end = call.cut
        stop = min(len(call.batch), begin + CHUNK_MESSAGES, begin + window)
        payload_bytes = 0
        while end < stop:
            size = len(call.batch[end].payload)
            if end > begin and payload_bytes + size > CHUNK_BYTES:
                break
            payload_bytes += size
            end += 1
        call.cut = end
        call.unanswered += 1
        if end == len(call.batch):
            self._line.popleft()
        return _Chunk(call, begin, end, payload_bytes)

    def _post(self, active: bytes, chunk: _Chunk) -> None:
        assert self._loop is not None
        part = chunk.call.batch[chunk.begin : chunk.end]
        self._number += 1
        if not self._in_flight:
            self._progress_at = self._loop.time()
        self._in_flight[self._number] = chunk
        self._in_flight_messages += chunk.end - chunk.begin
        self._in_flight_bytes += chunk.payload_bytes
        sent = self._tell(
            active,
            b"BATCH",
            b"%d" % self._number,
            msgspec.json.encode([metadata(outgoing) for outgoing in part]),
            *[outgoing.payload for outgoing in part],
        )
        if not sent:
            self._gone(active, "the receiver has gone")

    # ---- time ----------------------------------------------------------------------

    def _tick(self) -> None:
        """Ask, ping and lose patience. The only timer there is."""
        assert self._loop is not None
        timeout_s = self._options.confirm_timeout
        self._ticker = self._loop.call_later(min(PING_S, timeout_s / PATIENCE_LOOKS), self._tick)
        if not self._receivers and not self._is_router:
            self._tell(b"", *self._who)
        self._ping()
        active = self._active
        if self._in_flight and self._socket is not None and self._socket.moves():
            self._progress_at = self._loop.time()
        if active is not None and self._in_flight and self._loop.time() - self._progress_at >= timeout_s:
            self.stalled = len(self._receivers) == 1
            # Told so, because it may be alive and would go on with what now belongs to the next one.
            self._tell(active, b"BYE")
            self._gone(active, f"no answer within {timeout_s:g} s")
        # Whatever the descriptor may have failed to say is found here at the latest.
        if self._socket is not None:
            self._socket.look_at_all()

    def _ping(self) -> None:
        for identity in list(self._receivers):
            role = b"active" if identity == self._active else b"standby"
            if not self._tell(identity, b"PING", role):
                self._gone(identity, "the receiver has gone")
