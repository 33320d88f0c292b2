"""Several hosts in one sink: each in its turn, and a wait only after all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bridge.errors import SinkUnavailable
from bridge.sinks.amqp import AmqpSink
from bridge.sinks.amqp_connection import Hosts
from bridge.sinks.amqp_options import Address
from bridge.sinks.kit import outgoing
from bridge.sinks.options import AmqpOptions
from tests.servers import RabbitMQ, TcpProxy, free_port
from tests.sinks.queues import take_all


def _hosts(count: int) -> Hosts:
    return Hosts(AmqpOptions.model_validate({"urls": [f"amqp://h{n}" for n in range(count)]}))


async def test_a_round_begins_after_the_host_that_was_last_and_asks_each_once() -> None:
    asked: list[str] = []
    up: set[str] = {"h1"}

    async def connect(address: Address) -> None:
        asked.append(address.host)
        if address.host not in up:
            raise SinkUnavailable(f"no {address.host}")

    hosts = _hosts(3)
    await hosts.open(connect)
    assert asked == ["h0", "h1"]
    up.clear()
    asked.clear()
    with pytest.raises(SinkUnavailable) as raised:
        await hosts.open(connect)
    assert asked == ["h2", "h0", "h1"]
    assert str(raised.value) == "h2:5672: no h2; h0:5672: no h0; h1:5672: no h1"
    up.add("h0")
    asked.clear()
    await hosts.open(connect)
    assert asked == ["h2", "h0"]


async def test_a_host_that_is_asked_again_is_named_only_where_there_are_others() -> None:
    async def connect(address: Address) -> None:
        raise SinkUnavailable("no answer")

    with pytest.raises(SinkUnavailable, match=r"^no answer$"):
        await _hosts(1).open(connect)


@pytest.fixture
async def lines(rabbitmq: RabbitMQ) -> AsyncIterator[list[TcpProxy]]:
    """Two ways to one broker, as two of its nodes would be."""
    made = [TcpProxy(rabbitmq.port) for _ in range(2)]
    for line in made:
        await line.start()
    yield made
    for line in made:
        await line.stop()


async def test_given_hosts_that_go_away_then_the_next_one_that_is_there_takes_over(
    rabbitmq: RabbitMQ, lines: list[TcpProxy]
) -> None:
    ports = [free_port(), *(line.port for line in lines)]  # nobody listens on the first
    urls = [f"amqp://guest:guest@127.0.0.1:{port}" for port in ports]
    queue = [{"queue": {"name": "hosts"}}]
    options = AmqpOptions.model_validate({"urls": urls, "declare": queue, "open_timeout": "3s"})
    sink = AmqpSink("cloud", options, "plant-7")
    try:
        async with asyncio.timeout(20):
            await sink.open()
            assert await sink.send_batch([outgoing("hosts", "t", 1)]) == []
            assert [line.connections for line in lines] == [1, 0]
            await lines[0].stop()
            await sink.lost()
            await sink.open()
            assert await sink.send_batch([outgoing("hosts", "t", 2)]) == []
            assert [line.connections for line in lines] == [1, 1]
            await lines[1].stop()
            await sink.lost()
            with pytest.raises(SinkUnavailable, match=r"refused.*refused.*refused"):
                await sink.open()
    finally:
        await sink.close()
    taken = await asyncio.to_thread(take_all, rabbitmq.url, "hosts")
    assert [properties.message_id for properties, _ in taken] == ["kit/t/1", "kit/t/2"]
