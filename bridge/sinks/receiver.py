"""The far end of the ZeroMQ sink, for programs in Python: it takes batches and answers for them.

    with Receiver("tcp://gateway:5556") as receiver:
        for batch in receiver:
            for message in batch.messages:
                print(message.topic, message.payload)

A batch is acknowledged when the loop comes back for the next one, so a body that
raises leaves its batch to be sent again. What a route has packed is unpacked. With CURVE:

    Receiver("tcp://gateway:5556", curve=Client(read_key_pair(ours), read_public_key(theirs)))

The wire is on one page: deploy/receivers/PROTOCOL.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

from bridge.errors import SinkUnavailable
from bridge.policy.pack import PackError, unpack
from bridge.sinks.curve import CALL_FAILED, HANDSHAKE_MS, Curve, Gate, Server, why_failed
from bridge.sinks.metadata import PACK, PACK_COUNT

__all__ = ["Batch", "Received", "Receiver", "unpacked"]

_HEARTBEAT_MS: Final = 2_000
# A frame may be under way for so long on a slow line, and a heartbeat stands behind it.
_HEARTBEAT_TIMEOUT_MS: Final = 60_000
_HEARTBEAT_TTL_MS: Final = 6_000
_LINGER_MS: Final = 1_000
_GATE_S: Final = 5.0
_metadata = msgspec.json.Decoder(list[dict[str, Any]])


class Received(msgspec.Struct, frozen=True):
    """One message, also one out of a pack.

    `meta` is everything about it but the payload, under the names of the protocol page.
    """

    id: str
    topic: str
    address: str
    payload: bytes
    meta: dict[str, Any]


def unpacked(meta: dict[str, Any], payload: bytes) -> list[Received]:
    """What came as one: the messages of a pack, or a message that is none. Raises PackError."""
    headers = meta.get("headers", {})
    if PACK not in headers:
        return [Received(meta["id"], meta["topic"], meta["address"], payload, meta)]
    found = unpack(payload, headers[PACK], meta.get("content_encoding", ""))
    if str(len(found)) != headers.get(PACK_COUNT):
        raise PackError(f"the pack has {len(found)} messages and not {headers.get(PACK_COUNT)}")
    return [
        Received(one.envelope.id, one.envelope.topic, one.envelope.address, one.payload, one.envelope.meta())
        for one in found
    ]


class Batch:
    """Messages that are answered for together.

    Of a pack the gateway can be told only about the whole: where one of its messages is
    refused, they all come again, one by one.
    """

    def __init__(
        self,
        receiver: Receiver,
        sender: list[bytes],
        number: bytes,
        messages: list[Received],
        places: list[int] | None = None,
        spoilt: dict[int, str] | None = None,
    ) -> None:
        """`places`: under which index each message came, if not its own; `spoilt`: packs that are none."""
        self.messages = messages
        self._receiver = receiver
        self._sender = sender
        self._number = number
        self._places = places
        self._refused: set[int] = set()
        self._is_answered = False
        for place, reason in (spoilt or {}).items():
            self._refuse(place, reason)

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[Received]:
        return iter(self.messages)

    def refuse(self, index: int, reason: str) -> None:
        """Say that `messages[index]` will never be taken; the gateway keeps it as a dead letter."""
        self._refuse(index if self._places is None else self._places[index], reason)

    def one_by_one(self) -> bool:
        """Answer that packs are to come again, message by message; False where there is none of several."""
        places = self._places or []
        several = [place for place in set(places) if places.count(place) > 1]
        for place in several:
            self._refuse(place, "one by one, please")
        if several:
            self.acknowledge()
        return bool(several)

    def _refuse(self, place: int, reason: str) -> None:
        if place in self._refused:
            return
        self._refused.add(place)
        said = self._receiver._say(self._sender, b"REFUSE", self._number, b"%d" % place, reason.encode())
        # Unheard, it must not be followed by an answer that takes the message for good.
        self._is_answered = self._is_answered or not said

    def acknowledge(self) -> None:
        """Answer for the batch, but for what was refused. Safe twice."""
        if not self._is_answered:
            self._is_answered = True
            self._receiver._say(self._sender, b"ACK", self._number)


class Receiver:
    """One endpoint where batches arrive; `bind` when gateways call us.

    `role` is "" before a gateway has answered, then "active" or "standby";
    `gateway` is the name of the one that asked last; `trouble` is why the last call broke off.
    With `bind`, `curve` is a Server, and strangers wait at its gate while nobody is in `receive`.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        bind: bool = False,
        window: int = 10_000,
        name: str = "",
        curve: Curve | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.role = ""
        self.gateway = ""
        self.trouble = ""
        self._is_router = bind
        self._curve = curve
        self._gate: Gate | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._poller = zmq.Poller()
        self._hello = msgspec.json.encode({"version": 1, "window": window, "name": name})
        self._gateways: set[bytes] = set()
        self._socket: zmq.Socket[bytes] | None = None

    def __enter__(self) -> Receiver:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches for ever; each is acknowledged when the next one is asked for."""
        while True:
            batch = self.receive()
            assert batch is not None  # without a timeout it waits
            yield batch
            batch.acknowledge()

    def open(self) -> None:
        """Bind or connect; the gateway may come later."""
        kind = zmq.ROUTER if self._is_router else zmq.DEALER
        context = zmq.Context.instance() if self._curve is None else self._curve.context
        socket: zmq.Socket[bytes] = context.socket(kind)
        socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_TIMEOUT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TTL, _HEARTBEAT_TTL_MS)
        # The gateway's window bounds what arrives; at a mark of ZeroMQ's a large batch would be cut short.
        socket.rcvhwm = 0
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        if self._curve is not None:
            self._curve.secure(socket)
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        if self._is_router:
            if isinstance(self._curve, Server):
                self._open_gate(self._curve)
            socket.bind(self.endpoint)
        else:
            # A probe goes out on every new connection, but only from a socket that keeps nothing for
            # the next one: that is what IMMEDIATE does.
            socket.setsockopt(zmq.PROBE_ROUTER, 1)
            socket.setsockopt(zmq.IMMEDIATE, 1)
            self._monitor = socket.get_monitor_socket(CALL_FAILED)
            self._poller.register(self._monitor, zmq.POLLIN)
            socket.connect(self.endpoint)
        self._socket = socket

    def _open_gate(self, server: Server) -> None:
        gate = Gate(server, lambda _key, _address: None)
        deadline = time.monotonic() + _GATE_S
        while not gate.open():
            if time.monotonic() > deadline:
                raise SinkUnavailable(f"{self.endpoint}: the gate of an earlier receiver is still there")
            time.sleep(0.005)
        self._poller.register(gate.socket, zmq.POLLIN)
        self._gate = gate

    def close(self, *, bye: bool = True) -> None:
        """Leave, with a word to the gateway unless a test plays dead. Safe twice."""
        if self._socket is None:
            return
        if bye:
            for gateway in self._gateways:
                self._say([gateway] if self._is_router else [], b"BYE")
        if self._gate is not None:
            self._gate.close()
            self._gate = None
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._monitor = None
        self._socket.close(linger=_LINGER_MS if bye else 0)
        self._socket = None
        self._gateways.clear()
        self.role = ""

    def receive(self, timeout_s: float | None = None) -> Batch | None:
        """Return the next batch, or None when none has come in time.

        Raises SinkUnavailable when the gateway will not talk to us, with the reason.
        """
        assert self._socket is not None, "not open"
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_ms = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000))
            ready = dict(self._poller.poll(left_ms))
            if not ready:
                return None
            if self._gate is not None:
                self._gate.look()
            if self._monitor is not None and self._monitor in ready:
                self._call_failed(self._monitor)
            if self._socket in ready:
                batch = self._heard(self._socket.recv_multipart())
                if batch is not None:
                    return batch
            if deadline is not None and time.monotonic() >= deadline:
                return None

    def _call_failed(self, monitor: zmq.Socket[bytes]) -> None:
        told = recv_monitor_message(monitor)
        self.trouble = why_failed(told["event"], told["value"])
        if told["event"] != zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            raise SinkUnavailable(f"{self.endpoint}: {self.trouble}")  # and ZeroMQ does not call again

    def _heard(self, frames: list[bytes]) -> Batch | None:
        sender = [frames.pop(0)] if self._is_router else []
        match frames:
            case [b"BATCH", number, metadata, *payloads]:
                return self._batch(sender, number, _metadata.decode(metadata), payloads)
            case [b"WHO", who, *_]:
                self.gateway = str(msgspec.json.decode(who).get("gateway", ""))
                self._gateways.add(sender[0] if sender else b"")
                self._say(sender, b"HELLO", self._hello)
            case [b"PING", role]:
                self.role = role.decode()
            case [b"SORRY", reason]:
                raise SinkUnavailable(f"{self.endpoint}: {reason.decode(errors='replace')}")
            case [b"BYE"]:
                self.role = ""
            case _:  # a word of a later version
                pass
        return None

    def _batch(
        self, sender: list[bytes], number: bytes, metas: list[dict[str, Any]], payloads: list[bytes]
    ) -> Batch:
        messages: list[Received] = []
        places: list[int] = []
        spoilt: dict[int, str] = {}
        for place, (meta, payload) in enumerate(zip(metas, payloads, strict=True)):
            try:
                found = unpacked(meta, payload)
            except PackError as error:
                spoilt[place] = str(error)
                continue
            messages += found
            places += [place] * len(found)
        if places == list(range(len(metas))):
            return Batch(self, sender, number, messages)
        return Batch(self, sender, number, messages, places, spoilt)

    def _say(self, sender: list[bytes], *frames: bytes) -> bool:
        """Return whether it went; without a connection there is nobody to tell, and the gateway will ask."""
        assert self._socket is not None, "not open"
        try:
            self._socket.send_multipart([*sender, *frames], zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True
