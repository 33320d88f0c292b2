"""Links that are up and carry nothing (F2): noticed in time, said so, and nothing is lost.

One receiver says hello and answers for nothing; one RabbitMQ lies behind a line that
swallows everything. Both are behind one gateway, so the time is spent once.
"""

from __future__ import annotations

import asyncio
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_link import _arrivals, _to_rabbitmq
from tests.gateway import Gateway
from tests.house.device import Device
from tests.house.verdict import judge
from tests.servers import RabbitMQ, TcpProxy, free_port
from tests.sinks.rigs import FarReceiver

COUNT = 3_000


@pytest.mark.parametrize(
    ("heartbeat_s", "confirm_timeout_s", "noticed_s_max"),
    [
        pytest.param(2, 3, 6, id="in-haste"),
        pytest.param(10, 15, 20, id="by-default", marks=pytest.mark.long),
    ],
)
async def test_given_links_that_only_look_well_then_they_are_noticed_in_time_and_drain_when_they_are(
    tmp_path: Path, rabbitmq: RabbitMQ, heartbeat_s: int, confirm_timeout_s: int, noticed_s_max: int
) -> None:
    proxy = TcpProxy(rabbitmq.port)
    await proxy.start()
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    url = rabbitmq.url.replace(f":{rabbitmq.port}", f":{proxy.port}")
    queue = f"stalled-{heartbeat_s}"
    patience = {"confirm_timeout": f"{confirm_timeout_s}s"}
    to_rabbitmq = _to_rabbitmq(url, queue, heartbeat=f"{heartbeat_s}s", **patience)
    gateway = Gateway(
        tmp_path / "gateway",
        sinks={**to_rabbitmq["sinks"], "lab": {"zeromq": {"bind": endpoint, **patience}}},
        routes={
            "all": to_rabbitmq["routes"]["all"],
            "lab": {"from": "#", "to": "lab"},
        },
    )
    await asyncio.to_thread(gateway.start)
    deaf = FarReceiver(endpoint, name="deaf")
    deaf.taking.clear()

    async def sinks() -> dict[str, Any]:
        return (await asyncio.to_thread(gateway.status))["sinks"]  # type: ignore[no-any-return]

    async def backlogs() -> set[int]:
        routes = (await asyncio.to_thread(gateway.status))["routes"]
        return {route["backlog_messages"] for route in routes.values()}

    try:
        while {sink["state"] for sink in (await sinks()).values()} != {"up"}:
            await asyncio.sleep(0.02)
        proxy.hold(up=True, down=True)
        began = time.monotonic()
        device = Device("d", gateway.port, COUNT, 20_000)
        await asyncio.wait_for(device.run(), 60)
        noticed_s: dict[str, float] = {}
        while len(noticed_s) < 2:
            assert time.monotonic() - began < 60, noticed_s
            for name, sink in (await sinks()).items():
                if sink["state"] != "up":
                    noticed_s.setdefault(name, time.monotonic() - began)
            await asyncio.sleep(0.05)
        # The receiver lets us in again at once, and still it is not up.
        told = (await sinks())["lab"]
        page = await asyncio.to_thread(_metrics, gateway)
        proxy.hold(up=False, down=False)
        deaf.taking.set()
        began = time.monotonic()
        while await backlogs() != {0}:  # and nobody publishes anything
            assert time.monotonic() - began < 60
            await asyncio.sleep(0.05)
        drained_s = time.monotonic() - began
        assert {sink["state"] for sink in (await sinks()).values()} == {"up"}
        assert await asyncio.to_thread(gateway.stop) == 0
        received = await asyncio.to_thread(_arrivals, rabbitmq.url, queue)
    finally:
        await asyncio.to_thread(gateway.kill)
        await proxy.stop()
        await asyncio.to_thread(deaf.end)
    print(f"noticed after {noticed_s}, drained {drained_s:.1f} s after they were well")
    assert max(noticed_s.values()) <= noticed_s_max
    assert told["state"] == "stalled"
    assert told["reason"].startswith(f"no answer within {confirm_timeout_s} s on {endpoint}")
    assert told["stalls"] >= 1
    assert 'edgespool_sink_stalled{kind="zeromq",sink="lab"} 1.0' in page
    assert gateway.output().count('event="sink stalled" sink=lab') == 1
    for arrivals in (received, [(one.id, one.payload.decode()) for one in deaf.owned]):
        assert judge(arrivals, [device]).arrived == COUNT


def _metrics(gateway: Gateway) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.web}/metrics", timeout=5) as answer:
        return str(answer.read().decode())
