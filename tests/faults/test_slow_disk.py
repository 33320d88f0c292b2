"""A disk that is slow, and one that stands still for a while (D15).

An SD card takes 20 ms to sync, where the disks that tests run on take less than one.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import pytest

from bridge.mqtt import codec
from bridge.mqtt.framer import Framer
from bridge.mqtt.packet import PINGREQ, Connack, Connect, Pingresp
from tests.faults.probe import Probe
from tests.faults.tracer import Tampered
from tests.house.device import Device, read_packets
from tests.house.shipped import Shipped

PUBLISHERS = 100
SYNC_MS = 20
ACKNOWLEDGED_PER_S_MIN = 1000
LAG_S_MAX = 0.050
STALL_S = 2.0


class Breathing:
    """A device with a short keep-alive that is heard in time, if the loop listens."""

    def __init__(self, port: int, keep_alive_s: int) -> None:
        self.waits_s: list[float] = []
        self._port = port
        self._keep_alive_s = keep_alive_s

    async def run(self, every_s: float) -> None:
        """Ask until cancelled. Raises EOFError when it is cut off."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            framer = Framer(4)
            writer.write(codec.encode(Connect("breathing", keep_alive_s=self._keep_alive_s), 4))
            [connack] = await read_packets(reader, framer)
            assert isinstance(connack, Connack)
            while True:
                began = time.monotonic()
                writer.write(codec.encode(PINGREQ, 4))
                [answer] = await read_packets(reader, framer)
                assert isinstance(answer, Pingresp)
                self.waits_s.append(time.monotonic() - began)
                await asyncio.sleep(every_s)
        finally:
            writer.close()


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


@pytest.mark.parametrize(
    "seconds",
    [pytest.param(4, id="4-s"), pytest.param(60, id="60-s", marks=[pytest.mark.long, pytest.mark.alone])],
)
async def test_given_a_sync_of_20_ms_then_100_publishers_get_1000_acks_a_second_and_the_loop_answers(
    tmp_path: Path, seconds: int
) -> None:
    gateway = Shipped(tmp_path / "gateway")
    devices = [Device(f"d{nth}", gateway.port, 10_000_000, 15) for nth in range(PUBLISHERS)]
    gateway.start()
    tasks = [asyncio.create_task(device.run()) for device in devices]
    try:
        with Tampered(gateway.pid, "fdatasync", f"delay_exit={SYNC_MS}ms"):
            await asyncio.sleep(1.5)  # until all are connected, and the store has found out that it is slow
            probe = Probe(gateway.port, seconds)
            before, began = sum(len(each.acknowledged) for each in devices), time.monotonic()
            await asyncio.sleep(seconds)
            took_s = time.monotonic() - began
            rate = (sum(len(each.acknowledged) for each in devices) - before) / took_s
            lag_s = _p99(await asyncio.to_thread(probe.waits_s))
            commit_ms = gateway.status()["store"]["commit_ms"]
        assert commit_ms >= SYNC_MS, "the disk was not slow"
        print(f"{rate:,.0f} acknowledged/s, the loop answers in {lag_s * 1000:.1f} ms (p99)")
        assert rate >= ACKNOWLEDGED_PER_S_MIN
        assert lag_s <= LAG_S_MAX
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        gateway.kill()
    assert "Traceback" not in gateway.output()


async def test_given_a_disk_that_stands_still_for_2_s_then_nobody_is_cut_off(tmp_path: Path) -> None:
    gateway = Shipped(tmp_path / "gateway")
    devices = [Device(f"d{nth}", gateway.port, 10_000_000, 20) for nth in range(20)]
    probe = Breathing(gateway.port, keep_alive_s=1)
    gateway.start()
    tasks = [asyncio.create_task(device.run()) for device in devices]
    asking = asyncio.create_task(probe.run(0.3))
    try:
        await asyncio.sleep(1)
        with Tampered(gateway.pid, "fdatasync", f"delay_exit={STALL_S}s:when=1"):
            await asyncio.sleep(STALL_S + 1)
        assert not asking.done(), "the probe with a keep-alive of 1 s was cut off"
        connected = gateway.status()["mqtt"]["connections"]
        before = sum(len(each.acknowledged) for each in devices)
        await asyncio.sleep(0.5)
        assert sum(len(each.acknowledged) for each in devices) > before
        assert connected == len(devices) + 1
        assert max(each for device in devices for each in device.sent.values()) == 1, "somebody came again"
        print(
            f"{len(devices)} publishers and a keep-alive of 1 s through {STALL_S} s; longest answer"
            f" {max(probe.waits_s):.2f} s"
        )
    finally:
        for task in (*tasks, asking):
            task.cancel()
        await asyncio.gather(*tasks, asking, return_exceptions=True)
        gateway.kill()
    assert "Traceback" not in gateway.output()
