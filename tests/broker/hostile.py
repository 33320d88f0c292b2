"""What has broken other brokers, as raw bytes: what must close, what must not matter, what must open nothing.

Each input has the number of the row that it belongs to in the list of faults of
other brokers, which is kept beside the design; `ROWS` says in a few words what
happened there, and `ELSEWHERE` which of them no bytes of MQTT can bring about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from bridge.mqtt.codec import encode
from bridge.mqtt.packet import Connect
from bridge.mqtt.wire import variable_byte_integer, write_string

__all__ = [
    "CLOSED",
    "ELSEWHERE",
    "GUARDED",
    "HARMLESS",
    "ROWS",
    "Input",
    "connect",
    "packet",
    "publish",
    "subscribe",
]

ROWS: Final = {
    1: "a length of five bytes",
    2: "a huge length before CONNECT",
    3: "a length that its packet does not keep",
    4: "a compression bomb before the login",
    5: "a topic of very many levels",
    6: "filters that take long to match",
    7: "an empty topic, a missing alias",
    8: "packets that only a server sends",
    9: "topics that begin with $",
    10: "thousands of user properties",
    11: "QoS 2 identifiers that are never released",
    12: "a broken will, a broken CONNECT",
    13: "a CONNECT that never ends",
    14: "a queue that grows until nothing moves",
    15: "one client identifier, again and again",
    16: "wildcards and patterns as names",
    17: "the session of another user",
    18: "a delivery that no rule was asked about",
    19: "a SUBSCRIBE of which only the first filter was checked",
    24: "no user name where a rule needs one",
    32: "scripts as client identifiers and topics",
}
ELSEWHERE: Final = {
    20: "files of users and rules: no bytes of a device",
    21: "which sockets listen is decided before a device comes",
    22: "certificates are read before a device comes",
    23: "certificates are checked before the first byte of MQTT",
    25: "modes of files",
    26: "which listener asks for a login is decided before a device comes",
    27: "damaged files: tests/faults/test_garbage.py",
    28: "odd limits in the configuration",
    29: "pickle: tests/test_architecture.py",
    30: "ZeroMQ's CURVE",
    31: "HTTP: tests/web",
    33: "YAML: tests/config",
    34: "there is no default password",
}


BOTH: Final = (4, 5)


class Input(NamedTuple):
    """`reasons`: what may be said before closing, in the codes of MQTT 5; None is closing without a word."""

    row: int
    what: str
    version: int
    instead_of_connect: bool
    data: bytes
    reasons: frozenset[int | None] = frozenset({None})

    @property
    def name(self) -> str:
        return f"{self.row}: {self.what}{' first' * self.instead_of_connect}, {self.version}"

    @property
    def unfinished(self) -> bool:
        """Whether the packet is not all there yet."""
        return self.row in (3, 13)

    @property
    def versions(self) -> tuple[int, ...]:
        """Those it is an input for: without the name of MQTT, no version has been said yet."""
        return BOTH if self.instead_of_connect and b"MQ" not in self.data[:12] else (self.version,)


# ---- bytes -----------------------------------------------------------------------------


def packet(first: int, body: bytes = b"") -> bytes:
    return bytes([first]) + variable_byte_integer(len(body)) + body


def connect(
    version: int,
    client_id: bytes = b"\x00\x01x",
    flags: int = 2,
    properties: bytes = b"\x00",
    rest: bytes = b"",
    name: bytes = b"\x00\x04MQTT",
    level: int | None = None,
) -> bytes:
    head = name + bytes([version if level is None else level, flags]) + b"\x00\x3c"
    return packet(0x10, head + (properties if version == 5 else b"") + client_id + rest)


def will(
    version: int, topic: bytes, payload: bytes = b"\0\1x", properties: bytes = b"\0", **more: int
) -> bytes:
    return connect(version, flags=6, rest=(properties if version == 5 else b"") + topic + payload, **more)


def publish(
    version: int, topic: bytes, payload: bytes = b"x", properties: bytes = b"\0", first: int = 0x30
) -> bytes:
    identifier = b"\0\1" if first & 6 else b""
    block = properties if version == 5 else b""
    return packet(first, len(topic).to_bytes(2) + topic + identifier + block + payload)


def subscribe(
    version: int, *filters: bytes | str, options: int = 0, first: int = 0x82, head: bytes = b"\0\1"
) -> bytes:
    body = head + (b"\0" if version == 5 else b"")
    for each in filters:
        raw = each.encode() if isinstance(each, str) else each
        body += len(raw).to_bytes(2) + raw + bytes([options])
    return packet(first, body)


def unsubscribe(version: int, *filters: bytes, first: int = 0xA2, head: bytes = b"\0\1") -> bytes:
    body = head + (b"\0" if version == 5 else b"")
    return packet(first, body + b"".join(len(each).to_bytes(2) + each for each in filters))


FIVE_BYTES: Final = b"\xff\xff\xff\xff\x7f"
USER: Final = b"\x26" + write_string("k") + write_string("v")
LONG_USER: Final = b"\x26" + write_string("k" * 65_535) + write_string("v" * 65_535)


def block(properties: bytes) -> bytes:
    return variable_byte_integer(len(properties)) + properties


# ---- what must be closed ---------------------------------------------------------------

Make = bytes | Callable[[int], bytes]
_SAY: Final = frozenset({None})


def first(
    row: int,
    what: str,
    data: Make,
    five: set[int | None],
    four: set[int | None] | None = None,
    versions: tuple[int, ...] = BOTH,
) -> Iterator[Input]:
    """Instead of CONNECT. 3.1.1 has words for a few refusals only: `four` says them where it has."""
    for version in versions:
        reasons = frozenset(five) if version == 5 else frozenset(four or _SAY)
        yield Input(row, what, version, True, data(version) if callable(data) else data, reasons)


def after(
    row: int, what: str, data: Make, five: set[int | None], versions: tuple[int, ...] = BOTH
) -> Iterator[Input]:
    """On a connection that was accepted. 3.1.1 is closed without a word."""
    for version in versions:
        reasons = frozenset(five) if version == 5 else _SAY
        yield Input(row, what, version, False, data(version) if callable(data) else data, reasons)


def _closed() -> Iterator[Input]:
    five = (5,)
    # 1: lengths
    yield from first(1, "a remaining length of five bytes", b"\x10" + FIVE_BYTES, {None}, versions=five)
    yield from first(
        1,
        "a remaining length of five bytes, all but the last 0",
        b"\x10\x80\x80\x80\x80\0",
        {None},
        versions=five,
    )
    yield from first(
        1, "a property length of five bytes", connect(5, properties=FIVE_BYTES), {0x81}, versions=five
    )
    yield from first(
        1, "a property length longer than needed", connect(5, properties=b"\x80\0"), {0x81}, versions=five
    )
    yield from first(
        1,
        "a will property length of five bytes",
        will(5, b"\0\1a", properties=FIVE_BYTES),
        {0x81},
        versions=five,
    )
    yield from after(1, "a remaining length of five bytes", b"\x30" + FIVE_BYTES, {0x81})
    yield from after(1, "a remaining length longer than needed", b"\xc0\x80\0", {0x81})
    yield from after(
        1, "a property length of five bytes", publish(5, b"a", properties=FIVE_BYTES), {0x81}, five
    )
    yield from after(
        1,
        "a subscription identifier of five bytes",
        packet(0x82, b"\0\1\6\x0b" + FIVE_BYTES + b"\0\1a\0"),
        {0x81},
        five,
    )
    yield from after(
        1,
        "a property length past the packet",
        publish(5, b"a", properties=b"\x7f", payload=b""),
        {0x81},
        five,
    )
    yield from after(
        1,
        "a SUBSCRIBE with a property length of five bytes",
        packet(0x82, b"\0\1" + FIVE_BYTES + b"\0\1a\0"),
        {0x81},
        five,
    )
    # 2: sizes
    yield from first(2, "256 MiB announced", b"\x10\xff\xff\xff\x7f", {None}, versions=five)
    yield from first(2, "a megabyte announced", b"\x10\xff\xff\x3f", {None}, versions=five)
    yield from first(2, "64 KiB and a bit announced", b"\x10\x80\x80\x04", {None}, versions=five)
    yield from first(
        2,
        "more than a CONNECT may hold",
        lambda v: connect(v, b"\xff\xff" + b"x" * 65_535, rest=b"y" * 10),
        {None},
    )
    yield from after(2, "16 MiB announced", b"\x30\x80\x80\x80\x08", {0x95})
    yield from after(2, "256 MiB announced in a SUBSCRIBE", b"\x82\xff\xff\xff\x7f", {0x95})
    # 3: packets that end too early or too late
    yield from first(3, "bytes behind the end", lambda v: connect(v, rest=b"more"), {0x81})
    yield from first(3, "a client identifier past the packet", lambda v: connect(v, b"\xff\xffx"), {0x81})
    yield from first(3, "a CONNECT without a body", b"\x10\0", {None}, versions=five)
    yield from after(3, "a topic longer than its packet", packet(0x30, b"\xff\xffa"), {0x81})
    yield from after(3, "a PUBLISH without a body", b"\x30\0", {0x81})
    yield from after(3, "half a packet identifier", packet(0x32, b"\0\1a\0"), {0x81})
    yield from after(3, "a PUBACK of one byte", packet(0x40, b"\0"), {0x81})
    yield from after(3, "a PINGREQ with a body", packet(0xC0, b"\0"), {0x81})
    yield from after(
        3,
        "a filter longer than its packet",
        lambda v: packet(0x82, b"\0\1" + b"\0" * (v == 5) + b"\xff\xffa\0"),
        {0x81},
    )
    yield from after(
        3,
        "a SUBSCRIBE without options",
        lambda v: packet(0x82, b"\0\1" + b"\0" * (v == 5) + b"\0\1a"),
        {0x81},
    )
    yield from after(
        3, "correlation data past its block", publish(5, b"a", properties=b"\4\x09\0\5x"), {0x81}, five
    )
    # 4, and other protocols
    yield from first(
        4,
        "an upgrade that offers compression",
        b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
        {None},
        versions=five,
    )
    yield from first(4, "a gzip stream", b"\x1f\x8b\x08\0" + bytes(500), {None}, versions=five)
    yield from first(4, "TLS", bytes.fromhex("16030100f1010000ed0303") + bytes(230), {None}, versions=five)
    # 5 and 6: topics and filters
    yield from after(5, "a topic of 65,535 slashes", lambda v: publish(v, b"/" * 65_535), {0x90})
    yield from after(5, "a topic of 201 levels", lambda v: publish(v, b"a/" * 200 + b"a"), {0x90})
    yield from after(5, "a filter of 10,000 levels", lambda v: subscribe(v, "+/" * 9_999 + "+"), {0x8F})
    yield from after(5, "a filter of 65,535 slashes", lambda v: subscribe(v, "/" * 65_535), {0x8F})
    yield from after(
        5, "an UNSUBSCRIBE of 10,000 levels", lambda v: unsubscribe(v, b"+/" * 9_999 + b"+"), {0x8F}
    )
    yield from first(5, "a will to 60,000 slashes", lambda v: will(v, b"\xea\x60" + b"/" * 60_000), {0x90})
    yield from after(
        5,
        "a response topic of 60,000 slashes",
        publish(5, b"a", properties=block(b"\x08" + write_string("/" * 60_000))),
        {0x90},
        five,
    )
    yield from after(6, "5,000 filters", lambda v: subscribe(v, *["a"] * 5_000), {0x97})
    yield from after(
        6, "an UNSUBSCRIBE from 5,000 filters", lambda v: unsubscribe(v, *[b"a"] * 5_000), {0x97}
    )
    yield from after(6, "a filter with # in the middle", lambda v: subscribe(v, "a/#/b"), {0x8F})
    yield from after(6, "a filter with a + in a word", lambda v: subscribe(v, "a+/b"), {0x8F})
    yield from after(6, "a filter of a# only", lambda v: subscribe(v, "a#"), {0x8F})
    # 7: what is empty, zero or not there
    yield from after(7, "an empty topic", lambda v: publish(v, b""), {0x82, 0x90})
    yield from after(7, "an empty topic with QoS 1", lambda v: publish(v, b"", first=0x32), {0x82, 0x90})
    yield from after(7, "an empty filter", lambda v: subscribe(v, ""), {0x8F})
    yield from after(7, "topic alias 0", publish(5, b"a", properties=b"\x03\x23\0\0"), {0x94}, five)
    yield from after(
        7, "a topic alias too high", publish(5, b"a", properties=b"\x03\x23\xff\xff"), {0x94}, five
    )
    yield from after(
        7, "a topic alias that was never set", publish(5, b"", properties=b"\x03\x23\0\1"), {0x82}, five
    )
    yield from after(
        7, "a topic that stands for an empty one", publish(5, b"", properties=b"\x03\x23\0\0"), {0x94}, five
    )
    yield from after(
        7, "packet identifier 0", lambda v: packet(0x32, b"\0\1a\0\0" + b"\0" * (v == 5) + b"x"), {0x82}
    )
    yield from after(
        7, "a SUBSCRIBE with packet identifier 0", lambda v: subscribe(v, "a", head=b"\0\0"), {0x82}
    )
    yield from after(
        7, "an UNSUBSCRIBE with packet identifier 0", lambda v: unsubscribe(v, b"a", head=b"\0\0"), {0x82}
    )
    yield from after(7, "a SUBSCRIBE for nothing", lambda v: subscribe(v), {0x82})
    yield from after(7, "an UNSUBSCRIBE from nothing", lambda v: unsubscribe(v), {0x82})
    yield from after(7, "subscription identifier 0", packet(0x82, b"\0\1\2\x0b\0\0\1a\0"), {0x82}, five)
    # 8: packets, flags and codes out of place
    for kind in (0, *range(2, 16)):
        flags = 2 if kind in (6, 8, 10) else 0
        yield from first(8, f"packet type {kind}", packet(kind << 4 | flags, b"\0\1"), {None}, versions=five)
    for kind in (0, 2, 9, 11, 13):
        yield from after(8, f"packet type {kind}", packet(kind << 4, b"\0\0\0"), {0x81, 0x82})
    yield from after(8, "AUTH out of the blue", packet(0xF0), {0x81, 0x82})
    yield from after(8, "a second CONNECT", lambda v: encode(Connect("x", v), v), {0x82})
    yield from after(8, "PUBLISH with QoS 3", lambda v: publish(v, b"a", first=0x36), {0x81})
    yield from after(8, "PUBLISH with QoS 0 and DUP", lambda v: publish(v, b"a", first=0x38), {0x81, 0x82})
    for name, byte in (
        ("SUBSCRIBE", 0x80),
        ("UNSUBSCRIBE", 0xA0),
        ("PUBREL", 0x60),
        ("PINGREQ", 0xC5),
        ("DISCONNECT", 0xE1),
    ):
        yield from after(8, f"{name} with other flags", packet(byte, b"\0\1"), {0x81})
    yield from after(
        8, "subscription options with reserved bits", lambda v: subscribe(v, "a", options=0xC0), {0x81}
    )
    yield from after(8, "a subscription with QoS 3", lambda v: subscribe(v, "a", options=3), {0x81})
    yield from after(8, "retain handling 3", subscribe(5, "a", options=0x30), {0x82}, five)
    yield from after(
        8, "a subscription identifier from a client", publish(5, b"a", properties=b"\2\x0b\1"), {0x82}, five
    )
    yield from after(8, "PUBACK with an unknown reason", packet(0x40, b"\0\1\x42"), {0x81, 0x82}, five)
    yield from after(8, "DISCONNECT with a server reference", packet(0xE0, b"\0\4\x1c\0\1x"), {0x82}, five)
    yield from after(
        8, "DISCONNECT that makes the session last", packet(0xE0, b"\0\5\x11\0\0\0\1"), {0x82}, five
    )
    yield from after(
        8, "two response topics", publish(5, b"a", properties=b"\x08\x08\0\1a\x08\0\1a"), {0x82}, five
    )
    # 9: $
    yield from after(9, "a share without a name", lambda v: subscribe(v, "$share//a"), {0x8F})
    yield from after(9, "a share without a filter", lambda v: subscribe(v, "$share/g/"), {0x8F})
    yield from after(9, "a share of wildcards", lambda v: subscribe(v, "$share/+/a"), {0x8F})
    yield from after(9, "a share and no local", subscribe(5, "$share/g/a", options=4), {0x82}, five)
    # 10: properties
    yield from first(
        10,
        "ten thousand user properties",
        connect(5, properties=block(USER * 10_000)),
        {None, 0x95, 0x97},
        versions=five,
    )
    yield from first(
        10, "5,000 user properties", connect(5, properties=block(USER * 5_000)), {0x97}, versions=five
    )
    yield from first(
        10,
        "5,000 user properties in a will",
        will(5, b"\0\1a", properties=block(USER * 5_000)),
        {0x97},
        versions=five,
    )
    yield from after(
        10,
        "5,000 user properties in a PUBLISH",
        publish(5, b"a", properties=block(USER * 5_000)),
        {0x97},
        five,
    )
    yield from after(
        10, "5,000 user properties in a PUBACK", packet(0x40, b"\0\1\0" + block(USER * 5_000)), {0x97}, five
    )
    yield from after(
        10,
        "5,000 subscription identifiers",
        publish(5, b"a", properties=block(b"\x0b\1" * 5_000)),
        {0x82, 0x97},
        five,
    )
    yield from after(10, "an unknown property", publish(5, b"a", properties=b"\2\x7f\0"), {0x81}, five)
    # 11: more of QoS 2 than was granted
    yield from after(
        11, "one QoS 2 identifier 2,000 times", publish(5, b"a", first=0x34) * 2_000, {0x93}, five
    )
    yield from after(
        11,
        "3,000 QoS 2 identifiers",
        lambda v: b"".join(
            packet(0x34, b"\0\1a" + nth.to_bytes(2) + b"\0" * (v == 5)) for nth in range(1, 3_001)
        ),
        {0x93},
    )
    # 12: CONNECT and its will
    yield from first(12, "another protocol", lambda v: connect(v, name=b"\0\4HTTP"), {None})
    yield from first(12, "protocol level 6", connect(5, level=6), {0x84}, versions=five)
    yield from first(12, "protocol level 2", connect(4, level=2), {0x84}, {0x84}, versions=(4,))
    yield from first(12, "the reserved connect flag", lambda v: connect(v, flags=3), {0x81})
    yield from first(12, "will QoS 3", lambda v: connect(v, flags=0x1E), {0x81})
    yield from first(12, "will flags and no will", lambda v: connect(v, flags=0x0A), {0x81})
    yield from first(
        12, "a password and no user name", connect(4, flags=0x42, rest=b"\0\1p"), {0x81}, versions=(4,)
    )
    yield from first(
        12,
        "no client identifier and a session to keep",
        connect(4, b"\0\0", flags=0),
        {0x85},
        {0x85},
        versions=(4,),
    )
    yield from first(12, "an unknown property", connect(5, properties=b"\2\x7f\0"), {0x81}, versions=five)
    yield from first(
        12, "a property twice", connect(5, properties=b"\x0a\x11\0\0\0\1\x11\0\0\0\1"), {0x82}, versions=five
    )
    yield from first(12, "receive maximum 0", connect(5, properties=b"\3\x21\0\0"), {0x82}, versions=five)
    yield from first(
        12, "maximum packet size 0", connect(5, properties=b"\5\x27\0\0\0\0"), {0x82}, versions=five
    )
    yield from first(12, "a will with an empty topic", lambda v: will(v, b"\0\0"), {0x81, 0x90})
    yield from first(12, "a will to a wildcard", lambda v: will(v, b"\0\1#"), {0x81, 0x90})
    yield from first(12, "a will topic past the packet", lambda v: will(v, b"\xff\xff#"), {0x81})
    yield from first(
        12,
        "a will with an unknown property",
        will(5, b"\0\1a", properties=b"\2\x7f\0"),
        {0x81},
        versions=five,
    )
    yield from first(
        12,
        "a will that says what only a PUBLISH may",
        will(5, b"\0\1a", properties=b"\3\x23\0\1"),
        {0x81},
        versions=five,
    )
    yield from first(12, "a will topic that is not UTF-8", lambda v: will(v, b"\0\2\xc3\x28"), {0x81})
    yield from first(12, "a user name that is promised", lambda v: connect(v, flags=0x82), {0x81})
    yield from first(
        12, "a password that is promised", lambda v: connect(v, flags=0xC2, rest=b"\0\1u"), {0x81}
    )
    # 16: names that are no text
    for what, raw in (
        ("not UTF-8", b"\xc3\x28"),
        ("a surrogate", b"\xed\xa0\x80"),
        ("U+0000", b"a\0"),
        ("overlong", b"\xc0\xaf"),
    ):
        string = len(raw).to_bytes(2) + raw
        yield from first(16, f"a client identifier that is {what}", lambda v, s=string: connect(v, s), {0x81})
        yield from first(
            16, f"a user name that is {what}", lambda v, s=string: connect(v, flags=0x82, rest=s), {0x81}
        )
        yield from after(16, f"a topic that is {what}", lambda v, r=raw: publish(v, r), {0x81})
        yield from after(16, f"a filter that is {what}", lambda v, r=raw: subscribe(v, r), {0x81})
    yield from after(16, "a wildcard in a topic", lambda v: publish(v, b"a/#"), {0x90})
    yield from after(16, "a + in a topic", lambda v: publish(v, b"a/+/b"), {0x90})


CLOSED: Final = list(_closed())


# ---- what must not matter --------------------------------------------------------------


def _harmless() -> Iterator[Input]:
    """Strange, and legal or not yet whole: the device may stay, and nobody else may notice anything."""

    def stays(
        row: int, what: str, data: Make, versions: tuple[int, ...] = BOTH, before: bool = False
    ) -> Iterator[Input]:
        for version in versions:
            yield Input(row, what, version, before, data(version) if callable(data) else data)

    yield from stays(3, "a PUBLISH of 4,096 bytes, of which three come", b"\x30\x80\x20\0\1a")
    yield from stays(
        6,
        "filters that agree up to their last level",
        lambda v: subscribe(v, *["+/" * 150 + f"{nth}/#" for nth in range(200)]),
    )
    yield from stays(9, "PUBLISH to $SYS", lambda v: publish(v, b"$SYS/broker/version"))
    yield from stays(9, "PUBLISH to $share", lambda v: publish(v, b"$share/g/a"))
    yield from stays(9, "PUBLISH to $CONTROL", lambda v: publish(v, b"$CONTROL/dynamic-security/v1", b"{}"))
    yield from stays(9, "PUBLISH to $", lambda v: publish(v, b"$"))
    yield from stays(
        9, "SUBSCRIBE to $SYS/# and $CONTROL/#", lambda v: subscribe(v, "$SYS/#", "$CONTROL/#", "$")
    )
    yield from stays(9, "a filter that is only $share", lambda v: subscribe(v, "$share"))
    yield from stays(9, "a will to $CONTROL", lambda v: will(v, b"\0\x0b$CONTROL/v1"), before=True)
    yield from stays(
        10, "one user property of 128 KiB", lambda v: publish(v, b"a", properties=block(LONG_USER))
    )
    yield from stays(10, "1,000 user properties", publish(5, b"a", properties=block(USER * 1_000)), (5,))
    yield from stays(11, "one QoS 2 identifier 2,000 times", publish(4, b"a", first=0x34) * 2_000, (4,))
    yield from stays(
        11,
        "PUBREL, PUBREC and PUBCOMP for nothing",
        b"\x62\2\x12\x34" + b"\x50\2\x12\x34" + b"\x70\2\x12\x34" + b"\x40\2\x12\x34",
    )
    for nth, half in enumerate((b"\x10", b"\x10\x0d", b"\x10\x0d\0\4MQ", b"\x10\x0d\0\4MQTT\4\2\0\x3c\0")):
        yield from stays(13, f"a CONNECT that stops, {nth}", half, (4,), before=True)
    yield from stays(
        14,
        "1,000 messages to itself, none of them read",
        lambda v: subscribe(v, "flood") + publish(v, b"flood", bytes(1_000)) * 1_000,
    )
    yield from stays(
        15, "the same CONNECT again on a second socket", lambda v: connect(v, b"\0\7hostile"), before=True
    )
    for name in (
        "#",
        "+",
        "/",
        ".*",
        "|",
        "^",
        "%u",
        "%c",
        "{user}",
        "$SYS",
        "a\nlevel=error event=forged",
        "\x1b[2J",
    ):
        yield from stays(
            16, f"the client identifier {name!r}", lambda v, n=name: connect(v, write_string(n)), before=True
        )
    yield from stays(
        16,
        "a client identifier of 60,000 bytes",
        lambda v: connect(v, write_string("x" * 60_000)),
        before=True,
    )
    yield from stays(24, "no user name", lambda v: connect(v), before=True)
    yield from stays(24, "an empty user name", lambda v: connect(v, flags=0x82, rest=b"\0\0"), before=True)
    yield from stays(
        24, "a password without a user name", connect(5, flags=0x42, rest=b"\0\1p"), (5,), before=True
    )
    for script in (
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "{{7*7}}",
        "';DROP TABLE t;--",
        "\u202egpj.exe",
    ):
        yield from stays(
            32,
            f"the client identifier {script!a}",
            lambda v, s=script: connect(v, write_string(s)),
            before=True,
        )
        yield from stays(32, f"the topic {script!a}", lambda v, s=script: publish(v, s.encode()))
        yield from stays(
            32,
            f"the user name {script!a}",
            lambda v, s=script: connect(v, flags=0x82, rest=write_string(s)),
            before=True,
        )


HARMLESS: Final = list(_harmless())


# ---- what must open nothing in a house with users and rules ----------------------------


def login(version: int, client_id: str, user: str | None, clean: bool = True, rest: bytes = b"") -> bytes:
    """CONNECT of a user whose password is the name with "'s"."""
    if user is None:
        return connect(version, write_string(client_id), flags=2 * clean, rest=rest)
    credentials = write_string(user) + write_string(f"{user}'s")
    return connect(version, write_string(client_id), flags=0xC0 | 2 * clean, rest=rest + credentials)


def _guarded() -> Iterator[Input]:
    """From mallory, who may use open/# and plant/mallory/#; secret/# and the session `victim` are alice's.

    `reasons` as in CLOSED where CONNECT itself is refused.
    """
    no = frozenset({0x87})

    def thief(what: str, make: Callable[[int], bytes]) -> Iterator[Input]:
        for version in BOTH:
            yield Input(17, what, version, True, make(version), no)

    def tries(row: int, what: str, make: Callable[[int], bytes]) -> Iterator[Input]:
        for version in BOTH:
            yield Input(row, what, version, False, make(version))

    yield from thief("another user, to begin anew", lambda v: login(v, "victim", "mallory"))
    yield from thief("another user, to go on", lambda v: login(v, "victim", "mallory", clean=False))
    yield from thief("nobody, to begin anew", lambda v: login(v, "victim", None))
    yield from thief("nobody, to go on", lambda v: login(v, "victim", None, clean=False))
    for qos in (0, 1, 2):
        for retain in (0, 1):
            yield from tries(
                18,
                f"PUBLISH with QoS {qos} and retain {retain}",
                lambda v, f=0x30 | qos << 1 | retain: publish(v, b"secret/a", b"forged", first=f),
            )
    yield from tries(
        18, "PUBLISH to the topics of another user", lambda v: publish(v, b"plant/alice/a", b"forged")
    )
    for topic_filter in (
        "secret/#",
        "#",
        "+/a",
        "secret/a",
        "$share/g/secret/#",
        "$share/g/#",
        "plant/+/a",
        "plant/alice/#",
    ):
        yield from tries(
            18, f"SUBSCRIBE to {topic_filter}", lambda v, t=topic_filter: subscribe(v, t, options=1)
        )
    yield from tries(
        19, "what is allowed, then what is not", lambda v: subscribe(v, "open/#", "secret/#", options=1)
    )
    yield from tries(
        19, "what is not allowed, then what is", lambda v: subscribe(v, "secret/#", "open/#", options=1)
    )
    yield from tries(
        19,
        "the same in shared subscriptions",
        lambda v: subscribe(v, "$share/g/open/#", "$share/g/secret/#", options=1),
    )
    for version in BOTH:
        for topic in ("plant//a", "plant/alice/a", "plant/{user}/a", "plant/%u/a"):
            yield Input(
                24,
                f"nobody, who publishes and subscribes to {topic}",
                version,
                True,
                login(version, "nobody", None)
                + publish(version, topic.encode(), b"forged")
                + subscribe(version, topic, options=1),
            )


GUARDED: Final = list(_guarded())
