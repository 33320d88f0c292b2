"""The AMQP sink keeps the promises, in front of a real RabbitMQ."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from bridge.sinks.amqp import AmqpSink
from bridge.sinks.base import Sink
from bridge.sinks.kit import CHECKS, Owned
from bridge.sinks.options import AmqpOptions
from tests.servers import RabbitMQ, TcpProxy
from tests.sinks.queues import as_owned, channel_to, take_all


class AmqpRig:
    """A queue behind a line that can be cut and held."""

    address = "kit"
    refused_address = "no queue of this name"
    confirm_timeout_s = 2.0

    def __init__(self, server: RabbitMQ, *, black_hole: bool) -> None:
        self.server = server
        self.proxy = TcpProxy(server.port)
        self.black_hole = black_hole
        self._owned: list[Owned] = []

    async def begin(self) -> None:
        await self.proxy.start()
        with channel_to(self.server.url) as channel:
            channel.queue_delete(self.address)
            channel.queue_declare(self.address, durable=True)

    def sink(self) -> Sink:
        options = AmqpOptions.model_validate(
            {
                "url": f"amqp://guest:guest@127.0.0.1:{self.proxy.port}/%2F",
                "confirm_timeout": f"{self.confirm_timeout_s}s",
            }
        )
        return AmqpSink("cloud", options, "plant-7")

    async def cut(self) -> None:
        await self.proxy.cut()

    async def mend(self) -> None:
        pass

    async def pause(self) -> None:
        self.proxy.hold(up=self.black_hole, down=True)

    async def resume(self) -> None:
        self.proxy.hold(up=False, down=False)

    async def owned(self) -> list[Owned]:
        taken = await asyncio.to_thread(take_all, self.server.url, self.address)
        self._owned += [as_owned(properties, body) for properties, body in taken]
        return self._owned


@pytest.fixture(params=["never confirms", "black hole"])
async def rig(request: pytest.FixtureRequest, rabbitmq: RabbitMQ) -> AsyncIterator[AmqpRig]:
    rig = AmqpRig(rabbitmq, black_hole=request.param == "black hole")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(rig.proxy.stop)
        await rig.begin()
        yield rig


@pytest.mark.parametrize("number", CHECKS)
async def test_promise(number: int, rig: AmqpRig) -> None:
    await CHECKS[number](rig)
