"""MQTT over WebSocket: what devices and browsers may do, and what strangers try."""

import asyncio
import contextlib
import logging
import time

import pytest

from bridge.mqtt.codec import encode
from bridge.mqtt.packet import Connect, Puback, Publish, Will
from tests.broker.wires import CLOSE, CONT, PING, PONG, TEXT, WireDevice, frame, request
from tests.gateway import port_of, running, sink_of, until

GONE = (OSError, EOFError)
CONNECT = encode(Connect("device", 4), 4)
AT_ONCE_S = 0.1  # in which a connection that must be closed is


@pytest.fixture
def innocent_log(caplog):
    caplog.set_level(logging.INFO)
    yield caplog
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


@pytest.fixture
async def gateway(tmp_path, innocent_log):
    async with running(tmp_path, listeners=[{"ws": "127.0.0.1:0"}]) as gateway:
        yield gateway


async def opened(gateway, version=5, asked=None) -> WireDevice:
    device = WireDevice("ws", port_of(gateway), version, asked=asked)
    await device.open()
    return device


async def connected(gateway, client_id="device", version=5) -> WireDevice:
    device = await opened(gateway, version)
    assert (await device.hello(client_id)).reason == 0
    return device


async def status_of(gateway, asked: bytes) -> int:
    """The status of the answer to a request; 0 when there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
    try:
        writer.write(asked)
        async with asyncio.timeout(5):
            answer = await reader.readuntil(b"\r\n\r\n")
        return int(answer.split()[1])
    except GONE:
        return 0
    finally:
        writer.transport.abort()


# ---- what is allowed -----------------------------------------------------------------------


async def test_the_subprotocol_that_is_offered_is_the_one_that_is_spoken(gateway):
    for offered, chosen in (("mqtt", "mqtt"), ("chat, mqtt", "mqtt"), ("mqttv3.1", "mqttv3.1")):
        device = await opened(gateway, asked=request(sec_websocket_protocol=offered))
        head = device.wire.head.lower().decode()
        assert f"sec-websocket-protocol: {chosen}\r\n" in head
        assert "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=" in head
        device.drop()


async def test_compression_is_never_agreed_on(gateway):
    device = await opened(gateway, asked=request(sec_websocket_extensions="permessage-deflate"))
    assert b"extensions" not in device.wire.head.lower()
    device.drop()


async def test_packets_may_be_split_and_joined_anywhere_over_frames(gateway):
    """One byte a frame, then all in one frame, then a fragmented message with a ping within."""
    device = await opened(gateway)
    for byte in encode(Connect("device", 5), 5):
        device.wire.write(bytes([byte]))
    assert (await device.next()).reason == 0
    three = b"".join(encode(Publish("a/b", b"x", 1, packet_id=number), 5) for number in (1, 2, 3))
    device.wire.write(three + three[:5])
    device.wire.write(three[5:])
    assert [(await device.expect(Puback)).packet_id for _ in range(6)] == [1, 2, 3] * 2
    pieces = [frame(three[:4], fin=False), frame(b"", CONT, fin=False), frame(b"are you there", PING)]
    device.wire.write_raw(b"".join([*pieces, frame(three[4:], CONT)]))
    assert [(await device.expect(Puback)).packet_id for _ in range(3)] == [1, 2, 3]
    assert (PONG, b"are you there") in device.wire.frames
    device.drop()


async def test_frames_may_be_sliced_anywhere_over_reads(gateway):
    device = await connected(gateway)
    one = frame(encode(Publish("a/b", b"x" * 300, 1, packet_id=7), 5))
    for byte in one:
        device.wire.write_raw(bytes([byte]))
        await asyncio.sleep(0)
    assert (await device.expect(Puback)).packet_id == 7
    device.drop()


async def test_the_answers_of_one_commit_are_one_frame(gateway):
    device = await connected(gateway)
    before = len(device.wire.frames)
    device.wire.write(b"".join(encode(Publish("a/b", b"x", 1, packet_id=n), 5) for n in range(1, 101)))
    assert [(await device.expect(Puback)).packet_id for _ in range(100)] == list(range(1, 101))
    assert len(device.wire.frames) == before + 1
    device.drop()


async def test_a_packet_of_the_largest_size_goes_both_ways(gateway):
    device = await connected(gateway)
    await device.subscribe("big")
    payload = b"x" * (1024 * 1024 - 16)
    device.publish("big", payload, 1)
    got = [await device.next(), await device.next()]
    assert {type(one) for one in got} == {Puback, Publish}
    assert next(one for one in got if isinstance(one, Publish)).payload == payload
    assert len(sink_of(gateway).received[-1].message.payload) == len(payload)
    device.drop()


async def test_a_device_that_does_not_wait_for_the_upgrade_is_understood(gateway):
    device = WireDevice("ws", port_of(gateway), 5)
    device.asked = request() + frame(b"hi", PING) + frame(encode(Connect("hasty", 5), 5))
    await device.open()
    assert (await device.next()).reason == 0
    device.drop()


async def test_goodbye_is_said_in_the_words_of_both(gateway):
    device = await connected(gateway)
    device.send(Connect("again", 5))
    assert await device.goodbye() == 0x82
    assert device.wire.frames[-1][0] == CLOSE
    assert int.from_bytes(device.wire.frames[-1][1][:2]) == 1000


async def test_a_close_frame_is_answered_and_the_will_is_published(gateway):
    watcher = await connected(gateway, "watcher")
    await watcher.subscribe("wills")
    device = await opened(gateway)
    device.send(Connect("mortal", 5, will=Will("wills", b"gone", 0, False)))
    assert (await device.next()).reason == 0
    device.wire.write_raw(frame(b"\x03\xe8", CLOSE))
    assert await device.wire.next_frame() == (CLOSE, b"\x03\xe8")
    assert (await watcher.expect(Publish)).payload == b"gone"
    watcher.drop()


async def test_given_a_device_that_does_not_read_when_it_is_sent_more_then_memory_is_bounded(gateway):
    """A flood of pings, whose answers nobody takes."""
    device = await connected(gateway)
    [link] = gateway.broker.links
    device._reader._reader._transport.pause_reading()
    flood = frame(b"x" * 125, PING) * 500
    highest = 0
    with contextlib.suppress(ConnectionError):
        for _ in range(400):
            device.wire.write_raw(flood)
            await asyncio.wait_for(device.wire._writer.drain(), 5)
            await asyncio.sleep(0)
            highest = max(highest, link.unsent_bytes)
            if link.gone:
                break
    await until(lambda: not gateway.broker.links)
    assert highest < 2 * 1024 * 1024
    device.drop()


# ---- requests that get no WebSocket ----------------------------------------------------------

REQUESTS = [
    ("no subprotocol", request(sec_websocket_protocol=None), 400),
    ("another subprotocol", request(sec_websocket_protocol="chat"), 400),
    ("no key", request(sec_websocket_key=None), 400),
    ("a short key", request(sec_websocket_key="c2hvcnQ="), 400),
    ("version 8", request(sec_websocket_version="8"), 400),
    ("no upgrade", request(upgrade=None), 426),
    ("upgrade to something else", request(upgrade="h2c"), 426),
    ("POST", request().replace(b"GET", b"POST"), 405),
    ("HTTP/1.0", request().replace(b"HTTP/1.1", b"HTTP/1.0"), 505),
    ("a page of another origin", request(origin="https://evil.example"), 403),
    ("a page of nowhere", request(origin="null"), 403),
    ("a rebound name", request(host="evil.example", origin="http://evil.example"), 403),
    ("two origins", request(origin="http://127.0.0.1\r\norigin: http://127.0.0.1"), 400),
    ("two hosts", request(host="127.0.0.1\r\nhost: evil.example", origin="http://127.0.0.1"), 400),
    ("a header of 9 KiB", request(cookie="x" * 9_000), 431),
    ("200 headers", request(cookie="x\r\n" + "\r\n".join(f"x{n}: y" for n in range(200))), 431),
    ("a path of 9 KiB", request("/" + "x" * 9_000), 414),
    ("20 KiB of headers", request(**{f"x{n}": "y" * 4_000 for n in range(5)})[:-4], 431),
    ("HTTP garbage", b"GET\r\n\r\n", 400),
    ("bytes", bytes(range(256)) * 4, 400),
    ("MQTT in the clear", CONNECT + b"\r\n\r\n", 400),
    ("a line without an end", b"x" * 20_000, (400, 414, 431)),
]


@pytest.mark.parametrize(("what", "asked", "status"), REQUESTS, ids=[row[0] for row in REQUESTS])
async def test_a_request_that_is_none_is_answered_and_closed(gateway, what, asked, status):
    got = await status_of(gateway, asked)
    assert got in (status if isinstance(status, tuple) else (status,))
    await until(lambda: not gateway.broker.links)
    assert gateway.broker.malformed == 1
    assert not gateway.broker.crowd.inside
    device = await connected(gateway)  # and the next one is welcome
    device.drop()


ORIGINS = [
    ([], "http://127.0.0.1:8080", "127.0.0.1:9001", True),
    ([], "http://localhost", "LOCALHOST:9001", True),
    ([], "http://[::1]:8080", "[::1]:9001", True),
    ([], "http://10.0.0.7", "10.0.0.7:9001", True),
    ([], "http://10.0.0.8", "10.0.0.7:9001", False),
    ([], "https://ui.plant", "127.0.0.1", False),
    ([], "file://127.0.0.1", "127.0.0.1", False),
    ([], "http://127.0.0.1@evil.example", "127.0.0.1", False),
    ([], "http://127.0.0.1/", "127.0.0.1", False),
    (["https://ui.plant"], "https://ui.plant", "gw.plant:9001", True),
    (["https://ui.plant"], "https://UI.plant", "gw.plant:9001", True),
    (["https://ui.plant"], "http://ui.plant", "gw.plant:9001", False),
    (["https://ui.plant"], "https://ui.plant.evil.example", "gw.plant", False),
    (["*"], "https://anything.example", "gw.plant", True),
    (["*"], "null", "gw.plant", True),
]


@pytest.mark.parametrize(("listed", "origin", "host", "welcome"), ORIGINS)
async def test_a_page_may_connect_to_where_it_came_from_or_if_it_is_listed(
    tmp_path, listed, origin, host, welcome
):
    async with running(tmp_path, listeners=[{"ws": "127.0.0.1:0", "origins": listed}]) as gateway:
        got = await status_of(gateway, request(origin=origin, host=host))
        assert got == (101 if welcome else 403)
        assert await status_of(gateway, request(host=host)) == 101  # no page, no origin


async def test_given_a_path_when_another_is_asked_for_then_nothing_is_there(tmp_path):
    async with running(tmp_path, listeners=[{"ws": "127.0.0.1:0", "path": "/mqtt"}]) as gateway:
        for path, status in (
            ("/mqtt", 101),
            ("/mqtt?token=x", 101),
            ("/", 404),
            ("/mqtt/", 404),
            ("/MQTT", 404),
        ):
            assert await status_of(gateway, request(path)) == status


# ---- frames that end it ------------------------------------------------------------------------

PUBLISH_4096 = b"\x30\x80\x20" + b"abc"  # says 4,096 bytes, and brings three
FRAMES = [
    ("an unmasked frame", frame(CONNECT, mask=False), 1002),
    ("a text frame", frame(b"hello", TEXT), 1003),
    ("an empty text frame", frame(b"", TEXT), 1003),
    ("CONNECT as text", frame(CONNECT, TEXT), 1003),
    ("the beginning of a text", frame(b"hello", TEXT, fin=False), 1003),
    ("a fragmented ping", frame(b"x", PING, fin=False), 1002),
    ("a fragmented close", frame(b"\x03\xe8", CLOSE, fin=False), 1002),
    ("a ping of 126 bytes", frame(b"x" * 126, PING), 1002),
    ("reserved bit 1", frame(CONNECT, reserved=4), 1002),
    ("reserved bit 2", frame(CONNECT, reserved=2), 1002),
    ("reserved bit 3", frame(CONNECT, reserved=1), 1002),
    ("opcode 3", frame(b"x", 3), 1002),
    ("opcode 15", frame(b"x", 15), 1002),
    ("a continuation of nothing", frame(b"x", CONT), 1002),
    ("a message within a message", frame(b"\x10", fin=False) + frame(CONNECT), 1002),
    ("a close of one byte", frame(b"\x03", CLOSE), 1002),
    ("a close with a code that is none", frame(b"\x03\xed", CLOSE), 1002),
    ("a close that is not UTF-8", frame(b"\x03\xe8\xff", CLOSE), 1007),
    ("65 KiB announced before CONNECT", b"\x82\xff" + (65 * 1024).to_bytes(8) + b"abcd", 1009),
    ("4 EiB announced", b"\x82\xff" + (1 << 62).to_bytes(8), 1009),
    ("a length with the highest bit", b"\x82\xff" + (1 << 63).to_bytes(8), 1009),
    ("64 KiB before CONNECT, in pieces",
     frame(b"\x10", fin=False) + frame(b"x" * 32_768, CONT, fin=False) * 2, 1009),
    ("garbage where CONNECT should be", frame(bytes(range(64))), 1000),
    ("PUBLISH before CONNECT", frame(PUBLISH_4096), 1000),
    ("a CONNECT that announces 256 MiB", frame(b"\x10\xff\xff\xff\x7f"), 1000),
]  # fmt: skip


async def _closed(device: WireDevice) -> tuple[float, int]:
    """How long it took until the gateway closed, and the code it gave."""
    began = time.monotonic()
    code = 0
    with contextlib.suppress(*GONE):
        async with asyncio.timeout(3):
            while True:
                opcode, data = await device.wire.next_frame()
                if opcode == CLOSE:
                    code = int.from_bytes(data[:2])
    return time.monotonic() - began, code


@pytest.mark.parametrize(("what", "sent", "code"), FRAMES, ids=[row[0] for row in FRAMES])
async def test_a_frame_that_breaks_the_rules_ends_the_connection(gateway, what, sent, code):
    device = await opened(gateway, 4)
    device.wire.write_raw(sent)
    took_s, got = await _closed(device)
    assert got == code
    assert took_s < AT_ONCE_S
    await until(lambda: not gateway.broker.links)
    assert not gateway.broker.subscribers
    assert gateway.broker.malformed == 1
    device.drop()


@pytest.mark.parametrize("version", [4, 5])
async def test_a_text_frame_after_connect_ends_it_too_and_what_came_before_it_counts(gateway, version):
    device = await connected(gateway, version=version)
    before = frame(encode(Publish("a/b", b"kept", 0), version))
    device.wire.write_raw(before + frame(b"text", TEXT) + frame(encode(Publish("a/b", b"not", 0), version)))
    _, code = await _closed(device)
    assert code == 1003
    await until(lambda: sink_of(gateway).received)
    assert [one.message.payload for one in sink_of(gateway).received] == [b"kept"]


async def test_a_message_above_the_packet_limit_is_refused_at_its_header(gateway):
    device = await connected(gateway)
    device.wire.write_raw(b"\x82\xff" + (1024 * 1024 + 1).to_bytes(8))
    _, code = await _closed(device)
    assert code == 1009


async def test_a_publish_that_is_longer_than_what_it_brings_is_not_taken(
    gateway,
):
    """NanoMQ once read past the end of such a frame."""
    device = await connected(gateway)
    device.wire.write(PUBLISH_4096)
    await asyncio.sleep(0.05)
    assert gateway.broker.inlet.received == 0
    device.wire.write(b"\0" * 4093)  # now it is whole, and no topic begins like that
    await _closed(device)
    await until(lambda: not gateway.broker.links)
    assert gateway.broker.inlet.received == 0


async def test_twenty_thousand_empty_frames_bring_nothing_and_hold_nobody(gateway):
    device = await connected(gateway)
    other = await connected(gateway, "other")
    for _ in range(20):
        device.wire.write_raw(frame(b"") * 1_000)
        await device.wire._writer.drain()
        began = time.monotonic()
        await other.quiet()
        assert time.monotonic() - began < 0.5
    await device.quiet()
    device.drop()
    other.drop()


async def test_keep_alive_is_mqtts_and_no_ping_of_websocket_prolongs_it(gateway):
    device = await opened(gateway)
    device.send(Connect("sleepy", 5, keep_alive_s=1))
    await device.next()
    [link] = gateway.broker.links
    began = time.monotonic()
    while not link.gone and time.monotonic() - began < 6:
        device.wire.write_raw(frame(b"", PING))
        await asyncio.sleep(0.1)
    assert 1 < time.monotonic() - began < 4
    device.drop()


# ---- the slow ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", [b"", b"GET / HT", request()[:-2], request()], ids=["nothing", "a word", "almost", "all"]
)
async def test_an_upgrade_and_its_connect_have_one_deadline(tmp_path, innocent_log, said):
    limits = {"connect_wait": "1s"}
    async with running(tmp_path, listeners=[{"ws": "127.0.0.1:0", "limits": limits}]) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
        writer.write(said)
        began = time.monotonic()
        async with asyncio.timeout(5):
            await reader.read()
        assert 0.9 < time.monotonic() - began < 3.2
        await until(lambda: not gateway.broker.links and not gateway.broker.crowd.inside)
        writer.close()


async def test_given_a_byte_of_the_request_now_and_then_when_the_deadline_comes_then_it_is_over(
    tmp_path, innocent_log
):
    limits = {"connect_wait": "1s"}
    async with running(tmp_path, listeners=[{"ws": "127.0.0.1:0", "limits": limits}]) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway))
        began = time.monotonic()
        for byte in request():
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
            if reader.at_eof() or time.monotonic() - began > 6:
                break
        assert time.monotonic() - began < 4
        writer.close()


async def test_shared_life_of_both_worlds(tmp_path):
    """What is published over WebSocket arrives over TCP, and the other way round."""
    async with running(tmp_path, listeners=[{"mqtt": "127.0.0.1:0"}, {"ws": "127.0.0.1:0"}]) as gateway:
        ports = [int(one.address.rpartition(":")[2]) for one in gateway.listeners]
        tcp, web = WireDevice("mqtt", ports[0]), WireDevice("ws", ports[1])
        for name, device in (("tcp", tcp), ("web", web)):
            await device.open()
            await device.hello(name)
            await device.subscribe(f"to/{name}")
        assert (await tcp.published("to/web", b"1")).reason == 0
        assert (await web.expect(Publish)).payload == b"1"
        assert (await web.published("to/tcp", b"2")).reason == 0
        assert (await tcp.expect(Publish)).payload == b"2"
        for device in (tcp, web):
            await device.leave()
