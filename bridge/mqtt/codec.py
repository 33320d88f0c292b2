"""One packet ⇄ bytes, in MQTT 3.1, 3.1.1 and 5, for clients and servers alike.

    packet := first byte (type << 4 | flags) | length variable-byte-integer | body

Each packet type has one reader of its body and one writer of its body, side by
side; two tables at the end find them. Whether a packet is *allowed* now, and from
this side, is not asked here: that is the connection's table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bridge.errors import MalformedPacket
from bridge.mqtt import property as properties_
from bridge.mqtt.connect import (
    MalformedConnect,
    read_connack,
    read_connect,
    write_connack,
    write_connect,
)
from bridge.mqtt.packet import (
    PINGREQ,
    PINGRESP,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
)
from bridge.mqtt.packet import PacketType as P
from bridge.mqtt.parts import (
    FLAGS,
    at_end,
    read_packet_id,
    read_properties,
    read_reason,
    reason_and_properties,
)
from bridge.mqtt.publish import (
    Imprint,
    encode_pubacks,
    encode_publish,
    imprint,
    read_ack,
    read_publish,
    write_ack,
)
from bridge.mqtt.reason import (
    AUTH_REASONS,
    DISCONNECT_REASONS,
    SUBACK_REASONS,
    UNSUBACK_REASONS,
    ReasonCode,
)
from bridge.mqtt.wire import (
    read_string,
    read_variable_byte_integer,
    variable_byte_integer,
    write_string,
)
from bridge.topic import LEVELS_ANY, check_topic_filter

__all__ = [
    "FILTERS_MAX",
    "Imprint",
    "MalformedConnect",
    "check_flags",
    "decode",
    "decode_body",
    "encode",
    "encode_pubacks",
    "imprint",
]

FILTERS_MAX: Final = 1_024  # in one SUBSCRIBE or UNSUBSCRIBE; a 1 MiB packet could hold 200,000

_PROTOCOL_ERROR: Final = ReasonCode.PROTOCOL_ERROR
_MALFORMED: Final = ReasonCode.MALFORMED_PACKET


# ---- from bytes ----


def decode(data: bytes, version: int, at: int = 0) -> tuple[Packet, int] | None:
    """Return `(packet, next)`, or None while more bytes are needed. Raises MalformedPacket.

    One packet at a time, for tests and tools; the framer is the fast way.
    """
    if at >= len(data):
        return None
    first = data[at]
    check_flags(first, version)
    found = read_variable_byte_integer(data, at + 1, len(data))
    if found is None:
        return None
    length, body = found
    if body + length > len(data):
        return None
    return decode_body(first, data, body, body + length, version), body + length


def check_flags(first: int, version: int) -> None:
    """Raise MalformedPacket for a first byte that no packet of this version has.

    MQTT 3.1 let a client repeat SUBSCRIBE, UNSUBSCRIBE and PUBREL with DUP set.
    """
    packet, flags = first >> 4, first & 0x0F
    if packet == P.PUBLISH:
        if flags & 0x06 == 0x06:
            raise MalformedPacket("PUBLISH with QoS 3")  # [MQTT-3.3.1-4]
        if flags & 0x0E == 0x08:
            raise MalformedPacket("PUBLISH with QoS 0 and DUP")  # [MQTT-3.3.1-2]
        return
    if packet == 0 or (packet == P.AUTH and version in (3, 4)):
        raise MalformedPacket(f"packet type {packet} is reserved", mosquitto=_PROTOCOL_ERROR)
    wanted = FLAGS[P(packet)]
    if flags == wanted or (version == 3 and wanted == 2 and flags == 0x0A):
        return
    if packet == P.CONNECT and version == 0 and flags & 0x06 != 0x06:
        return  # MQTT 3.1 has no use for QoS, DUP and RETAIN here; which version it is stands further on
    raise MalformedPacket(
        f"{P(packet).name} with the reserved flags {flags:#x}",
        mosquitto=_PROTOCOL_ERROR if packet in (P.CONNACK, P.AUTH) else None,
    )


def decode_body(first: int, data: bytes, at: int, end: int, version: int) -> Packet:
    """Decode the whole packet whose body is `data[at:end]` and whose first byte passed `check_flags`.

    Raises MalformedPacket: 0x81 for what cannot be read, 0x82 for what must not be
    said, 0x90 for a Topic Name and 0x8F for a Topic Filter that is not one.
    """
    return _READERS[first >> 4](first, data, at, end, version)


def _read_filter(data: bytes, at: int, end: int) -> tuple[str, int]:
    topic_filter, at = read_string(data, at, end)
    elsewhere = _MALFORMED
    wrong = check_topic_filter(topic_filter, LEVELS_ANY)
    if wrong is None and topic_filter.startswith("$share/"):
        _, _, shared = topic_filter.partition("/")
        share, _, rest = shared.partition("/")
        if not share or "+" in share or "#" in share or not rest:
            wrong = "a shared subscription is $share/<name>/<filter>"  # [MQTT-4.8.2-1], [MQTT-4.8.2-2]
            elsewhere = _MALFORMED if "#" in share else _PROTOCOL_ERROR
    if wrong:
        raise MalformedPacket(f"topic filter: {wrong}", ReasonCode.TOPIC_FILTER_INVALID, elsewhere)
    return topic_filter, at


def _read_subscribe(first: int, data: bytes, at: int, end: int, version: int) -> Subscribe:
    packet_id, at = read_packet_id(data, at, end, _MALFORMED)
    properties, at = read_properties(P.SUBSCRIBE, data, at, end, version)
    identifier = None
    if properties is not None and properties.subscription_identifiers:
        identifier = properties.subscription_identifiers[0]
    subscriptions: list[Subscription] = []
    while at < end:
        topic_filter, at = _read_filter(data, at, end)
        if at >= end:
            raise MalformedPacket("SUBSCRIBE ends before the options of its filter")
        options = data[at]
        at += 1
        if options & 3 == 3 or options & (0xC0 if version == 5 else 0xFC):
            raise MalformedPacket(f"SUBSCRIBE with the options {options:#04x}")  # v5 [MQTT-3.8.3-5], v3 [-4]
        if options & 0x30 == 0x30:
            raise MalformedPacket("SUBSCRIBE with retain handling 3", _PROTOCOL_ERROR, _MALFORMED)
        if options & 0x04 and topic_filter.startswith("$share/"):
            raise MalformedPacket("SUBSCRIBE shared and no local", _PROTOCOL_ERROR)  # [MQTT-3.8.3-4]
        subscriptions.append(
            Subscription(
                topic_filter, options & 3, bool(options & 4), bool(options & 8), options >> 4, identifier
            )
        )
        _count(P.SUBSCRIBE, len(subscriptions))
    if not subscriptions:
        # v5 [MQTT-3.8.3-2], v3 [MQTT-3.8.3-3]
        raise MalformedPacket("SUBSCRIBE without a filter", _PROTOCOL_ERROR, _MALFORMED)
    return Subscribe(packet_id, tuple(subscriptions), properties)


def _count(packet: P, filters: int) -> None:
    if filters > FILTERS_MAX:
        raise MalformedPacket(f"{packet.name} has over {FILTERS_MAX} filters", ReasonCode.QUOTA_EXCEEDED)


def _write_subscribe(packet: Subscribe, version: int) -> bytes:
    body = [packet.packet_id.to_bytes(2)]
    if version == 5:
        body.append(properties_.encode(P.SUBSCRIBE, packet.properties))
    for each in packet.subscriptions:
        options = each.qos
        if version == 5:
            options |= each.no_local << 2 | each.retain_as_published << 3 | each.retain_handling << 4
        body += (write_string(each.topic_filter), bytes((options,)))
    return b"".join(body)


def _read_suback(first: int, data: bytes, at: int, end: int, version: int) -> Suback:
    packet_id, at = read_packet_id(data, at, end)
    properties, at = read_properties(P.SUBACK, data, at, end, version)
    known = SUBACK_REASONS if version == 5 else frozenset({0, 1, 2, 0x80})
    return Suback(packet_id, _read_reasons(P.SUBACK, known, data, at, end), properties)


def _read_reasons(packet: P, known: frozenset[int], data: bytes, at: int, end: int) -> tuple[int, ...]:
    reasons = tuple(data[at:end])
    if not reasons:
        raise MalformedPacket(f"{packet.name} without a reason code", _PROTOCOL_ERROR)
    if not known.issuperset(reasons):
        raise MalformedPacket(f"{packet.name} with an unknown reason code", _PROTOCOL_ERROR)
    return reasons


def _write_suback(packet: Suback, version: int) -> bytes:
    if version == 5:
        head = packet.packet_id.to_bytes(2) + properties_.encode(P.SUBACK, packet.properties)
        return head + bytes(packet.reasons)
    return packet.packet_id.to_bytes(2) + bytes([min(reason, 0x80) for reason in packet.reasons])


def _read_unsubscribe(first: int, data: bytes, at: int, end: int, version: int) -> Unsubscribe:
    packet_id, at = read_packet_id(data, at, end, _MALFORMED)
    properties, at = read_properties(P.UNSUBSCRIBE, data, at, end, version)
    topic_filters: list[str] = []
    while at < end:
        topic_filter, at = _read_filter(data, at, end)
        topic_filters.append(topic_filter)
        _count(P.UNSUBSCRIBE, len(topic_filters))
    if not topic_filters:
        raise MalformedPacket("UNSUBSCRIBE without a filter", _PROTOCOL_ERROR, _MALFORMED)  # [MQTT-3.10.3-2]
    return Unsubscribe(packet_id, tuple(topic_filters), properties)


def _write_unsubscribe(packet: Unsubscribe, version: int) -> bytes:
    head = packet.packet_id.to_bytes(2)
    if version == 5:
        head += properties_.encode(P.UNSUBSCRIBE, packet.properties)
    return head + b"".join([write_string(topic_filter) for topic_filter in packet.topic_filters])


def _read_unsuback(first: int, data: bytes, at: int, end: int, version: int) -> Unsuback:
    packet_id, at = read_packet_id(data, at, end)
    if version < 5:
        at_end(P.UNSUBACK, at, end)
        return Unsuback(packet_id)
    properties, at = properties_.decode(P.UNSUBACK, data, at, end)
    return Unsuback(packet_id, _read_reasons(P.UNSUBACK, UNSUBACK_REASONS, data, at, end), properties)


def _write_unsuback(packet: Unsuback, version: int) -> bytes:
    if version < 5:
        return packet.packet_id.to_bytes(2)
    head = packet.packet_id.to_bytes(2) + properties_.encode(P.UNSUBACK, packet.properties)
    return head + bytes(packet.reasons)


def _read_ping(first: int, data: bytes, at: int, end: int, version: int) -> Packet:
    packet = P(first >> 4)
    at_end(packet, at, end, 0)
    return PINGREQ if packet is P.PINGREQ else PINGRESP


def _read_last(first: int, data: bytes, at: int, end: int, version: int) -> Disconnect | Auth:
    """DISCONNECT and AUTH: reason and properties may both be missing from the end."""
    packet = P(first >> 4)
    kind, known = (Disconnect, DISCONNECT_REASONS) if packet is P.DISCONNECT else (Auth, AUTH_REASONS)
    reason, properties = 0, None
    if version == 5 and at < end:
        reason, at = read_reason(packet, known, data, at, end)
        if at < end:
            properties, at = properties_.decode(packet, data, at, end)
    at_end(packet, at, end)
    return kind(reason, properties)


_READERS: Final[dict[int, Callable[[int, bytes, int, int, int], Packet]]] = {
    P.CONNECT: read_connect,
    P.CONNACK: read_connack,
    P.PUBLISH: read_publish,
    P.PUBACK: read_ack,
    P.PUBREC: read_ack,
    P.PUBREL: read_ack,
    P.PUBCOMP: read_ack,
    P.SUBSCRIBE: _read_subscribe,
    P.SUBACK: _read_suback,
    P.UNSUBSCRIBE: _read_unsubscribe,
    P.UNSUBACK: _read_unsuback,
    P.PINGREQ: _read_ping,
    P.PINGRESP: _read_ping,
    P.DISCONNECT: _read_last,
    P.AUTH: _read_last,
}

# ---- to bytes ----


def _write_last(packet: Disconnect | Auth, version: int) -> bytes:
    return reason_and_properties(packet.TYPE, packet.reason, packet.properties) if version == 5 else b""


def _write_nothing(packet: Packet, version: int) -> bytes:
    return b""


_WRITERS: Final[dict[type[Packet], Callable[[Any, int], bytes]]] = {
    Connect: write_connect,
    Connack: write_connack,
    Puback: write_ack,
    Pubrec: write_ack,
    Pubrel: write_ack,
    Pubcomp: write_ack,
    Subscribe: _write_subscribe,
    Suback: _write_suback,
    Unsubscribe: _write_unsubscribe,
    Unsuback: _write_unsuback,
    Disconnect: _write_last,
    Auth: _write_last,
}
_NOTHING = _write_nothing


def encode(packet: Packet, version: int) -> bytes:
    """The whole packet; what `version` cannot say is left out, CONNECT speaks its own version.

    Raises ValueError for what cannot be said at all, such as a string of more than
    65,535 bytes, or a refusal in CONNACK for which 3.1.1 has no return code.
    """
    kind = type(packet)
    if kind is Publish:
        return encode_publish(packet, version)  # type: ignore[arg-type]
    body = _WRITERS.get(kind, _NOTHING)(packet, version)
    return bytes((packet.TYPE << 4 | FLAGS[packet.TYPE],)) + variable_byte_integer(len(body)) + body
