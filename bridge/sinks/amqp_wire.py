"""One message as the bytes of its AMQP frames.

    publish := method frame | header frame | body frame *      (AMQP 0-9-1, 4.2.6)
    frame   := type u8 | channel u16 | size u32 | payload | 0xCE

The general encoder of an AMQP library walks a table of every property for every
message. Here the parts that many messages share are built once. Of most messages only
four things are their own: id, time, payload and its size; those are filled into a
stencil, and all frames are one piece. `Unsendable` is raised for what AMQP cannot say:
a routing key over 255 bytes, a header over one frame.

What a device wrote never becomes the *name* of a header. RabbitMQ routes by some
of them (CC, BCC), so a device could otherwise send to queues that the operator
never named; user properties travel as one array of pairs, which also keeps their
order and their duplicates.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

import msgspec

from bridge.message import CLOCK_PLAUSIBLE_NS, Properties
from bridge.sinks.base import Outgoing
from bridge.sinks.metadata import CLOCK_UNSET, rfc3339

__all__ = ["Unsendable", "publish_frames"]

_CHANNEL: Final = 1
_METHOD, _HEADER, _BODY = 1, 2, 3
_FRAME_END: Final = b"\xce"
FRAME_OVERHEAD: Final = 8

# Basic properties in the order of their flags, highest bit first (AMQP 0-9-1, 4.2.6.1).
_CONTENT_TYPE: Final = 1 << 15
_CONTENT_ENCODING: Final = 1 << 14
_HEADERS: Final = 1 << 13
_DELIVERY_MODE: Final = 1 << 12
_CORRELATION_ID: Final = 1 << 10
_REPLY_TO: Final = 1 << 9
_EXPIRATION: Final = 1 << 8
_MESSAGE_ID: Final = 1 << 7
_TIMESTAMP: Final = 1 << 6

_PERSISTENT: Final = b"\x02"
SHORT_BYTES_MAX: Final = 255
_NONE: Final = Properties()
# RabbitMQ closes the channel over a longer one; 49 days are close enough to for ever.
EXPIRATION_MS_MAX: Final = (1 << 32) - 1

_frame = struct.Struct(">BHI")
_header = struct.Struct(">HHQH")
_u32 = struct.Struct(">I")
_u64 = struct.Struct(">Q")
# The timestamp and the end of the header frame; the begin of the body frame.
_tail = struct.Struct(">QBBHI")
_RFC3339_BYTES: Final = 30


class Unsendable(Exception):
    """AMQP has no way to say this message."""


def publish_frames(outgoing: Outgoing, exchange: str, frame_max: int) -> list[bytes]:
    """Return the bytes of one persistent, mandatory publish, in one piece or a piece for each frame.

    Raises Unsendable.
    """
    message = outgoing.message
    if (
        message.properties is None
        and outgoing.body is None
        and not outgoing.headers
        and not outgoing.replayed
        and message.received_ns >= CLOCK_PLAUSIBLE_NS
        and 0 < len(message.payload) <= frame_max - FRAME_OVERHEAD
        and (filled := _fill_in(outgoing, exchange, frame_max)) is not None
    ):
        return [filled]
    headers = []
    if message.topic:  # a pack has none: these are in it
        headers.append(_fixed_headers(message.topic, message.qos, message.retain, message.publisher))
    headers += [_RECEIVED_AT, _long_value(rfc3339(message.received_ns).encode())]
    if outgoing.replayed:
        headers.append(_REPLAYED)
    if outgoing.headers:
        headers += [_name(name) + _long_value(value.encode()) for name, value in outgoing.headers]
    flags = _HEADERS | _DELIVERY_MODE | _MESSAGE_ID | _TIMESTAMP
    stamp = _u64.pack(max(0, message.received_ns // 1_000_000_000))
    if message.received_ns < CLOCK_PLAUSIBLE_NS:
        # A consumer may sort or drop by the timestamp: better none than that of a clock not yet set.
        flags, stamp = flags & ~_TIMESTAMP, b""
        headers.append(_UNSET)
    before, after = b"", b""
    properties, payload = message.properties, message.payload
    if outgoing.body is not None:
        properties, payload = _of_body(properties or _NONE, outgoing.content_type), outgoing.body
    if properties is not None:
        flags, before, after = _properties(properties, flags, headers)
    if outgoing.content_encoding:
        flags, before = flags | _CONTENT_ENCODING, before + _short(outgoing.content_encoding.encode())
    table = b"".join(headers)
    head = b"".join(
        (
            _header.pack(60, 0, len(payload), flags),
            before,
            _u32.pack(len(table)),
            table,
            _PERSISTENT,
            after,
            _short(outgoing.id.encode(), "message id"),
            stamp,
        )
    )
    if len(head) + FRAME_OVERHEAD > frame_max:
        room = frame_max - FRAME_OVERHEAD
        raise Unsendable(f"topic and properties take {len(head)} bytes; one AMQP frame has room for {room}")
    frames = [_publish_method(exchange, outgoing.address), _framed(_HEADER, head)]
    room = frame_max - FRAME_OVERHEAD
    if payload:
        if len(payload) <= room:
            frames.append(_framed(_BODY, payload))
        else:
            frames += [_framed(_BODY, payload[at : at + room]) for at in range(0, len(payload), room)]
    return frames


def _fill_in(outgoing: Outgoing, exchange: str, frame_max: int) -> bytes | None:
    """The whole publish of a message without anything special; None when it takes more than that."""
    message = outgoing.message
    payload, size = message.payload, len(message.payload)
    message_id = outgoing.id.encode()
    first, second, third, head_bytes = _stencil(
        exchange, outgoing.address, message.topic, message.qos, message.retain, message.publisher,
        len(message_id),
    )  # fmt: skip
    if head_bytes > frame_max:
        return None
    seconds, ns = divmod(message.received_ns, 1_000_000_000)
    return b"".join(
        (
            first,
            _u64.pack(size),
            second,
            _second(seconds) % ns,
            third,
            message_id,
            _tail.pack(seconds, 0xCE, _BODY, _CHANNEL, size),
            payload,
            _FRAME_END,
        )
    )


@lru_cache(maxsize=4096)
def _stencil(
    exchange: str, address: str, topic: str, qos: int, retain: bool, publisher: str, id_bytes: int
) -> tuple[bytes, bytes, bytes, int]:
    """What messages of one device about one topic have in common, and the size of their header frame.

    Between the three parts stand the size of the payload, and the time of arrival; behind them the id.
    """
    if id_bytes > SHORT_BYTES_MAX:
        raise Unsendable(f"the message id has {id_bytes} bytes; AMQP allows {SHORT_BYTES_MAX}")
    fixed = _fixed_headers(topic, qos, retain, publisher) + _RECEIVED_AT
    table_bytes = len(fixed) + 5 + _RFC3339_BYTES
    # Class, weight and the size of the body; flags and the table; delivery mode, id and timestamp.
    head_bytes = 12 + 2 + 4 + table_bytes + 1 + 1 + id_bytes + 8
    flags = _HEADERS | _DELIVERY_MODE | _MESSAGE_ID | _TIMESTAMP
    first = _publish_method(exchange, address) + _frame.pack(_HEADER, _CHANNEL, head_bytes)
    second = flags.to_bytes(2) + _u32.pack(table_bytes) + fixed + b"S" + _u32.pack(_RFC3339_BYTES)
    return (
        first + b"\x00\x3c\x00\x00",
        second,
        _PERSISTENT + bytes((id_bytes,)),
        head_bytes + FRAME_OVERHEAD,
    )


@lru_cache(maxsize=64)
def _second(second: int) -> bytes:
    """A time of arrival that lacks only its nanoseconds."""
    return rfc3339(second * 1_000_000_000)[:-10].encode() + b"%09dZ"


def _of_body(properties: Properties, content_type: str) -> Properties:
    """What a device said of its payload does not hold for what travels instead of it."""
    return msgspec.structs.replace(
        properties, content_type=content_type or None, payload_format_indicator=None
    )


def _properties(p: Properties, flags: int, headers: list[bytes]) -> tuple[int, bytes, bytes]:
    """Return the flags and what lies before and after the headers; what does not fit becomes a header."""
    content_type = correlation_id = reply_to = expiration = b""
    if p.content_type is not None:
        spelled = p.content_type.encode()
        if len(spelled) <= SHORT_BYTES_MAX:
            flags, content_type = flags | _CONTENT_TYPE, _short(spelled)
        else:
            headers.append(_name("content_type") + _long_value(spelled))
    if p.correlation_data is not None:
        if _is_short_text(p.correlation_data):
            flags, correlation_id = flags | _CORRELATION_ID, _short(p.correlation_data)
        else:
            headers.append(_name("correlation_data") + b"x" + _sized(p.correlation_data))
    if p.response_topic is not None:
        spelled = p.response_topic.encode()
        if len(spelled) <= SHORT_BYTES_MAX:
            flags, reply_to = flags | _REPLY_TO, _short(spelled)
        else:
            headers.append(_name("response_topic") + _long_value(spelled))
    if p.message_expiry_interval_s is not None:
        headers.append(_name("message_expiry_interval_s") + b"l" + _u64.pack(p.message_expiry_interval_s))
        # Counted from the hand-over, all of it: subtracting the age would trust a wall clock that may
        # have jumped, and would make the broker drop what is not old at all.
        expiration_ms = p.message_expiry_interval_s * 1000
        if expiration_ms <= EXPIRATION_MS_MAX:
            flags, expiration = flags | _EXPIRATION, _short(b"%d" % expiration_ms)
    if p.payload_format_indicator is not None:
        headers.append(_name("payload_format_indicator") + b"I" + _u32.pack(p.payload_format_indicator))
    if p.user_properties:
        pairs = b"".join(
            b"A" + _sized(_long_value(name.encode()) + _long_value(value.encode()))
            for name, value in p.user_properties
        )
        headers.append(_name("user_properties") + b"A" + _sized(pairs))
    return flags, content_type, correlation_id + reply_to + expiration


def _is_short_text(data: bytes) -> bool:
    """Clients in other languages read a correlation id as text, so only text goes there."""
    if len(data) > SHORT_BYTES_MAX or b"\0" in data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@lru_cache(maxsize=4096)
def _publish_method(exchange: str, routing_key: str) -> bytes:
    key = _short(routing_key.encode(), "routing key")
    # 60.40 basic.publish; the last bit field is mandatory: what no queue wants comes back to us.
    return _framed(
        _METHOD, b"\x00\x3c\x00\x28\x00\x00" + _short(exchange.encode(), "exchange") + key + b"\x01"
    )


@lru_cache(maxsize=4096)
def _fixed_headers(topic: str, qos: int, retain: bool, publisher: str) -> bytes:
    headers = [
        _name("topic") + _long_value(topic.encode()),
        _name("qos") + b"I" + _u32.pack(qos),
        _name("retain") + (b"t\x01" if retain else b"t\x00"),
    ]
    if publisher:
        headers.append(_name("publisher") + _long_value(publisher.encode()))
    return b"".join(headers)


def _framed(kind: int, payload: bytes) -> bytes:
    return b"".join((_frame.pack(kind, _CHANNEL, len(payload)), payload, _FRAME_END))


def _short(text: bytes, what: str = "value") -> bytes:
    if len(text) > SHORT_BYTES_MAX:
        raise Unsendable(f"the {what} has {len(text)} bytes; AMQP allows {SHORT_BYTES_MAX}")
    return bytes((len(text),)) + text


def _sized(data: bytes) -> bytes:
    return _u32.pack(len(data)) + data


def _long_value(text: bytes) -> bytes:
    return b"S" + _sized(text)


def _name(name: str) -> bytes:
    return _short(name.encode())


_RECEIVED_AT: Final = _name("received_at")
_UNSET: Final = _name("clock") + _long_value(CLOCK_UNSET.encode())
_REPLAYED: Final = _name("replayed") + b"t\x01"
