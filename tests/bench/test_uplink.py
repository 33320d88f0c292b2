"""How fast a backlog drains into RabbitMQ, against a bare publisher in the same run; and what it costs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.load import server_usage
from tests.bench.uplink import Worker
from tests.gateway import Gateway
from tests.servers import RabbitMQ, free_port
from tests.sinks.queues import channel_to, take_all

ARRIVING = 0.2  # of the bare publisher's rate, while the backlog drains


@pytest.fixture(autouse=True)
def nothing_left(rabbitmq: RabbitMQ) -> Iterator[None]:
    yield
    with channel_to(rabbitmq.url) as channel:
        channel.queue_delete("ours")


def _gateway(folder: Path, port: int) -> Gateway:
    amqp = {
        "url": f"amqp://guest:guest@127.0.0.1:{port}/%2F",
        "declare": [{"queue": {"name": "ours"}}],
    }
    return Gateway(
        folder,
        sinks={"cloud": {"amqp": amqp}},
        routes={"all": {"from": "#", "to": "cloud", "address": "ours"}},
        store={"path": str(folder / "spool"), "max_bytes": "4GiB"},
    )


def _wait(gateway: Gateway, delivered: int, wait_s: float = 900) -> dict[str, Any]:
    deadline = time.monotonic() + wait_s
    while (route := gateway.status()["routes"]["all"])["delivered"] < delivered:
        assert time.monotonic() < deadline, route
        time.sleep(0.1)  # a status costs the gateway a millisecond or two
    found: dict[str, Any] = route
    return found


def _bare_per_s(server: RabbitMQ, count: int) -> float:
    took_s = Worker("fill", port=server.port, queue="bare", count=count).wait()
    with channel_to(server.url) as channel:
        channel.queue_delete("bare")
    return count / took_s


def _drain_per_s(folder: Path, server: RabbitMQ, count: int, arriving_per_s: float) -> float:
    """Let a backlog pile up, then drain it while new messages arrive; return messages a second."""
    away = _gateway(folder, free_port())
    away.start()
    try:
        Worker("feed", port=away.port, count=count).wait()
        assert away.stop() == 0
    finally:
        away.kill()
    gateway = _gateway(folder, server.port)
    gateway.start()
    news = Worker("feed", port=gateway.port, count=int(count * ARRIVING), rate=arriving_per_s)
    try:
        first = _wait(gateway, 1)["delivered"]
        began = time.perf_counter()
        last = _wait(gateway, count)["delivered"]
        took_s = time.perf_counter() - began
        news.wait()
        _wait(gateway, count + int(count * ARRIVING))
        assert gateway.status()["dead_letters"] == 0
        assert gateway.stop() == 0
    finally:
        news.end()
        gateway.kill()
    return float(last - first) / took_s


@pytest.mark.parametrize(
    ("count", "share", "tries"),
    [
        # The machine of a test may have other things to do; it must be possible, not always so.
        pytest.param(30_000, 0.5, 3, id="30k"),
        pytest.param(
            1_000_000,
            0.85,
            1,
            id="1M",
            marks=[pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(1800)],
        ),
    ],
)
def test_a_backlog_drains_nearly_as_fast_as_a_bare_publisher_fills_the_same_rabbitmq(
    tmp_path: Path, rabbitmq: RabbitMQ, count: int, share: float, tries: int
) -> None:
    found = []
    for number in range(tries):
        bare_count = min(count, 300_000)
        before = _bare_per_s(rabbitmq, bare_count)
        drained = _drain_per_s(tmp_path / f"gateway-{number}", rabbitmq, count, before * ARRIVING)
        bare = (before + _bare_per_s(rabbitmq, bare_count)) / 2
        found.append(drained / bare)
        print(f"bare {bare:,.0f}/s, drained {drained:,.0f}/s: {drained / bare:.2f}")
        if found[-1] >= share:
            break
        with channel_to(rabbitmq.url) as channel:
            channel.queue_delete("ours")
    assert max(found) >= share
    if count <= 100_000:
        ids = [properties.message_id for properties, _ in take_all(rabbitmq.url, "ours")]
        sequences = [int(each.rpartition("/")[2]) for each in ids]
        assert sequences == sorted(set(sequences)), "out of order, or twice"
        assert len(ids) >= count * (1 + ARRIVING)


@pytest.mark.parametrize(
    ("count", "most_us"),
    [
        pytest.param(30_000, 60.0, id="30k"),
        pytest.param(
            300_000, 25.0, id="300k", marks=[pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(600)]
        ),
    ],
)
def test_a_message_costs_little_from_publish_to_rabbitmqs_confirm(
    tmp_path: Path, rabbitmq: RabbitMQ, count: int, most_us: float
) -> None:
    gateway = _gateway(tmp_path / "gateway", rabbitmq.port)
    gateway.start()
    try:
        began_s = server_usage(gateway.pid)["cpu_s"]
        Worker("feed", port=gateway.port, count=count).wait()
        delivered = _wait(gateway, count)["delivered"]
        cost_us = (server_usage(gateway.pid)["cpu_s"] - began_s) / delivered * 1e6
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    print(f"{cost_us:.1f} us of CPU a message from PUBLISH to confirm, {delivered:,} messages")
    assert cost_us <= most_us
