"""Topic aliases: a number in place of a Topic Name, for as long as one connection lasts.

Each direction has its own numbers and its own maximum, granted by whoever receives.
A client sets what it likes [MQTT-3.3.2-9]; towards the client the first topics get a
number, as many as there are, and keep it: a device hears of few topics, and the ones
it hears of first are mostly the ones it hears of most.
"""

from __future__ import annotations

import msgspec

from bridge.errors import MalformedPacket
from bridge.message import Properties
from bridge.mqtt.packet import Publish
from bridge.mqtt.reason import ReasonCode

__all__ = ["InboundAliases", "OutboundAliases"]


class InboundAliases:
    """What the client has set. `maximum` is what it was granted."""

    __slots__ = ("_topics", "maximum")

    def __init__(self) -> None:
        self.maximum = 0
        self._topics: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._topics)

    def resolve(self, topic: str, alias: int) -> str:
        """The topic that is meant; a `topic` that is not empty is what the alias means from now on.

        Raises MalformedPacket, 0x94 above the maximum and 0x82 for an alias never set.
        """
        if alias > self.maximum:
            raise MalformedPacket(
                f"topic alias {alias}, {self.maximum} are allowed", ReasonCode.TOPIC_ALIAS_INVALID
            )
        if topic:
            self._topics[alias] = topic
            return topic
        known = self._topics.get(alias)
        if known is None:
            raise MalformedPacket(f"topic alias {alias} was never set", ReasonCode.PROTOCOL_ERROR)
        return known


class OutboundAliases:
    """What we have told the client. `maximum` is what it granted, or less."""

    __slots__ = ("_aliases", "maximum")

    def __init__(self) -> None:
        self.maximum = 0
        self._aliases: dict[str, int] = {}

    def substitute(self, packet: Publish) -> Publish:
        """The packet with an alias for its topic, which it spells out the first time [MQTT-3.3.2-8].

        The same packet where all numbers are taken. A new alias counts only after `told`.
        """
        alias = self._aliases.get(packet.topic)
        topic = "" if alias is not None else packet.topic
        if alias is None:
            alias = len(self._aliases) + 1
            if alias > self.maximum:
                return packet
        properties = msgspec.structs.replace(packet.properties or Properties(), topic_alias=alias)
        return msgspec.structs.replace(packet, topic=topic, properties=properties)

    def told(self, packet: Publish) -> None:
        """A packet from `substitute` goes out: the client knows its alias from now on."""
        if packet.topic and packet.properties is not None and packet.properties.topic_alias:
            self._aliases[packet.topic] = packet.properties.topic_alias
