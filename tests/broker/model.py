"""What an MQTT server owes to whom: a model to be read, not to be run fast.

The test tells the model what the devices do; the model says what the server has to
answer (`Connection.answers`), and keeps for each session what it is owed. Then the
test hands in what the server really sent, packet by packet (`receive`), and the
model objects to what nobody is owed, what comes in the wrong order, twice, or too
late. When all is quiet it objects to what should have come and has not (`quiet`).

Where the specification leaves a choice, the model leaves it too: the order of
messages on different topics, who of a group gets a message, packet identifiers,
whether 0x10 is said when nobody listens. Where the house has made a choice and
promises it, the model is as strict as the promise: one delivery for overlapping
filters, and members of a group that are connected before those that are not.

It knows nothing of logs, commits, windows of the store, or bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, permutations
from typing import TypeAlias

from bridge.mqtt.packet import (
    PINGRESP,
    Connack,
    Disconnect,
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscription,
    Unsuback,
)
from bridge.mqtt.reason import ReasonCode

__all__ = ["NEVER", "Connection", "Difference", "Model", "Will", "matches", "split_share"]

NEVER = 0xFFFF_FFFF

Answer: TypeAlias = tuple[Packet, ...]  # any one of these
Taker: TypeAlias = "tuple[Session, int, bool]"  # who got a message for a group, with which QoS and RETAIN


class Difference(AssertionError):
    """The server did what the model does not allow."""


@dataclass(frozen=True)
class Message:
    """`number` counts publications: a smaller one was published before."""

    number: int
    publisher: str
    topic: str
    payload: bytes
    qos: int
    retain: bool
    expiry_s: int | None
    published_at: float

    def expired(self, now: float) -> bool:
        return self.expiry_s is not None and now - self.published_at > self.expiry_s


@dataclass(frozen=True)
class Will:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    delay_s: int = 0


@dataclass(eq=False)
class Delivery:
    """One message for one session. `must`: it has to come; otherwise it may."""

    message: Message
    qos: int
    retain: bool
    identifiers: tuple[int, ...] = ()
    replayed: bool = False  # it is the retained message of a new subscription
    must: bool = True
    loose: bool = False  # with whatever QoS, RETAIN and identifiers
    group: str = ""  # the shared subscription that it is for
    # Once it was sent with QoS 1 or 2:
    packet_id: int = 0
    sent_on: Connection | None = field(default=None, repr=False)
    released: bool = False  # PUBREC was received, PUBREL sent
    turn: int = 0  # counts PUBLISH and PUBREL packets: repetitions keep their order

    def order(self) -> tuple[str, str, int, int]:
        """Messages alike in this must keep their order [v5 MQTT-4.6.0-5]."""
        return self.message.publisher, self.message.topic, self.message.qos, self.qos

    def looks_like(self, packet: Publish, version: int) -> bool:
        properties = packet.properties
        identifiers = properties.subscription_identifiers if properties is not None else ()
        if (packet.topic, packet.payload) != (self.message.topic, self.message.payload):
            return False
        if self.loose:
            return 0 < packet.qos <= self.message.qos
        return (
            packet.qos == self.qos
            and packet.retain == self.retain
            and (version < 5 or sorted(identifiers) == sorted(self.identifiers))
        )


@dataclass(eq=False)
class Choice:
    """A message for one of a group. `candidates` are those who may get it, by session."""

    message: Message
    group: str
    candidates: dict[Session, Delivery]
    must: bool = True


@dataclass(eq=False)
class Session:
    client_id: str
    expiry_s: int
    kept: bool = False  # it was to outlive a connection at least once, so the disk knows of it
    connection: Connection | None = field(default=None, repr=False)
    will: Will | None = None
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    owed: list[Delivery] = field(default_factory=list)  # not sent yet
    in_flight: list[Delivery] = field(default_factory=list)  # in the order of sending; then of PUBREC
    answered: list[Delivery] = field(default_factory=list)  # lately: a crash may forget that
    incoming: set[int] = field(default_factory=set)  # QoS 2 packet identifiers not released
    changed: bool = False  # a subscription was replaced by another one or removed
    will_at: float | None = None
    ends_at: float | None = None

    def sent(self, packet_id: int) -> Delivery | None:
        return next((each for each in self.in_flight if each.packet_id == packet_id), None)

    def to_repeat(self) -> list[Delivery]:
        """What the present connection has not seen yet."""
        return [each for each in self.in_flight if each.sent_on is not self.connection]

    def window_is_full(self) -> bool:
        assert self.connection is not None
        return len(self.in_flight) - len(self.to_repeat()) >= self.connection.window


@dataclass(eq=False)
class Connection:
    """`answers`: what the server has to say next, in this order, beside PUBLISH. `closed`: then it closes."""

    session: Session = field(repr=False)
    version: int
    window: int
    keep_alive_s: int
    heard_at: float
    answers: list[Answer] = field(default_factory=list)
    closed: bool = False

    def owe(self, *any_of: Packet) -> None:
        self.answers.append(any_of)


def matches(topic_filter: str, topic: str) -> bool:
    """Section 4.7, level by level."""
    if topic[0] == "$" and topic_filter[0] in "+#":
        return False

    def from_here(wanted: list[str], have: list[str]) -> bool:
        if wanted[:1] == ["#"]:
            return True
        if not wanted or not have:
            return wanted == have
        return wanted[0] in ("+", have[0]) and from_here(wanted[1:], have[1:])

    return from_here(topic_filter.split("/"), topic.split("/"))


def split_share(topic_filter: str) -> tuple[str | None, str]:
    if not topic_filter.startswith("$share/"):
        return None, topic_filter
    _, group, rest = topic_filter.split("/", 2)
    return group, rest


class Model:
    """All sessions, and the last word on each topic. `now` is in seconds and only `pass_time` moves it."""

    def __init__(self, now: float, window_max: int) -> None:
        self.now = now
        self.window_max = window_max
        self.sessions: dict[str, Session] = {}
        self.retained: dict[str, Message] = {}
        self.choices: dict[int, list[Choice]] = {}  # by number of the message
        self._taken: dict[int, list[Taker]] = {}  # who got it for one of these, in their order
        self._number = 0
        self._turn = 0
        self._all_leave: tuple[Connection, ...] = ()  # they are being closed together, in whatever order

    # ---- CONNECT -------------------------------------------------------------------

    def connect(
        self,
        client_id: str,
        version: int,
        clean: bool,
        expiry_s: int,
        keep_alive_s: int = 0,
        receive_maximum: int | None = None,
        will: Will | None = None,
    ) -> Connection:
        session = self.sessions.get(client_id)
        if session is not None and session.connection is not None:  # [MQTT-3.1.4-3]
            self._close(session.connection, ReasonCode.SESSION_TAKEN_OVER)
            session = self.sessions.get(client_id)
        if session is not None and clean:
            self._end(session)
            session = None
        present = session is not None
        if session is None:
            session = self.sessions[client_id] = Session(client_id, expiry_s)
        session.expiry_s, session.will = expiry_s, will
        session.kept |= expiry_s > 0
        session.will_at = session.ends_at = None  # a will that waits is forgotten [MQTT-3.1.3-9]
        window = min(self.window_max, receive_maximum or self.window_max)
        session.connection = Connection(session, version, window, keep_alive_s, self.now)
        session.connection.owe(Connack(present))
        return session.connection

    # ---- what a connected device sends ---------------------------------------------

    def subscribe(self, connection: Connection, packet_id: int, subscriptions: list[Subscription]) -> None:
        session = connection.session
        self._hear(connection)
        for new in subscriptions:
            known = new.topic_filter in session.subscriptions
            session.changed |= known and session.subscriptions[new.topic_filter] != new
            session.subscriptions[new.topic_filter] = new
            group, _ = split_share(new.topic_filter)
            if group is None and (new.retain_handling == 0 or (new.retain_handling == 1 and not known)):
                self._replay(session, new)
        connection.owe(Suback(packet_id, tuple(each.qos for each in subscriptions)))

    def _replay(self, session: Session, new: Subscription) -> None:
        for message in self.retained.values():
            if matches(new.topic_filter, message.topic) and not message.expired(self.now):
                identifiers = (new.identifier,) if new.identifier else ()
                session.owed.append(
                    Delivery(message, min(message.qos, new.qos), True, identifiers, replayed=True)
                )

    def unsubscribe(self, connection: Connection, packet_id: int, filters: list[str]) -> None:
        session = connection.session
        self._hear(connection)
        reasons = []
        for topic_filter in filters:
            known = session.subscriptions.pop(topic_filter, None) is not None
            session.changed |= known
            reasons.append(0 if known else ReasonCode.NO_SUBSCRIPTION_EXISTED)
            self._leave_group(session, topic_filter)
        for delivery in session.owed:
            # What waits may still come or not; only what was begun has to be completed [MQTT-3.10.4-3].
            delivery.must &= any(
                matches(each, delivery.message.topic) for each in session.subscriptions if each[0] != "$"
            )
        connection.owe(Unsuback(packet_id, tuple(reasons) if connection.version == 5 else ()))

    def publish(
        self,
        connection: Connection,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        packet_id: int = 0,
        expiry_s: int | None = None,
    ) -> None:
        session = connection.session
        self._hear(connection)
        heard = any(
            matches(split_share(each)[1], topic)
            for other in self.sessions.values()
            for each in other.subscriptions
        )
        any_of = (0,) if heard or connection.version < 5 else (0, ReasonCode.NO_MATCHING_SUBSCRIBERS)
        if qos == 1:
            connection.owe(*(Puback(packet_id, reason) for reason in any_of))
        elif qos == 2:
            again = packet_id in session.incoming
            session.incoming.add(packet_id)
            connection.owe(*(Pubrec(packet_id, reason) for reason in any_of))
            if again:  # [v5 MQTT-4.3.3-10]
                return
        self._distribute(session.client_id, topic, payload, qos, retain, expiry_s)

    def release(self, connection: Connection, packet_id: int) -> None:
        """PUBREL."""
        self._hear(connection)
        incoming = connection.session.incoming
        known = packet_id in incoming
        incoming.discard(packet_id)
        unknown = 0 if known or connection.version < 5 else ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
        connection.owe(Pubcomp(packet_id, unknown))

    def acknowledge(self, connection: Connection, delivery: Delivery, refused: bool = False) -> None:
        """PUBACK, PUBREC or PUBCOMP, whichever is next; PUBREC is answered by PUBREL."""
        session = connection.session
        self._hear(connection)
        session.in_flight.remove(delivery)
        if delivery.qos == 2 and not delivery.released and not refused:
            delivery.released = True
            delivery.turn = self._next_turn()
            session.in_flight.append(delivery)  # PUBRELs follow the order of PUBRECs [MQTT-4.6.0-4]
            connection.owe(Pubrel(delivery.packet_id))
        else:
            session.answered.append(delivery)

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn

    def ping(self, connection: Connection) -> None:
        self._hear(connection)
        connection.owe(PINGRESP)

    def _hear(self, connection: Connection) -> None:
        connection.heard_at = self.now

    # ---- from one to all -----------------------------------------------------------

    def _distribute(
        self, publisher: str, topic: str, payload: bytes, qos: int, retain: bool, expiry_s: int | None = None
    ) -> None:
        self._number += 1
        message = Message(self._number, publisher, topic, payload, qos, retain, expiry_s, self.now)
        if retain and payload:
            self.retained[topic] = message
        elif retain:
            self.retained.pop(topic, None)
        groups: dict[str, dict[Session, Delivery]] = {}
        for session in self.sessions.values():
            own = []
            for topic_filter, subscription in session.subscriptions.items():
                group, rest = split_share(topic_filter)
                if not matches(rest, topic):
                    continue
                if group is None:
                    own.append(subscription)
                else:
                    groups.setdefault(topic_filter, {})[session] = _share(message, subscription)
            own = [each for each in own if not (each.no_local and publisher == session.client_id)]
            if own:
                self._give(session, _terms(message, own))
        for topic_filter, members in groups.items():
            self._choose(message, topic_filter, members)

    def _give(self, session: Session, delivery: Delivery) -> None:
        if session.connection in self._all_leave:
            delivery.must = delivery.qos > 0  # it may leave before or after
            session.owed.append(delivery)
        elif session.connection is not None or (delivery.qos and session.expiry_s):
            session.owed.append(delivery)

    def _choose(self, message: Message, group: str, members: dict[Session, Delivery]) -> None:
        online = {each: what for each, what in members.items() if each.connection is not None}
        asleep = {each: what for each, what in members.items() if each.kept and what.qos}
        if not online and not asleep:
            return
        if self._all_leave:
            choice = Choice(message, group, online | asleep, must=False)
        else:
            choice = Choice(message, group, online or asleep)
        self.choices.setdefault(message.number, []).append(choice)

    def _leave_group(self, session: Session, topic_filter: str) -> None:
        """What the member had may be lost or go to another of the group, but not to both."""
        for choice in chain(*self.choices.values()):
            if choice.group == topic_filter and session in choice.candidates:
                choice.must = False

    def _pass_on(self, session: Session) -> None:
        """What a member had that is gone for good, and what it has not answered, may go to another.

        Not what was begun with QoS 2 [MQTT-4.8.2-5].
        """
        # Also of one that it has unsubscribed from, and where something still waited for it.
        had = {each.group for each in chain(*self.choices.values()) if session in each.candidates}
        for group in {*session.subscriptions, *had}:
            members = {
                each: each.subscriptions[group]
                for each in self.sessions.values()
                if each is not session and group.startswith("$share/") and group in each.subscriptions
            }
            if not members:
                continue
            left = [each.message for each in session.in_flight if each.group == group and each.qos == 1]
            left += [
                each.message
                for each in chain(*self.choices.values())
                if each.group == group and session in each.candidates
            ]
            for message in left:
                candidates = {each: _share(message, what) for each, what in members.items()}
                choice = Choice(message, group, candidates, must=False)
                self.choices.setdefault(message.number, []).append(choice)

    # ---- connections and sessions end ----------------------------------------------

    def leave(self, connection: Connection, with_will: bool = False, expiry_s: int | None = None) -> None:
        """DISCONNECT."""
        session = connection.session
        if not with_will:
            session.will = None
        if expiry_s is not None:
            session.expiry_s = expiry_s
        self._close(connection)

    def drop(self, connection: Connection) -> None:
        """The network connection breaks."""
        self._close(connection)

    def stop(self) -> None:
        """The server is stopped: everyone is sent away."""
        online = [each.connection for each in self.sessions.values() if each.connection is not None]
        self._close_all(online, ReasonCode.SERVER_SHUTTING_DOWN)
        self._look_up_again()

    def _look_up_again(self) -> None:
        """After a restart the server knows what waits for whom by the subscriptions of now, not of then."""
        for session in self.sessions.values():
            if not session.changed:
                continue
            session.changed = False
            for delivery in session.owed:
                delivery.loose = delivery.qos > 0
                delivery.must = False
            for choice in chain(*self.choices.values()):
                if session in choice.candidates:
                    choice.candidates[session].loose = choice.candidates[session].qos > 0
                    choice.must = False

    def kill(self, now: float) -> None:
        """The server was killed, and is back now.

        Sessions that outlive their connection are what they were. Their clocks start
        now, for those who were connected. What was answered may be asked again.
        """
        self.now = now
        self._look_up_again()
        for session in list(self.sessions.values()):
            for delivery in session.answered:
                delivery.must = False
            session.in_flight = sorted(session.answered + session.in_flight, key=lambda each: each.turn)
            session.answered = []
            if session.connection is not None:
                self._fall_silent(session.connection)
            if not session.kept:
                session.will = session.will_at = None  # nobody is left who knows of it
                self._end(session)
        self._what_is_due()

    def _close_all(self, connections: list[Connection], reason: int) -> None:
        """At the same moment; nobody can say in which order."""
        self._all_leave = tuple(connections)
        self._what_is_due()
        for connection in connections:
            session = connection.session
            if session.will is not None and not min(session.will.delay_s, session.expiry_s):
                self._publish_will(session)
        self._all_leave = ()
        for connection in connections:
            self._close(connection, reason)

    def _close(self, connection: Connection, reason: int = 0) -> None:
        if reason and connection.version == 5:
            connection.owe(Disconnect(reason))
        self._fall_silent(connection)
        self._what_is_due()

    def _fall_silent(self, connection: Connection) -> None:
        """The connection is gone; the clocks of the session and of its will start."""
        session = connection.session
        connection.closed = True
        session.connection = None
        if session.will is not None:
            session.will_at = self.now + min(session.will.delay_s, session.expiry_s)
        if session.expiry_s != NEVER:
            session.ends_at = self.now + session.expiry_s

    def _what_is_due(self) -> None:
        for session in list(self.sessions.values()):
            if session.will_at is not None and session.will_at <= self.now:
                self._publish_will(session)
        for session in list(self.sessions.values()):
            if session.ends_at is not None and session.ends_at <= self.now:
                self._end(session)

    def _publish_will(self, session: Session) -> None:
        will, session.will, session.will_at = session.will, None, None
        if will is not None:
            self._distribute(session.client_id, will.topic, will.payload, will.qos, will.retain)

    def _end(self, session: Session) -> None:
        if session.will_at is not None:
            self._publish_will(session)
        for topic_filter in session.subscriptions:
            self._leave_group(session, topic_filter)
        self._pass_on(session)
        del self.sessions[session.client_id]

    def pass_time(self, now: float, looks: bool) -> None:
        """It is later now. `looks`: the server looks who was silent too long, and saves how far all are."""
        self.now = now
        if looks:
            for session in self.sessions.values():
                session.answered.clear()
        silent = [
            each.connection
            for each in self.sessions.values()
            if each.connection is not None
            and each.connection.keep_alive_s
            and now - each.connection.heard_at >= 1.5 * each.connection.keep_alive_s
        ]
        self._close_all(silent if looks else [], ReasonCode.KEEP_ALIVE_TIMEOUT)

    # ---- what the server sends -----------------------------------------------------

    def receive(self, connection: Connection, packet: Packet) -> None:
        """Raise Difference for a packet that may not come here and now."""
        session = connection.session
        if isinstance(packet, Publish):
            if connection.answers and isinstance(connection.answers[0][0], Connack):
                raise Difference(f"before CONNACK: {packet}")  # [MQTT-3.2.0-1]
            repeated = session.to_repeat() if session.connection is connection else []
            if packet.dup:
                self._receive_again(connection, packet, repeated)
            else:
                self._receive_new(connection, packet)
            return
        if isinstance(packet, Pubrel):
            repeated = [each for each in session.to_repeat() if each.released]
            while repeated and not repeated[0].must and repeated[0].packet_id != packet.packet_id:
                session.in_flight.remove(repeated.pop(0))
            if repeated and repeated[0].packet_id == packet.packet_id and not packet.reason:
                repeated[0].sent_on = connection
                return
        if not connection.answers or packet not in connection.answers[0]:
            raise Difference(f"{packet} came, but expected was {connection.answers[:1] or 'nothing'}")
        del connection.answers[0]

    def _receive_again(self, connection: Connection, packet: Publish, repeated: list[Delivery]) -> None:
        """A repetition: in the order of the first sending, with the same identifier [MQTT-4.4.0-1]."""
        session = connection.session
        waiting = [each for each in repeated if not each.released]
        while waiting and not waiting[0].must and waiting[0].packet_id != packet.packet_id:
            session.in_flight.remove(waiting.pop(0))
        first = waiting[0] if waiting else None
        # A 3.1.1 connection did not say which of two alike it was, but for the identifiers.
        version = min(connection.version, first.sent_on.version) if first and first.sent_on else 0
        if first is None or first.packet_id != packet.packet_id or not first.looks_like(packet, version):
            raise Difference(f"{packet} repeats what was not next to be repeated: {first}")
        first.sent_on = connection

    def _receive_new(self, connection: Connection, packet: Publish) -> None:
        session = connection.session
        delivery = self._find(connection, packet)
        if delivery is None:
            raise Difference(f"{packet} is not owed to {session.client_id}; owed is {session.owed}")
        self._check_expiry(delivery.message, packet, connection.version)
        if not packet.qos:
            return
        session.in_flight = [each for each in session.in_flight if each.must or each.sent_on is connection]
        if session.sent(packet.packet_id) is not None:
            raise Difference(f"{packet} has a packet identifier that is in use")
        delivery.packet_id, delivery.sent_on, delivery.turn = packet.packet_id, connection, self._next_turn()
        if delivery.loose:
            about = packet.properties
            delivery.qos, delivery.retain, delivery.loose = packet.qos, packet.retain, False
            delivery.identifiers = about.subscription_identifiers if about is not None else ()
        session.in_flight.append(delivery)
        if len(session.in_flight) > connection.window:
            raise Difference(f"{packet} exceeds the window of {connection.window}")

    def _find(self, connection: Connection, packet: Publish) -> Delivery | None:
        """The delivery that this packet makes; it is not owed any more."""
        session, version = connection.session, connection.version
        for delivery in session.owed:
            if delivery.looks_like(packet, version):
                for before in session.owed:
                    if before is delivery:
                        break
                    ordered = before.must and not before.replayed and not delivery.replayed
                    if (
                        ordered
                        and before.order() == delivery.order()
                        and not before.message.expired(self.now)
                    ):
                        raise Difference(f"{packet} overtakes {before}")
                session.owed.remove(delivery)
                return delivery
        return self._find_choice(session, packet, version)

    def _find_choice(self, session: Session, packet: Publish, version: int) -> Delivery | None:
        """The delivery, if this session may be one that was chosen, whoever the others were."""
        for number, choices in self.choices.items():
            takers = [*self._taken.get(number, ()), (session, packet.qos, packet.retain)]
            for order in permutations(choices, len(takers)):
                last = order[-1].candidates.get(session)
                if last is not None and last.looks_like(packet, version) and _could(takers, order):
                    self._taken[number] = takers
                    return last
        return None

    def _check_choices(self) -> None:
        """Raise Difference if somebody should have got a message for a group, and nobody has."""
        for number, choices in list(self.choices.items()):
            takers = self._taken.get(number, [])
            message = choices[0].message
            if len(takers) == len(choices) or message.expired(self.now):
                del self.choices[number]
                self._taken.pop(number, None)
                continue
            for order in permutations(choices, len(takers)):
                rest = [each for each in choices if each not in order]
                waiting = [each for each in rest if each.must and all(map(_ready, each.candidates))]
                if _could(takers, order) and not waiting:
                    break
            else:
                raise Difference(f"not everyone in {[each.group for each in choices]} got {message}")

    def _check_expiry(self, message: Message, packet: Publish, version: int) -> None:
        if message.expired(self.now):
            raise Difference(f"{packet} came {self.now - message.published_at} s after it was published")
        if version == 5 and message.expiry_s is not None:
            left_s = message.expiry_s - int(self.now - message.published_at)
            said_s = packet.properties.message_expiry_interval_s if packet.properties is not None else None
            if said_s != left_s:
                raise Difference(f"{packet} has {left_s} s left to live")

    def quiet(self) -> None:
        """Nothing more will come until something happens. Raise Difference if something should have."""
        for session in self.sessions.values():
            session.owed = [each for each in session.owed if not each.message.expired(self.now)]
            connection = session.connection
            if connection is None:
                self._fall_asleep(session)
                continue
            if connection.answers:
                raise Difference(f"{session.client_id} was not answered {connection.answers[0]}")
            full = session.window_is_full()
            for delivery in session.to_repeat() if not full else ():
                if delivery.must:
                    raise Difference(f"{session.client_id} did not get repeated: {delivery}")
                session.in_flight.remove(delivery)
            for delivery in session.owed:
                # Behind a full window there is a queue, in which retained messages of QoS 0 wait as well.
                if delivery.must and not (full and (delivery.qos or delivery.replayed)):
                    raise Difference(f"{session.client_id} did not get {delivery}")
        self._check_choices()

    @staticmethod
    def _fall_asleep(session: Session) -> None:
        """QoS 0 is not kept for those who are away; what was on its way to the window may be."""
        session.owed = [
            each if each.qos else replace(each, must=False)
            for each in session.owed
            if each.qos or each.replayed
        ]


def _ready(session: Session) -> bool:
    connection = session.connection
    return connection is not None and not session.window_is_full()


def _could(takers: list[Taker], choices: Sequence[Choice]) -> bool:
    """Whether each of them can have been chosen for the group beside it."""
    for (session, qos, retain), choice in zip(takers, choices, strict=True):
        delivery = choice.candidates.get(session)
        if delivery is None or not (delivery.loose or (delivery.qos, delivery.retain) == (qos, retain)):
            return False
    return True


def _share(message: Message, subscription: Subscription) -> Delivery:
    return replace(_terms(message, [subscription]), group=subscription.topic_filter)


def _terms(message: Message, subscriptions: list[Subscription]) -> Delivery:
    """Overlapping subscriptions make one delivery with the highest QoS of them [MQTT-3.3.4-2]."""
    return Delivery(
        message,
        min(message.qos, max(each.qos for each in subscriptions)),
        message.retain and any(each.retain_as_published for each in subscriptions),
        tuple(each.identifier for each in subscriptions if each.identifier),
    )
