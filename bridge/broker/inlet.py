"""PUBLISH from a device → the logs and the subscribers: the hot path of the house.

What depends only on the topic is decided once and kept: which routes want it,
who subscribed to it. One read is then one stretch of plain code over its packets,
one `extend` of the log, and one receipt for all the acknowledgements.

What a device may not publish is refused where MQTT 5 has a word for it; MQTT 3 has
none, so there it is acknowledged, dropped and counted.

A PUBLISH that nobody wants is answered without being stored. One that the store
cannot take is not answered at all: the link is closed and the device sends it
again; with QoS 0 it is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from bridge.broker.audience import Audience, Run, runs_of, size_of
from bridge.broker.link import Link
from bridge.broker.stored import DOOR, IN_DOWNLINK, IN_UPLINK, encode
from bridge.errors import MalformedPacket, StoreError, StoreFull
from bridge.message import Message, Properties
from bridge.mqtt.packet import Packet, Puback, Publish, Pubrec, Subscription
from bridge.mqtt.reason import ReasonCode
from bridge.mqtt.session import Arrival
from bridge.policy.access import ANONYMOUS, Identity
from bridge.policy.account import Account, Reason, decode_tally
from bridge.policy.command import ANSWER_TOPICS, COMMAND_TOPICS
from bridge.policy.route import Route
from bridge.policy.subscriptions import Matches
from bridge.store.note import Note

if TYPE_CHECKING:
    from bridge.broker.broker import Broker
    from bridge.broker.subscriber import Subscriber

__all__ = ["Decision", "Inlet"]

DECISIONS_MAX: Final = 20_000  # topics whose decision is kept; beyond, all are forgotten and made anew
ENTRY_BYTES: Final = 64  # at most: header of a record, and what MessagePack adds to a message
READ_BYTES: Final = 256 * 1024  # at most: what of a message came with the read before
_RESERVED: Final = ("$SYS", "$share/", COMMAND_TOPICS)
PROPERTIES_BYTES: Final = 256  # at most: the names of MQTT 5 properties beside their values


class Decision:
    """What is known of a topic: its audience in the cloud and its subscribers here; None for nobody.

    `reserved`: a topic of the house itself, which no device may publish.
    """

    __slots__ = ("audience", "matches", "reserved", "topic_bytes")

    def __init__(
        self, topic: str, audience: Audience | None, matches: Matches[Subscriber, Subscription] | None
    ) -> None:
        self.audience = audience
        self.matches = matches
        self.reserved = topic.startswith(_RESERVED)
        self.topic_bytes = len(topic.encode())


class Inlet:
    """Takes PUBLISH packets in. The counters are since the start; what each route took is in its account."""

    def __init__(
        self,
        broker: Broker,
        routes: Sequence[Route],
        accounts: Mapping[str, Account],
        make_room: Callable[[int], bool],
    ) -> None:
        self._broker = broker
        self._routes = routes
        self._accounts = [accounts[route.name] for route in routes]
        self._closing = [account for account in self._accounts if account.closes]
        self._why = ""  # why the last message was not let in
        self._make_room = make_room
        self._uplink = broker.spool.uplink
        self._committer = broker.spool.committer
        self._decisions: dict[str, Decision] = {}
        self._audiences: dict[tuple[str, ...], Audience] = {}
        self.received = 0
        self.acknowledged = 0
        self.unrouted = 0
        self.refused = 0
        self.dropped = 0
        self.denied = 0
        self.payload_bytes = 0
        for account in self._accounts:
            if (row := broker.spool.marks.get(DOOR + account.name)) is not None:
                account.open_door(decode_tally(row))
        self._committer.before_commit(self._write_doors)

    # ---- decisions -----------------------------------------------------------------

    def decide(self, topic: str) -> Decision:
        """Who wants this topic; remembered until a subscription changes."""
        decision = self._decisions.get(topic)
        if decision is None:
            names = tuple(route.name for route in self._routes if route.wants(topic))
            audience = self._audiences.get(names)
            if audience is None and names:
                accounts = [account for account in self._accounts if account.name in names]
                audience = self._audiences[names] = Audience(accounts)
            decision = Decision(topic, audience, self._receivers(topic))
            if len(self._decisions) >= DECISIONS_MAX:
                self._decisions.clear()
            self._decisions[topic] = decision
        return decision

    def _receivers(self, topic: str) -> Matches[Subscriber, Subscription] | None:
        """Who subscribed to a topic and may have it, for as long as the rules last.

        A subscription that is not allowed any more is not taken away: it counts again
        when it is.
        """
        matches = self._broker.subscriptions.match(topic)
        owners = matches.owners
        for subscriber in [one for one in owners if one.rights.limited]:
            rights = subscriber.rights
            allowed = tuple(one for one in owners[subscriber] if rights.may_subscribe(one.topic_filter))
            if allowed and rights.may_receive(topic):
                owners[subscriber] = allowed
            else:
                del owners[subscriber]
        return matches if matches or topic.startswith(ANSWER_TOPICS) else None

    def forget_decisions(self) -> None:
        """Subscriptions or rights have changed."""
        self._decisions.clear()

    # ---- the hot path --------------------------------------------------------------

    def take(self, link: Link, packets: list[Packet], read_bytes: int) -> None:
        """Act upon one read, in order. Raises MalformedPacket for the packet that is one too many."""
        broker, uplink = self._broker, self._uplink
        decisions = self._decisions.get
        publisher, user = link.publisher, link.identity.user
        subscriber = link.subscriber
        now_ns = broker.clock.now_ns()
        bound = read_bytes + len(packets) * (ENTRY_BYTES + link.entry_bytes)
        # Aliases make a short packet a long message, so there each one is asked for by itself.
        careful = link.connection.has_aliases or not (self._committer.accepting and uplink.has_room(bound))
        if self._closing and not careful:
            size = read_bytes + READ_BYTES
            careful = not all(account.has_room(len(packets), size) for account in self._closing)
        limited = link.limited
        messages: list[Message] = []
        notes: dict[int, bytes] = {}
        takers: list[Audience] = []
        runs: list[Run] = []
        packet_ids: list[int] = []
        kind: type[Puback] | type[Pubrec] | None = None
        answers: list[tuple[type[Puback] | type[Pubrec], list[int]] | Puback | Pubrec] = []
        published = payload_bytes = 0
        full: str | None = None
        try:
            for packet in packets:
                if type(packet) is not Publish:
                    if not broker.handle(link, packet):
                        break
                    continue
                published += 1
                payload_bytes += len(packet.payload)
                topic = packet.topic
                decision = decisions(topic) or self.decide(topic)
                qos = packet.qos
                stored_in = note_id = 0
                if qos == 2:
                    assert subscriber is not None
                    session = subscriber.session
                    if session.arrive(packet.packet_id) is not Arrival.NEW:
                        kind, packet_ids = Pubrec, [packet.packet_id]
                        answers.append((kind, packet_ids))
                        continue
                    if session.half_stored:
                        # Without DUP it is another message, whatever became of the one before.
                        stored_in = session.half_stored.pop(packet.packet_id, 0) if packet.dup else 0
                    if subscriber.outlives:
                        note_id = packet.packet_id
                        broker.sessions.touch(subscriber, commit=False, inbound=True)
                if (limited or packet.retain or decision.reserved) and (
                    denial := self._deny(link, packet, decision)
                ):
                    if qos:
                        answers.append(denial)
                        kind = None
                    continue
                audience = decision.audience
                if (
                    careful
                    and qos
                    and audience is None
                    and decision.matches
                    and not self._committer.accepting
                ):
                    self.refused += 1
                    full = self._why_full()
                    if qos == 2:
                        session.forget(packet.packet_id)
                    break
                message = Message(
                    topic, packet.payload, qos, packet.retain, publisher, now_ns, packet.properties, user
                )
                if audience is not None and not stored_in & IN_UPLINK:
                    if careful:
                        admitted = self._admit(audience, message, self._amount(link, decision, message))
                        if admitted is None:
                            if qos:
                                self.refused += 1
                                full = self._why
                                if qos == 2:
                                    session.forget(packet.packet_id)
                                break
                            self.dropped += 1
                            continue
                        runs.append(admitted.queue(1, size_of(message)))
                        admitted.pass_on(message)
                        if admitted.stores:
                            if note_id or admitted.names:
                                notes[len(messages)] = encode(admitted.note(note_id))
                            messages.append(message)
                    else:
                        if audience.memory:
                            audience.pass_on(message)
                        if audience.stores:
                            takers.append(audience)
                            if note_id:
                                notes[len(messages)] = encode(Note(note_id))
                            messages.append(message)
                if packet.retain:
                    broker.retain(message, link.identity)
                if decision.matches is not None:
                    if not stored_in & IN_DOWNLINK:
                        broker.delivery.distribute(message, decision, note_id)
                elif audience is None:
                    self.unrouted += not packet.retain
                    if qos == 1 and link.connection.version == 5:
                        answers.append(Puback(packet.packet_id, ReasonCode.NO_MATCHING_SUBSCRIBERS))
                        kind = None
                        continue
                if qos == 1:
                    if kind is not Puback:
                        kind, packet_ids = Puback, []
                        answers.append((kind, packet_ids))
                    packet_ids.append(packet.packet_id)
                elif qos:
                    if kind is not Pubrec:
                        kind, packet_ids = Pubrec, []
                        answers.append((kind, packet_ids))
                    packet_ids.append(packet.packet_id)
        except Exception:
            if type(packet) is Publish and packet.qos == 2 and subscriber is not None:
                subscriber.session.forget(packet.packet_id)  # else its next copy would not be stored
            raise
        finally:
            self.received += published
            self.payload_bytes += payload_bytes
            if messages:
                if not careful:
                    uplink.reserve(bound)
                    runs = runs_of(takers, messages)
                uplink.extend(messages, notes)
            if answers or runs:
                receipt = link.receipt()
                receipt.answers += answers
                receipt.runs += runs
                link.hold(receipt, read_bytes)
        if full is not None:
            link.refusing = True
            self._committer.when_durable(lambda error: link.close(ReasonCode.QUOTA_EXCEEDED, full))

    def _deny(
        self, link: Link, packet: Publish, decision: Decision
    ) -> tuple[type[Puback] | type[Pubrec], list[int]] | Puback | Pubrec | None:
        """What to answer instead of taking this PUBLISH; None when nothing is against it.

        Raises MalformedPacket for what CONNACK has said that it is not to be sent
        [MQTT-3.2.2-11], [MQTT-3.2.2-14].
        """
        if packet.qos > link.limits.maximum_qos:
            raise MalformedPacket(
                f"PUBLISH with QoS {packet.qos}, {link.limits.maximum_qos} is the most here",
                ReasonCode.QOS_NOT_SUPPORTED,
            )
        if packet.retain and not link.limits.retain_available:
            raise MalformedPacket("PUBLISH to be retained", ReasonCode.RETAIN_NOT_SUPPORTED)
        version5 = link.connection.version == 5
        if decision.reserved or not link.rights.may_publish(packet.topic):
            reason, text = ReasonCode.NOT_AUTHORIZED, "not allowed to publish this topic"
        elif packet.retain and version5 and packet.qos and not self._broker.retained.has_room(packet):
            reason, text = ReasonCode.QUOTA_EXCEEDED, "too much is retained already"
        else:
            return None
        self.denied += 1
        kind = Puback if packet.qos < 2 else Pubrec
        if not version5:
            return kind, [packet.packet_id]
        if packet.qos == 2 and link.subscriber is not None:
            link.subscriber.session.forget(packet.packet_id)
        return kind(packet.packet_id, reason, Properties(reason_string=text))

    def _amount(self, link: Link, decision: Decision, message: Message) -> int:
        """How many bytes the message takes in the log, at most."""
        properties = len(msgspec.msgpack.encode(message.properties)) if message.properties else 0
        return ENTRY_BYTES + link.entry_bytes + decision.topic_bytes + len(message.payload) + properties

    def _admit(self, audience: Audience, message: Message, amount: int) -> Audience | None:
        """Who gets this message now and who lets it go; None where it may not be taken: `_why` says why.

        Where it is stored for somebody, its room in the log is reserved.
        """
        gone: dict[Account, Reason] = {}
        size = size_of(message) if audience.sized else 0
        for account in audience.closing:
            if not account.admits(size):
                # QoS 0 nobody sends again, so there is nothing to be refused.
                if account.when_full == "refuse" and message.qos:
                    self._why = f"route {account.name} is at its bound, {account.bound}; send again later"
                    return None
                gone[account] = "bound_newest"
        left = [one for one in audience.accounts if one not in gone and one.pass_on is None]
        on_disk = left or any(one.pass_on is None for one in gone)
        if on_disk and not (self._committer.accepting and (not left or self._make_room(amount))):
            if not self._only_full() or any(account.when_full != "drop_newest" for account in left):
                self._why = self._why_full()
                return None
            gone |= dict.fromkeys(left, "full_newest")
        return audience.without(gone) if gone else audience

    def _write_doors(self) -> None:
        """What nobody stores is written down by the commit that its PUBACK waits for."""
        for account in self._accounts:
            if account.door_changed:
                self._broker.spool.marks.put(DOOR + account.name, account.door_row())

    def _only_full(self) -> bool:
        """Whether what keeps messages out is want of room: a failing disk is no reason to drop any."""
        return self._committer.accepting or isinstance(self._committer.fault, StoreFull)

    def _why_full(self) -> str:
        fault = self._committer.fault
        return str(fault if fault is not None else StoreFull("the store is full; send again later"))

    # ---- messages of the house itself ----------------------------------------------

    def publish(self, message: Message, identity: Identity = ANONYMOUS) -> None:
        """A message that no link waits for, such as a will: nobody asks here whether it is allowed.

        Dropped and counted where it cannot be stored.
        """
        decision = self.decide(message.topic)
        audience = decision.audience
        if audience is not None:
            admitted = self.admit(audience, message)
            if admitted is None:
                self.dropped += 1
            else:
                self.send_up(admitted, message)
        if message.retain:
            self._broker.retain(message, identity)
        self._broker.delivery.distribute(message, decision)

    def admit(self, audience: Audience, message: Message) -> Audience | None:
        """For whom there is room for a message of the house; None: for nobody, and it is to be kept back."""
        return self._admit(audience, message, len(msgspec.msgpack.encode(message)) + ENTRY_BYTES)

    def send_up(self, admitted: Audience, message: Message) -> None:
        """Append a message for an audience that `admit` has just given, and count it with the commit."""
        if admitted.stores:
            self._uplink.append(message, encode(admitted.note(0)) if admitted.names else b"")
        admitted.pass_on(message)
        run = admitted.queue(1, size_of(message))
        self._committer.when_durable(partial(self._stored, run))

    def _stored(self, run: Run, error: StoreError | None) -> None:
        audience, messages, size = run
        audience.settle(messages, size, stored=error is None)
        self.dropped += error is not None
