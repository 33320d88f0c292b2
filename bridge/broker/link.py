"""One socket and its Connection: bytes in, bytes out, and nothing decided here.

A read is decoded as a whole and handed to the inlet as a whole. What must not be
answered before it is on the disk waits in a `Receipt`, one for each commit; when
the committer calls back, all of its answers leave in one write.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from bridge.errors import MalformedPacket, StoreError
from bridge.mqtt.connection import Connection
from bridge.mqtt.packet import Packet, Puback, Pubcomp, Pubrec, Pubrel, Suback, Unsuback
from bridge.mqtt.reason import ReasonCode
from bridge.mqtt.session import Session
from bridge.policy.access import ANONYMOUS, EVERYTHING, Rights

if TYPE_CHECKING:
    from bridge.broker.audience import Run
    from bridge.broker.broker import Broker
    from bridge.broker.door import Door
    from bridge.broker.subscriber import Subscriber
    from bridge.policy.password import Password

__all__ = ["Link", "Receipt"]

log = logging.getLogger(__name__)

Answers = tuple[type[Puback] | type[Pubrec], list[int]]
_LINGER_S: Final = 2.0  # how long a peer may take to read our goodbye


class Receipt:
    """What one commit allows one link to say: runs of PUBACK or PUBREC, and packets, in order.

    `runs` has what the commit stores for the cloud, or lets go. The
    subscriber is kept here because the link may have lost it, or its socket, before the
    commit is done.
    """

    __slots__ = ("answers", "read_bytes", "runs", "subscriber", "turn")

    def __init__(self, turn: int, subscriber: Subscriber | None) -> None:
        self.turn = turn
        self.subscriber = subscriber
        self.answers: list[Answers | Puback | Pubrec | Pubrel | Pubcomp | Suback | Unsuback] = []
        self.runs: list[Run] = []
        self.read_bytes = 0


class Link(asyncio.Protocol):
    """One network connection of a device, through one door and within its limits.

    `address` is where it comes from, without the port, and empty for a Unix socket;
    `certificate_user` is the name in the client certificate that it has shown, None
    without one. `identity` and `rights` say who it is and what it may do, from when
    it was let in, and `proof` is the password that it has proven for that, if any;
    `limited` is whether rights have to be asked for each topic.
    `subscriber` is set once CONNECT was accepted. `publisher` is its Client
    Identifier; `entry_bytes` is what each of its messages costs on the disk besides
    what it sent. `congested` is whether the device leaves more unread than it may.
    """

    __slots__ = (
        "_deaf_s",
        "_fresh_bytes",
        "_out",
        "_out_bytes",
        "_paused",
        "_paused_at",
        "_receipt",
        "_transport",
        "_uncommitted",
        "address",
        "broker",
        "certificate_user",
        "congested",
        "connection",
        "door",
        "entry_bytes",
        "identity",
        "limited",
        "limits",
        "peer",
        "proof",
        "publisher",
        "refusing",
        "rights",
        "subscriber",
    )

    def __init__(self, broker: Broker, door: Door) -> None:
        self.broker = broker
        self.door = door
        self.limits = door.limits
        self.address = ""
        self.certificate_user: str | None = None
        self.identity = ANONYMOUS
        self.proof: Password | None = None
        self.rights = EVERYTHING
        self.limited = False
        self.publisher = ""
        self.entry_bytes = 0
        self.subscriber: Subscriber | None = None
        self.peer = ""
        self.refusing = False  # a PUBLISH found no room: nothing after it may be taken
        self._transport: asyncio.Transport | None = None
        self._receipt: Receipt | None = None
        self._fresh_bytes = 0
        self._uncommitted = 0
        self._paused = False
        self._paused_at = 0.0
        self._deaf_s = 0.0  # for how long nobody listened to the device since it last spoke
        self._out: list[bytes] = []
        self._out_bytes = 0
        self.congested = False

    def enter(self, subscriber: Subscriber) -> None:
        """The device was let in, as this session."""
        self.subscriber = subscriber
        self.publisher = subscriber.session.client_id
        self.identity = subscriber.identity
        self.allow(subscriber.rights)

    def allow(self, rights: Rights) -> None:
        """From now on the device may do this."""
        self.rights = rights
        limits = self.limits
        self.limited = rights.limited or limits.maximum_qos < 2 or not limits.retain_available

    # ---- the socket ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        limits = self.limits
        # uvloop's transports are none of asyncio's classes, though they do all the same things.
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=limits.unsent_bytes_max)
        peer = transport.get_extra_info("peername")
        self.peer = str(peer or "")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        self.connection = Connection(
            self.broker.now(),
            limits.packet_bytes_max,
            limits.connect_bytes_max,
            limits.connect_wait_s,
            levels_max=limits.topic_levels_max,
            reason_strings=limits.reason_strings,
            like_mosquitto=limits.like_mosquitto,
        )
        self.broker.arrived(self)

    def data_received(self, data: bytes) -> None:
        try:
            packets, fault = self.connection.receive(data, self.broker.now())
            self._deaf_s = 0.0
            self._fresh_bytes += len(data)
            self.broker.traffic.bytes_in += len(data)
            self.act(packets, fault)
        except Exception:
            # A mistake of ours that this device has found: it costs this connection and no other.
            log.exception("link failed peer=%s client=%s", self.peer, self.publisher)
            self.close(ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR)

    def act(self, packets: list[Packet], fault: MalformedPacket | None) -> None:
        """Act upon decoded packets, then upon the fault behind them."""
        if packets:
            self.broker.traffic.packets_in += len(packets)
            read_bytes, self._fresh_bytes = self._fresh_bytes, 0
            try:
                self.broker.take(self, packets, read_bytes)
            except MalformedPacket as error:
                fault = error
        if fault is not None:
            self.broker.malformed += 1
            if self.broker.may_log():
                log.info("protocol error peer=%s client=%s reason=%s", self.peer, self.publisher, fault)
            self.close(fault.reason, str(fault))

    def eof_received(self) -> None:
        """A half-closed device is gone: asyncio closes the rest."""

    def pause_writing(self) -> None:
        """The device does not read: nothing more is taken from its session."""
        self.congested = True

    def resume_writing(self) -> None:
        """It has read most of it."""
        self.congested = False
        if self.subscriber is not None:
            self.broker.deliver_soon(self.subscriber)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.close()
        self._transport = None
        self.broker.left(self)

    def expired(self, now: float) -> bool:
        """Whether nothing was heard for too long. While it is not read, its silence says nothing."""
        return not self._paused and self.connection.expired(now - self._deaf_s)

    @property
    def gone(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    # ---- out -----------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send at the end of this turn, together with whatever else this link gets until then."""
        if not self._out:
            self.broker.flush_soon(self)
        self.broker.traffic.packets_out += 1
        self._out.append(data)
        self._out_bytes += len(data)

    def flush(self) -> None:
        """Write what `send` has collected."""
        out, self._out = self._out, []
        self._out_bytes = 0
        if out and self._transport is not None and not self._transport.is_closing():
            data = b"".join(out) if len(out) > 1 else out[0]
            self.broker.traffic.bytes_out += len(data)
            self._transport.write(data)

    @property
    def unsent_bytes(self) -> int:
        """What the device has not yet read."""
        queued = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return self._out_bytes + queued

    def close(self, reason: int = ReasonCode.SUCCESS, text: str | None = None) -> None:
        """Say goodbye where the version can, and close once that is sent. Safe to call again."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self.flush()
        if reason != ReasonCode.SUCCESS and (goodbye := self.connection.goodbye(reason, text)):
            transport.write(goodbye)
        self.connection.close()
        transport.close()
        if transport.get_write_buffer_size():
            self.broker.call_later(_LINGER_S, transport.abort)

    # ---- answers that mean "on disk" -----------------------------------------------

    def receipt(self) -> Receipt:
        """The receipt for what is queued before the next commit; made and registered when new."""
        committer = self.broker.spool.committer
        receipt = self._receipt
        if receipt is None or receipt.turn != committer.turn:
            receipt = self._receipt = Receipt(committer.turn, self.subscriber)
            committer.when_durable(partial(self.committed, receipt))
        return receipt

    def hold(self, receipt: Receipt, read_bytes: int) -> None:
        """Count bytes that wait for the disk; a device that is ahead of it is not read for a while."""
        receipt.read_bytes += read_bytes
        self._uncommitted += read_bytes
        ahead = self._uncommitted > self.limits.uncommitted_bytes_max
        if ahead and not self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._paused, self._paused_at = True, self.broker.now()

    def committed(self, receipt: Receipt, error: StoreError | None) -> None:
        """All that this receipt stands for is on the disk, or none of it is.

        With an error nothing is acknowledged: a negative PUBACK would be final and
        the message lost [MQTT-4.4.0-2], so the device is sent away and comes again.
        """
        if receipt is self._receipt:
            self._receipt = None
        self._uncommitted -= receipt.read_bytes
        for audience, messages, size in receipt.runs:
            audience.settle(messages, size, stored=error is None)
        subscriber = receipt.subscriber
        session = subscriber.session if subscriber is not None else None
        if error is not None:
            for answer in receipt.answers:
                if isinstance(answer, tuple):
                    self.broker.inlet.refused += len(answer[1])
                    if answer[0] is Pubrec and session is not None:
                        self._forget_unstored(session, answer[1])
            if subscriber is not None:
                # Also when the device is gone: its row still has them, and is going to be written.
                self.broker.sessions.touch(subscriber, commit=False)
            self.close(ReasonCode.QUOTA_EXCEEDED, str(error))
            return
        connection, out = self.connection, self._out
        empty = not out
        for answer in receipt.answers:
            if isinstance(answer, tuple):
                kind, packet_ids = answer
                if kind is Pubrec and session is not None:
                    session.stored(packet_ids)
                self.broker.inlet.acknowledged += len(packet_ids)
                self.broker.traffic.packets_out += len(packet_ids)
                out.append(connection.encode_pubacks(kind, packet_ids))
                continue
            if type(answer) is Puback and answer.reason < 0x80:
                self.broker.inlet.acknowledged += 1
            if (data := connection.encode(answer)) is not None:
                self.broker.traffic.packets_out += 1
                out.append(data)
        if self._transport is None or self._transport.is_closing():
            out.clear()
            return
        if empty:
            self.flush()  # otherwise a flush is on its way
        if self._paused and self._uncommitted <= self.limits.uncommitted_bytes_max // 2:
            self._paused = False
            self._deaf_s += self.broker.now() - self._paused_at
            self._transport.resume_reading()

    @staticmethod
    def _forget_unstored(session: Session, packet_ids: list[int]) -> None:
        """Their next copies are new messages; not so where this was a repetition of a stored one."""
        for packet_id in packet_ids:
            if session.inbound.get(packet_id) is False:
                session.forget(packet_id)

    def answer(self, packet: Packet) -> None:
        """Send a packet that promises nothing about the disk."""
        assert not isinstance(packet, Puback | Pubrec), "only `committed` may acknowledge"
        if not self.gone and (data := self.connection.encode(packet)) is not None:
            self.send(data)
