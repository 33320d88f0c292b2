"""Commands over a real RabbitMQ to many devices, with the gateway killed in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pika
import pytest
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.gateway import Gateway, until
from tests.house.crew import Crew, Hand
from tests.servers import RabbitMQ, TcpProxy
from tests.sinks.queues import channel_to, take_all

MAX_AGE_S = 3


class Plant:
    """A gateway in a process of its own, its queues and its devices."""

    def __init__(self, folder: Path, rabbitmq: RabbitMQ, url: str = "", **about: Any) -> None:
        self.rabbitmq = rabbitmq
        self.name = f"commands-{folder.name}"
        self.dead = f"{self.name}-dead"
        queue = {"name": self.name, "arguments": self._buries()}
        declare = [{"queue": {"name": self.dead}}, {"queue": queue}]
        source = {"amqp": {"url": url or rabbitmq.url, "queue": self.name, "declare": declare}}
        command = {"from": source, "to": "plant/{header.device}/set", "receipt": "device"} | about
        soon = {"name": f"{self.name}-soon", "arguments": self._buries()}
        soon_source = {
            "amqp": {"url": url or rabbitmq.url, "queue": soon["name"], "declare": [{"queue": soon}]}
        }
        late = command | {"from": soon_source, "max_age": f"{MAX_AGE_S}s"}
        self.gateway = Gateway(folder, commands={"set": command, "soon": late}, store=self._store(folder))

    def _buries(self) -> dict[str, str]:
        return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": self.dead}

    @staticmethod
    def _store(folder: Path) -> dict[str, str]:
        return {"path": str(folder / "spool"), "max_bytes": "256MiB"}

    def crew(self, *names: str) -> Crew:
        return Crew(Hand(self.gateway.port, name, f"plant/{name}/set") for name in names)

    def _send(self, queue: str, commands: list[tuple[str, bytes]]) -> None:
        with channel_to(self.rabbitmq.url) as channel:
            channel.confirm_delivery()
            for device, body in commands:
                about = pika.BasicProperties(
                    delivery_mode=2, message_id=body.decode(), headers={"device": device}
                )
                channel.basic_publish("", queue, body, about)

    async def send(self, commands: list[tuple[str, bytes]], queue: str = "") -> None:
        await asyncio.to_thread(self._send, queue or self.name, commands)

    def held(self) -> tuple[int, int]:
        """What RabbitMQ still has: to hand out, and handed out and not acknowledged."""
        listed = self.rabbitmq.rabbitmqctl(
            "list_queues",
            "--quiet",
            "--no-table-headers",
            "name",
            "messages_ready",
            "messages_unacknowledged",
        )
        [line] = [line.split() for line in listed.splitlines() if line.split()[0] == self.name]
        return int(line[1]), int(line[2])

    def counts(self, name: str = "set") -> dict[str, Any]:
        found: dict[str, Any] = self.gateway.status()["commands"][name]
        return found

    async def up(self) -> None:
        await asyncio.to_thread(self.gateway.start)
        await until(lambda: self.counts()["state"] == "up", 30)


@pytest.fixture
async def made() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


async def _plant(stack: contextlib.AsyncExitStack, *args: Any, **more: Any) -> Plant:
    plant = Plant(*args, **more)
    stack.callback(plant.gateway.kill)
    await plant.up()
    return plant


@pytest.mark.parametrize(
    ("devices", "commands"),
    [(20, 1_000), pytest.param(100, 10_000, marks=[pytest.mark.long, pytest.mark.timeout(600)])],
)
async def test_every_device_gets_its_commands_though_half_sleep_and_the_gateway_is_killed_twice(
    tmp_path: Path, rabbitmq: RabbitMQ, made: contextlib.AsyncExitStack, devices: int, commands: int
) -> None:
    plant = await _plant(made, tmp_path, rabbitmq)
    crew = plant.crew(*(f"d{number}" for number in range(devices)))
    await crew.wake()
    awake, asleep = Crew(crew[::2]), Crew(crew[1::2])
    made.push_async_callback(awake.sleep)
    await asleep.sleep()
    work = [(f"d{number % devices}", b"%d" % number) for number in range(commands)]

    sending = asyncio.ensure_future(plant.send(work[: commands // 2]))
    await until(lambda: awake.count > commands // 8, 60)
    plant.gateway.kill()
    await sending
    await plant.up()
    await plant.send(work[commands // 2 :])
    await until(lambda: awake.count == commands // 2, 120)
    # Exactly the commands of those who sleep are out, and nobody else waits because of them.
    await until(lambda: plant.counts()["waiting"] == commands // 2, 60)
    await until(lambda: plant.held() == (0, commands // 2), 60)

    too_late = [(hand.name, b"late-%d" % number) for number, hand in enumerate(asleep)]
    await plant.send(too_late, f"{plant.name}-soon")
    await until(lambda: plant.counts("soon")["received"] == len(too_late), 30)
    plant.gateway.kill()
    await plant.up()
    await until(lambda: plant.counts()["repeated"] == commands // 2, 60)  # all known, none stored again
    await until(lambda: plant.held() == (0, commands // 2), 60)
    await until(lambda: plant.counts("soon")["expired"] == len(too_late), 30)

    await asleep.wake()
    made.push_async_callback(asleep.sleep)
    await until(lambda: crew.count == commands, 120)
    await until(lambda: plant.held() == (0, 0), 60)
    for hand in crew:
        # At least once each, none that came too late, and in the order of the queue.
        assert hand.firsts == [body for name, body in work if name == hand.name]
    assert sum(len(hand.got) for hand in asleep) == commands // 2  # and they were stored only once
    buried = await asyncio.to_thread(take_all, rabbitmq.url, plant.dead)
    assert sorted(body for _, body in buried) == sorted(body for _, body in too_late)


@pytest.mark.long
async def test_a_link_that_breaks_again_and_again_loses_no_command(
    tmp_path: Path, rabbitmq: RabbitMQ, made: contextlib.AsyncExitStack
) -> None:
    proxy = TcpProxy(rabbitmq.port)
    await proxy.start()
    made.push_async_callback(proxy.stop)
    url = f"amqp://guest:guest@127.0.0.1:{proxy.port}/%2F"
    plant = await _plant(made, tmp_path, rabbitmq, url)
    crew = plant.crew("a", "b")
    await crew.wake()
    made.push_async_callback(crew.sleep)
    work = [("ab"[number % 2], b"%d" % number) for number in range(400)]
    sending = asyncio.ensure_future(plant.send(work))
    for part in range(1, 4):
        await until(lambda part=part: crew.count >= part * 80, 30)
        await proxy.cut()
    await sending
    await until(lambda: plant.held() == (0, 0), 60)
    for hand in crew:
        assert hand.firsts == [body for name, body in work if name == hand.name]


@pytest.mark.long  # most of it is RabbitMQ, coming and going
async def test_a_rabbitmq_that_restarts_hands_out_again_and_nothing_is_stored_twice(
    tmp_path: Path, made: contextlib.AsyncExitStack
) -> None:
    server = RabbitMQ(tmp_path / "rabbitmq")
    await asyncio.to_thread(server.start)
    made.callback(server.stop)
    plant = await _plant(made, tmp_path / "gateway", server)
    crew = plant.crew("a")
    await crew.wake()
    await crew.sleep()
    work = [("a", b"%d" % number) for number in range(100)]
    await plant.send(work)
    await until(lambda: plant.counts()["waiting"] == 100, 30)
    await asyncio.to_thread(server.restart)
    await until(lambda: plant.counts()["repeated"] == 100, 60)
    await crew.wake()
    made.push_async_callback(crew.sleep)
    await until(lambda: plant.held() == (0, 0), 60)
    assert [body for body, _ in crew[0].got] == [body for _, body in work]


async def test_a_poisoned_command_goes_to_the_dead_letters_and_the_rest_goes_on(
    tmp_path: Path,
    rabbitmq: RabbitMQ,
    made: contextlib.AsyncExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant = await _plant(made, tmp_path, rabbitmq)
    crew = plant.crew("a")
    await crew.wake()
    made.push_async_callback(crew.sleep)
    poison = [("#", b"wildcard"), ("x" * 70_000, b"too long"), ("nobody", b"lost")]
    await plant.send([("a", b"before"), *poison])
    encode = pika.data.encode_value

    def timeless(pieces: list[bytes], value: Any) -> int:
        """Sixty-four bits of seconds are more years than most libraries count."""
        if value != "then":
            return int(encode(pieces, value))
        pieces.append(b"T" + b"\xff" * 8)
        return 9

    with monkeypatch.context() as patch:
        patch.setattr(pika.data, "encode_value", timeless)
        await plant.send([("then", b"timeless")])
    await plant.send([("a", b"after")])
    await until(lambda: crew[0].firsts == [b"before", b"after"], 30)
    await until(lambda: plant.held() == (0, 0), 60)
    with channel_to(rabbitmq.url) as channel:  # which could not read the last one either
        assert channel.queue_declare(plant.dead, passive=True).method.message_count == 4
        assert [channel.basic_get(plant.dead, True)[2] for _ in poison] == [body for _, body in poison]
    assert plant.counts()["rejected"] == 3
    assert plant.counts()["undeliverable"] == 1
    assert "reason=" in plant.gateway.output()


async def test_a_program_calls_a_device_by_rpc_and_gets_its_answer(
    tmp_path: Path, rabbitmq: RabbitMQ, made: contextlib.AsyncExitStack
) -> None:
    plant = await _plant(made, tmp_path, rabbitmq, answer_timeout="20s")
    device = Client(CallbackAPIVersion.VERSION2, "a", protocol=MQTTv5)
    subscribed: queue.Queue[Any] = queue.Queue()
    device.on_subscribe = lambda *about: subscribed.put(about)

    def answer(client: Client, _data: Any, message: Any) -> None:
        about = Properties(PacketTypes.PUBLISH)
        about.CorrelationData = message.properties.CorrelationData
        client.publish(message.properties.ResponseTopic, b"is " + message.payload, 1, properties=about)

    device.on_message = answer
    device.connect("127.0.0.1", plant.gateway.port)
    device.loop_start()
    made.callback(device.loop_stop)
    made.callback(device.disconnect)
    device.subscribe("plant/a/set", 1)
    await asyncio.to_thread(subscribed.get, timeout=10)

    def ask(device: str) -> tuple[str, bytes]:
        with channel_to(rabbitmq.url) as channel:
            answers = channel.consume("amq.rabbitmq.reply-to", auto_ack=True, inactivity_timeout=20)
            next(channel.consume("amq.rabbitmq.reply-to", auto_ack=True, inactivity_timeout=0.01))
            about = pika.BasicProperties(
                reply_to="amq.rabbitmq.reply-to", correlation_id="7", headers={"device": device}
            )
            channel.basic_publish("", plant.name, b"on", about)
            _, properties, body = next(answers)
            return properties.correlation_id, body

    assert await asyncio.to_thread(ask, "a") == ("7", b"is on")
    correlation_id, body = await asyncio.to_thread(ask, "nobody")
    assert correlation_id == "7"
    assert b'"undeliverable"' in body
    await until(lambda: plant.held() == (0, 0), 60)
