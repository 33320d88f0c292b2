"""The last word on each topic, for those who subscribe later.

Kept in a table of the store, encoded, and decoded only for who asks; a retained
message is on the disk before its PUBACK, like every other. What the house itself
says under `$SYS` is kept in memory only: it is made anew all the time, and a disk
wears out.

Their number and their bytes are bounded. What has no room is not kept and counted
in `refused`; an older message of the same topic stays.
"""

from __future__ import annotations

from typing import Final

from bridge.broker.limits import Limits
from bridge.broker.stored import StoredRetained, decode_retained, encode
from bridge.message import Message
from bridge.mqtt.packet import Publish
from bridge.policy.access import ANONYMOUS, Identity
from bridge.store import Table

__all__ = ["Retained"]

_SORTED_MAX: Final = 1_000  # more would take longer than a turn of the loop may


class Retained:
    """Topic → retained message, and whose it is."""

    def __init__(self, table: Table, limits: Limits) -> None:
        self._table = table
        self.limits = limits
        self._house: dict[str, Message] = {}
        self.bytes = sum(len(value) for topic in table if (value := table.get(topic)) is not None)
        self.refused = 0
        self.turnover = 0  # rises with every topic that is new or gone

    def __len__(self) -> int:
        return len(self._table)

    def has_room(self, packet: Publish) -> bool:
        """Whether `keep` would take a message such as this one."""
        return not packet.payload or self._fits(packet.topic, len(packet.topic) + len(packet.payload))

    def _fits(self, topic: str, size: int) -> bool:
        old = self._table.get(topic)
        if old is None:
            return (
                len(self._table) < self.limits.retained_messages_max
                and self.bytes + size <= self.limits.retained_bytes_max
            )
        return self.bytes - len(old) + size <= self.limits.retained_bytes_max

    def keep(self, message: Message, identity: Identity = ANONYMOUS) -> bool:
        """The message replaces the topic's last one [MQTT-3.3.1-5]; False where there is no room for it.

        An empty payload removes it v5 [MQTT-3.3.1-6], v3 [MQTT-3.3.1-10].
        """
        topic = message.topic
        old = self._table.get(topic)
        if not message.payload:
            if old is not None:
                self.bytes -= len(old)
                self._table.delete(topic)
                self.turnover += 1
            return True
        value = encode(StoredRetained(message, identity.user, identity.verified))
        if not self._fits(topic, len(value)):
            self.refused += 1
            return False
        self.bytes += len(value) - (0 if old is None else len(old))
        self.turnover += old is None
        self._table.put(topic, value)
        return True

    def say(self, message: Message) -> bool:
        """The same for the house itself, in memory; whether the topic says something new."""
        old = self._house.get(message.topic)
        self._house[message.topic] = message
        self.turnover += old is None
        return old is None or old.payload != message.payload

    def topics(self) -> list[str]:
        """The topics that have a retained message now; unless they are many, each before those below it."""
        topics = [*self._table, *self._house]
        if len(topics) <= _SORTED_MAX:
            topics.sort()
        return topics

    def get(self, topic: str) -> tuple[Message, Identity] | None:
        """The retained message of a topic and who published it, or None."""
        if (said := self._house.get(topic)) is not None:
            return said, ANONYMOUS
        value = self._table.get(topic)
        if value is None:
            return None
        stored = decode_retained(value)
        return stored.message, Identity(stored.user, stored.verified)
