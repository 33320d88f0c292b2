"""The AMQP source keeps the promises, in front of a real RabbitMQ."""

import asyncio
import contextlib

import pika
import pytest

from bridge.sources.amqp import AmqpSource
from bridge.sources.kit import CHECKS, PREFETCH
from bridge.sources.options import AmqpSourceOptions
from tests.servers import TcpProxy
from tests.sinks.queues import channel_to, take_all

QUEUE, DEAD = "kit.commands", "kit.dead"


class AmqpRig:
    """A queue with dead letters, behind a line that can be cut."""

    can_bury = can_reply = True
    routing_key = ""

    def __init__(self, server, kind):
        self.server, self.kind = server, kind
        self.proxy = TcpProxy(server.port)

    async def begin(self):
        await self.proxy.start()
        dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD}
        with channel_to(self.server.url) as channel:
            for name in (QUEUE, DEAD):
                channel.queue_delete(name)
            channel.exchange_declare("kit", "topic")
            channel.queue_declare(DEAD, durable=True)
            channel.queue_declare(QUEUE, durable=True, arguments=dead | {"x-queue-type": self.kind})
            channel.queue_bind(QUEUE, "kit", "#")

    def source(self):
        url = f"amqp://guest:guest@127.0.0.1:{self.proxy.port}/%2F"
        options = AmqpSourceOptions.model_validate({"url": url, "queue": QUEUE})
        return AmqpSource("setpoints", options, options.broker(None), PREFETCH, "plant-7")

    async def send(self, *messages):
        await asyncio.to_thread(self._send, messages)

    def _send(self, messages):
        with channel_to(self.server.url) as channel:
            channel.confirm_delivery()
            for one in messages:
                properties = pika.BasicProperties(
                    headers=one.headers,
                    message_id=one.message_id or None,
                    content_type=one.content_type,
                    correlation_id=one.correlation_id.decode() if one.correlation_id else None,
                    reply_to=one.reply_to or None,
                    delivery_mode=2,
                )
                channel.basic_publish("kit", one.routing_key, one.body, properties)

    async def cut(self):
        await self.proxy.cut()

    async def mend(self):
        # The broker notices the break a moment later, and hands out again only then.
        await asyncio.sleep(0.05)

    async def left(self):
        return len(await asyncio.to_thread(take_all, self.server.url, QUEUE))

    async def buried(self):
        return [body for _, body in await asyncio.to_thread(take_all, self.server.url, DEAD)]


@pytest.fixture(params=["classic", pytest.param("quorum", marks=pytest.mark.long)])
async def rig(request, rabbitmq):
    rig = AmqpRig(rabbitmq, request.param)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(rig.proxy.stop)
        await rig.begin()
        yield rig


@pytest.mark.parametrize("number", CHECKS)
async def test_promise(number, rig):
    await CHECKS[number](rig)
