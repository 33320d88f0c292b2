"""The main job under fire: devices → disk → RabbitMQ, while everything is switched off and on."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path

import pika

from tests.gateway import Gateway, until
from tests.house.device import Device
from tests.servers import RabbitMQ

DEVICES = 4
MESSAGES = 100_000
RATE = 600.0  # of each device: slow enough that all the outages fall into the publishing

ROUTES = {"telemetry": {"from": "plant/{device}/count", "to": "cloud", "address": "telemetry"}}


async def test_given_3_outages_of_rabbitmq_and_2_sigkills_then_every_acknowledged_message_is_in_the_queue(
    tmp_path: Path,
) -> None:
    rabbitmq = RabbitMQ(tmp_path / "rabbitmq")
    rabbitmq.start()
    sinks = {"cloud": {"amqp": {"url": rabbitmq.url, "declare": [{"queue": {"name": "telemetry"}}]}}}
    store = {"path": str(tmp_path / "spool"), "max_bytes": "256MiB"}
    gateway = Gateway(tmp_path / "gateway", sinks=sinks, routes=ROUTES, store=store)
    gateway.start()
    try:
        devices = [Device(f"d{n}", gateway.port, MESSAGES // DEVICES, RATE) for n in range(DEVICES)]
        running = [asyncio.create_task(device.run()) for device in devices]

        async def acknowledged(share: float) -> None:
            while sum(len(device.acknowledged) for device in devices) < share * MESSAGES:
                for task in running:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)

        for outage in range(3):
            await acknowledged(0.05 + 0.3 * outage)
            await until(lambda: gateway.status()["sinks"]["cloud"]["state"] == "up", 60)
            await asyncio.to_thread(rabbitmq.stop)
            await acknowledged(0.15 + 0.3 * outage)
            if outage < 2:
                gateway.kill()
                await asyncio.to_thread(gateway.start)
                await acknowledged(0.2 + 0.3 * outage)
            await asyncio.to_thread(rabbitmq.start)
        await asyncio.gather(*running)
        await until(lambda: not gateway.status()["routes"]["telemetry"]["backlog_messages"], 90)
        queue = await asyncio.to_thread(_drain, rabbitmq.url, "telemetry")
    finally:
        gateway.kill()
        rabbitmq.stop()
    _judge(queue, devices)


def _drain(url: str, queue: str) -> list[tuple[str, str]]:
    """Everything in the queue, in order: (message id, payload)."""
    found: list[tuple[str, str]] = []
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        waiting = channel.queue_declare(queue, passive=True).method.message_count
        for _, properties, body in channel.consume(queue, auto_ack=True):
            found.append((properties.message_id, body.decode()))
            if len(found) == waiting:
                break
    return found


def _judge(queue: list[tuple[str, str]], devices: list[Device]) -> None:
    contents: dict[str, str] = {}
    ids: dict[str, list[str]] = defaultdict(list)
    arrived: dict[str, list[int]] = defaultdict(list)
    for message_id, payload in queue:
        if contents.setdefault(message_id, payload) == payload and message_id not in ids[payload]:
            if not ids[payload]:
                name, number = payload.split(":")
                arrived[name].append(int(number))
            ids[payload].append(message_id)
        assert contents[message_id] == payload, f"{message_id} carries two contents"
    for device in devices:
        everything = {f"{device.name}:{number}" for number in device.acknowledged}
        assert len(everything) == MESSAGES // DEVICES
        lost = everything - ids.keys()
        assert not lost, f"{len(lost)} acknowledged messages are lost, such as {sorted(lost)[:5]}"
        assert arrived[device.name] == sorted(arrived[device.name]), "out of order"
        for number in device.acknowledged:
            seen = ids[f"{device.name}:{number}"]
            assert len(seen) <= device.sent[number], f"sent {device.sent[number]} times, stored as {seen}"
    again = sum(len(ids_) - 1 for ids_ in ids.values())
    print(f"{len(queue):,} in the queue, {len(contents):,} ids, {again:,} payloads stored twice after a kill")
