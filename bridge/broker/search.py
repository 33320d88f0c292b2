"""Which retained messages a new subscription brings: looked for a part at a time.

A SUBSCRIBE of a thousand wildcards over a hundred thousand retained topics asks a
hundred million questions, and fits into ten kilobytes. So all filters of a packet are
asked at once, in one pass over the topics, and a pass stops wherever enough was found
for the device to read, or enough was looked at for one turn of the loop.

Filters that come while a pass is under way wait for the next one, each at most once:
a device that subscribes for ever holds no more than its filters.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from bridge.broker.retained import Retained
from bridge.mqtt.packet import Subscription
from bridge.policy.subscriptions import Subscriptions

__all__ = ["LOOK_AT_ONCE", "Search"]

LOOK_AT_ONCE: Final = 500  # topics in one turn of the loop, for all devices: about a millisecond
FOUND_MAX: Final = 1_000  # waiting to be sent: no pass goes on above it


class Search:
    """What one device has still to get. `found` has topics, and the subscription that asked for each."""

    __slots__ = ("_at", "_filters", "_next", "_topics", "_turnover", "found")

    def __init__(self) -> None:
        self.found: deque[tuple[str, Subscription]] = deque()
        self._filters: Subscriptions[str, Subscription] | None = None
        self._topics: list[str] = []
        self._at = 0
        self._turnover = 0
        self._next: dict[str, Subscription] = {}

    def __bool__(self) -> bool:
        """Whether there is anything left to look for or to send."""
        return bool(self.found or self.looking)

    @property
    def looking(self) -> bool:
        """Whether a pass is under way."""
        return self._filters is not None

    def want(self, retained: Retained, subscription: Subscription) -> None:
        """The device has subscribed."""
        topic_filter = subscription.topic_filter
        if "+" not in topic_filter and "#" not in topic_filter and len(self.found) < FOUND_MAX:
            if retained.get(topic_filter) is not None:
                self.found.append((topic_filter, subscription))
            return
        if self._filters is None:
            self._filters = Subscriptions()
            self._topics, self._turnover = retained.topics(), retained.turnover
        if self._at or self._turnover != retained.turnover:
            self._next[topic_filter] = subscription  # that pass knows not all that is there by now
        else:
            self._filters.add(topic_filter, topic_filter, subscription)

    def look(self, retained: Retained, most: int) -> int:
        """Go on with the pass for up to `most` topics; return how many were looked at."""
        filters = self._filters
        if filters is None:
            return 0
        began = self._at
        found, topics = self.found, self._topics
        stop = min(len(topics), began + most)
        while self._at < stop and len(found) < FOUND_MAX:
            topic = topics[self._at]
            self._at += 1
            for many in filters.match(topic).owners.values():
                found.extend((topic, each) for each in many)
        looked = self._at - began
        if self._at >= len(topics):
            self._filters, self._topics, self._at = None, [], 0
            waiting, self._next = self._next, {}
            for subscription in waiting.values():
                self.want(retained, subscription)
        return looked

    def clear(self) -> None:
        """The session is over."""
        self.found.clear()
        self._filters, self._topics, self._at = None, [], 0
        self._next.clear()
