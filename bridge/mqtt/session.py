"""QoS in both directions. A session outlives its connections; it belongs to one Client Identifier.

Towards the client, a delivery walks

    offered → queue → in flight ─ QoS 1 ─ PUBACK ──────────────────────▶ settled
                                └ QoS 2 ─ PUBREC → PUBREL → PUBCOMP ──▶ settled

and is known to the caller by the `token` it came with, an integer of the caller's
(a position in the log, say). A queued delivery need not hold its message: `take`
fetches it by token when there is room in the window, so that what waits for a
sleeping device is a list of integers.

The window is the smaller of the client's Receive Maximum and our own limit. The
in-flight table keeps the order of sending, and `reconnect` repeats it in that
order [MQTT-4.4.0-1], [MQTT-4.6.0-1]; on PUBREC an entry moves to the end, because
PUBRELs follow the order of PUBRECs [MQTT-4.6.0-4].

From the client, a QoS 2 packet identifier is held from PUBLISH to PUBREL, and a
PUBLISH that repeats it is not stored again [v5 MQTT-4.3.3-10]. It has two
stages, because PUBREC means *on disk* and nothing less.

A session decides and remembers; it does not write, wait, or look at a clock.
`now` is in seconds and `now_ns` in nanoseconds since 1970, as `Message.received_ns` is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from bridge.errors import MalformedPacket
from bridge.message import Message, Properties
from bridge.mqtt.packet import Pubcomp, Publish, Pubrel, Subscription, Will
from bridge.mqtt.reason import ReasonCode

__all__ = [
    "EXPIRY_NEVER_S",
    "NO_TOKEN",
    "Arrival",
    "Delivery",
    "InFlight",
    "Load",
    "Session",
    "Stage",
]

NO_TOKEN: Final = -1  # of a delivery that nobody wants to hear about again
EXPIRY_NEVER_S: Final = 0xFFFF_FFFF
PACKET_ID_MAX: Final = 65_535

Load: TypeAlias = Callable[[int], Message | None]


class Arrival(Enum):
    """What to do with a QoS 2 PUBLISH."""

    NEW = "store it, and answer PUBREC when it is on disk"
    STORING = "do not store it again; its first copy is on the way to the disk: PUBREC after the next commit"
    STORED = "answer PUBREC now"


class Stage(Enum):
    """What an in-flight delivery waits for."""

    PUBACK = "PUBACK"
    PUBREC = "PUBREC"
    PUBCOMP = "PUBCOMP"


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One message for this session. Without `message`, it is loaded by `token`."""

    token: int
    qos: int
    retain: bool = False
    subscription_identifiers: tuple[int, ...] = ()
    message: Message | None = None


class InFlight(msgspec.Struct, gc=False):
    """A delivery that was sent. `sent` is False while it waits to be repeated on a new connection."""

    delivery: Delivery
    stage: Stage
    sent: bool = True


class Session:
    """What is kept for one Client Identifier. The plain attributes are the caller's to read and set.

    `identity` is who made the session; nobody else may take it over. `subscriptions`
    are by Topic Filter. The session ends `expiry_interval_s` after its connection
    (0xFFFFFFFF: never; 3.1.1 with Clean Session 0 is the same).
    """

    __slots__ = (
        "_disconnected_at",
        "_next_packet_id",
        "_queue",
        "_queue_max",
        "_unsent",
        "_window",
        "_window_max",
        "client_id",
        "expiry_interval_s",
        "identity",
        "in_flight",
        "inbound",
        "inbound_max",
        "subscriptions",
        "will",
    )

    def __init__(
        self,
        client_id: str,
        identity: str = "",
        expiry_interval_s: int = 0,
        window_max: int = 20,
        queue_max: int = 1_000,
        inbound_max: int = 1_000,
        next_packet_id: int = 1,
    ) -> None:
        """`window_max` messages in flight to the client, `queue_max` behind them, `inbound_max` open QoS 2
        exchanges from it. A session restored from the disk should continue with another
        `next_packet_id` than it last used: a client may still hold those as received.
        """
        assert 1 <= window_max <= PACKET_ID_MAX, "there must be a free packet identifier"
        self.client_id = client_id
        self.identity = identity
        self.expiry_interval_s = expiry_interval_s
        self.will: Will | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.inbound_max = inbound_max
        self.inbound: dict[int, bool] = {}  # QoS 2 packet identifier → whether it is stored
        self.in_flight: dict[int, InFlight] = {}
        self._queue: deque[Delivery] = deque()
        self._queue_max = queue_max
        self._window_max = window_max
        self._window = window_max
        self._unsent = 0  # in flight, and not repeated yet on this connection
        self._next_packet_id = next_packet_id
        self._disconnected_at: float | None = None

    # ---- from the client: QoS 2 ----

    def arrive(self, packet_id: int) -> Arrival:
        """A QoS 2 PUBLISH came in. Raises MalformedPacket (0x93) for one exchange too many.

        MQTT 3 has no Receive Maximum, so there this is the only bound on clients that
        never release.
        """
        stored = self.inbound.get(packet_id)
        if stored is not None:
            return Arrival.STORED if stored else Arrival.STORING
        if len(self.inbound) >= self.inbound_max:
            raise MalformedPacket(
                f"more than {self.inbound_max} QoS 2 packet identifiers not released",
                ReasonCode.RECEIVE_MAXIMUM_EXCEEDED,
            )
        self.inbound[packet_id] = False
        return Arrival.NEW

    def stored(self, packet_ids: Iterable[int]) -> None:
        """These are on disk: from now on a duplicate is answered at once."""
        for packet_id in packet_ids:
            if packet_id in self.inbound:
                self.inbound[packet_id] = True

    def forget(self, packet_id: int) -> None:
        """The PUBLISH was refused (PUBREC of 0x80 and up) or not stored: its next copy is a new message."""
        self.inbound.pop(packet_id, None)

    def pubrel(self, packet_id: int) -> Pubcomp:
        """The answer: success, or 0x92 for an identifier not held (in MQTT 3 the two look the same)."""
        if self.inbound.pop(packet_id, None) is None:
            return Pubcomp(packet_id, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND)
        return Pubcomp(packet_id)

    # ---- to the client ----

    @property
    def queued(self) -> int:
        """Deliveries behind the window."""
        return len(self._queue)

    @property
    def room(self) -> int:
        """How many more `offer` would take."""
        return self._queue_max - len(self._queue)

    def offer(
        self,
        token: int,
        qos: int,
        retain: bool = False,
        subscription_identifiers: tuple[int, ...] = (),
        message: Message | None = None,
    ) -> bool:
        """Queue one delivery. False when the queue is full: nothing was taken.

        `qos` is the smaller of the message's and the subscription's [MQTT-3.8.4-8].
        """
        if len(self._queue) >= self._queue_max:
            return False
        self._queue.append(Delivery(token, qos, retain, subscription_identifiers, message))
        return True

    def drop_before(self, token: int) -> None:
        """Forget what is queued under tokens before `token`: their messages are gone for good.

        Without this they would keep their places, and a full queue stay full until the
        client comes. Deliveries with NO_TOKEN stay.
        """
        self._queue = deque(each for each in self._queue if each.token >= token or each.token == NO_TOKEN)

    def take(self, now_ns: int, load: Load | None = None) -> tuple[list[Publish | Pubrel], list[int]]:
        """What may be sent now, in order, and the tokens that are settled without an answer.

        Those are QoS 0 deliveries, messages that have expired [MQTT-3.3.2-5], and those
        that `load` does not find any more. What is left of a repetition comes first.
        """
        packets: list[Publish | Pubrel] = []
        settled: list[int] = []
        if self._unsent:
            self._repeat(now_ns, load, packets, settled)
        queue, in_flight = self._queue, self.in_flight
        room = self._window - len(in_flight) if not self._unsent else 0
        while queue:
            delivery = queue[0]
            if delivery.qos and room <= 0:
                break
            queue.popleft()
            token = delivery.token
            message = delivery.message
            if message is None and load is not None:
                message = load(token)
            if message is None or _expired(message, now_ns):
                settled.append(token)
            elif delivery.qos:
                packet_id = self._packet_id()
                in_flight[packet_id] = InFlight(delivery, Stage.PUBACK if delivery.qos == 1 else Stage.PUBREC)
                packets.append(_publish(delivery, message, packet_id, False, now_ns))
                room -= 1
            else:
                packets.append(_publish(delivery, message, 0, False, now_ns))
                settled.append(token)
        return packets, [token for token in settled if token != NO_TOKEN]

    def _packet_id(self) -> int:
        """One that is not in use [MQTT-2.2.1-4]. The window is smaller than their number, so there is one."""
        packet_id = self._next_packet_id
        while packet_id in self.in_flight:
            packet_id = packet_id % PACKET_ID_MAX + 1
        self._next_packet_id = packet_id % PACKET_ID_MAX + 1
        return packet_id

    @property
    def next_packet_id(self) -> int:
        return self._next_packet_id

    def puback(self, packet_id: int, reason: int = 0) -> int | None:
        """The token that is settled, whatever the reason; None if this answers nothing we sent.

        A PUBACK with a reason of 0x80 and up is final too [MQTT-4.4.0-2].
        """
        found = self.in_flight.get(packet_id)
        if found is None or found.stage is not Stage.PUBACK:
            return None
        return self._settle(packet_id, found)

    def pubrec(self, packet_id: int, reason: int = 0) -> tuple[Pubrel | None, int | None]:
        """The PUBREL to send, and the token if a refusal has settled it.

        Unknown identifiers get a PUBREL with 0x92, so that the client lets go of them;
        a second PUBREC gets a second PUBREL.
        """
        found = self.in_flight.get(packet_id)
        if found is None or found.stage is Stage.PUBACK:
            if reason >= 0x80:
                return None, None
            return Pubrel(packet_id, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND), None
        if reason >= 0x80:
            return None, self._settle(packet_id, found)
        self._has_answered(found)
        found.stage = Stage.PUBCOMP
        self.in_flight[packet_id] = self.in_flight.pop(packet_id)
        return Pubrel(packet_id), None

    def pubcomp(self, packet_id: int, reason: int = 0) -> int | None:
        """The token that is settled, whatever the reason; None if this answers nothing we sent."""
        found = self.in_flight.get(packet_id)
        if found is None or found.stage is not Stage.PUBCOMP:
            return None
        return self._settle(packet_id, found)

    def let_go(self, packet_id: int) -> int | None:
        """The PUBLISH could not be sent (too large for this client): settled, as if it had been answered
        [MQTT-3.1.2-25]."""
        found = self.in_flight.get(packet_id)
        return None if found is None else self._settle(packet_id, found)

    def _settle(self, packet_id: int, found: InFlight) -> int | None:
        self._has_answered(found)
        del self.in_flight[packet_id]
        token = found.delivery.token
        return None if token == NO_TOKEN else token

    def _has_answered(self, found: InFlight) -> None:
        """An answer to what this connection has not even repeated counts all the same."""
        if not found.sent:
            found.sent = True
            self._unsent -= 1

    # ---- connections come and go ----

    def reconnect(
        self, now_ns: int, receive_maximum: int = PACKET_ID_MAX, load: Load | None = None
    ) -> tuple[list[Publish | Pubrel], list[int]]:
        """The session has a connection again (or for the first time): what must be repeated, in order.

        PUBLISH with DUP [MQTT-3.3.1-1] or PUBREL, with their old identifiers
        [MQTT-4.4.0-1], and tokens as from `take`. Call it once, after CONNACK. When the
        client's Receive Maximum has become smaller, the rest follows from `take` as it answers.
        """
        self._disconnected_at = None
        self._window = min(self._window_max, receive_maximum)
        for found in self.in_flight.values():
            found.sent = False
        self._unsent = len(self.in_flight)
        packets: list[Publish | Pubrel] = []
        settled: list[int] = []
        self._repeat(now_ns, load, packets, settled)
        return packets, settled

    def _repeat(
        self, now_ns: int, load: Load | None, packets: list[Publish | Pubrel], settled: list[int]
    ) -> None:
        room = self._window - (len(self.in_flight) - self._unsent)
        for packet_id, found in list(self.in_flight.items()):
            if found.sent:
                continue
            delivery = found.delivery
            if found.stage is Stage.PUBCOMP:
                packets.append(Pubrel(packet_id))
            elif room <= 0:
                continue
            else:
                message = delivery.message
                if message is None and load is not None:
                    message = load(delivery.token)
                if message is None:
                    # Its record is gone (retention): there is nothing left to repeat.
                    if (token := self._settle(packet_id, found)) is not None:
                        settled.append(token)
                    continue
                packets.append(_publish(delivery, message, packet_id, True, now_ns))
            room -= 1
            self._has_answered(found)

    def disconnect(self, now: float) -> None:
        """The connection is gone; the clocks of the session and of its will start."""
        self._disconnected_at = now

    def ends_at(self) -> float | None:
        """When the session is over, on the clock of `disconnect`; None for never or while connected."""
        if self._disconnected_at is None or self.expiry_interval_s == EXPIRY_NEVER_S:
            return None
        return self._disconnected_at + self.expiry_interval_s

    def will_due_at(self) -> float | None:
        """When to publish the will: after its delay or when the session ends, whichever is first
        (v5 section 3.1.3.2.2). None without a will or while connected."""
        if self._disconnected_at is None or self.will is None:
            return None
        properties = self.will.properties
        delay_s = properties.will_delay_interval_s or 0 if properties is not None else 0
        return self._disconnected_at + min(delay_s, self.expiry_interval_s)


def _expired(message: Message, now_ns: int) -> bool:
    properties = message.properties
    if properties is None or properties.message_expiry_interval_s is None:
        return False
    return now_ns - message.received_ns > properties.message_expiry_interval_s * 1_000_000_000


def _publish(delivery: Delivery, message: Message, packet_id: int, dup: bool, now_ns: int) -> Publish:
    properties = message.properties
    if properties is not None and properties.message_expiry_interval_s is not None:
        # What is left of it [MQTT-3.3.2-6]. A clock that was set back must not lengthen a life.
        waited_s = max(0, now_ns - message.received_ns) // 1_000_000_000
        left_s = max(0, properties.message_expiry_interval_s - waited_s)
        properties = msgspec.structs.replace(properties, message_expiry_interval_s=left_s)
    if delivery.subscription_identifiers:  # [MQTT-3.3.4-3]
        properties = msgspec.structs.replace(
            properties or Properties(), subscription_identifiers=delivery.subscription_identifiers
        )
    return Publish(message.topic, message.payload, delivery.qos, delivery.retain, dup, packet_id, properties)
