"""What hostile input may cost: time of the processor, memory, lines in the log.

Where memory is asked for, the gateway is a process of its own, and its own pages are
counted. Time is CPU time of the one call that takes the bytes, the best of a few:
whoever else works on this machine does not count.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import sys
import time
import tracemalloc
from pathlib import Path

import psutil
import pytest

from bridge.mqtt.codec import encode
from bridge.mqtt.packet import Connack, Connect, Publish
from tests.broker import hostile
from tests.broker.device import Device
from tests.broker.hostile import CLOSED, HARMLESS, USER, block, publish, subscribe, unsubscribe
from tests.gateway import Gateway, until

MIB = 1024 * 1024
KIB = 1024


class Watched:
    """A gateway process, and the most memory it was seen with since `begin`."""

    def __init__(self, folder, **parts):
        self.gateway = Gateway(folder, **parts)

    async def __aenter__(self):
        await asyncio.to_thread(self.gateway.start)
        self.process = psutil.Process(self.gateway.pid)
        return self

    async def __aexit__(self, *_):
        await asyncio.to_thread(self.gateway.kill)

    def begin(self):
        self.before = self.most = self.process.memory_info().rss
        self.watching = asyncio.ensure_future(self._watch())

    async def _watch(self):
        while True:
            self.most = max(self.most, self.process.memory_info().rss)
            await asyncio.sleep(0.005)

    def end(self):
        """How much the process has grown at most, in bytes."""
        self.watching.cancel()
        return max(self.most, self.process.memory_info().rss) - self.before


async def alive(port):
    """Let a device in, and let it publish."""
    device = await Device.connect(port, "witness")
    await device.published("a")
    device.drop()


# ---- many at once ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "data", "stays"),
    [
        ("256 MiB announced", b"\x10\xff\xff\xff\x7f" + bytes(1_000), False),
        ("64 KiB announced, of which 1,000 bytes come", b"\x10\xf0\xff\x03" + bytes(1_000), True),
        ("one byte", b"\x10", True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_thousand_sockets_before_connect_cost_at_most_32_mib(tmp_path, what, data, stays):
    async with Watched(tmp_path, routes={}) as watched:
        port = watched.gateway.port
        await alive(port)
        watched.begin()
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(1_000)]
        for _, writer in pairs:
            writer.write(data)
        if stays:
            await until(lambda: len(watched.process.net_connections("tcp")) >= 1_001)
            await alive(port)
        else:
            for reader, _ in pairs:
                with contextlib.suppress(ConnectionError):
                    assert await asyncio.wait_for(reader.read(), 10) == b""
        grown = watched.end()
        for _, writer in pairs:
            writer.transport.abort()
        await alive(port)
        print(f"{what}: {grown / KIB / 1000:.1f} KiB a socket, {grown / MIB:.1f} MiB in all")
        assert grown <= 32 * MIB
        assert grown <= 16 * KIB * 1_000
        assert "Traceback" not in watched.gateway.output()


async def test_ten_thousand_malformed_connects_leave_nothing_behind(tmp_path):
    bad = [each.data for each in CLOSED if each.row == 12]
    async with Watched(tmp_path, routes={}) as watched:
        port = watched.gateway.port

        async def one(data):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.transport.abort()

        async def thousand():
            for begin in range(0, 1_000, 50):
                await asyncio.gather(*(one(bad[nth % len(bad)]) for nth in range(begin, begin + 50)))

        await thousand()
        watched.begin()
        for _ in range(9):
            await thousand()
        grown = watched.end()
        print(f"9,000 malformed CONNECTs: {grown / KIB:.0f} KiB")
        assert grown <= 2 * MIB
        assert watched.process.num_fds() < 64
        await alive(port)


def scheduled(pid):
    """Nanoseconds for which the process has run, and for which it could have but others did."""
    with contextlib.suppress(OSError):
        ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
        return int(ran), int(waited)
    return 0, 0


# A process of its own, so that what is measured is the gateway and not this test.
PROBE = """
import socket, sys, time
device = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
device.sendall(bytes.fromhex("10 11 0004 4d515454 04 02 0000 0005 70726f6265"))
assert device.recv(4) == b"\\x20\\x02\\0\\0"
print("here", flush=True)
while True:
    time.sleep(0.001)
    began = time.monotonic()
    device.sendall(b"\\xc0\\0")
    if device.recv(2) != b"\\xd0\\0":
        break
    print(time.monotonic() - began, flush=True)
"""


async def test_everything_hostile_at_one_gateway_while_a_device_asks_whether_it_lives(tmp_path):
    async with Watched(tmp_path, routes={}) as watched:
        port = watched.gateway.port

        async def one(given):
            device = Device(port, given.version)
            await device.open()
            if not given.instead_of_connect:
                device.send(Connect("", given.version))
                await device.expect(Connack)
            device.send_bytes(given.data)
            if given in CLOSED:
                assert await device.goodbye() in given.reasons
            device.drop()

        async def p99_s():
            probe = await asyncio.create_subprocess_exec(
                sys.executable, "-c", PROBE, str(port), stdout=asyncio.subprocess.PIPE
            )
            try:
                assert await probe.stdout.readline() == b"here\n"
                ran, waited = scheduled(watched.gateway.pid)
                for given in [*CLOSED, *HARMLESS]:
                    await one(given)
                assert probe.returncode is None, "the probe was sent away"
            finally:
                probe.kill()
            now_ran, now_waited = scheduled(watched.gateway.pid)
            waits_s = sorted(float(line) for line in (await probe.stdout.read()).splitlines()[:-1])
            busy = 1 + (now_waited - waited) / (now_ran - ran) if now_ran > ran else 1.0
            return waits_s[len(waits_s) * 99 // 100] / busy, busy

        # Again where other processes came between all the same.
        rounds = []
        while not rounds or (min(rounds)[0] > 0.020 and len(rounds) < 4):
            rounds.append(await p99_s())
        best_s, busy = min(rounds)
        print(f"probe: p99 {best_s * 1000:.1f} ms, on a machine that was {busy:.2f} times too busy")
        assert best_s <= 0.020
        assert await asyncio.to_thread(watched.gateway.stop) == 0
        output = watched.gateway.output()
        assert "Traceback" not in output
        assert "link failed" not in output
        assert not re.search(r"level=(error|critical)", output)


# ---- QoS 2 that is never released ------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
async def test_65535_qos_2_messages_that_are_never_released_cost_at_most_a_mebibyte(bare, version):
    """The client comes back whenever it was sent away, to its session, and goes on.

    Counted is what Python keeps: pages also hold what one read of thousands of packets
    takes while it is worked on, once, whoever sends it.
    """
    await bare.start(routes={"few": {"from": "nothing", "to": "cloud"}})

    async def greedy(name, data):
        device = await bare.connect(name, version, clean=False, expiry_s=1000 if version == 5 else None)
        device.send_bytes(data)
        assert await device.goodbye() == (0x93 if version == 5 else None)
        device.drop()
        bare._devices.clear()
        await until(lambda: not bare.broker.links)

    floods = [
        b"".join(
            encode(Publish("a", b"x", 2, packet_id=nth), version)
            for nth in range(begin, min(begin + 4_000, 65_536))
        )
        for begin in range(1, 65_536, 4_000)
    ]
    await greedy("first", floods[0])
    gc.collect()
    tracemalloc.start()
    try:
        for flood in floods:
            await greedy("greedy", flood)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print(f"65,535 QoS 2 identifiers: {kept / KIB:.0f} KiB are kept")
    assert len(bare.broker.subscribers["greedy"].session.inbound) <= bare.broker.limits.receive_maximum
    assert kept <= MIB
    await (await bare.connect("other")).published("a")


# ---- time of the processor -------------------------------------------------------------

LEVELS = "+/" * 90 + "+"
DEEP = b"/" + LEVELS.encode()
THOUSAND = range(1_000)
COSTS = [
    ("65,535 slashes in a topic", lambda v: publish(v, b"/" * 65_535)),
    ("10,000 levels in a filter", lambda v: subscribe(v, "+/" * 9_999 + "+")),
    ("5,000 filters", lambda v: subscribe(v, *["a/+"] * 5_000)),
    ("5,000 filters of 91 levels", lambda v: subscribe(v, *[LEVELS] * 5_000)),
    ("an UNSUBSCRIBE of 1,000 filters", lambda v: unsubscribe(v, *[b"%d" % n + DEEP for n in THOUSAND])),
    ("5,000 user properties", lambda v: publish(5, b"a", properties=block(USER * 5_000))),
    ("1,000 user properties", lambda v: publish(5, b"a", properties=block(USER * 1_000))),
    ("a user property of 128 KiB", lambda v: publish(5, b"a", properties=block(hostile.LONG_USER))),
    ("a topic alias too high", lambda v: publish(5, b"a", properties=b"\x03\x23\xff\xff")),
    ("5,000 subscription identifiers", lambda v: publish(5, b"a", properties=block(b"\x0b\1" * 5_000))),
    ("a megabyte of PINGREQ in one read", lambda v: b"\xc0\0" * 1_000),
]  # fmt: skip


@pytest.mark.parametrize(("what", "make"), COSTS, ids=[row[0] for row in COSTS])
async def test_no_packet_costs_more_than_five_milliseconds_or_256_kib_more_than_its_length(house, what, make):
    version = 5 if "propert" in what or "alias" in what or "identifiers" in what else 4
    data = make(version)
    took_s, peaks = [], []
    for nth in range(6):
        device = await house.connect("costly", version)
        link = house.broker.subscribers["costly"].link
        if nth == 5:
            tracemalloc.start()
        try:
            began = time.thread_time()
            link.data_received(data)
            took_s.append(time.thread_time() - began)
            if nth == 5:
                peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        device.drop()
        await until(lambda: not house.broker.links)
    print(f"{what}: {min(took_s) * 1000:.2f} ms, {peaks[0] / KIB:.0f} KiB for {len(data) / KIB:.0f} KiB")
    assert min(took_s) <= 0.005
    kept = MIB if what.endswith("all of them good") else 0  # a thousand subscriptions that stand
    assert peaks[0] <= len(data) + 256 * KIB + kept


# ---- the log ---------------------------------------------------------------------------

FORGERIES = [
    "a\nlevel=error event=forged",
    "a\r\n2024-01-01T00:00:00Z level=error event=forged",
    "\x1b[2J\x1b[1;31mlevel=error event=forged",
    "a\u2028level=error event=forged",
    "a\x85level=error event=forged",
    "a\x9b2Jlevel=error event=forged",
]


async def test_no_name_writes_a_line_of_the_log_and_strangers_write_few(tmp_path):
    gateway = Gateway(tmp_path, routes={})
    await asyncio.to_thread(gateway.start)
    try:
        began, lines = time.monotonic(), gateway.output().count("\n")
        for name in FORGERIES:
            for _ in range(2):  # the second one takes the first one's session, which is worth a line
                device = await Device.connect(gateway.port, name)
                device.publish(name, b"x", 0)
                device.send_bytes(b"\x00\x00")
            await device.goodbye()
        for nth in range(300):
            device = Device(gateway.port)
            await device.open()
            device.send_bytes(CLOSED[nth % len(CLOSED)].data)
            device.drop()
        await alive(gateway.port)
        took_s = time.monotonic() - began
        assert await asyncio.to_thread(gateway.stop) == 0
        output = gateway.log.read_bytes().decode()
    finally:
        gateway.kill()
    assert "event=forged" in output, "it was not even tried"
    assert not [line for line in output.splitlines() if line.lstrip().startswith(("level=error", "2024-"))]
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", output)
    strange = [line for line in output.split("\n") if "protocol error" in line or "taken over" in line]
    print(f"{len(strange)} lines in {took_s:.1f} s")
    assert len(strange) <= 10 * (took_s + 1)
    assert output.count("\n") - lines < 100
