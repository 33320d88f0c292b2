"""Devices that take commands: each one remembers what it got, answers, and comes back when it is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import time

from bridge.mqtt.packet import Puback, Publish
from tests.broker.device import Device

__all__ = ["Crew", "Hand"]


class Hand:
    """One device with a session of its own. `got` has the payload and the moment of every PUBLISH."""

    def __init__(self, port: int, name: str, topic: str) -> None:
        self.name = name
        self.got: list[tuple[bytes, float]] = []
        self.here = asyncio.Event()
        self._port, self._topic = port, topic
        self._task: asyncio.Task[None] | None = None

    @property
    def firsts(self) -> list[bytes]:
        """What it got, each once, in the order of its coming."""
        return list(dict.fromkeys(payload for payload, _ in self.got))

    def wake(self) -> None:
        self._task = asyncio.create_task(self._live())

    async def sleep(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.here.clear()

    async def _live(self) -> None:
        while True:
            with contextlib.suppress(OSError, TimeoutError, AssertionError):
                await self._visit()
            self.here.clear()
            await asyncio.sleep(0.1)

    async def _visit(self) -> None:
        device = await Device.connect(self._port, self.name, clean=False, expiry_s=3600)
        try:
            if not device.connack.session_present:
                await device.subscribe(self._topic)
            self.here.set()
            while (packet := await device.next(3600)) is not None:
                assert isinstance(packet, Publish), packet
                self.got.append((packet.payload, time.monotonic()))
                device.send(Puback(packet.packet_id))
        finally:
            device.drop()


class Crew(list[Hand]):
    """All of them."""

    async def wake(self) -> None:
        for hand in self:
            hand.wake()
        await asyncio.gather(*(hand.here.wait() for hand in self))

    async def sleep(self) -> None:
        await asyncio.gather(*(hand.sleep() for hand in self))

    @property
    def count(self) -> int:
        """How many different commands have come to them."""
        return sum(len(hand.firsts) for hand in self)
