"""What one network connection may say now, and when it is dead.

    NEW ── CONNECT ──▶ PENDING ── accept() ──▶ OPEN ── DISCONNECT, a fault, close() ──▶ CLOSED

What a client may send in each state is one table, `CLIENT_MAY_SEND`. A fault is
returned, not raised, because the packets before it still count: a PUBLISH that was
whole and legal is stored, whatever nonsense follows it.

The connection remembers what the two sides granted each other (version, keep
alive, Receive Maximum, Maximum Packet Size, topic aliases), and therefore it also
writes the packets that go out. It never answers by itself: every byte to be sent
comes from a call that returns it.

`now` is any clock in seconds that does not jump back.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final

import msgspec

from bridge.errors import MalformedPacket
from bridge.message import Properties
from bridge.mqtt import codec
from bridge.mqtt.alias import InboundAliases, OutboundAliases
from bridge.mqtt.codec import MalformedConnect
from bridge.mqtt.framer import PACKET_BYTES_MAX, Framer
from bridge.mqtt.likeness import refuse_control
from bridge.mqtt.packet import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Unsubscribe,
)
from bridge.mqtt.packet import PacketType as P
from bridge.mqtt.property import application_properties
from bridge.mqtt.reason import CONNACK_REASONS, DISCONNECT_REASONS, ReasonCode, connect_return_code
from bridge.topic import LEVELS_MAX

__all__ = [
    "CLIENT_MAY_SEND",
    "CONNECT_BYTES_MAX",
    "CONNECT_WAIT_S",
    "PACKET_BYTES_LIMIT",
    "Connection",
    "State",
]

CONNECT_BYTES_MAX: Final = 64 * 1024  # nobody has shown who they are yet
CONNECT_WAIT_S: Final = 10.0  # from the first byte to CONNACK, however slowly bytes drip
# A packet moves the keep-alive; so does a read of this size, or a large message
# on a slow line would be cut off in the middle. A byte at a time does not.
PROGRESS_BYTES: Final = 1_000
PACKET_BYTES_LIMIT: Final = 268_435_455 + 5  # what the length of a packet can say, and its header
RECEIVE_MAXIMUM: Final = 65_535  # what both specifications imply when nothing is said


class State(Enum):
    NEW = "waiting for CONNECT"
    PENDING = "waiting for CONNACK"
    OPEN = "open"
    CLOSED = "closed"


_S = State
# What a client may send, and where it takes the connection. An absent packet is a
# protocol error: that is how a second CONNECT [MQTT-3.1.0-2] is refused, a first
# packet that is none [MQTT-3.1.0-1], and every packet only a server may send.
# PENDING is empty because the framer holds the bytes back until CONNACK: what
# follows a refused CONNECT must not be processed [MQTT-3.1.4-6], v3 [MQTT-3.1.4-5].
# AUTH is absent because no authentication method is ever agreed on.
CLIENT_MAY_SEND: Final[dict[State, dict[P, State]]] = {
    _S.NEW: {P.CONNECT: _S.PENDING},
    _S.PENDING: {},
    _S.OPEN: {
        P.PUBLISH: _S.OPEN,
        P.PUBACK: _S.OPEN,
        P.PUBREC: _S.OPEN,
        P.PUBREL: _S.OPEN,
        P.PUBCOMP: _S.OPEN,
        P.SUBSCRIBE: _S.OPEN,
        P.UNSUBSCRIBE: _S.OPEN,
        P.PINGREQ: _S.OPEN,
        P.DISCONNECT: _S.CLOSED,
    },
    _S.CLOSED: {},
}
_ADMITTED: Final = {state: frozenset(row) for state, row in CLIENT_MAY_SEND.items()}
# The fast path of the framer asks no table, so it is only taken where the table lets all of this pass.
_FAST: Final = {
    state: {P.PUBLISH, P.PUBACK, P.PUBREC, P.PUBREL, P.PUBCOMP, P.PINGREQ} <= set(row)
    for state, row in CLIENT_MAY_SEND.items()
}


class Connection:
    """One socket's worth of protocol, server side.

    After CONNECT was returned: `version`, and the client's `receive_maximum`,
    `packet_bytes_max` (None: no limit) and `topic_alias_maximum` are known. `aliasing` is
    whether PUBLISH packets that go out have to be written one by one, because the client
    lets us use topic aliases.
    """

    __slots__ = (
        "_accepted",
        "_acknowledged",
        "_aliases",
        "_deadline",
        "_framer",
        "_inbound_maximum",
        "_keep_alive_s",
        "_levels_max",
        "_like_mosquitto",
        "_outbound_aliases",
        "_packet_bytes_max",
        "_problem_information",
        "_reason_strings",
        "_session_expires",
        "aliasing",
        "packet_bytes_max",
        "receive_maximum",
        "state",
        "topic_alias_maximum",
        "version",
    )

    def __init__(
        self,
        now: float,
        packet_bytes_max: int = PACKET_BYTES_MAX,
        connect_bytes_max: int = CONNECT_BYTES_MAX,
        connect_wait_s: float = CONNECT_WAIT_S,
        *,
        levels_max: int = LEVELS_MAX,
        reason_strings: bool = True,
        like_mosquitto: bool = False,
    ) -> None:
        """`connect_bytes_max` bounds CONNECT, `packet_bytes_max` every packet after it.

        `levels_max` is how many levels a topic or filter may have, and at least
        `LEVELS_CACHED_MAX`. Without `reason_strings` the client is told codes alone.
        `like_mosquitto` refuses what Mosquitto refuses, with the codes it has for it.
        """
        self.state = State.NEW
        self.version = 0
        self.receive_maximum = RECEIVE_MAXIMUM
        self.packet_bytes_max: int | None = None
        self.topic_alias_maximum = 0
        self._framer = Framer(0, connect_bytes_max, self._examine)
        self._framer.admit = _ADMITTED[State.NEW]
        self._packet_bytes_max = packet_bytes_max
        self._accepted = False
        self._keep_alive_s: float = 0
        self._deadline: float | None = now + connect_wait_s
        self._inbound_maximum = RECEIVE_MAXIMUM
        self._acknowledged = 0
        self.aliasing = False
        self._levels_max = levels_max
        self._aliases = InboundAliases()
        self._outbound_aliases = OutboundAliases()
        self._reason_strings = reason_strings
        self._like_mosquitto = like_mosquitto
        self._problem_information = True
        self._session_expires = False

    # ---- what comes in ----

    def receive(self, data: bytes, now: float) -> tuple[list[Packet], MalformedPacket | None]:
        """The legal packets that are whole by now, in order, and the fault that ends the connection.

        Act upon the packets first, then send `goodbye(fault.reason)` and close. After
        CONNECT (always alone in its list) the rest waits for `accept`. After a fault
        or DISCONNECT whatever comes is ignored.
        """
        if self.state is State.CLOSED:
            return [], None
        framer = self._framer
        packets, fault = framer.receive(data)
        if self._keep_alive_s and (packets or len(data) >= PROGRESS_BYTES):
            self._deadline = now + 1.5 * self._keep_alive_s
        if self.unacknowledged > self._inbound_maximum and self.version == 5:
            packets, fault = self._cut(packets, fault)
        if fault is not None:
            if isinstance(fault, MalformedConnect):
                self.version = fault.version
            if self._like_mosquitto and fault.mosquitto is not None:
                fault.reason = fault.mosquitto
            self._move(State.CLOSED)
        return packets, fault

    def resume(self, now: float) -> tuple[list[Packet], MalformedPacket | None]:
        """After `accept`: what the client sent without waiting for CONNACK."""
        return self.receive(b"", now)

    def accept(
        self,
        now: float,
        keep_alive_s: int,
        receive_maximum: int = RECEIVE_MAXIMUM,
        topic_alias_maximum: int = 0,
        session_expires: bool = False,
    ) -> None:
        """The client is let in: from here on the connection is OPEN. Call `resume` after sending CONNACK.

        What is given here must be what CONNACK says: `keep_alive_s` is the client's or
        Server Keep Alive [MQTT-3.2.2-21]. `session_expires` is whether CONNECT gave a
        Session Expiry Interval above 0; if it did not, DISCONNECT cannot.
        """
        assert self.state is State.PENDING, "accept answers one CONNECT, and a closed connection not at all"
        self._accepted = True
        self._keep_alive_s = keep_alive_s
        self._deadline = now + 1.5 * keep_alive_s if keep_alive_s else None
        self._inbound_maximum = receive_maximum
        self._aliases.maximum = topic_alias_maximum
        # As many as the client allows, and no more than we would: each costs both sides a topic.
        self._outbound_aliases.maximum = min(self.topic_alias_maximum, topic_alias_maximum)
        self.aliasing = self._outbound_aliases.maximum > 0
        self._session_expires = session_expires
        self._framer.packet_bytes_max = self._packet_bytes_max
        self._move(State.OPEN)

    def _move(self, state: State) -> None:
        self.state = state
        framer = self._framer
        framer.admit = _ADMITTED[state]
        framer.fast = _FAST[state]
        framer.paused = not framer.admit
        if state is State.CLOSED:
            framer.close()

    def _examine(self, packet: Packet) -> Packet:
        """Every packet off the fast path: take the table's step, and check what only a server can."""
        after = CLIENT_MAY_SEND[self.state][packet.TYPE]
        if after is not self.state:
            self._move(after)
        if self._like_mosquitto:
            refuse_control(packet)
        if type(packet) is Publish:
            self._check_levels(packet.topic)
            return packet if packet.properties is None else self._publish(packet, packet.properties)
        if type(packet) is Subscribe:
            for subscription in packet.subscriptions:
                self._check_levels(subscription.topic_filter, ReasonCode.TOPIC_FILTER_INVALID)
        elif type(packet) is Unsubscribe:
            for topic_filter in packet.topic_filters:
                self._check_levels(topic_filter, ReasonCode.TOPIC_FILTER_INVALID)
        elif type(packet) is Connect:
            self._connect(packet)
        elif type(packet) is Disconnect and packet.properties is not None:
            if packet.properties.server_reference is not None:
                raise MalformedPacket("DISCONNECT from a client names a server", ReasonCode.PROTOCOL_ERROR, 0)
            if packet.properties.session_expiry_interval_s and not self._session_expires:
                # v5 section 3.14.2.2.2
                raise MalformedPacket("DISCONNECT makes a session last", ReasonCode.PROTOCOL_ERROR)
        return packet

    def _check_levels(self, topic: str, reason: int = ReasonCode.TOPIC_NAME_INVALID) -> None:
        """Deep topics are never on the fast path, so what comes by here is all of them."""
        if topic.count("/") >= self._levels_max:
            text = f"a topic of more than {self._levels_max} levels"
            raise MalformedPacket(text, reason, ReasonCode.MALFORMED_PACKET)

    def _connect(self, packet: Connect) -> None:
        version = self.version = self._framer.version = packet.version
        if version < 5 and not packet.client_id and (version == 3 or not packet.clean_start):
            raise MalformedConnect(  # [MQTT-3.1.3-8]
                "CONNECT needs a client identifier: it wants to keep a session, or is of MQTT 3.1",
                ReasonCode.CLIENT_IDENTIFIER_NOT_VALID,
                version,
            )
        if packet.will is not None and packet.will.topic.count("/") >= self._levels_max:
            text = f"a will to a topic of more than {self._levels_max} levels"
            raise MalformedConnect(text, ReasonCode.TOPIC_NAME_INVALID, version)
        if (properties := packet.properties) is not None:
            self.receive_maximum = properties.receive_maximum or RECEIVE_MAXIMUM
            self.packet_bytes_max = properties.maximum_packet_size
            self.topic_alias_maximum = properties.topic_alias_maximum or 0
            self._problem_information = properties.request_problem_information != 0

    def _publish(self, packet: Publish, properties: Properties) -> Publish:
        """Resolve the topic alias; afterwards only what belongs to the application is left."""
        if properties.subscription_identifiers:  # [MQTT-3.3.4-6]
            raise MalformedPacket(
                "PUBLISH from a client with a Subscription Identifier", ReasonCode.PROTOCOL_ERROR
            )
        alias = properties.topic_alias
        if alias is None:
            return packet
        topic = self._aliases.resolve(packet.topic, alias)
        return Publish(
            topic,
            packet.payload,
            packet.qos,
            packet.retain,
            packet.dup,
            packet.packet_id,
            application_properties(properties),
        )

    @property
    def has_aliases(self) -> bool:
        """Whether the client has set topic aliases: then a short packet may be a long message."""
        return bool(self._aliases)

    # ---- Receive Maximum of the client's publishes ----

    @property
    def unacknowledged(self) -> int:
        """How many PUBLISH packets with QoS 1 or 2 came in and are not finished.

        In MQTT 5 finished means PUBACK, PUBCOMP or a refusing PUBREC, and more than
        `accept` granted is a fault [MQTT-3.3.4-7]. MQTT 3 knows no such limit; there it
        means PUBACK or PUBREC, and is a reason to stop reading for a while.
        """
        return self._framer.acknowledgeable - self._acknowledged

    def _cut(
        self, packets: list[Packet], fault: MalformedPacket | None
    ) -> tuple[list[Packet], MalformedPacket | None]:
        """Keep what came before the PUBLISH that was one too many."""
        over = self.unacknowledged - self._inbound_maximum
        for nth in range(len(packets) - 1, -1, -1):
            packet = packets[nth]
            if type(packet) is Publish and packet.qos:
                over -= 1
                if not over:
                    text = f"more than {self._inbound_maximum} PUBLISH unacknowledged"
                    return packets[:nth], MalformedPacket(text, ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)
        return packets, fault

    def _finished(self, kind: type[Packet], reason: int, count: int) -> None:
        if kind is Puback or (kind is Pubrec and (self.version < 5 or reason >= 0x80)):
            self._acknowledged += count
        elif kind is Pubcomp and self.version == 5:
            # A PUBREL left over from the connection before has no PUBLISH on this one.
            self._acknowledged = min(self._acknowledged + count, self._framer.acknowledgeable)

    # ---- what goes out ----

    def encode(self, packet: Packet) -> bytes | None:
        """The bytes to send, or None where this client cannot be told.

        That is: DISCONNECT in MQTT 3, a CONNACK that 3.1.1 has no code for, and what
        exceeds the client's Maximum Packet Size v5 [MQTT-3.1.2-24]: then a PUBLISH counts as
        sent and acknowledged [MQTT-3.1.2-25]. Other packets first lose their Reason String and User
        Properties, also when the client did not ask for them [MQTT-3.1.2-29].

        Writing PUBACK, PUBREC or PUBCOMP also takes it off `unacknowledged`.
        """
        kind = type(packet)
        if type(packet) is Publish:
            return self._encode_publish(packet)
        if self.version < 5:
            if kind is Disconnect:
                return None
            if type(packet) is Connack and connect_return_code(packet.reason) is None:
                return None
        elif not self._reason_strings or (
            not self._problem_information and kind is not Connack and kind is not Disconnect
        ):
            packet = _plain(packet)
        if type(packet) is Puback or type(packet) is Pubrec or type(packet) is Pubcomp:
            self._finished(kind, packet.reason, 1)
        data = codec.encode(packet, self.version)
        if self.packet_bytes_max is not None and len(data) > self.packet_bytes_max:
            data = codec.encode(_plain(packet), self.version)
            if len(data) > self.packet_bytes_max:
                return None
        return data

    def _encode_publish(self, packet: Publish) -> bytes | None:
        limit = self.packet_bytes_max
        if self.aliasing:
            aliased = self._outbound_aliases.substitute(packet)
            data = codec.encode(aliased, self.version)
            if limit is None or len(data) <= limit:
                self._outbound_aliases.told(aliased)
                return data
        data = codec.encode(packet, self.version)
        return data if limit is None or len(data) <= limit else None

    def encode_pubacks(
        self, kind: type[Puback] | type[Pubrec] | type[Pubrel] | type[Pubcomp], packet_ids: Iterable[int]
    ) -> bytes:
        """Many successful answers of one kind in one bytes object; `unacknowledged` falls accordingly."""
        data = codec.encode_pubacks(kind, packet_ids)
        self._finished(kind, 0, len(data) // 4)
        return data

    def goodbye(self, reason: int, text: str | None = None) -> bytes:
        """The last bytes to send for `reason`; the connection is CLOSED. May be empty: then only close.

        Before `accept` that is a CONNACK, after it a DISCONNECT [v5 MQTT-3.14.0-1]. MQTT 3
        has no DISCONNECT from a server, and six codes in CONNACK. A reason that the
        packet may not carry becomes 0x80.
        """
        accepted, version = self._accepted, self.version
        self._move(State.CLOSED)
        if version == 0:
            return b""
        properties = Properties(reason_string=text) if text and version == 5 else None
        if accepted:
            reason = reason if reason in DISCONNECT_REASONS else ReasonCode.UNSPECIFIED_ERROR
            return self.encode(Disconnect(reason, properties)) or b""
        if version == 5 and reason not in CONNACK_REASONS:
            reason = ReasonCode.UNSPECIFIED_ERROR
        return self.encode(Connack(False, reason, properties)) or b""

    # ---- time ----

    def deadline(self) -> float | None:
        """When the client is dead unless it says something; None for never.

        10 s to CONNACK; after that 1.5 times the keep alive, v3 [MQTT-3.1.2-24],
        v5 [MQTT-3.1.2-22]. It moves with every read, so look again when it has come.
        """
        return None if self.state is State.CLOSED else self._deadline

    def expired(self, now: float) -> bool:
        """Whether to say `goodbye(0x8D)` and close."""
        deadline = self.deadline()
        return deadline is not None and now >= deadline

    def close(self) -> None:
        """The network connection is gone. Safe to call twice."""
        self._move(State.CLOSED)


def _plain(packet: Packet) -> Packet:
    """The same without Reason String and User Properties."""
    properties: Properties | None = getattr(packet, "properties", None)
    if properties is None:
        return packet
    plain = msgspec.structs.replace(properties, reason_string=None, user_properties=())
    return msgspec.structs.replace(packet, properties=None if plain == Properties() else plain)
