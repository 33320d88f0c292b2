"""What a real RabbitMQ refuses for a while, or for good, and who has to wait for it (F7)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from bridge.forward.letters import letter_of
from bridge.store import Spool
from tests.gateway import Gateway, until
from tests.house.device import Device
from tests.servers import RabbitMQ
from tests.sinks.queues import channel_to, take_all

COUNT = 300
RETRY = {"tries": 5, "wait": "1s"}
WAIT_S = 4.0  # from the first try to the last


def _gateway(folder: Path, url: str) -> Gateway:
    """Each device has a queue with its own name, or it has none."""
    return Gateway(
        folder / "gateway",
        sinks={"cloud": {"amqp": {"url": url}}},
        routes={"all": {"from": "plant/{place}/count", "to": "cloud", "address": "{place}", "retry": RETRY}},
    )


def _make(url: str, *queues: str) -> None:
    with channel_to(url) as channel:
        for queue in queues:
            channel.queue_declare(queue, durable=True)


def _arrivals(url: str, queue: str) -> list[str]:
    return [body.decode() for _, body in take_all(url, queue)]


def _route(gateway: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = gateway.status()["routes"]["all"]
    return found


def _payloads(name: str) -> list[str]:
    return [f"{name}:{number}" for number in range(COUNT)]


@pytest.mark.parametrize("killed", [False, True], ids=["", "killed-meanwhile"])
async def test_given_a_queue_made_again_in_time_then_no_message_is_a_dead_letter_and_all_are_in_order(
    tmp_path: Path, rabbitmq: RabbitMQ, killed: bool
) -> None:
    gone, there = f"gone-{killed}", f"stays-{killed}"
    await asyncio.to_thread(_make, rabbitmq.url, gone, there)
    gateway = _gateway(tmp_path, rabbitmq.url)
    gateway.start()
    try:
        first = Device("first", gateway.port, 1, 1_000, topic=f"plant/{gone}/count")
        await asyncio.wait_for(first.run(), 10)
        await until(lambda: _route(gateway)["delivered"] == 1)
        with channel_to(rabbitmq.url) as channel:
            channel.queue_delete(gone)  # behind the gateway's back, and with what lies in it
        held = Device("held", gateway.port, COUNT, 5_000, topic=f"plant/{gone}/count")
        free = Device("free", gateway.port, COUNT, 5_000, topic=f"plant/{there}/count")
        await asyncio.wait_for(asyncio.gather(held.run(), free.run()), 20)
        await until(lambda: _route(gateway)["delivered"] == 1 + COUNT)
        assert (_route(gateway)["backlog_messages"], _route(gateway)["refused"]) == (COUNT, 0)
        if killed:
            gateway.kill()
            gateway.start()
            # What is delivered behind them says that those before it were refused once more.
            behind = Device("behind", gateway.port, 1, 1_000, topic=f"plant/{there}/count")
            await asyncio.wait_for(behind.run(), 10)
            await until(lambda: _route(gateway)["backlog_messages"] == COUNT)
        await asyncio.to_thread(_make, rabbitmq.url, gone)
        await until(lambda: _route(gateway)["backlog_messages"] == 0, 20)
        told = gateway.status()
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    assert (told["dead_letters"], told["routes"]["all"]["refused"]) == (0, 0)
    assert told["routes"]["all"]["delivered"] == 1 + 2 * COUNT + killed
    arrived = await asyncio.to_thread(_arrivals, rabbitmq.url, gone)
    again = len(arrived) - COUNT
    assert list(dict.fromkeys(arrived)) == _payloads("held")
    others = await asyncio.to_thread(_arrivals, rabbitmq.url, there)
    assert list(dict.fromkeys(others))[:COUNT] == _payloads("free")
    assert killed or (again, len(others)) == (0, COUNT)


async def test_given_poison_then_only_its_key_waits_and_the_dead_letters_hold_it_bit_for_bit(
    tmp_path: Path, rabbitmq: RabbitMQ
) -> None:
    await asyncio.to_thread(_make, rabbitmq.url, "good")
    gateway = _gateway(tmp_path, rabbitmq.url)
    gateway.start()
    try:
        began_ns = time.time_ns()
        poison = Device("poison", gateway.port, COUNT, 5_000, topic="plant/nowhere/count")
        unfit = Device("unfit", gateway.port, 1, 1_000, topic=f"plant/{'ü' * 128}/count")
        await asyncio.wait_for(asyncio.gather(poison.run(), unfit.run()), 20)
        began_s = time.monotonic()
        good = Device("good", gateway.port, COUNT, 5_000)
        await asyncio.wait_for(good.run(), 10)
        await until(lambda: _route(gateway)["delivered"] == COUNT)
        others_s = time.monotonic() - began_s
        # What no protocol can carry is given up at once; the other poison is still tried.
        assert (_route(gateway)["backlog_messages"], _route(gateway)["refused"]) == (COUNT, 1)
        await until(lambda: _route(gateway)["backlog_messages"] == 0, 30)
        poison_s = time.monotonic() - began_s
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    print(f"others were not held up: {COUNT} in {others_s:.2f} s; the poison was tried for {poison_s:.1f} s")
    assert others_s < WAIT_S / 2
    assert poison_s <= 30
    assert await asyncio.to_thread(_arrivals, rabbitmq.url, "good") == _payloads("good")
    spool = Spool.open(str(tmp_path / "gateway" / "spool"), 16 << 20)
    try:
        dead = spool.dead.read(0, 10_000)
        letters = [letter_of(entry) for entry in dead]
        messages = [entry.message for entry in dead]
    finally:
        await spool.close()
    [first, *others] = zip(messages, letters, strict=True)
    assert (first[0].payload, first[1].tries) == (b"unfit:0", 1)
    assert [message.payload.decode() for message, _ in others] == _payloads("poison")
    assert {(message.topic, message.qos, message.publisher) for message, _ in others} == {
        ("plant/nowhere/count", 1, "poison")
    }
    for _, letter in others:
        assert (letter.tries, letter.route, letter.sink) == (5, "all", "cloud")
        assert "no queue takes it: the default exchange, routing key 'nowhere'" in letter.reason
        assert began_ns + WAIT_S * 1e9 <= letter.refused_at_ns <= time.time_ns()
