"""The source in memory keeps the promises, and each source that breaks one is caught."""

import asyncio

import msgspec
import pytest

from bridge.policy.incoming import Incoming
from bridge.sources import kit
from bridge.sources.kit import CHECKS, PREFETCH, PromiseBroken
from bridge.sources.memory import MemorySource


class MemoryRig:
    can_bury = can_reply = True
    routing_key = ""

    def __init__(self, kind=MemorySource):
        self.made = kind("memory", None, PREFETCH)

    def source(self):
        return self.made

    async def send(self, *messages):
        self.made.put(
            *(
                Incoming(
                    0,
                    one.body,
                    one.routing_key,
                    one.headers,
                    one.message_id,
                    False,
                    one.content_type,
                    one.correlation_id,
                    one.reply_to,
                )
                for one in messages
            )
        )

    async def cut(self):
        self.made.go_away()

    async def mend(self):
        self.made.come_back()

    async def left(self):
        return len(self.made.queue) + len(self.made.out)

    async def buried(self):
        return [message.body for message, _ in self.made.dead]


@pytest.mark.parametrize("number", CHECKS)
async def test_promise(number, monkeypatch):
    monkeypatch.setattr(kit, "MOMENT_S", 0.02)
    await CHECKS[number](MemoryRig())


class Shuffles(MemorySource):
    async def receive(self):
        return list(reversed(await super().receive()))


class CallsAllTheSame(MemorySource):
    async def receive(self):
        return [msgspec.structs.replace(one, tag=1) for one in await super().receive()]


class ReadsBodiesAsText(MemorySource):
    async def receive(self):
        batch = await super().receive()
        return [
            msgspec.structs.replace(one, body=one.body.decode(errors="replace").encode()) for one in batch
        ]


class ForgetsHeaders(MemorySource):
    async def receive(self):
        return [msgspec.structs.replace(one, headers={}) for one in await super().receive()]


class AcceptsBeforeItIsTold(MemorySource):
    async def receive(self):
        batch = await super().receive()
        self.out.clear()
        return batch


class HidesRepetitions(MemorySource):
    async def receive(self):
        return [msgspec.structs.replace(one, again=False) for one in await super().receive()]


class SettlesNothing(MemorySource):
    def settle(self, settlements):
        pass


class AcceptsEverything(MemorySource):
    def settle(self, settlements):
        super().settle([msgspec.structs.replace(one, reason="") for one in settlements])


class BuriesItsNeighbours(MemorySource):
    def settle(self, settlements):
        reason = next((one.reason for one in settlements if one.reason), "")
        super().settle([msgspec.structs.replace(one, reason=reason) for one in settlements])


class NeverNoticesTheBreak(MemorySource):
    async def lost(self):
        await asyncio.Event().wait()


class WaitsForEver(MemorySource):
    async def receive(self):
        if self._lost is not None and self._lost.done():
            await asyncio.Event().wait()
        return await super().receive()


class CountsTagsAnew(MemorySource):
    async def open(self):
        await super().open()
        self._tag = 0

    def settle(self, settlements):
        if self._lost is not None and not self._lost.done():
            for one in settlements:  # of whatever link
                if self.queue and one.tag not in self.out:
                    self.queue.popleft()
        super().settle(settlements)


class OpensOnce(MemorySource):
    opened = False

    async def open(self):
        if self.opened:
            await asyncio.Event().wait()
        self.opened = True
        await super().open()


class KnowsNoBound(MemorySource):
    async def open(self):
        self.prefetch = 1_000
        await super().open()


class LosesWhatWasCancelled(MemorySource):
    async def receive(self):
        try:
            return await super().receive()
        except asyncio.CancelledError:
            self.prefetch = 0
            raise


class FailsToCloseTwice(MemorySource):
    async def close(self):
        if self._lost is None:
            raise RuntimeError("not open")
        await super().close()


BROKEN = [
    (1, Shuffles),
    (1, CallsAllTheSame),
    (2, ReadsBodiesAsText),
    (2, ForgetsHeaders),
    (3, AcceptsBeforeItIsTold),
    (3, HidesRepetitions),
    (4, SettlesNothing),
    (5, AcceptsEverything),
    (5, BuriesItsNeighbours),
    (6, NeverNoticesTheBreak),
    (6, WaitsForEver),
    (6, CountsTagsAnew),
    (7, OpensOnce),
    (8, KnowsNoBound),
    (9, LosesWhatWasCancelled),
    (10, FailsToCloseTwice),
    (10, WaitsForEver),
]


@pytest.mark.parametrize(("number", "kind"), BROKEN, ids=lambda value: getattr(value, "__name__", str(value)))
async def test_a_broken_promise_is_seen(number, kind, monkeypatch):
    monkeypatch.setattr(kit, "PATIENCE_S", 0.5)
    monkeypatch.setattr(kit, "MOMENT_S", 0.02)
    with pytest.raises((PromiseBroken, RuntimeError)):
        await CHECKS[number](MemoryRig(kind))
