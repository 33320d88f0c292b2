"""From a message to the devices that subscribed to it.

    QoS 0                       through memory, to whoever is connected
    QoS 1 and 2, session that   through memory, behind the session's window
      ends with its connection
    QoS 1 and 2, session that   through the downlink log: stored with the same
      outlives it               commit, delivered when that is done

The downlink log is read once for all sessions: one pass through the filters finds
who wants an entry, and what waits for one session is a list of positions. The
work grows with deliveries, not with sessions times entries.

A session's `mark` is the position before which it has settled everything. Marks
are saved once a second and not synced: a lost one repeats messages.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from bridge.message import Message, Properties
from bridge.mqtt.codec import Imprint, imprint
from bridge.mqtt.packet import Publish, Pubrel, Subscription
from bridge.mqtt.session import NO_TOKEN
from bridge.store import Entry
from bridge.store.log import NOTE_BYTES_MAX

if TYPE_CHECKING:
    from bridge.broker.broker import Broker
    from bridge.broker.inlet import Decision
    from bridge.broker.subscriber import Subscriber

__all__ = ["Delivery"]

log = logging.getLogger(__name__)

_ONE_RECORD: Final = 4096  # bytes to read for one record before it is known to be longer
_REPORT_EVERY_S: Final = 60.0
_RETAINED_AT_ONCE: Final = 100  # between two looks at whether the device still reads

Chosen = list[tuple[str, str]]  # for a shared subscription: Client Identifier, filter with $share
_encode_chosen: Final = msgspec.json.Encoder().encode
_decode_chosen: Final = msgspec.json.Decoder(Chosen).decode


class Delivery:
    """Hands messages to subscribers. `delivered` and `dropped` count since the start."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._log = broker.spool.downlink
        self._position = self._log.durable
        self.delivered = 0
        self.dropped = 0
        self._reported = 0
        self._reported_at = 0.0

    # ---- in ------------------------------------------------------------------------

    def distribute(self, message: Message, decision: Decision) -> None:
        """Give one new message to everyone who subscribed, by way of memory or the downlink log."""
        if message.retain:
            self._broker.retained.keep(message)
            self._broker.spool.committer.schedule()
        matched = decision.matches
        if matched is None:
            return
        imprints: dict[int, Imprint] = {}
        logged = False
        for subscriber, subscriptions in matched.owners.items():
            logged |= self._give(message, subscriber, subscriptions, imprints)
        chosen: Chosen = []
        for group in matched.groups:
            picked = group.choose(_online) or group.choose(_outlives)
            if picked is None:
                continue
            subscriber, subscription = picked
            if self._give(message, subscriber, (subscription,), imprints):
                chosen.append((subscriber.session.client_id, subscription.topic_filter))
        if logged or chosen:
            self._store(message, self._note(chosen))

    def _note(self, chosen: Chosen) -> bytes:
        """Who was chosen, to be stored beside the message, as far as there is room for names."""
        if not chosen:
            return b""
        note = _encode_chosen(chosen)
        while len(note) > NOTE_BYTES_MAX:
            kept = len(chosen) // 2
            self._drop(len(chosen) - kept)
            chosen = chosen[:kept]
            note = _encode_chosen(chosen)
        return note

    def _give(
        self,
        message: Message,
        subscriber: Subscriber,
        subscriptions: tuple[Subscription, ...],
        imprints: dict[int, Imprint],
    ) -> bool:
        """Deliver through memory; True where the message has to take the way through the log."""
        terms = _merge(message, subscriber, subscriptions)
        if terms is None:
            return False
        qos, retain, identifiers = terms
        if qos == 0:
            self._send_now(message, subscriber, retain, identifiers, imprints)
            return False
        if subscriber.outlives:
            return True
        if not subscriber.offer(NO_TOKEN, qos, retain, identifiers, message):
            # One turn of the loop may bring more than the queue holds, for a device that is quick.
            self.flush(subscriber)
            if not subscriber.offer(NO_TOKEN, qos, retain, identifiers, message):
                self._drop()
                return False
        self._broker.deliver_soon(subscriber)
        return False

    def _send_now(
        self,
        message: Message,
        subscriber: Subscriber,
        retain: bool,
        identifiers: tuple[int, ...],
        imprints: dict[int, Imprint],
    ) -> None:
        link = subscriber.link
        if link is None:
            return
        if link.unsent_bytes > self._broker.limits.unsent_bytes_max:
            self._drop()
            return
        connection = link.connection
        version = connection.version
        data: bytes | None
        if identifiers or (message.properties is not None and version == 5):
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
            self._drop()
            return
        self.delivered += 1
        link.send(data)

    def _store(self, message: Message, note: bytes) -> None:
        amount = len(message.payload) + len(message.topic) * 4 + len(message.publisher) * 4 + len(note) + 512
        if message.properties is not None:
            amount += len(msgspec.msgpack.encode(message.properties))
        while not self._log.reserve(amount):
            end = self._log.oldest_segment_end()
            for subscriber in self._broker.subscribers.values():
                dropped = subscriber.give_up_before(end)
                self._drop(dropped)
            if not self._log.trim(end):
                self._drop()
                return
        self._log.append(message, note)
        self._broker.spool.committer.schedule()

    def _drop(self, count: int = 1) -> None:
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
        message = entry.message
        matched = self._broker.inlet.decide(message.topic).matches
        if matched is not None:
            for subscriber, subscriptions in matched.owners.items():
                if subscriber.outlives:
                    self._queue_for(entry, subscriber, subscriptions, stored_at)
        if entry.note:
            for client_id, topic_filter in _decode_chosen(entry.note):
                chosen = self._broker.subscribers.get(client_id)
                subscription = chosen.session.subscriptions.get(topic_filter) if chosen is not None else None
                if chosen is not None and subscription is not None and chosen.outlives:
                    self._queue_for(entry, chosen, (subscription,), stored_at)

    def _queue_for(
        self,
        entry: Entry,
        subscriber: Subscriber,
        subscriptions: tuple[Subscription, ...],
        stored_at: int | None,
    ) -> None:
        if stored_at is not None:
            if stored_at < subscriber.window.mark:
                return
            since = subscriber.since
            subscriptions = tuple(one for one in subscriptions if since.get(one.topic_filter, 0) <= stored_at)
        terms = _merge(entry.message, subscriber, subscriptions)
        if terms is None or terms[0] == 0:
            return
        qos, retain, identifiers = terms
        session = subscriber.session
        # Behind the window a position is enough: the message is read again when its turn comes.
        message = entry.message if subscriber.link is not None and not session.queued else None
        if subscriber.offer(entry.position, qos, retain, identifiers, message):
            subscriber.hand_out(entry.position, entry.end)
            self._broker.deliver_soon(subscriber)
        else:
            self._drop()

    def load(self, position: int) -> Message | None:
        """The message at a position of the downlink log, or None when it is gone."""
        entries = self._log.read(position, 1, _ONE_RECORD)
        return entries[0].message if entries and entries[0].position == position else None

    # ---- out -----------------------------------------------------------------------

    def flush(self, subscriber: Subscriber) -> None:
        """Send a connected subscriber what its window has room for, and its socket."""
        link, session = subscriber.link, subscriber.session
        while link is not None and not link.congested:
            before = len(subscriber.backfill)
            self._fill_from_retained(subscriber)
            packets, settled = session.take(time.time_ns(), self.load)
            subscriber.taken()
            subscriber.settle(settled)
            self.send(subscriber, packets)
            if not subscriber.backfill or len(subscriber.backfill) == before:
                break
            link.flush()  # only the socket knows whether the device still reads

    def send(self, subscriber: Subscriber, packets: Iterable[Publish | Pubrel]) -> None:
        """Write packets that the session gave out; what is too large for the client is settled."""
        link = subscriber.link
        assert link is not None
        for packet in packets:
            data = link.connection.encode(packet)
            if data is not None:
                link.send(data)
                if type(packet) is Publish:
                    self.delivered += 1
                continue
            self._drop()
            if packet.packet_id:
                token = subscriber.session.let_go(packet.packet_id)
                subscriber.settle(() if token is None else (token,))
                self._broker.deliver_soon(subscriber)

    def _fill_from_retained(self, subscriber: Subscriber) -> None:
        """Offer retained messages of a new subscription, as far as the queue has room."""
        backfill = subscriber.backfill
        for _ in range(min(len(backfill), _RETAINED_AT_ONCE)):
            topic, subscription = backfill[0]
            message = self._broker.retained.get(topic)
            if message is not None:
                identifiers = (subscription.identifier,) if subscription.identifier else ()
                qos = min(message.qos, subscription.qos)
                if not subscriber.offer(NO_TOKEN, qos, True, identifiers, message):
                    break
            backfill.popleft()

    # ---- letting go ----------------------------------------------------------------

    def tidy(self) -> None:
        """Once a second: save the marks that moved, free what all sessions have settled."""
        marks = self._broker.spool.marks
        lowest = self._position
        changed = False
        for subscriber in self._broker.subscribers.values():
            # All of them: one that came back to stay no longer than its connection
            # still gets what was stored for it.
            window = subscriber.window
            if len(window):
                lowest = min(lowest, window.mark)
            else:
                window.mark = self._position
            if subscriber.mark_moved and subscriber.outlives:
                subscriber.mark_moved = False
                marks.put(subscriber.session.client_id, window.mark.to_bytes(8, "little"))
                changed = True
        if changed:
            self._broker.spool.committer.schedule()
        self._log.trim(lowest)


def _online(subscriber: Subscriber) -> bool:
    return subscriber.link is not None


def _outlives(subscriber: Subscriber) -> bool:
    return subscriber.outlives


def _merge(
    message: Message, subscriber: Subscriber, subscriptions: tuple[Subscription, ...]
) -> tuple[int, bool, tuple[int, ...]] | None:
    """QoS, RETAIN and identifiers of one delivery; None where every subscription says no-local.

    Overlapping subscriptions make one delivery with the highest QoS of them and all
    of their identifiers [MQTT-3.3.4-2], [MQTT-3.3.4-5].
    """
    qos, retain = -1, False
    identifiers: tuple[int, ...] = ()
    for subscription in subscriptions:
        if subscription.no_local and message.publisher == subscriber.session.client_id:
            continue  # v5 [MQTT-3.8.3-3]
        qos = max(qos, subscription.qos)
        retain |= subscription.retain_as_published
        if subscription.identifier:
            identifiers += (subscription.identifier,)
    if qos < 0:
        return None
    return min(qos, message.qos), retain and message.retain, identifiers
