"""Strangers by the thousand, for minutes: places are freed, and nothing is left of those who went."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import psutil
import pytest

from bridge.mqtt.codec import encode
from bridge.mqtt.packet import Connect, Disconnect, Subscribe, Subscription, Unsubscribe
from tests.broker.device import Device
from tests.gateway import Gateway
from tests.pki import Authority, Pair
from tests.servers import free_port

MIB = 1024 * 1024
FREED_S = 12.0  # 10 s for a CONNECT, and a look around every second
HELLO = bytes.fromhex("16030100f1010000ed0303")  # how a TLS handshake begins


async def _started(gateway: Gateway) -> psutil.Process:
    await asyncio.to_thread(gateway.start)
    return psutil.Process(gateway.pid)


def _places(process: psutil.Process) -> int:
    return sum(one.status == psutil.CONN_ESTABLISHED for one in process.net_connections("tcp"))


def _two_doors(folder: Path, tls: int, server: Pair) -> Gateway:
    port = free_port()
    gateway = Gateway(
        folder,
        routes={},
        listeners=[
            {"mqtt": f"127.0.0.1:{port}"},
            {"mqtts": f"127.0.0.1:{tls}", "certificate": str(server.certificate), "key": str(server.key)},
        ],
    )
    gateway.port = port
    return gateway


@pytest.mark.long
@pytest.mark.alone
async def test_two_thousand_who_never_finish_keep_nobody_out_and_lose_their_places(tmp_path: Path) -> None:
    """Half a CONNECT and then a byte now and then, half a TLS handshake, or nothing at all (SlowITe)."""
    plant, tls = Authority(tmp_path / "plant"), free_port()
    server = plant.server()
    gateway = _two_doors(tmp_path / "gateway", tls, server)
    process = await _started(gateway)
    writers: list[asyncio.StreamWriter] = []
    waits_s: list[float] = []

    async def good() -> None:
        while True:
            began = time.monotonic()
            device = await Device.connect(gateway.port, "good")
            waits_s.append(time.monotonic() - began)
            await device.leave()
            await asyncio.sleep(0.2)

    async def drip() -> None:
        while True:
            await asyncio.sleep(5)
            for writer in writers:
                with contextlib.suppress(ConnectionError):
                    writer.write(b"\0")

    helpers = [asyncio.create_task(good()), asyncio.create_task(drip())]
    try:
        connect = encode(Connect("x" * 200, 4), 4)
        for nth in range(2_000):
            port = tls if nth % 4 == 3 else gateway.port
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write((connect[:30], connect[:1], b"", HELLO)[nth % 4])
            writers.append(writer)
        last = time.monotonic()
        most = _places(process)
        while True:
            freed_s = time.monotonic() - last
            if (places := _places(process)) <= 2:
                break
            assert freed_s < FREED_S, f"{places} places are still held"
            assert not any(helper.done() for helper in helpers)
            await asyncio.sleep(0.1)
    finally:
        for helper in helpers:
            helper.cancel()
        for writer in writers:
            writer.transport.abort()
        output = gateway.output()
        await asyncio.to_thread(gateway.kill)
    print(f"{most} at once; freed {freed_s:.1f} s after the last; a good device waited {max(waits_s):.3f} s")
    assert most >= 1_500  # half handshakes have fewer places than there are of them here
    assert freed_s <= FREED_S
    assert len(waits_s) > 10
    assert max(waits_s) <= 1.0
    assert "Traceback" not in output


@pytest.mark.long
async def test_a_hundred_thousand_visits_leave_nothing_behind(tmp_path: Path) -> None:
    """Come, subscribe, unsubscribe, go: under ever new names, and under one name on top of each other."""
    gateway = Gateway(tmp_path, routes={})
    process = await _started(gateway)
    filters = [f"plant/{nth}/+" for nth in range(20)]

    def visit(nth: int) -> bytes:
        version = 4 if nth % 2 else 5
        name = f"visitor {nth}" if nth % 3 else "always the same"
        wanted = tuple(Subscription(each, nth % 3) for each in filters[: nth % 20 + 1])
        packets = [
            Connect(name, version),
            Subscribe(1, wanted),
            Unsubscribe(2, tuple(filters[: nth % 7 + 1])),
        ]
        if nth % 5:
            packets.append(Disconnect())
        return b"".join(encode(packet, version) for packet in packets)

    async def visits(begin: int, count: int) -> None:
        async def one(nth: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(visit(nth))
            with contextlib.suppress(ConnectionError):
                if nth % 5:
                    await reader.read(-1)
                else:
                    await reader.read(1)
            writer.transport.abort()

        for first in range(begin, begin + count, 50):
            await asyncio.gather(*(one(nth) for nth in range(first, first + 50)))

    def settled() -> int:
        deadline = time.monotonic() + 10
        while (found := gateway.status()["mqtt"])["connections"] or found["sessions"]:
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
        assert found["subscriptions"] == 0
        return process.memory_info().rss

    try:
        await visits(0, 10_000)
        before, fds = await asyncio.to_thread(settled), process.num_fds()
        began = time.monotonic()
        await visits(10_000, 100_000)
        took_s = time.monotonic() - began
        grown = await asyncio.to_thread(settled) - before
        print(f"100,000 visits in {took_s:.0f} s: {grown / MIB:+.1f} MiB, fds {fds} → {process.num_fds()}")
        assert grown <= 4 * MIB
        assert process.num_fds() <= fds + 1
        assert await asyncio.to_thread(gateway.stop) == 0
        output = gateway.output()
        assert "Traceback" not in output
        assert "level=error" not in output
    finally:
        await asyncio.to_thread(gateway.kill)
