"""From a message to the devices that subscribed to it.

    QoS 0                       through memory, to whoever is connected
    QoS 1 and 2, session that   through memory, behind the session's window
      ends with its connection
    QoS 1 and 2, session that   through the downlink log: stored with the same
      outlives it               commit, delivered when that is done

The downlink log is read once for all sessions: one pass through the filters finds
who wants an entry, and what waits for one session is a list of tokens. The work
grows with deliveries, not with sessions times entries.

What leaves for a session that outlives its connection is written down first, with
its packet identifier (`bridge.broker.stored`): one commit more, shared by all. After
a crash the same message goes out under the same identifier, so a device that has it
already can tell.

Who may not receive a topic is left out when it is decided who wants it, and asked
again when a message leaves that has waited: rules may have changed meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from bridge.broker.backfill import RETAINED_AT_ONCE, Backfill
from bridge.broker.stored import encode
from bridge.broker.subscriber import position_of, size_of, token_at
from bridge.broker.terms import Terms, choose, merge
from bridge.errors import StoreError
from bridge.message import Message, Properties
from bridge.mqtt.codec import Imprint, imprint
from bridge.mqtt.delivery import NO_TOKEN
from bridge.mqtt.packet import Publish, Pubrel, Subscription
from bridge.mqtt.reason import ReasonCode
from bridge.policy.command import ANSWER_TOPICS
from bridge.store import Entry
from bridge.store.log import NOTE_BYTES_MAX
from bridge.store.note import Note, decode_note

if TYPE_CHECKING:
    from bridge.broker.broker import Broker
    from bridge.broker.inlet import Decision
    from bridge.broker.link import Link
    from bridge.broker.subscriber import Subscriber
    from bridge.policy.command import Command

__all__ = ["Delivery"]

log = logging.getLogger(__name__)

_ONE_RECORD: Final = 4096  # bytes to read for one record before it is known to be longer
_REPORT_EVERY_S: Final = 60.0

Chosen = list[tuple[str, str]]  # for a shared subscription: Client Identifier, filter with $share


class Delivery:
    """Hands messages to subscribers. `delivered` and `dropped` count since the start."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._log = broker.spool.downlink
        self._position = self._log.durable
        self.delivered = 0
        self.payload_bytes = 0
        self.dropped = 0
        self._reported = 0
        self._reported_at = 0.0
        self.backfill = Backfill(broker, self)

    # ---- in ------------------------------------------------------------------------

    def distribute(
        self, message: Message, decision: Decision, packet_id: int = 0, command: Command | None = None
    ) -> None:
        """Give one new message to everyone who subscribed, by way of memory or the downlink log.

        `packet_id` is that of a QoS 2 PUBLISH whose repetition must be known after a crash;
        `command` wants to know what becomes of it.
        """
        matched = decision.matches
        if matched is None:
            return
        if message.topic.startswith(ANSWER_TOPICS):
            self._broker.commands.answered(message)
            return
        imprints: dict[int, Imprint] = {}
        logged = False
        for subscriber, subscriptions in matched.owners.items():
            logged |= self._give(message, subscriber, subscriptions, imprints, "", command)
        chosen: Chosen = []
        for group in matched.groups:
            picked = choose(group, message)
            if picked is None:
                continue
            subscriber, subscription = picked
            if self._give(message, subscriber, (subscription,), imprints, subscription.topic_filter, command):
                chosen.append((subscriber.session.client_id, subscription.topic_filter))
        if logged or chosen:
            about = self._broker.commands.logged(command) if command is not None else None
            self.store(message, self._note(packet_id, chosen, about))

    def _note(self, packet_id: int, chosen: Chosen, about: tuple[str, str, int] | None) -> bytes:
        """What has to stand beside the message; of those who were chosen, as many as there is room for."""
        if not chosen and not packet_id and about is None:
            return b""
        note = encode(Note(packet_id, chosen, command=about))
        while len(note) > NOTE_BYTES_MAX:
            kept = len(chosen) // 2
            self.drop(len(chosen) - kept)
            chosen = chosen[:kept]
            note = encode(Note(packet_id, chosen, command=about))
        return note

    def _give(
        self,
        message: Message,
        subscriber: Subscriber,
        subscriptions: tuple[Subscription, ...],
        imprints: dict[int, Imprint],
        share: str = "",
        command: Command | None = None,
    ) -> bool:
        """Deliver through memory; True where the message has to take the way through the log."""
        terms = merge(message, subscriber, subscriptions)
        if terms is None:
            return False
        qos, retain, identifiers = terms
        if qos == 0:
            sent = self._send_now(message, subscriber, retain, identifiers, imprints)
            if command is not None:
                command.taken += sent
            return False
        if subscriber.outlives:
            return True
        if message.publisher == subscriber.session.client_id:
            # Who gets its own message hears first that it arrived: one that waits for its PUBACK or
            # PUBREC and reads the next packet would take this for a mistake.
            offer_own = partial(self._offer_own, message, subscriber, terms, share)
            self._broker.spool.committer.when_durable(offer_own)
            return False
        if command is None:
            self._offer(message, subscriber, terms, share)
        else:
            token = self._broker.commands.watch(command, subscriber)
            if not self._offer(message, subscriber, terms, share, token):
                self._broker.commands.no_room(command, subscriber, token)
        return False

    def _offer_own(
        self,
        message: Message,
        subscriber: Subscriber,
        terms: Terms,
        share: str,
        error: StoreError | None,
    ) -> None:
        if error is None and subscriber.link is not None:
            self._offer(message, subscriber, terms, share)

    def _offer(
        self, message: Message, subscriber: Subscriber, terms: Terms, share: str, token: int = NO_TOKEN
    ) -> bool:
        """Queue a message that waits in memory, or drop it where there is no room."""
        qos, retain, identifiers = terms
        offer = subscriber.session.offer
        size = size_of(message)
        if not offer(token, qos, retain, identifiers, message, size, share):
            # One turn of the loop may bring more than the queue holds, for a device that is quick.
            self.flush(subscriber)
            if not offer(token, qos, retain, identifiers, message, size, share):
                self.drop()
                return False
        self._broker.deliver_soon(subscriber)
        return True

    def _send_now(
        self,
        message: Message,
        subscriber: Subscriber,
        retain: bool,
        identifiers: tuple[int, ...],
        imprints: dict[int, Imprint],
    ) -> bool:
        """Write to its socket; whether there was one, and it took the message."""
        link = subscriber.link
        if link is None:
            return False
        if link.unsent_bytes > link.limits.unsent_bytes_max:
            self.drop()
            return False
        connection = link.connection
        version = connection.version
        data: bytes | None
        if identifiers or connection.aliasing or (message.properties is not None and version == 5):
            properties = message.properties
            if identifiers:
                properties = msgspec.structs.replace(
                    properties or Properties(), subscription_identifiers=identifiers
                )
            data = connection.encode(
                Publish(message.topic, message.payload, 0, retain, properties=properties)
            )
        else:
            same = imprints.get(version == 5)
            if same is None:
                same = imprints[version == 5] = imprint(message.topic, message.payload, None, version)
            data = same.bytes(0, retain)
            if connection.packet_bytes_max is not None and len(data) > connection.packet_bytes_max:
                data = None
        if data is None:  # too large for this client v5 [MQTT-3.1.2-24]
            self.drop()
            return False
        self.delivered += 1
        self.payload_bytes += len(message.payload)
        link.send(data)
        return True

    def store(self, message: Message, note: bytes) -> bool:
        """Put a message into the downlink log, at the cost of the oldest there; False: there was no room."""
        amount = _bound(message, len(note))
        while not self._log.reserve(amount):
            end = self._log.oldest_segment_end()
            for subscriber in self._broker.subscribers.values():
                if dropped := subscriber.session.drop_before(token_at(end)):
                    subscriber.moved = True
                    self.drop(dropped)
            if not self._log.trim(end):
                self.drop()
                return False
        self._log.append(message, note)
        self._broker.spool.committer.schedule()
        return True

    def has_room(self, message: Message) -> bool:
        """Whether `store` would take it without letting go of anything else."""
        return self._log.has_room(_bound(message, NOTE_BYTES_MAX))

    def drop(self, count: int = 1) -> None:
        """Let go of messages for a device; said in the log once a minute."""
        if not count:
            return
        self.dropped += count
        now_s = self._broker.now()
        if now_s - self._reported_at >= _REPORT_EVERY_S or not self._reported:
            log.warning("messages for devices dropped count=%d", self.dropped - self._reported)
            self._reported, self._reported_at = self.dropped, now_s

    # ---- from the log --------------------------------------------------------------

    def read_log(self) -> None:
        """Queue what a commit has brought for the sessions that want it."""
        while entries := self._log.read(self._position):
            for entry in entries:
                # First, so that one that cannot be queued does not stop the others for ever.
                self._position = entry.end
                self._queue(entry, None)

    def restore(self, oldest: int) -> None:
        """At the start: find again what waits for each session, by one pass over the log."""
        position = oldest
        while position < self._position and (entries := self._log.read(position)):
            position = entries[-1].end
            for entry in entries:
                self._queue(entry, entry.position)

    def _queue(self, entry: Entry, stored_at: int | None) -> None:
        note = decode_note(entry.note) if entry.note else None
        command = None
        if note is not None and note.command is not None:
            command = self._broker.commands.found(entry, note.command, stored_at is not None)
        if note is None or not (note.retained or note.again):
            matched = self._broker.inlet.decide(entry.message.topic).matches
            if matched is not None:
                for subscriber, subscriptions in matched.owners.items():
                    if subscriber.outlives:
                        self._queue_for(entry, subscriber, subscriptions, stored_at, command=command)
        if note is not None:
            for client_id, topic_filter in note.chosen:
                chosen = self._broker.subscribers.get(client_id)
                if chosen is None:
                    continue
                subscription = chosen.session.subscriptions.get(topic_filter)
                if subscription is not None and chosen.outlives:
                    self._queue_for(
                        entry,
                        chosen,
                        (subscription,),
                        stored_at,
                        note.retained,
                        "" if note.retained else topic_filter,
                        command,
                    )
        if command is not None:
            self._broker.commands.queued(command, stored_at is not None)

    def _queue_for(
        self,
        entry: Entry,
        subscriber: Subscriber,
        subscriptions: tuple[Subscription, ...],
        stored_at: int | None,
        retained: bool = False,
        share: str = "",
        command: Command | None = None,
    ) -> None:
        session, message = subscriber.session, entry.message
        if stored_at is not None:
            if stored_at < subscriber.mark:
                return
            since = subscriber.since
            subscriptions = tuple(one for one in subscriptions if since.get(one.topic_filter, 0) <= stored_at)
        terms = merge(message, subscriber, subscriptions, retained)
        if terms is None or terms[0] == 0:
            return
        qos, retain, identifiers = terms
        token = subscriber.next_token(entry.position)
        if token is not None and token <= session.taken:
            if command is not None:
                self._broker.commands.watch_in_flight(command, subscriber, token)
            return  # settled or in flight before the restart
        # Behind the window a position is enough: the message is read again when its turn comes.
        kept = message if subscriber.link is not None and not session.queued else None
        size = size_of(message)
        if token is None or not session.offer(token, qos, retain, identifiers, kept, size, share):
            self.drop()
            if command is not None:
                self._broker.commands.no_room(command, subscriber)
            return
        if command is not None:
            self._broker.commands.watch(command, subscriber, token)
        self._broker.deliver_soon(subscriber)

    def load(self, token: int) -> Message | None:
        """The message of a token of the downlink log, or None when it is gone."""
        position = position_of(token)
        entries = self._log.read(position, 1, _ONE_RECORD)
        return entries[0].message if entries and entries[0].position == position else None

    # ---- out -----------------------------------------------------------------------

    def flush(self, subscriber: Subscriber) -> None:
        """Send a connected subscriber what its window has room for, and its socket."""
        link, session = subscriber.link, subscriber.session
        search, backfill = subscriber.search, self.backfill
        if search and subscriber.outlives:
            backfill.fill_log(subscriber)
        while link is not None and not link.congested:
            before = 0
            if search and not subscriber.outlives:
                before = backfill.fill_queue(subscriber)
            queued = session.queued
            packets = session.take(self._broker.clock.now_ns(), self.load)
            subscriber.moved |= session.queued != queued
            self.send(subscriber, packets)
            if subscriber.outlives or not search or len(search.found) == before:
                if search.looking and before < RETAINED_AT_ONCE and not subscriber.outlives:
                    self._broker.deliver_soon(subscriber)  # nothing for it was found yet
                break
            link.flush()  # only the socket knows whether the device still reads

    def send(self, subscriber: Subscriber, packets: Sequence[Publish | Pubrel]) -> None:
        """Write packets that the session gave out: now, or when it is on the disk that they are under way."""
        link = subscriber.link
        assert link is not None
        if not packets:
            return
        if not subscriber.outlives:
            self._write(subscriber, packets)
            return
        self._broker.sessions.touch(subscriber)
        self._broker.spool.committer.when_durable(partial(self._write_durable, subscriber, link, packets))

    def _write_durable(
        self,
        subscriber: Subscriber,
        link: Link,
        packets: Sequence[Publish | Pubrel],
        error: StoreError | None,
    ) -> None:
        if error is not None:
            self._broker.sessions.touch(subscriber, commit=False)
            link.close(ReasonCode.QUOTA_EXCEEDED, str(error))
        elif subscriber.link is link:  # otherwise the next connection gets them, as repetitions
            self._write(subscriber, packets)

    def _write(self, subscriber: Subscriber, packets: Iterable[Publish | Pubrel]) -> None:
        """Write packets; what is too large for the client is settled."""
        link = subscriber.link
        assert link is not None
        for packet in packets:
            data = link.connection.encode(packet)
            if data is not None:
                link.send(data)
                if type(packet) is Publish:
                    self.delivered += 1
                    self.payload_bytes += len(packet.payload)
                continue
            self.drop()
            if packet.packet_id:
                subscriber.session.let_go(packet.packet_id)
                subscriber.moved = True
                self._broker.deliver_soon(subscriber)

    def pass_on(self, subscriber: Subscriber) -> None:
        """The session is over: what it had of shared subscriptions goes to others who share them."""
        for delivery in subscriber.session.shared():
            message = delivery.message or self.load(delivery.token)
            group = self._broker.subscriptions.group(delivery.share)
            picked = choose(group, message) if group is not None and message is not None else None
            if message is None or picked is None:
                self.drop()
                continue
            other, subscription = picked
            if self._give(message, other, (subscription,), {}, delivery.share):
                chosen = [(other.session.client_id, delivery.share)]
                self.store(message, encode(Note(chosen=chosen, again=True)))

    # ---- letting go ----------------------------------------------------------------

    def tidy(self) -> None:
        """Once a second: free what all sessions have settled."""
        lowest = self._position
        for subscriber in self._broker.subscribers.values():
            # All of them: one that came back to stay no longer than its connection
            # still gets what was stored for it.
            lowest = min(lowest, subscriber.measure(self._position))
        self._log.trim(lowest)


def _bound(message: Message, note_bytes: int) -> int:
    """How many bytes a message takes in the log at most."""
    amount = len(message.payload) + len(message.topic) * 4 + len(message.publisher) * 4 + note_bytes + 512
    if message.properties is not None:
        amount += len(msgspec.msgpack.encode(message.properties))
    return amount
