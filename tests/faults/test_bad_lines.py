"""Lines as they are in vehicles and cellars (F5): lossy, slow, far away, and gone every other moment.

Everything arrives, in order, and the far end is not called more often than the back-off
allows. Patience is a few seconds here, so that a slow line is really taken for one.
"""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_link import _arrivals, _backlog, _drained, _route, _to_rabbitmq
from tests.faults.wire import Beyond, wire
from tests.gateway import Gateway, until
from tests.house.device import Device
from tests.house.receiver import FarEnd
from tests.house.verdict import judge
from tests.servers import RabbitMQ, TcpProxy, free_port

PORT = 5556


def _gateway(folder: Path, sink: dict[str, Any], **more: Any) -> Gateway:
    return Gateway(
        folder,
        sinks={"cloud": {"zeromq": sink}},
        routes={"all": {"from": "#", "to": "cloud"} | more},
        store={"path": str(folder / "spool"), "max_bytes": "256MiB"},
    )


def _calls(gateway: Gateway) -> int:
    """How often the link was open."""
    return len(re.findall(r"sink (?:up|stalled)", gateway.output()))


@pytest.mark.parametrize(
    ("percent", "count", "number"),
    [
        pytest.param(10, 2_000, 1, id="10-percent"),
        pytest.param(30, 8_000, 2, id="30-percent", marks=[pytest.mark.long, pytest.mark.timeout(300)]),
    ],
)
async def test_a_line_that_loses_packets_loses_no_message(
    tmp_path: Path, percent: int, count: int, number: int
) -> None:
    with wire(number) as line:
        far_end = Beyond(tmp_path / "far", f"tcp://{line.near}:{PORT}", line)
        bind = {"bind": f"tcp://{line.near}:{PORT}", "anonymous": True}
        gateway = _gateway(tmp_path / "gateway", bind)
        gateway.start()
        try:
            far_end.start()
            line.lose(percent)
            device = Device("d", gateway.port, count, 20_000)
            await asyncio.wait_for(device.run(), 60)
            began = time.monotonic()
            await _drained(gateway, 200)
            took_s = time.monotonic() - began
            assert gateway.stop() == 0
        finally:
            gateway.kill()
            far_end.kill()
    verdict = judge([(one["id"], one["payload"]) for one in far_end.received()], [device])
    print(f"{percent} % lost both ways: {took_s:.1f} s, {_calls(gateway)} links; {verdict}")
    assert verdict.arrived == count


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_a_line_of_64_kbit_is_slow_and_is_not_taken_for_a_dead_one(tmp_path: Path) -> None:
    """A batch takes several times as long as anybody waits for a confirmation."""
    count, confirm_timeout_s = 1_000, 5
    with wire(3) as line:
        far_end = Beyond(tmp_path / "far", f"tcp://{line.near}:{PORT}", line)
        sink = {
            "bind": f"tcp://{line.near}:{PORT}",
            "anonymous": True,
            "confirm_timeout": f"{confirm_timeout_s}s",
        }
        gateway = _gateway(tmp_path / "gateway", sink)
        gateway.start()
        try:
            line.slow("64kbit")
            device = await _backlog(gateway, count)
            far_end.start()
            began = time.monotonic()
            await _drained(gateway, 300)
            took_s = time.monotonic() - began
            told = gateway.status()["sinks"]["cloud"]
            assert gateway.stop() == 0
        finally:
            gateway.kill()
            far_end.kill()
    verdict = judge([(one["id"], one["payload"]) for one in far_end.received()], [device])
    print(f"64 kbit: {count} messages in {took_s:.1f} s, {told['stalls']} stalls; {verdict}")
    assert took_s > 2 * confirm_timeout_s, "it was not slow at all"
    assert told["stalls"] == 0
    assert (verdict.arrived, verdict.repeated) == (count, 0)


@pytest.mark.long
async def test_two_seconds_away_is_not_gone_and_the_line_is_kept_full(
    tmp_path: Path, rabbitmq: RabbitMQ
) -> None:
    count = 10_000
    proxy = TcpProxy(rabbitmq.port)
    proxy.delay_s = 1.0  # there, and back
    await proxy.start()
    url = rabbitmq.url.replace(f":{rabbitmq.port}", f":{proxy.port}")
    more = {"heartbeat": "10s", "open_timeout": "60s", "confirm_timeout": "15s"}
    gateway = Gateway(tmp_path / "gateway", **_to_rabbitmq(url, "far-away", **more))
    await asyncio.to_thread(gateway.start)
    try:
        device = await _backlog(gateway, count)
        began = time.monotonic()
        while (await asyncio.to_thread(_route, gateway))["backlog_messages"]:
            assert time.monotonic() - began < 120
            await asyncio.sleep(0.2)
        took_s = time.monotonic() - began
        assert await asyncio.to_thread(gateway.stop) == 0
    finally:
        await asyncio.to_thread(gateway.kill)
        await proxy.stop()
    verdict = judge(await asyncio.to_thread(_arrivals, rabbitmq.url, "far-away"), [device])
    print(f"2 s there and back: {count} in {took_s:.1f} s after the open; {verdict}")
    assert (verdict.arrived, verdict.repeated) == (count, 0)
    assert _calls(gateway) == 1


@pytest.mark.parametrize(
    ("flaps", "count"),
    [
        pytest.param(5, 3_000, id="5-flaps"),
        pytest.param(100, 60_000, id="100-flaps", marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    ],
)
async def test_a_line_that_goes_and_comes_loses_nothing_and_sees_no_storm(
    tmp_path: Path, flaps: int, count: int
) -> None:
    port = free_port()
    far_end = FarEnd(tmp_path / "far", f"tcp://127.0.0.1:{port}", "--bind")
    proxy = TcpProxy(port)
    await proxy.start()
    gateway = _gateway(
        tmp_path / "gateway", {"connect": f"tcp://127.0.0.1:{proxy.port}"}, batch={"messages": 50}
    )
    await asyncio.to_thread(gateway.start)
    try:
        far_end.start()
        device = Device("d", gateway.port, count, count / flaps / 0.5)
        publishing = asyncio.create_task(device.run())
        began, cuts = time.monotonic(), 0
        while not publishing.done():
            await asyncio.sleep(0.2 + 0.06 * ((cuts * 7) % 10))
            await proxy.cut()
            cuts += 1
        await publishing
        flapped_s = time.monotonic() - began
        began = time.monotonic()
        while (await asyncio.to_thread(_route, gateway))["backlog_messages"]:
            assert time.monotonic() - began < 60
            await asyncio.sleep(0.05)
        drained_s = time.monotonic() - began
        assert await asyncio.to_thread(gateway.stop) == 0
        await until(lambda: not proxy._lines)
    finally:
        await asyncio.to_thread(gateway.kill)
        far_end.kill()
        await proxy.stop()
    verdict = judge([(one["id"], one["payload"]) for one in far_end.received()], [device])
    print(
        f"{cuts} cuts in {flapped_s:.0f} s: {proxy.connections} connections,"
        f" drained {drained_s:.1f} s after the last; {verdict}"
    )
    assert verdict.arrived == count
    assert verdict.again == 0
    # Each cut is one link less, and libzmq's own calls behind ours are as far apart as ours.
    assert proxy.connections <= 3 * cuts + 3
    assert verdict.repeated <= cuts * 200
