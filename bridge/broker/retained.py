"""The last word on each topic, for those who subscribe later.

Kept in a table of the store, encoded, and decoded only for who asks; a retained
message is on the disk before its PUBACK, like every other.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bridge.message import Message
from bridge.store import Table
from bridge.topic import matches

__all__ = ["Retained"]


class Retained:
    """Topic → retained message."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Message).decode

    def __len__(self) -> int:
        return len(self._table)

    def keep(self, message: Message) -> None:
        """The message replaces the topic's last one [MQTT-3.3.1-5].

        An empty payload removes it v5 [MQTT-3.3.1-6], v3 [MQTT-3.3.1-10].
        """
        if message.payload:
            self._table.put(message.topic, self._encode(message))
        else:
            self._table.delete(message.topic)

    def topics(self, topic_filter: str) -> Iterator[str]:
        """The topics under a filter that have a retained message."""
        if "+" not in topic_filter and "#" not in topic_filter:
            if self._table.get(topic_filter) is not None:
                yield topic_filter
            return
        for topic in self._table:
            if matches(topic_filter, topic):
                yield topic

    def get(self, topic: str) -> Message | None:
        """The retained message of a topic, or None."""
        value = self._table.get(topic)
        return None if value is None else self._decode(value)
