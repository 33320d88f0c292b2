"""What the bodies of several packets have in common.

Every reader takes `(data, at, end)` and gives `(value, next)`, as in `wire`, and
raises MalformedPacket for what must not be said.
"""

from __future__ import annotations

from typing import Final

from bridge.errors import MalformedPacket
from bridge.message import Properties
from bridge.mqtt import property as properties_
from bridge.mqtt.packet import PacketType as P
from bridge.mqtt.reason import ReasonCode
from bridge.mqtt.wire import read_u16

__all__ = [
    "FLAGS",
    "at_end",
    "read_packet_id",
    "read_properties",
    "read_reason",
    "reason_and_properties",
]

# The flags of the first byte [MQTT-2.1.3-1]; PUBLISH checks its own.
FLAGS: Final = {packet: 2 if packet in (P.PUBREL, P.SUBSCRIBE, P.UNSUBSCRIBE) else 0 for packet in P}


def read_properties(packet: P, data: bytes, at: int, end: int, version: int) -> tuple[Properties | None, int]:
    return properties_.decode(packet, data, at, end) if version == 5 else (None, at)


def read_packet_id(data: bytes, at: int, end: int, elsewhere: int | None = None) -> tuple[int, int]:
    packet_id, at = read_u16(data, at, end)
    if packet_id == 0:
        # v5 [MQTT-2.2.1-3], v3 [MQTT-2.3.1-1]
        raise MalformedPacket("a packet identifier is 0", ReasonCode.PROTOCOL_ERROR, elsewhere)
    return packet_id, at


def read_reason(packet: P, known: frozenset[int], data: bytes, at: int, end: int) -> tuple[int, int]:
    if at >= end:
        raise MalformedPacket(f"{packet.name} ends before its reason code")
    if data[at] not in known:
        raise MalformedPacket(
            f"{packet.name} with the reason code 0x{data[at]:02x}",
            ReasonCode.PROTOCOL_ERROR,
            0 if packet is P.DISCONNECT else None,
        )
    return data[at], at + 1


def at_end(packet: P, at: int, end: int, elsewhere: int | None = None) -> None:
    if at != end:
        raise MalformedPacket(f"{packet.name} has {end - at} bytes too many", mosquitto=elsewhere)


def reason_and_properties(packet: P, reason: int, properties: Properties | None) -> bytes:
    """Reason and properties in the shortest form."""
    if properties is None:
        return bytes((reason,)) if reason else b""
    return bytes((reason,)) + properties_.encode(packet, properties)
