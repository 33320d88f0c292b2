"""Whatever comes in, the house stands, and who behaves is served all the while (M1, M2, P5).

Nobody here has logged in: this is what anyone can do who reaches a port.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
import socket
import struct
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil
import pytest
import zmq

from bridge.message import Properties
from bridge.mqtt import codec
from bridge.mqtt.packet import (
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Publish,
    Pubrel,
    Subscribe,
    Subscription,
    Will,
)
from tests.faults.publisher import Publisher
from tests.gateway import until
from tests.house.receiver import FarEnd
from tests.house.shipped import Shipped

CONNECTIONS = 200
# p99 of a good device. Those who misbehave take the same two cores, so most of it is waiting for one.
ANSWER_S_MAX = 1.0
# What strangers on the ZeroMQ port send in bulk is read to the end before it is refused.
FLOODED_S_MAX = 3.0
RSS_BYTES_MORE = 32 * 1024**2
# ZeroMQ reads ahead for each peer: a tenth of what 40 of them send, and not in proportion to it.
FLOOD_BYTES_MORE = 96 * 1024**2

# What a real device might say, to be spoilt.
WORDS: list[Packet] = [
    Connect("bad", 4, keep_alive_s=5),
    Connect("bad", 5, will=Will("a/b", b"gone", 1), properties=Properties(session_expiry_interval_s=60)),
    Connect("", 5, user_name="user", password=b"secret"),
    Publish("plant/bad/1", b"x" * 20),
    Publish("plant/bad/1", b"x" * 20, 1, packet_id=7),
    Publish("plant/bad/2", b"x" * 300, 2, packet_id=9, properties=Properties(content_type="t")),
    Pubrel(9),
    Subscribe(3, (Subscription("plant/#", 2), Subscription("+/+/1", 1))),
    Pingreq(),
    Disconnect(),
]


def _spoilt(luck: random.Random) -> bytes:
    """A conversation with something wrong in it, or no conversation at all."""
    if luck.random() < 0.2:
        return luck.randbytes(luck.randrange(1, 2000))
    version = luck.choice((4, 5))
    said = bytearray(codec.encode(Connect(f"bad{luck.randrange(20)}", version), version))
    if luck.random() < 0.3:
        said.clear()
    for _ in range(luck.randrange(1, 12)):
        word = luck.choice(WORDS)
        said += codec.encode(word, word.version if isinstance(word, Connect) else version)
    for _ in range(luck.randrange(4)):
        at = luck.randrange(len(said))
        match luck.randrange(4):
            case 0:
                said[at] ^= 1 << luck.randrange(8)
            case 1:
                said[at : at + luck.randrange(8)] = b""
            case 2:
                said[at:at] = luck.randbytes(luck.randrange(1, 8))
            case _:
                said[at : at + 4] = b"\xff\xff\xff\x7f"
        if not said:
            break
    return bytes(said)


async def _misbehave(port: int, luck: random.Random, until_at: float) -> int:
    """Connect and talk nonsense again and again; return how often."""
    times = 0
    while time.monotonic() < until_at:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            said = _spoilt(luck)
            cut = luck.randrange(len(said) + 1)
            writer.write(said[:cut])
            await asyncio.sleep(0)
            writer.write(said[cut:])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1000), luck.choice((0.0, 0.05, 0.2)))
            if luck.random() < 0.5:
                writer.transport.abort()
            writer.close()
            times += 1
        await asyncio.sleep(0.02)
    return times


@contextlib.asynccontextmanager
async def _good_device(port: int, p99_s_max: float) -> AsyncIterator[Publisher]:
    """A device that publishes all the while, each message acknowledged, and in time."""
    publisher = Publisher(port, name="good", topic="good/device")
    took: list[float] = []
    leaving = asyncio.Event()

    async def publish() -> None:
        while not leaving.is_set():
            began = time.perf_counter()
            assert await publisher.publish(str(len(took))), "the good device was sent away"
            took.append(time.perf_counter() - began)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(leaving.wait(), 0.005)

    publishing = asyncio.create_task(publish())
    try:
        yield publisher
        assert not publishing.done(), publishing.exception()
        leaving.set()
        await publishing
    finally:
        publishing.cancel()
        publisher.close()
    p99_s = sorted(took)[len(took) * 99 // 100]
    print(f"the good device: {len(took)} acknowledged, p99 {p99_s * 1000:.0f} ms")
    assert p99_s <= p99_s_max


def _assert_unharmed(gateway: Shipped) -> None:
    assert psutil.pid_exists(gateway.pid)
    assert gateway.status()["ready"]
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.output()
    assert "failed" not in gateway.output()


@pytest.mark.parametrize(
    ("seconds", "seed"),
    [
        pytest.param(5, 1, id="5-s"),
        pytest.param(300, 2, id="300-s", marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    ],
)
async def test_given_nonsense_from_200_connections_then_a_good_device_notices_nothing(
    tmp_path: Path, seconds: float, seed: int
) -> None:
    gateway = Shipped(tmp_path)
    gateway.start()
    before = gateway.rss_most()
    try:
        async with _good_device(gateway.port, ANSWER_S_MAX):
            ends = time.monotonic() + seconds
            bad = [_misbehave(gateway.port, random.Random(seed * 1000 + n), ends) for n in range(CONNECTIONS)]
            times = sum(await asyncio.gather(*bad))
        # Sessions and retained messages that were spoken correctly are kept, and rightly so.
        more = gateway.rss_most() - before
        print(f"{times:,} conversations, RSS +{more / 1024**2:.1f} MiB, {gateway.status()['mqtt']}")
        assert more <= 2 * RSS_BYTES_MORE
        _assert_unharmed(gateway)
    finally:
        gateway.kill()


async def test_given_1000_sockets_that_claim_256_mib_then_none_of_it_is_set_aside(tmp_path: Path) -> None:
    gateway = Shipped(tmp_path)
    gateway.start()
    before = gateway.rss_most()
    claims = [b"\x10\xff\xff\xff\x7f", b"\x10\xff\xff\xff\x7f\x00\x04MQTT", b"\x30\xff\xff\xff\x7f\x00\x01a"]
    sockets: list[socket.socket] = []
    try:
        async with _good_device(gateway.port, ANSWER_S_MAX):
            for number in range(1000):
                sockets.append(socket.create_connection(("127.0.0.1", gateway.port), timeout=5))
                sockets[-1].sendall(claims[number % len(claims)])
                if number % 20 == 0:
                    await asyncio.sleep(0)
            for each in sockets:
                each.setblocking(True)
                each.settimeout(15)
                # All that is ever heard of us is the end, in one way or another.
                with contextlib.suppress(ConnectionResetError):
                    while await asyncio.to_thread(each.recv, 100):
                        pass
            more = gateway.rss_most() - before
        print(f"1,000 claims of 256 MiB: RSS +{more / 1024**2:.1f} MiB")
        assert more <= RSS_BYTES_MORE
        await until(lambda: gateway.status()["mqtt"]["connections"] == 0)
        _assert_unharmed(gateway)
    finally:
        for each in sockets:
            each.close()
        gateway.kill()


# ---- the other port ----------------------------------------------------------------


def _junk(luck: random.Random) -> list[bytes]:
    """A multipart message that is none of the protocol, or nearly one."""
    match luck.randrange(8):
        case 0:
            return [luck.randbytes(luck.randrange(100)) for _ in range(luck.randrange(1, 10))]
        case 1:
            return [b"HELLO", b'{"version": 2, "window": 1}']
        case 2:
            return [
                b"HELLO",
                luck.choice((b"{", b"[]", b'{"version": 1, "window": -1}', b"\xff\xfe", b"[" * 60_000)),
            ]
        case 3:
            return [luck.choice((b"ACK", b"BYE", b"WHO", b"BATCH", b"PING"))]
        case 4:
            return [b"ACK", luck.choice((b"1", b"-1", b"9" * 5000, b"\x00", b"1e9", "١".encode()))]
        case 5:
            return [b"REFUSE", b"1", luck.choice((b"0", b"-1", b"x")), luck.randbytes(50)]
        case 6:
            return [b"REFUSE", b"9" * 5000, b"0", b"reason"]
        case _:
            return [b"x" * 60_000] * 20


def _molest_with_zeromq(endpoint: str, seed: int) -> None:
    luck = random.Random(seed)
    socket_ = zmq.Context.instance().socket(zmq.DEALER)
    socket_.linger = 0
    socket_.connect(endpoint)
    try:
        for _ in range(200):
            with contextlib.suppress(zmq.Again):
                socket_.send_multipart(_junk(luck), zmq.NOBLOCK)
        # One frame that is far larger than any answer may be.
        with contextlib.suppress(zmq.Again):
            socket_.send_multipart([b"ACK", bytes(16 << 20)], zmq.NOBLOCK)
        socket_.poll(200)
    finally:
        socket_.close()


def _molest_with_tcp(port: int, seed: int) -> None:
    luck = random.Random(seed)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + b"\x00" + bytes(31)
    said = luck.choice(
        (
            luck.randbytes(500),
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            greeting[: luck.randrange(len(greeting))],
            greeting + luck.randbytes(200),
            greeting + b"\x06" + struct.pack(">Q", 1 << 62) + b"x" * 100,
            greeting + b"\x04\x29\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
            + b"\x02" + struct.pack(">Q", 256 << 20) + b"x" * 100,
        )
    )  # fmt: skip
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as line:
        line.sendall(said)
        line.settimeout(0.05)
        line.recv(1000)


async def test_given_junk_on_the_zeromq_endpoint_then_the_real_receiver_gets_everything(
    tmp_path: Path,
) -> None:
    gateway = Shipped(tmp_path / "gateway")
    assert gateway.endpoint is not None
    port = int(gateway.endpoint.rpartition(":")[2])
    far_end = FarEnd(tmp_path / "far", gateway.endpoint)
    gateway.start()
    far_end.start()
    try:
        await until(lambda: gateway.status()["sinks"]["local"]["state"] == "up")
        async with _good_device(gateway.port, FLOODED_S_MAX) as publisher:
            # From processes of their own, so that what the good device waits for is the gateway.
            loop = asyncio.get_running_loop()
            with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as strangers:
                for turn in range(10):
                    await asyncio.gather(
                        *(
                            loop.run_in_executor(
                                strangers, _molest_with_zeromq, gateway.endpoint, turn * 3 + n
                            )
                            for n in range(3)
                        ),
                        *(
                            loop.run_in_executor(strangers, _molest_with_tcp, port, turn * 20 + n)
                            for n in range(20)
                        ),
                    )
        assert not await asyncio.to_thread(far_end.wait_for, set(publisher.acknowledged))
        assert gateway.status()["dead_letters"] == 0
        assert [one["payload"] for one in far_end.received()] == publisher.acknowledged
        _assert_unharmed(gateway)
    finally:
        gateway.kill()
        far_end.kill()


def _flood_with_zeromq(endpoint: str) -> None:
    """From 20 peers at once, half a gigabyte in frames that are each within the limit."""
    peers = [zmq.Context.instance().socket(zmq.DEALER) for _ in range(20)]
    for peer in peers:
        peer.linger = 0
        peer.sndtimeo = 3_000
        peer.connect(endpoint)
    try:
        for _ in range(20):
            for peer in peers:
                with contextlib.suppress(zmq.Again):
                    peer.send_multipart([b"x" * 60_000] * 20)
    finally:
        for peer in peers:
            peer.close()


async def test_given_a_flood_on_the_zeromq_endpoint_then_memory_stays_bounded(tmp_path: Path) -> None:
    gateway = Shipped(tmp_path)
    assert gateway.endpoint is not None
    gateway.start()
    before = gateway.rss_most()
    loop = asyncio.get_running_loop()
    try:
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as strangers:
            floods = [loop.run_in_executor(strangers, _flood_with_zeromq, gateway.endpoint) for _ in range(2)]
            await asyncio.gather(*floods)
        more = gateway.rss_most() - before
        print(f"a flood of 960 MB: RSS +{more / 1024**2:.1f} MiB")
        assert more <= FLOOD_BYTES_MORE
        _assert_unharmed(gateway)
    finally:
        gateway.kill()


def post_one_endless_message(endpoint: str) -> None:
    """120 MB in 2,000 frames, each of them within the limit."""
    with zmq.Context.instance().socket(zmq.DEALER) as peer:
        peer.linger = 10_000
        peer.connect(endpoint)
        peer.send_multipart([b"x" * 60_000] * 2_000)
    zmq.Context.instance().term()


@pytest.mark.xfail(
    strict=True,
    reason="ZMQ_MAXMSGSIZE bounds a frame, and nothing bounds how many frames one message has: "
    "300 MB in one message cost 573 MiB. On this machine anyone can do so; from outside only who holds "
    "a key can, see test_strangers.py",
)
async def test_given_one_message_of_2000_frames_then_memory_stays_bounded(tmp_path: Path) -> None:
    gateway = Shipped(tmp_path)
    assert gateway.endpoint is not None
    gateway.start()
    before = gateway.rss_most()
    try:
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as stranger:
            await loop.run_in_executor(stranger, post_one_endless_message, gateway.endpoint)
        more = gateway.rss_most() - before
        print(f"one message of 120 MB: RSS +{more / 1024**2:.1f} MiB")
        assert more <= RSS_BYTES_MORE
    finally:
        gateway.kill()
