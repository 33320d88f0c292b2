"""The MQTT 5 property table: identifier, field, wire type, who may carry it, who may repeat it.

    block := length variable-byte-integer | (identifier byte | value)*

Identifiers are variable byte integers by the letter, but none needs a second
byte, so a byte of 0x80 and up is simply an identifier that nobody knows.

Decoding walks the block once and is bounded twice: by the packet, and by
`USER_PROPERTIES_MAX`, because thousands of tiny user properties have cost other
brokers their CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from bridge.errors import MalformedPacket
from bridge.message import Properties
from bridge.mqtt.packet import PacketType as P
from bridge.mqtt.reason import ReasonCode
from bridge.mqtt.wire import (
    read_binary,
    read_length,
    read_string,
    read_u16,
    read_u32,
    variable_byte_integer,
    write_binary,
    write_string,
)
from bridge.topic import check_topic_name

__all__ = ["TABLE", "USER_PROPERTIES_MAX", "Kind", "application_properties", "decode", "encode"]

USER_PROPERTIES_MAX: Final = 1_000


class Kind(Enum):
    FLAG = auto()  # a byte that is 0 or 1
    U16 = auto()
    U32 = auto()
    LENGTH = auto()  # a variable byte integer
    STRING = auto()
    BINARY = auto()
    PAIR = auto()


class Row(NamedTuple):
    field: str
    kind: Kind
    packets: frozenset[P]
    repeats: frozenset[P] = frozenset()
    zero: ReasonCode | None = None  # what a value of 0 is answered with, where 0 is forbidden


def _in(*packets: P) -> frozenset[P]:
    return frozenset(packets)


_ACKS: Final = (
    P.CONNACK,
    P.PUBACK,
    P.PUBREC,
    P.PUBREL,
    P.PUBCOMP,
    P.SUBACK,
    P.UNSUBACK,
    P.DISCONNECT,
    P.AUTH,
)
_ANY: Final = _in(*_ACKS, P.CONNECT, P.PUBLISH, P.SUBSCRIBE, P.UNSUBSCRIBE, P.WILL)
_APPLICATION: Final = _in(P.PUBLISH, P.WILL)
_K = Kind
_FORBIDDEN: Final = ReasonCode.PROTOCOL_ERROR

# Table 2-4 of the specification, in its order.
TABLE: Final[dict[int, Row]] = {
    0x01: Row("payload_format_indicator", _K.FLAG, _APPLICATION),
    0x02: Row("message_expiry_interval_s", _K.U32, _APPLICATION),
    0x03: Row("content_type", _K.STRING, _APPLICATION),
    0x08: Row("response_topic", _K.STRING, _APPLICATION),
    0x09: Row("correlation_data", _K.BINARY, _APPLICATION),
    0x0B: Row(
        "subscription_identifiers", _K.LENGTH, _in(P.PUBLISH, P.SUBSCRIBE), _in(P.PUBLISH), zero=_FORBIDDEN
    ),
    0x11: Row("session_expiry_interval_s", _K.U32, _in(P.CONNECT, P.CONNACK, P.DISCONNECT)),
    0x12: Row("assigned_client_identifier", _K.STRING, _in(P.CONNACK)),
    0x13: Row("server_keep_alive_s", _K.U16, _in(P.CONNACK)),
    0x15: Row("authentication_method", _K.STRING, _in(P.CONNECT, P.CONNACK, P.AUTH)),
    0x16: Row("authentication_data", _K.BINARY, _in(P.CONNECT, P.CONNACK, P.AUTH)),
    0x17: Row("request_problem_information", _K.FLAG, _in(P.CONNECT)),
    0x18: Row("will_delay_interval_s", _K.U32, _in(P.WILL)),
    0x19: Row("request_response_information", _K.FLAG, _in(P.CONNECT)),
    0x1A: Row("response_information", _K.STRING, _in(P.CONNACK)),
    0x1C: Row("server_reference", _K.STRING, _in(P.CONNACK, P.DISCONNECT)),
    0x1F: Row("reason_string", _K.STRING, _in(*_ACKS)),
    0x21: Row("receive_maximum", _K.U16, _in(P.CONNECT, P.CONNACK), zero=_FORBIDDEN),
    0x22: Row("topic_alias_maximum", _K.U16, _in(P.CONNECT, P.CONNACK)),
    0x23: Row("topic_alias", _K.U16, _in(P.PUBLISH), zero=ReasonCode.TOPIC_ALIAS_INVALID),
    0x24: Row("maximum_qos", _K.FLAG, _in(P.CONNACK)),
    0x25: Row("retain_available", _K.FLAG, _in(P.CONNACK)),
    0x26: Row("user_properties", _K.PAIR, _ANY, _ANY),
    0x27: Row("maximum_packet_size", _K.U32, _in(P.CONNECT, P.CONNACK), zero=_FORBIDDEN),
    0x28: Row("wildcard_subscription_available", _K.FLAG, _in(P.CONNACK)),
    0x29: Row("subscription_identifier_available", _K.FLAG, _in(P.CONNACK)),
    0x2A: Row("shared_subscription_available", _K.FLAG, _in(P.CONNACK)),
}


def _read_flag(data: bytes, at: int, end: int) -> tuple[int, int]:
    if at >= end:
        raise MalformedPacket("a property reaches past its block")
    if data[at] > 1:
        raise MalformedPacket(f"a property that is 0 or 1 is {data[at]}", ReasonCode.PROTOCOL_ERROR)
    return data[at], at + 1


def _read_pair(data: bytes, at: int, end: int) -> tuple[tuple[str, str], int]:
    name, at = read_string(data, at, end)
    value, at = read_string(data, at, end)
    return (name, value), at


_READ: Final[dict[Kind, Callable[[bytes, int, int], tuple[Any, int]]]] = {
    _K.FLAG: _read_flag,
    _K.U16: read_u16,
    _K.U32: read_u32,
    _K.LENGTH: read_length,
    _K.STRING: read_string,
    _K.BINARY: read_binary,
    _K.PAIR: _read_pair,
}
_WRITE: Final[dict[Kind, Callable[[Any], bytes]]] = {
    _K.FLAG: lambda value: bytes((value,)),
    _K.U16: lambda value: value.to_bytes(2),
    _K.U32: lambda value: value.to_bytes(4),
    _K.LENGTH: variable_byte_integer,
    _K.STRING: write_string,
    _K.BINARY: write_binary,
    _K.PAIR: lambda value: write_string(value[0]) + write_string(value[1]),
}
# Many values in one field: these are tuples in `Properties`, everything else is a value or None.
_MANY: Final = frozenset({0x0B, 0x26})
_DECODE: Final = {
    packet: {
        number: (row.field, _READ[row.kind], number in _MANY, packet in row.repeats, row.zero)
        for number, row in TABLE.items()
        if packet in row.packets
    }
    for packet in P
}
# Any order is as good to the specification. Where a client was only ever tried with Mosquitto this is the
# one it knows; what is not named here stands between, in the order of the table.
_FIRST: Final = {P.CONNACK: (0x13, 0x22, 0x12, 0x15, 0x16)}
_LAST: Final = {P.CONNACK: (0x25, 0x27, 0x21, 0x24), P.PUBLISH: (0x02, 0x23, 0x0B)}


def _in_order(packet: P) -> list[int]:
    first, last = _FIRST.get(packet, ()), _LAST.get(packet, ())
    return [*first, *(number for number in TABLE if number not in first + last), *last]


_ENCODE: Final = {
    packet: [
        (bytes((number,)), TABLE[number].field, _WRITE[TABLE[number].kind], number in _MANY)
        for number in _in_order(packet)
        if packet in TABLE[number].packets
    ]
    for packet in P
}


def decode(packet: P, data: bytes, at: int, end: int) -> tuple[Properties | None, int]:
    """Read a property block; an empty one is None.

    Raises MalformedPacket: 0x81 for an identifier that this packet may not carry
    (section 2.2.2.2), 0x82 for one that stands twice or has a forbidden value, 0x94
    for a topic alias of 0, 0x90 for a response topic with wildcards
    [MQTT-3.3.2-14], 0x97 for more than `USER_PROPERTIES_MAX` user properties.
    """
    length, at = read_length(data, at, end)
    if length == 0:
        return None, at
    stop = at + length
    if stop > end:
        raise MalformedPacket("the property length reaches past its packet")
    rows = _DECODE[packet]
    found: dict[str, Any] = {}
    while at < stop:
        number = data[at]
        row = rows.get(number)
        if row is None:
            text = f"{packet.name} cannot carry property 0x{number:02x}"
            raise MalformedPacket(text, mosquitto=_elsewhere(packet, number, data, at + 1, stop))
        field, read, many, repeats, zero = row
        value, at = read(data, at + 1, stop)
        if zero is not None and value == 0:
            elsewhere = ReasonCode.MALFORMED_PACKET if packet is P.SUBSCRIBE else None
            raise MalformedPacket(f"{field} must not be 0", zero, elsewhere)
        if not many:
            if field in found:
                raise MalformedPacket(f"{field} stands twice in {packet.name}", ReasonCode.PROTOCOL_ERROR)
            found[field] = value
        elif field not in found:
            found[field] = [value]
        elif not repeats:
            raise MalformedPacket(f"{field} stands twice in {packet.name}", ReasonCode.PROTOCOL_ERROR)
        else:
            found[field].append(value)
            if len(found[field]) > USER_PROPERTIES_MAX:
                raise MalformedPacket(f"more than {USER_PROPERTIES_MAX} {field}", ReasonCode.QUOTA_EXCEEDED)
    _check(found)
    for field in ("user_properties", "subscription_identifiers"):
        if field in found:
            found[field] = tuple(found[field])
    return Properties(**found), stop


def _elsewhere(packet: P, number: int, data: bytes, at: int, stop: int) -> int | None:
    """What Mosquitto says of a property out of place: it reads the whole block before it looks at places.

    (Section 2.2.2.2 has 0x81 for both, one that is none and one that is in the wrong packet.)
    """
    if packet in (P.SUBSCRIBE, P.UNSUBSCRIBE):
        return None
    try:
        while (row := TABLE.get(number)) is not None:
            _, at = _READ[row.kind](data, at, stop)
            if at >= stop:
                return ReasonCode.PROTOCOL_ERROR
            number, at = data[at], at + 1
    except MalformedPacket:
        pass
    return None


def _check(found: dict[str, Any]) -> None:
    """The rules between properties, and the one about topics."""
    topic = found.get("response_topic")
    if topic is not None and (wrong := check_topic_name(topic)):
        raise MalformedPacket(
            f"response topic: {wrong}", ReasonCode.TOPIC_NAME_INVALID, ReasonCode.PROTOCOL_ERROR
        )
    if "authentication_data" in found and "authentication_method" not in found:
        raise MalformedPacket("authentication data without a method", ReasonCode.PROTOCOL_ERROR)


def encode(packet: P, properties: Properties | None) -> bytes:
    """The property block, length included. Fields that `packet` may not carry are left out.

    Raises ValueError for a value that the wire cannot hold.
    """
    if properties is None:
        return b"\0"
    parts: list[bytes] = []
    for number, field, write, many in _ENCODE[packet]:
        value = getattr(properties, field)
        if many:
            for one in value:
                parts += (number, write(one))
        elif value is not None:
            try:
                parts += (number, write(value))
            except OverflowError as cause:
                raise ValueError(f"{field}={value} does not fit") from cause
    block = b"".join(parts)
    return variable_byte_integer(len(block)) + block


_APPLICATION_FIELDS: Final = Properties.__struct_fields__[:6]
_NONE: Final = Properties()


def application_properties(properties: Properties | None) -> Properties | None:
    """What belongs to the application message and travels on; None when that is nothing."""
    if properties is None:
        return None
    kept = Properties(*[getattr(properties, field) for field in _APPLICATION_FIELDS])
    return None if kept == _NONE else kept
