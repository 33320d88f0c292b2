"""A route over a real log on a real disk, to a far end that the test moves."""

import asyncio
import contextlib
from functools import partial

import pytest

from bridge.forward.forwarder import Forwarder
from bridge.forward.keeper import Keeper
from bridge.forward.letters import Letters
from bridge.forward.room import Room
from bridge.message import Message
from bridge.policy.batch import BatchLimits
from bridge.policy.route import Route
from bridge.sinks.memory import MemorySink
from bridge.store import Spool
from bridge.topic import Pattern
from tests.gateway import until


class Hall:
    """One spool, one keeper, and a forwarder for each route that is asked for."""

    def __init__(self, folder, max_bytes=64 << 20):
        self.folder, self.max_bytes = folder, max_bytes
        self.appended = 0
        self.forwarders = []
        self._tasks = []
        self.open()

    def open(self, sink=None):
        self.spool = Spool.open(str(self.folder), self.max_bytes)
        self.letters = Letters(self.spool)
        self.sink = sink or MemorySink("cloud")
        self.keeper = Keeper(self.sink)
        self.forwarders = []
        self.appended = 0

    def route(self, name="all", topic_filter="#", keeper=None, batch=None, **more):
        route = Route(name, [Pattern.parse(topic_filter)], "cloud", batch=batch or BatchLimits(10), **more)
        spool = self.spool
        forwarder = Forwarder(
            route, keeper or self.keeper, spool.uplink, self.letters, spool.committer, "plant-7"
        )
        self.forwarders.append(forwarder)
        self.room = Room(spool.uplink, self.forwarders)
        return forwarder

    def run(self, *works):
        """Start forwarders and keepers; by default all there are."""
        for work in works or (self.keeper, *self.forwarders):
            if work in self.forwarders:
                self._tasks.append(asyncio.create_task(work.count_backlog()))
            self._tasks.append(asyncio.create_task(work.run()))
        return self._tasks[-1]

    async def append(self, *payloads, topic="a", **more):
        for payload in payloads:
            message = Message(topic, str(payload).encode(), 1, **({"received_ns": 2 * 10**18} | more))
            self.spool.uplink.append(message)
            self.spool.committer.when_durable(partial(self._stored, message))
        assert await self.spool.committer.flush() is None
        self.appended += len(payloads)

    def numbers(self, sink=None):
        return [int(each.message.payload) for each in (sink or self.sink).received]

    def _stored(self, message, error):
        """As the inlet does it."""
        for forwarder in self.forwarders:
            if error is None and forwarder.route.wants(message.topic):
                forwarder.account.store(1, forwarder.account.size(message))

    def backlog(self, forwarder):
        """As the status has it."""
        return forwarder.account.stored

    async def drained(self, forwarder):
        await until(lambda: forwarder.cursor.position == self.spool.uplink.durable)

    async def halt(self):
        """As a kill would, but for the cursors' last save."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def close(self):
        await self.halt()
        with contextlib.suppress(Exception):
            await self.spool.close()


@pytest.fixture
async def hall(tmp_path, monkeypatch):
    # Nobody waits for luck: the first try comes at once, the second soon.
    monkeypatch.setattr("bridge.forward.keeper.delay", lambda attempt, luck: 0.001 * (attempt + 1))
    hall = Hall(tmp_path / "spool")
    yield hall
    await hall.close()
