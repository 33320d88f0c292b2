"""A RabbitMQ of three nodes, one of which dies while a backlog drains into a quorum queue."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.sinks.amqp_options import AMQP_WINDOW
from tests.gateway import Gateway, until
from tests.house.device import Device
from tests.house.verdict import judge
from tests.servers import RabbitCluster
from tests.sinks.queues import channel_to, take_all

QUEUE = "telemetry"
COUNT = 40_000


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RabbitCluster]:
    made = RabbitCluster(tmp_path / "cluster")
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_given_three_nodes_when_ours_is_killed_in_a_drain_then_another_takes_over_and_nothing_is_lost(
    tmp_path: Path, cluster: RabbitCluster
) -> None:
    amqp = {
        "urls": [node.url for node in cluster.nodes],
        "declare": [{"queue": {"name": QUEUE, "type": "quorum"}}],
        "open_timeout": "5s",
    }
    # Refused until the route has somewhere to go: so there is a backlog when it begins.
    gateway = Gateway(
        tmp_path / "gateway",
        sinks={"cloud": {"amqp": amqp | {"exchange": "plant"}}},
        routes={"all": {"from": "#", "to": "cloud", "address": QUEUE}},
        store={"path": str(tmp_path / "spool"), "max_bytes": "1GiB"},
    )
    gateway.start()
    try:
        device = Device("d", gateway.port, COUNT, 50_000)
        await asyncio.wait_for(device.run(), 60)
        with channel_to(cluster.nodes[2].url) as channel:
            channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
            channel.exchange_declare("plant", "direct", durable=True)
            channel.queue_bind(QUEUE, "plant", QUEUE)

        def delivered() -> int:
            return int(gateway.status()["routes"]["all"]["delivered"])

        await until(lambda: delivered() >= COUNT // 5, 60)
        # Whichever it is: the one that has our connection, as its peers see it from its client's name.
        victim = next(node for node in cluster.nodes if _serves_us(node.port, gateway.pid))
        victim.kill()
        assert delivered() < COUNT, "it was over before the kill"
        left = [node for node in cluster.nodes if node is not victim]
        await until(lambda: gateway.status()["routes"]["all"]["backlog_messages"] == 0, 90)
        told = gateway.status()
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    assert told["dead_letters"] == told["routes"]["all"]["lost"] == 0
    taken = await asyncio.to_thread(take_all, left[0].url, QUEUE)
    verdict = judge([(properties.message_id, body.decode()) for properties, body in taken], [device])
    print(f"one of three nodes killed: {verdict}")
    assert (verdict.arrived, verdict.again) == (COUNT, 0)
    assert verdict.repeated <= 2 * AMQP_WINDOW


def _serves_us(port: int, pid: int) -> bool:
    import psutil

    return any(
        each.raddr and each.raddr.port == port and each.status == psutil.CONN_ESTABLISHED
        for each in psutil.Process(pid).net_connections("tcp")
    )
