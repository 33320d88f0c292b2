"""PUBLISH and its four answers, as bytes: what a gateway reads and writes all day.

Topics come in their thousands and are few, so each is checked once and kept by
its bytes (`TOPICS`, and the other way round for writing). Both caches are shared
by all connections, hold only topics under 256 bytes and of few levels, and are emptied when full:
a device that invents topics costs the others a few lookups, never memory.

What many subscribers get is spelled once, as an `Imprint`; what many devices are
answered is one bytes object, from `encode_pubacks`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias, TypeVar

import msgspec

from bridge.errors import MalformedPacket
from bridge.message import Properties
from bridge.mqtt import property as properties_
from bridge.mqtt.packet import PacketType as P
from bridge.mqtt.packet import Puback, Pubcomp, Publish, Pubrec, Pubrel
from bridge.mqtt.parts import (
    FLAGS,
    at_end,
    read_packet_id,
    read_properties,
    read_reason,
    reason_and_properties,
)
from bridge.mqtt.reason import PUBACK_REASONS, PUBREL_REASONS, ReasonCode
from bridge.mqtt.wire import read_binary, read_string, variable_byte_integer, write_string
from bridge.topic import LEVELS_ANY, check_topic_name, has_control

__all__ = [
    "TOPICS",
    "Ack",
    "Imprint",
    "encode_pubacks",
    "encode_publish",
    "imprint",
    "read_ack",
    "read_publish",
    "read_topic",
    "write_ack",
]

TOPICS_MAX: Final = 16_384
TOPIC_BYTES_CACHED_MAX: Final = 255
LEVELS_CACHED_MAX: Final = 20  # deeper ones never take the fast path, so that each is looked at
TOPICS: Final[dict[bytes, str]] = {}  # checked Topic Names, by their bytes
_TOPIC_BYTES: Final[dict[str, bytes]] = {}  # the same, length included, by name


def read_topic(data: bytes, at: int, end: int, elsewhere: int | None = None) -> tuple[str, int]:
    """A Topic Name of at least one character, checked once for all."""
    raw, after = read_binary(data, at, end)
    topic = TOPICS.get(raw)
    if topic is None:
        topic, after = read_string(data, at, end)
        # How many levels are too many is the connection's to say.
        if wrong := check_topic_name(topic, LEVELS_ANY):
            raise MalformedPacket(f"topic: {wrong}", ReasonCode.TOPIC_NAME_INVALID, elsewhere)
        # Control characters, too, are for some connections to refuse: such a topic is looked at each time.
        if (
            len(raw) <= TOPIC_BYTES_CACHED_MAX
            and topic.count("/") < LEVELS_CACHED_MAX
            and not has_control(topic)
        ):
            _keep(TOPICS, raw, topic)
    return topic, after


_K = TypeVar("_K")
_V = TypeVar("_V")


def _keep(cache: dict[_K, _V], key: _K, value: _V) -> None:
    if len(cache) >= TOPICS_MAX:
        cache.clear()
    cache[key] = value


def read_publish(first: int, data: bytes, at: int, end: int, version: int) -> Publish:
    if data[at : at + 2] == b"\0\0" and at + 2 <= end and version == 5:
        topic, at = "", at + 2  # only with an alias, see below
    else:
        topic, at = read_topic(data, at, end, ReasonCode.MALFORMED_PACKET)
    qos = first >> 1 & 3
    packet_id = 0
    if qos:
        packet_id, at = read_packet_id(data, at, end)
    properties, at = read_properties(P.PUBLISH, data, at, end, version)
    if not topic and (properties is None or properties.topic_alias is None):
        raise MalformedPacket(
            "PUBLISH with neither topic nor alias", ReasonCode.PROTOCOL_ERROR, ReasonCode.MALFORMED_PACKET
        )
    return Publish(topic, data[at:end], qos, bool(first & 1), bool(first & 8), packet_id, properties)


def _topic_bytes(topic: str) -> bytes:
    spelled = _TOPIC_BYTES.get(topic)
    if spelled is None:
        spelled = write_string(topic)
        if len(spelled) <= TOPIC_BYTES_CACHED_MAX + 2:
            _keep(_TOPIC_BYTES, topic, spelled)
    return spelled


def encode_publish(packet: Publish, version: int) -> bytes:
    head = _TOPIC_BYTES.get(packet.topic) or _topic_bytes(packet.topic)
    qos = packet.qos
    if qos:
        head += packet.packet_id.to_bytes(2)
    if version == 5:
        properties = packet.properties
        head += b"\0" if properties is None else properties_.encode(P.PUBLISH, properties)
    length = len(head) + len(packet.payload)
    first = 0x30 | qos << 1 | packet.retain | packet.dup << 3
    return b"".join((first.to_bytes(), variable_byte_integer(length), head, packet.payload))


class Imprint(msgspec.Struct, frozen=True, gc=False):
    """One message as all its subscribers of one version see it: what does not differ, spelled once.

    `head` is the topic, `tail` the property block and the payload; the packet
    identifier goes between them.
    """

    head: bytes
    tail: bytes
    length: bytes  # for QoS 0
    length_with_id: bytes  # for QoS 1 and 2

    def bytes(self, qos: int, retain: bool, dup: bool = False, packet_id: int = 0) -> bytes:
        """The whole PUBLISH. For QoS 0 it is the same for everyone and may be kept."""
        if qos:
            first = 0x30 | qos << 1 | retain | dup << 3
            return b"%c%b%b%b%b" % (first, self.length_with_id, self.head, packet_id.to_bytes(2), self.tail)
        return b"%c%b%b%b" % (0x30 | retain, self.length, self.head, self.tail)


def imprint(topic: str, payload: bytes, properties: Properties | None, version: int) -> Imprint:
    """Raises ValueError when the message is longer than MQTT can say."""
    head = _topic_bytes(topic)
    tail = properties_.encode(P.PUBLISH, properties) + payload if version == 5 else payload
    length = len(head) + len(tail)
    return Imprint(head, tail, variable_byte_integer(length), variable_byte_integer(length + 2))


Ack: TypeAlias = Puback | Pubrec | Pubrel | Pubcomp
_ACKS: Final[dict[P, tuple[type[Ack], frozenset[int]]]] = {
    P.PUBACK: (Puback, PUBACK_REASONS),
    P.PUBREC: (Pubrec, PUBACK_REASONS),
    P.PUBREL: (Pubrel, PUBREL_REASONS),
    P.PUBCOMP: (Pubcomp, PUBREL_REASONS),
}


def read_ack(first: int, data: bytes, at: int, end: int, version: int) -> Ack:
    """Reason and properties may be missing from the end: 2 bytes, 3 bytes, or all."""
    packet = P(first >> 4)
    kind, known = _ACKS[packet]
    packet_id, at = read_packet_id(data, at, end)
    if version == 5 and at < end:
        reason, at = read_reason(packet, known, data, at, end)
        properties = None
        if at < end:
            properties, at = properties_.decode(packet, data, at, end)
        at_end(packet, at, end)
        return kind(packet_id, reason, properties)
    at_end(packet, at, end)
    return kind(packet_id)


def write_ack(packet: Ack, version: int) -> bytes:
    """3.1.1 has no way to refuse: there a reason is lost."""
    head = packet.packet_id.to_bytes(2)
    return (
        head + reason_and_properties(packet.TYPE, packet.reason, packet.properties) if version == 5 else head
    )


def encode_pubacks(kind: type[Ack], packet_ids: Iterable[int]) -> bytes:
    """Many successful PUBACK, PUBREC, PUBREL or PUBCOMP; the bytes are the same in every version."""
    head = bytes((kind.TYPE << 4 | FLAGS[kind.TYPE], 2))
    return b"".join([head + packet_id.to_bytes(2) for packet_id in packet_ids])
