"""What has broken others, sent by hand: it costs that connection, and nobody else anything."""

import asyncio
import contextlib
import logging

import pytest

from bridge.message import Properties
from bridge.mqtt.codec import encode
from bridge.mqtt.packet import Connect, Puback, Publish, Subscribe, Subscription, Will
from bridge.mqtt.wire import write_string
from tests.gateway import port_of, sink_of, until


def packet(first: int, body: bytes) -> bytes:
    length, size = bytearray(), len(body)
    while True:
        size, digit = divmod(size, 128)
        length.append(digit | (0x80 if size else 0))
        if not size:
            return bytes([first]) + bytes(length) + body


def connect(client_id=b"\x00\x01x", flags=2, properties=b"\x00", rest=b"", version=5, name=b"\x00\x04MQTT"):
    head = name + bytes([version, flags]) + b"\x00\x3c"
    return packet(0x10, head + (properties if version == 5 else b"") + client_id + rest)


def publish(topic: bytes, payload=b"x", properties=b"\x00", first=0x30):
    identifier = b"\x00\x01" if first & 6 else b""
    return packet(first, len(topic).to_bytes(2) + topic + identifier + properties + payload)


def subscribe(topic_filter: str, options=0):
    return packet(0x82, b"\x00\x01\x00" + write_string(topic_filter) + bytes([options]))


FIVE_BYTES = b"\xff\xff\xff\xff\x7f"
USER = b"\x26" + write_string("k") + write_string("v")

# What it is, the bytes after which the connection must be closed, and the reasons that say so.
# None is a close without a word. First what comes instead of CONNECT.
BEFORE = [
    ("a remaining length of five bytes", b"\x10" + FIVE_BYTES, {None}),
    ("a property length of five bytes", connect(properties=FIVE_BYTES), {0x81}),
    ("256 MiB announced", b"\x10\xff\xff\xff\x7f", {None}),
    ("a megabyte announced", b"\x10\xff\xff\x3f", {None}),
    *((f"packet type {kind} first", packet(kind << 4 | (2 if kind in (6, 8, 10) else 0), b"\0\1"), {None})
      for kind in range(16) if kind != 1),
    ("another protocol", connect(name=b"\x00\x04HTTP"), {None}),
    ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", {None}),
    ("TLS", bytes.fromhex("16030100f1010000ed0303") + bytes(230), {None}),
    ("protocol level 6", connect(version=6), {0x84}),
    ("the reserved connect flag", connect(flags=3), {0x81}),
    ("will QoS 3", connect(flags=0x1E), {0x81}),
    ("will flags and no will", connect(flags=0x0A), {0x81}),
    ("a client identifier that is not UTF-8", connect(b"\x00\x02\xc3\x28"), {0x81}),
    ("a surrogate in it", connect(b"\x00\x03\xed\xa0\x80"), {0x81}),
    ("U+0000 in it", connect(b"\x00\x01\x00"), {0x81}),
    ("a client identifier past the packet", connect(b"\xff\xffx"), {0x81}),
    ("bytes behind the end", connect(rest=b"more"), {0x81}),
    ("an unknown property", connect(properties=b"\x02\x7f\x00"), {0x81, 0x82}),
    ("a property twice", connect(properties=b"\x0a\x11\0\0\0\1\x11\0\0\0\1"), {0x82}),
    ("receive maximum 0", connect(properties=b"\x03\x21\x00\x00"), {0x82}),
    ("maximum packet size 0", connect(properties=b"\x05\x27\0\0\0\0"), {0x82}),
    ("a will with an empty topic", connect(flags=6, rest=b"\0\0\0\0\0\1x"), {0x81, 0x90}),
    ("a will to a wildcard", connect(flags=6, rest=b"\0\0\1#\0\1x"), {0x81, 0x90}),
    ("a will with an unknown property", connect(flags=6, rest=b"\2\x7f\0\0\1a\0\1x"), {0x81, 0x82}),
    ("ten thousand user properties", connect(properties=b"\xf0\xaa\x04" + USER * 10_000), {None, 0x95, 0x97}),
    ("more than a CONNECT may hold", connect(b"\xff\xff" + b"x" * 65_535, rest=b"y" * 10), {None, 0x95}),
]  # fmt: skip
# And these after it.
AFTER = [
    ("a second CONNECT", connect(), {0x82}),
    ("a remaining length of five bytes", b"\x30" + FIVE_BYTES, {0x81}),
    ("a property length of five bytes", publish(b"a", properties=FIVE_BYTES), {0x81}),
    ("a subscription identifier of five bytes",
     packet(0x82, b"\0\1\6\x0b" + FIVE_BYTES + b"\0\1a\0"), {0x81}),
    ("subscription identifier 0", packet(0x82, b"\0\1\2\x0b\0\0\1a\0"), {0x82}),
    *((f"packet type {kind}, which only a server sends", packet(kind << 4, b"\0\0\0"), {0x81, 0x82})
      for kind in (2, 9, 11, 13)),
    ("packet type 0", packet(0, b"\0\0"), {0x81}),
    ("AUTH out of the blue", packet(0xF0, b""), {0x82}),
    ("PUBLISH with QoS 3", publish(b"a", first=0x36), {0x81}),
    ("PUBLISH with QoS 0 and DUP", publish(b"a", first=0x38), {0x81, 0x82}),
    ("packet identifier 0", packet(0x32, b"\0\1a\0\0\0x"), {0x81, 0x82}),
    ("SUBSCRIBE with flags 0", packet(0x80, b"\0\1\0\0\1a\0"), {0x81}),
    ("an empty topic", publish(b""), {0x81, 0x82, 0x90}),
    ("a wildcard in a topic", publish(b"a/#"), {0x81, 0x90}),
    ("U+0000 in a topic", publish(b"a\0"), {0x81, 0x90}),
    ("a topic that is not UTF-8", publish(b"\xc3\x28"), {0x81, 0x90}),
    ("a topic of 65,535 slashes", publish(b"/" * 65_535), {0x90}),
    ("a topic longer than its packet", packet(0x30, b"\xff\xffa"), {0x81}),
    ("a filter of 10,000 levels", subscribe("+/" * 9_999 + "+"), {0x8F}),
    ("a filter with # in the middle", subscribe("a/#/b"), {0x8F}),
    ("an empty filter", subscribe(""), {0x8F, 0x81}),
    ("a share without a name", subscribe("$share//a"), {0x8F}),
    ("a share without a filter", subscribe("$share/g/"), {0x8F}),
    ("a share and no local", subscribe("$share/g/a", 4), {0x82}),
    ("SUBSCRIBE for nothing", packet(0x82, b"\0\1\0"), {0x82}),
    ("5,000 filters", packet(0x82, b"\0\1\0" + b"\0\1a\0" * 5_000), {0x97}),
    ("subscription options with reserved bits", subscribe("a", 0xC0), {0x81}),
    ("topic alias 0", publish(b"a", properties=b"\x03\x23\x00\x00"), {0x94, 0x82}),
    ("a topic alias too high", publish(b"a", properties=b"\x03\x23\xff\xff"), {0x94}),
    ("a subscription identifier from a client", publish(b"a", properties=b"\x02\x0b\x01"), {0x82}),
    ("two response topics", publish(b"a", properties=b"\x08\x08\0\1a\x08\0\1a"), {0x82}),
    ("PUBACK with an unknown reason", packet(0x40, b"\0\1\x42"), {0x81, 0x82}),
    ("16 MiB announced", b"\x30\x80\x80\x80\x08", {0x95}),
    ("DISCONNECT with a server reference", packet(0xE0, b"\0\4\x1c\0\1x"), {0x82}),
    ("DISCONNECT that makes the session last", packet(0xE0, b"\0\5\x11\0\0\0\1"), {0x82}),
]  # fmt: skip


@pytest.fixture
def innocent_log(caplog):
    """Whatever the test does, nothing may come up that nobody has foreseen."""
    caplog.set_level(logging.INFO)
    yield caplog
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


async def test_before_connect(house, innocent_log):
    witness = await house.connect("witness")
    for what, data, reasons in BEFORE:
        device = await house.socket()
        device.send_bytes(data)
        if "user properties" not in what:  # cut off at the header: what follows meets a closed socket
            device._writer.write_eof()
        reason = await device.goodbye()
        assert reason in reasons, (what, reason)
    await witness.published("a", b"still here")


async def test_after_connect(house, innocent_log):
    witness = await house.connect("witness")
    for what, data, reasons in AFTER:
        device = await house.connect("hostile")
        device.send_bytes(data)
        reason = await device.goodbye()
        assert reason in reasons, (what, reason)
    await witness.published("a")
    assert house.broker.malformed == len(AFTER)
    lines = [record for record in innocent_log.records if "protocol error" in record.message]
    assert len(lines) <= 30, "strangers do not write our log"


async def test_the_same_in_3_1_1_is_closed_without_a_word(house, innocent_log):
    witness = await house.connect("witness", 4)
    for data in (
        b"\x30" + FIVE_BYTES,
        packet(0x30, b"\0\0x"),
        packet(0x30, b"\xff\xffa"),
        packet(0x30, b"\0\3a/#x"),
        packet(0x36, b"\0\1a\0\1x"),
        packet(0x80, b"\0\1\0\1a\0"),
        packet(0x82, b"\0\1\0\1a\4"),
        packet(0x20, b"\0\0"),
        packet(0xF0, b""),
        encode(Connect("again", 4), 4),
    ):
        device = await house.connect("hostile", 4)
        device.send_bytes(data)
        assert await device.next() is None
    await witness.published("a")


async def test_what_was_whole_before_the_nonsense_is_stored(house, innocent_log):
    device = await house.connect()
    device.send_bytes(encode(Publish("a", b"whole", 1, packet_id=1), 5) + b"\xff\xff\xff")
    assert await device.goodbye() == 0x81
    await until(lambda: sink_of(house.gateway).received)


async def test_a_publish_that_never_comes_whole_harms_nobody(house, innocent_log):
    device = await house.connect()
    device.send_bytes(b"\x30\x80\x20\x00\x01a")
    await (await house.connect("other")).published("a")
    device.drop()
    await until(lambda: len(house.broker.links) == 1)
    assert len(sink_of(house.gateway).received) <= 1


@pytest.mark.parametrize("topic", ["$SYS/x", "$CONTROL/dynamic-security/v1", "$share/g/a", "$foo", "/", "$"])
async def test_odd_topics_and_wills_to_them_are_topics_like_any_other(house, innocent_log, topic):
    device = await house.connect("willing", will=Will(topic, b"x", 1, True))
    device.publish(topic, b"x", 1, 1, retain=True)
    await device.expect(Puback)
    device.drop()
    await until(lambda: "willing" not in house.broker.subscribers)
    await (await house.connect()).published("a")


@pytest.mark.parametrize(
    "name", ["#", "+", "/", ".*", "|", "^", "%u", "a\nlevel=error event=forged", "\x1b[2J", "x" * 60_000]
)
async def test_a_client_identifier_is_only_a_name(house, innocent_log, name):
    device = await house.connect(name, expiry_s=10)
    await device.published("a")
    for record in innocent_log.records:
        assert len(record.getMessage()) < 70_000


async def test_five_thousand_user_properties_pass_or_are_refused_and_the_loop_goes_on(house, innocent_log):
    device = await house.connect()
    properties = Properties(user_properties=(("k", "v"),) * 5000)
    device.publish("a", b"x", 1, 1, properties=properties)
    answer = await device.next()
    assert answer is not None
    await (await house.connect("other")).published("a")


async def test_a_thousand_sockets_that_claim_256_mib_cost_nothing(house, innocent_log):
    async def claim():
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(house.gateway))
        writer.write(b"\x10\xff\xff\xff\x7f" + bytes(1000))
        with contextlib.suppress(ConnectionError):
            assert not await asyncio.wait_for(reader.read(), 10)
        writer.transport.abort()

    for _ in range(10):
        await asyncio.gather(*(claim() for _ in range(100)))
    await until(lambda: not house.broker.links)
    assert house.broker.malformed == 1000
    await (await house.connect()).published("a")


async def test_filters_made_to_take_long_do_not(house, innocent_log):
    device = await house.connect()
    for nth in range(0, 1000, 100):
        device.send(
            Subscribe(1, tuple(Subscription("+/" * 150 + f"{one}/#", 0) for one in range(nth, nth + 100)))
        )
        await device.next()
    sender = await house.connect("sender")
    began = asyncio.get_running_loop().time()
    await sender.published("a/" * 150 + "x")
    assert asyncio.get_running_loop().time() - began < 0.5


async def test_a_mistake_of_ours_costs_one_connection_and_is_logged_once(house, caplog, monkeypatch):
    """An exception in a delivery once left every other device without a word, for ever."""
    device, other = await house.connect("unlucky"), await house.connect("other")
    await device.subscribe("a")
    await other.subscribe("a")
    take = type(house.broker.subscribers["unlucky"].session).take
    unlucky = house.broker.subscribers["unlucky"].session

    def broken(session, *more):
        if session is unlucky:
            raise OSError("the disk does not give it back")
        return take(session, *more)

    monkeypatch.setattr(type(unlucky), "take", broken)
    sender = await house.connect("sender")
    await sender.published("a", b"1")
    assert await other.receive(1) == [b"1"]
    assert await device.goodbye() is not None
    await sender.published("a", b"2")
    assert await other.receive(1) == [b"2"]
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_a_mistake_in_reading_costs_one_connection_too(house, caplog, monkeypatch):
    device, other = await house.connect("unlucky"), await house.connect("other")
    monkeypatch.setattr(type(house.broker.inlet), "decide", lambda *_: 1 / 0)
    device.publish("never seen", b"x", 2, 7)
    assert await device.goodbye() == 0x83
    monkeypatch.undo()
    await other.published("a")
    assert len([record for record in caplog.records if record.exc_info]) == 1
