"""QoS in both directions. A session outlives its connections; it belongs to one Client Identifier.

Towards the client, a delivery walks

    offered → queue → in flight ─ QoS 1 ─ PUBACK ──────────────────────▶ settled
                                └ QoS 2 ─ PUBREC → PUBREL → PUBCOMP ──▶ settled

and is known to the caller by the `token` it came with, an integer of the caller's
(a position in the log, say). A queued delivery need not hold its message: `take`
fetches it by token when there is room in the window, so that what waits for a
sleeping device is a list of integers.

Tokens rise from delivery to delivery; `taken` is the last one that left the queue. So
`taken`, `in_flight` and `next_packet_id` are all that a restart has to know of what was
on its way: a delivery up to `taken` that is not in flight is settled.

The window is the smaller of the client's Receive Maximum and our own limit. The
in-flight table keeps the order of sending, and `reconnect` repeats it in that
order [MQTT-4.4.0-1], [MQTT-4.6.0-1]; on PUBREC an entry moves to the end, because
PUBRELs follow the order of PUBRECs [MQTT-4.6.0-4].

From the client, a QoS 2 packet identifier is held from PUBLISH to PUBREL, and a
PUBLISH that repeats it is not stored again [v5 MQTT-4.3.3-10]. It has two
stages, because PUBREC means *on disk* and nothing less; and a third after a crash
in the middle of a commit: `half_stored` says where the message lies already.

A session decides and remembers; it does not write, wait, or look at a clock.
`now` is in seconds and `now_ns` in nanoseconds since 1970, as `Message.received_ns` is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable
from enum import Enum
from typing import Final, TypeAlias

from bridge.errors import MalformedPacket
from bridge.message import Jumps, Message
from bridge.mqtt.delivery import NO_TOKEN, Delivery, Ending, InFlight, Stage, Watch, expired, publish_of
from bridge.mqtt.packet import Pubcomp, Publish, Pubrel, Subscription, Will
from bridge.mqtt.reason import ReasonCode

__all__ = [
    "EXPIRY_NEVER_S",
    "NO_TOKEN",
    "Admit",
    "Arrival",
    "Delivery",
    "InFlight",
    "Load",
    "Session",
    "Stage",
    "expired",
]

EXPIRY_NEVER_S: Final = 0xFFFF_FFFF
PACKET_ID_MAX: Final = 65_535

Load: TypeAlias = Callable[[int], Message | None]
Admit: TypeAlias = Callable[[str], bool]


class Arrival(Enum):
    """What to do with a QoS 2 PUBLISH."""

    NEW = "store it, and answer PUBREC when it is on disk"
    STORING = "do not store it again; its first copy is on the way to the disk: PUBREC after the next commit"
    STORED = "answer PUBREC now"


class Session:
    """What is kept for one Client Identifier. The plain attributes are the caller's to read and set.

    `subscriptions` are by Topic Filter. The session ends `expiry_interval_s` after its
    connection (0xFFFFFFFF: never; 3.1.1 with Clean Session 0 is the same). `admit` says
    whether the client may (still) receive a topic; None: everything. `watched` has, by
    token, who is to be told how a delivery ends. The bounds may be changed before `reconnect`.
    """

    __slots__ = (
        "_disconnected_at",
        "_queue",
        "_unsent",
        "_window",
        "admit",
        "bytes_max",
        "client_id",
        "expiry_interval_s",
        "half_stored",
        "in_flight",
        "inbound",
        "inbound_max",
        "jumps",
        "next_packet_id",
        "queue_max",
        "queued_bytes",
        "subscriptions",
        "taken",
        "watched",
        "will",
        "window_max",
    )

    def __init__(
        self,
        client_id: str,
        expiry_interval_s: int = 0,
        window_max: int = 20,
        queue_max: int = 1_000,
        bytes_max: int = 16 * 1024 * 1024,
        inbound_max: int = 1_000,
        next_packet_id: int = 1,
    ) -> None:
        """`window_max` messages in flight to the client; `queue_max` with those behind them, which
        together have `bytes_max` bytes; `inbound_max` open QoS 2 exchanges from it.
        """
        assert 1 <= window_max <= PACKET_ID_MAX, "there must be a free packet identifier"
        self.client_id = client_id
        self.expiry_interval_s = expiry_interval_s
        self.will: Will | None = None
        self.jumps: Jumps = ()  # of the clock that `now_ns` is read from
        self.subscriptions: dict[str, Subscription] = {}
        self.admit: Admit | None = None
        self.inbound_max = inbound_max
        self.inbound: dict[int, bool] = {}  # QoS 2 packet identifier → whether it is stored
        self.half_stored: dict[int, int] = {}  # the same → where it lies already, in the caller's bits
        self.in_flight: dict[int, InFlight] = {}
        self.watched: dict[int, Watch] = {}
        self.taken = NO_TOKEN
        self.queued_bytes = 0
        self._queue: deque[Delivery] = deque()
        self.queue_max = queue_max
        self.bytes_max = bytes_max
        self.window_max = window_max
        self._window = window_max
        self._unsent = 0  # in flight, and not repeated yet on this connection
        self.next_packet_id = next_packet_id
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
        """How many more `offer` would take, as far as their number goes."""
        return self.queue_max - len(self._queue) - len(self.in_flight)

    def offer(
        self,
        token: int,
        qos: int,
        retain: bool = False,
        subscription_identifiers: tuple[int, ...] = (),
        message: Message | None = None,
        size: int = 0,
        share: str = "",
    ) -> bool:
        """Queue one delivery. False when there is no room for it: nothing was taken.

        `qos` is the smaller of the message's and the subscription's [MQTT-3.8.4-8]. One
        that is larger than all the room is taken where it waits alone.
        """
        queue = self._queue
        if len(queue) + len(self.in_flight) >= self.queue_max:
            return False
        if queue and self.queued_bytes + size > self.bytes_max:
            return False
        queue.append(Delivery(token, qos, retain, subscription_identifiers, message, size, share))
        self.queued_bytes += size
        return True

    def drop_before(self, token: int) -> int:
        """Forget what is queued under tokens before `token`, and say how much that was.

        Their messages are gone for good; without this they would keep their places, and
        a full queue stay full until the client comes. Deliveries in memory stay.
        """
        return self._drop(lambda each: NO_TOKEN < each.token < token, Ending.PUSHED_OUT)

    def drop_expired(self, tokens: Container[int]) -> int:
        """Forget what is queued under these tokens: its time is over. Say how much that was."""
        return self._drop(lambda each: each.token in tokens, Ending.EXPIRED)

    def _drop(self, unwanted: Callable[[Delivery], bool], ending: Ending) -> int:
        queue, self._queue = self._queue, deque()
        dropped: list[Delivery] = []
        for each in queue:
            (dropped if unwanted(each) else self._queue).append(each)
        self.queued_bytes = sum(each.size for each in self._queue)
        for each in dropped:
            self.end(each.token, ending)
        return len(dropped)

    def end(self, token: int, ending: Ending, reason: int = 0) -> None:
        """Say how a delivery ended, if anybody asked; after that nobody is told again."""
        if (watch := self.watched.pop(token, None)) is not None:
            watch(ending, reason)

    def shared(self) -> list[Delivery]:
        """What of shared subscriptions is not done: others get it when the session ends, but not
        what was begun with QoS 2 [MQTT-4.8.2-5]."""
        begun = (found.delivery for found in self.in_flight.values() if found.stage is Stage.PUBACK)
        return [each for each in (*begun, *self._queue) if each.share]

    def oldest(self) -> int | None:
        """The lowest token that is not settled, or None when all are."""
        tokens = [found.delivery.token for found in self.in_flight.values()]
        tokens += [next((each.token for each in self._queue if each.token > NO_TOKEN), NO_TOKEN)]
        return min((token for token in tokens if token > NO_TOKEN), default=None)

    def take(self, now_ns: int, load: Load | None = None) -> list[Publish | Pubrel]:
        """What may be sent now, in order. What is left of a repetition comes first.

        Settled without an answer are QoS 0 deliveries, messages that have expired
        [MQTT-3.3.2-5], those that `admit` forbids by now, and those that `load` does not
        find any more.
        """
        packets: list[Publish | Pubrel] = []
        if self._unsent:
            self._repeat(now_ns, load, packets)
        queue, in_flight = self._queue, self.in_flight
        room = self._window - len(in_flight) if not self._unsent else 0
        while queue:
            delivery = queue[0]
            if delivery.qos and room <= 0:
                break
            queue.popleft()
            self.queued_bytes -= delivery.size
            self.taken = max(self.taken, delivery.token)
            message = self._message(delivery, load)
            if message is None or expired(message, now_ns, self.jumps):
                if delivery.qos:
                    self._packet_id()  # spent all the same: identifiers count what was queued, as elsewhere
                self.end(delivery.token, Ending.GONE if message is None else Ending.EXPIRED)
                continue
            packet_id = 0
            if delivery.qos:
                packet_id = self._packet_id()
                in_flight[packet_id] = InFlight(delivery, Stage.PUBACK if delivery.qos == 1 else Stage.PUBREC)
                room -= 1
            packets.append(publish_of(delivery, message, packet_id, False, now_ns, self.jumps))
        return packets

    def _message(self, delivery: Delivery, load: Load | None) -> Message | None:
        """The message of a delivery, unless it is gone or the client may not have it any more."""
        message = delivery.message
        if message is None and load is not None:
            message = load(delivery.token)
        if message is not None and self.admit is not None and not self.admit(message.topic):
            return None
        return message

    def _packet_id(self) -> int:
        """One that is not in use [MQTT-2.2.1-4]. The window is smaller than their number, so there is one."""
        packet_id = self.next_packet_id
        while packet_id in self.in_flight:
            packet_id = packet_id % PACKET_ID_MAX + 1
        self.next_packet_id = packet_id % PACKET_ID_MAX + 1
        return packet_id

    def puback(self, packet_id: int, reason: int = 0) -> bool:
        """Whether this settles a delivery, whatever the reason; False if it answers nothing we sent.

        A PUBACK with a reason of 0x80 and up is final too [MQTT-4.4.0-2].
        """
        found = self.in_flight.get(packet_id)
        if found is None or found.stage is not Stage.PUBACK:
            return False
        self._settle(packet_id, found, Ending.REFUSED if reason >= 0x80 else Ending.ANSWERED, reason)
        return True

    def pubrec(self, packet_id: int, reason: int = 0) -> Pubrel | None:
        """The PUBREL to send; None where a refusal has settled the delivery, or answers nothing.

        Unknown identifiers get a PUBREL with 0x92, so that the client lets go of them;
        a second PUBREC gets a second PUBREL.
        """
        found = self.in_flight.get(packet_id)
        if found is None or found.stage is Stage.PUBACK:
            return None if reason >= 0x80 else Pubrel(packet_id, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND)
        if reason >= 0x80:
            self._settle(packet_id, found, Ending.REFUSED, reason)
            return None
        self._has_answered(found)
        found.stage = Stage.PUBCOMP
        self.in_flight[packet_id] = self.in_flight.pop(packet_id)
        return Pubrel(packet_id)

    def pubcomp(self, packet_id: int, reason: int = 0) -> bool:
        """Whether this settles a delivery, whatever the reason; False if it answers nothing we sent."""
        found = self.in_flight.get(packet_id)
        if found is None or found.stage is not Stage.PUBCOMP:
            return False
        self._settle(packet_id, found, Ending.ANSWERED)
        return True

    def let_go(self, packet_id: int, ending: Ending = Ending.TOO_LARGE) -> None:
        """The PUBLISH could not be sent (too large for this client) or is not to be sent again: settled,
        as if it had been answered [MQTT-3.1.2-25]."""
        if (found := self.in_flight.get(packet_id)) is not None:
            self._settle(packet_id, found, ending)

    def _settle(self, packet_id: int, found: InFlight, ending: Ending, reason: int = 0) -> None:
        self._has_answered(found)
        del self.in_flight[packet_id]
        if self.watched:
            self.end(found.delivery.token, ending, reason)

    def _has_answered(self, found: InFlight) -> None:
        """An answer to what this connection has not even repeated counts all the same."""
        if not found.sent:
            found.sent = True
            self._unsent -= 1

    # ---- connections come and go ----

    def reconnect(
        self, now_ns: int, receive_maximum: int = PACKET_ID_MAX, load: Load | None = None
    ) -> list[Publish | Pubrel]:
        """The session has a connection again (or for the first time): what must be repeated, in order.

        PUBLISH with DUP [MQTT-3.3.1-1] or PUBREL, with their old identifiers
        [MQTT-4.4.0-1]. Call it once, after CONNACK. When the client's Receive Maximum has
        become smaller, the rest follows from `take` as it answers.
        """
        self._disconnected_at = None
        self._window = min(self.window_max, receive_maximum)
        for found in self.in_flight.values():
            found.sent = False
        self._unsent = len(self.in_flight)
        packets: list[Publish | Pubrel] = []
        self._repeat(now_ns, load, packets)
        return packets

    def _repeat(self, now_ns: int, load: Load | None, packets: list[Publish | Pubrel]) -> None:
        room = self._window - (len(self.in_flight) - self._unsent)
        for packet_id, found in list(self.in_flight.items()):
            if found.sent:
                continue
            if found.stage is Stage.PUBCOMP:
                packets.append(Pubrel(packet_id))
            elif room <= 0:
                continue
            else:
                message = self._message(found.delivery, load)
                if message is None:
                    # Its record is gone, or the right to it: there is nothing left to repeat.
                    self._settle(packet_id, found, Ending.GONE)
                    continue
                if found.delivery.token in self.watched and expired(message, now_ns, self.jumps):
                    # Whoever watches was promised that nothing comes late, and is told that it did not.
                    self._settle(packet_id, found, Ending.EXPIRED)
                    continue
                packets.append(publish_of(found.delivery, message, packet_id, True, now_ns, self.jumps))
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
