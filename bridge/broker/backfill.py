"""Retained messages on their way to a new subscription.

What `bridge.broker.search` finds is handed on a part at a time, as the device reads
and its queue has room. For a session that outlives its connection it goes through the
downlink log, like everything with QoS 1 and 2 that such a session gets: marked as
retained, and for nobody else.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from bridge.broker.search import LOOK_AT_ONCE, Search
from bridge.broker.stored import encode
from bridge.broker.subscriber import size_of
from bridge.errors import StoreError
from bridge.mqtt.session import NO_TOKEN
from bridge.store.note import Note

if TYPE_CHECKING:
    from bridge.broker.broker import Broker
    from bridge.broker.delivery import Delivery
    from bridge.broker.subscriber import Subscriber

__all__ = ["RETAINED_AT_ONCE", "Backfill"]

RETAINED_AT_ONCE: Final = 100  # between two looks at whether the device still reads


class Backfill:
    """Hands retained messages to the subscribers that wait for them."""

    def __init__(self, broker: Broker, delivery: Delivery) -> None:
        self._broker = broker
        self._delivery = delivery
        self._looks_left = LOOK_AT_ONCE

    def begin_turn(self) -> None:
        """Again so many topics may be looked at for new subscriptions, of all devices."""
        self._looks_left = LOOK_AT_ONCE

    def _look(self, search: Search) -> None:
        if len(search.found) < RETAINED_AT_ONCE and self._looks_left > 0:
            self._looks_left -= search.look(self._broker.retained, self._looks_left)

    def fill_queue(self, subscriber: Subscriber) -> int:
        """Offer what was found, as far as the queue has room; return how much there was."""
        self._look(subscriber.search)
        found = subscriber.search.found
        before = len(found)
        for _ in range(min(before, RETAINED_AT_ONCE)):
            topic, subscription = found[0]
            message = self._broker.retained_for(subscriber, topic)
            if message is not None:
                qos = min(message.qos, subscription.qos)
                identifiers = (subscription.identifier,) if subscription.identifier else ()
                if not subscriber.session.offer(NO_TOKEN, qos, True, identifiers, message, size_of(message)):
                    break
            found.popleft()
        return before

    def fill_log(self, subscriber: Subscriber) -> None:
        """The same for a session that outlives its connection: with QoS 1 and 2 by way of the log.

        A part at a time, as the queue has room; what is left when the house is killed
        does not come back.
        """
        search, session = subscriber.search, subscriber.session
        if subscriber.filling or session.room <= 0:
            return  # it goes on when that has come through, or when the device has answered
        self._look(search)
        found = search.found
        room = min(session.room, RETAINED_AT_ONCE)
        stored = 0
        while found and room > 0:
            topic, subscription = found.popleft()
            message = self._broker.retained_for(subscriber, topic)
            if message is None:
                continue
            room -= 1
            if min(message.qos, subscription.qos):
                note = Note(0, [(session.client_id, subscription.topic_filter)], retained=True)
                stored += self._delivery.store(message, encode(note))
            elif subscriber.link is not None:
                identifiers = (subscription.identifier,) if subscription.identifier else ()
                if not session.offer(NO_TOKEN, 0, True, identifiers, message, size_of(message)):
                    found.appendleft((topic, subscription))
                    break
        if stored:
            subscriber.filling = stored
            self._broker.spool.committer.when_durable(partial(self._filled, subscriber))
        elif search:
            self._broker.deliver_soon(subscriber)

    def _filled(self, subscriber: Subscriber, error: StoreError | None) -> None:
        if error is not None:
            self._delivery.drop(subscriber.filling)
        subscriber.filling = 0
        self._broker.deliver_soon(subscriber)
