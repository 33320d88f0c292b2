"""Lives of a gateway's cloud side on a hostile disk, and what its accounts must say at every step.

The publisher's knowledge is kept here: how many messages each route was given and took.
Everything else is the real thing, from the inlet's door to the dead letters: three routes
with bounds and rules of their own, far ends that confirm, refuse and break in the middle, a
store that fills up, a clock that is moved, kills and power cuts at any operation of the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from bridge.broker.broker import Broker
from bridge.broker.limits import Limits
from bridge.clock import Clock
from bridge.errors import SinkUnavailable
from bridge.forward.forwarder import Forwarder
from bridge.forward.keeper import Keeper
from bridge.forward.letters import Letters
from bridge.forward.mover import Mover
from bridge.forward.room import Room
from bridge.message import Message, Properties
from bridge.policy.batch import BatchLimits
from bridge.policy.pace import Drain
from bridge.policy.retry import ONE_TRY, RetryLimits
from bridge.policy.route import Route
from bridge.sinks.base import Outgoing, Refusal
from bridge.sinks.memory import MemorySink
from bridge.store import Spool
from bridge.topic import Pattern
from tests.store.disk import HostileDisk, Killed

STATE = "/gateway/state"
QUOTA = 1 << 20
BEGAN_NS = 1_800_000_000 * 10**9
RULES = ("refuse", "drop_oldest", "drop_newest")


class Handed(MemorySink):
    """Answers a batch when, and as, the history says."""

    def __init__(self) -> None:
        super().__init__("cloud")
        self.waiting: list[tuple[list[Outgoing], asyncio.Future[list[Refusal]]]] = []

    async def send_batch(self, batch: list[Outgoing]) -> list[Refusal]:  # type: ignore[override]
        answer: asyncio.Future[list[Refusal]] = asyncio.get_running_loop().create_future()
        self.waiting.append((batch, answer))
        return await answer


class Books:
    """What the publisher knows of one route. `owned` is what its far end has confirmed."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.taken: set[int] = set()  # numbers of messages
        self.owned: set[int] = set()
        self.found = self.found_bytes = 0  # what a start found: a power cut may bring back what was settled


class Lives:
    """One store, and the gateways that run on it one after the other."""

    def __init__(self, luck: Random) -> None:
        self.luck = luck
        self.disk = HostileDisk()
        self.disk.add_folder("/gateway")
        self.disk.sync_folder("/")
        self.now_ns = BEGAN_NS
        self.number = 0
        self.books = [Books(self._route(name)) for name in ("alarms", "everything", "values")]
        self._tasks: list[asyncio.Task[None]] = []

    def _route(self, name: str) -> Route:
        topics = {"alarms": "alarm/#", "everything": "#", "values": "value/#"}
        luck = self.luck
        live_first = luck.random() < 0.4
        retry = luck.choice((ONE_TRY, RetryLimits(2, 0.0), RetryLimits(4, 0.0), RetryLimits(3, 1e-4)))
        # What compares messages with those before them goes neither with the one nor with the other.
        in_order = not live_first and retry is ONE_TRY
        return Route(
            name,
            [Pattern.parse(topics[name])],
            "cloud",
            batch=BatchLimits(luck.choice((1, 3, 10))),
            max_age_s=luck.choice((None, None, 100.0)),
            max_messages=luck.choice((None, 1, 7, 40)),
            max_bytes=luck.choice((None, None, 5_000, 60_000)),
            when_full=luck.choice(RULES),  # type: ignore[arg-type]
            priority=luck.randrange(10),
            where=luck.choice((None, None, None, 'endswith(topic, "1")', "payload.t > 1")),
            sample=luck.choice((None, None, (1, 2))),
            deadband=luck.choice((None, None, ("received_ns", 70e9))) if in_order else None,
            every_s=luck.choice((None, None, 0.001, 3600.0)) if in_order else None,
            drain=Drain(live_first),
            retry=retry,
        )

    async def run(self, steps: int) -> None:
        await self.start()
        doings: list[tuple[Callable[[], object], int]] = [
            (self.publish, 12), (self.answer, 10), (self.turn, 4), (self.pass_time, 2), (self.move, 2),
            (self.stop_and_start, 1), (self.crash, 2), (self.die_at_work, 2), (self.flood, 1),
        ]  # fmt: skip
        try:
            for _ in range(steps):
                [doing] = self.luck.choices([one for one, _ in doings], [often for _, often in doings])
                result = doing()
                if asyncio.iscoroutine(result):
                    await result
                await self.settle()
                self.check()
            await self.drain()
        finally:
            await self.halt()

    # ---- the house -----------------------------------------------------------------

    async def start(self) -> None:
        self.spool = spool = Spool.open(STATE, QUOTA, self.disk)  # type: ignore[arg-type]
        # No measurement exceeds NaN: no commit is ever slow enough for a thread.
        self.spool.committer.commit_s = float("nan")
        letters = Letters(spool)
        self.clock = Clock(lambda: self.now_ns, lambda: self.now_ns)
        self.sinks = [Handed() for _ in self.books]
        keepers = [Keeper(sink) for sink in self.sinks]
        self.forwarders = [
            Forwarder(one.route, keeper, spool.uplink, letters, spool.committer, "g", self.clock)
            for one, keeper in zip(self.books, keepers, strict=True)
        ]  # fmt: skip
        self.accounts = {one.route.name: one.account for one in self.forwarders}
        self.mover = Mover(self.spool.uplink, self.forwarders, self.spool.committer)
        routes = [one.route for one in self.books]
        room = Room(self.spool.uplink, self.forwarders)
        self.broker = Broker(self.spool, routes, self.accounts, room.make, Limits(), clock=self.clock)
        works = [
            *(forwarder.count_backlog for forwarder in self.forwarders),
            *(keeper.run for keeper in keepers),
            *(forwarder.run for forwarder in self.forwarders),
        ]
        self._tasks = [asyncio.create_task(work()) for work in works]
        await self.settle()
        for one, account in zip(self.books, self.accounts.values(), strict=True):
            if one.route.when_full != "drop_oldest":
                one.found, one.found_bytes = account.stored, account.stored_bytes

    async def settle(self) -> None:
        """Until nobody has anything to do without the far ends."""
        for _ in range(40):
            await asyncio.sleep(0)
        while any(account.counting for account in self.accounts.values()) and not self._dead():
            await asyncio.sleep(0)

    def _dead(self) -> bool:
        return any(
            task.done() and not task.cancelled() and task.exception() is not None for task in self._tasks
        )

    async def halt(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    # ---- steps ---------------------------------------------------------------------

    async def publish(self) -> None:
        for _ in range(self.luck.choice((1, 3, 12))):
            await self.publish_one(self.luck.choice((10, 200, 3000)))

    async def flood(self) -> None:
        """More than the store holds."""
        for _ in range(150):
            await self.publish_one(9_000)

    async def publish_one(self, size: int) -> None:
        number, self.number = self.number, self.number + 1
        topic = self.luck.choice(("alarm/1", "value/1", "value/2", "other"))
        properties = Properties(message_expiry_interval_s=50) if self.luck.random() < 0.2 else None
        message = Message(topic, b"%d:" % number + bytes(size), 1, False, "", self.clock.now_ns(), properties)
        before = self.broker.inlet.dropped
        self.broker.inlet.publish(message)
        error = await self.spool.committer.flush()
        assert error is None
        if self.broker.inlet.dropped == before:
            for one in self.books:
                if one.route.wants(topic):
                    one.taken.add(number)
        else:
            assert any(one.route.wants(topic) and one.route.when_full == "refuse" for one in self.books) or (
                any(one.route.when_full == "drop_oldest" for one in self.books)
            ), "only a rule may keep a message out"

    def answer(self) -> None:
        """One far end says something about its oldest batch."""
        for one, sink in zip(self.books, self.sinks, strict=True):
            sink.waiting = [(batch, answer) for batch, answer in sink.waiting if not answer.done()]
            if not sink.waiting or self.luck.random() < 0.4:
                continue
            batch, answer = sink.waiting[0]
            fate = self.luck.random()
            if fate < 0.2:
                confirmed = self.luck.randrange(len(batch) + 1)
                one.owned.update(number_of(each.message) for each in batch[:confirmed])
                error = SinkUnavailable("broke")
                error.confirmed = confirmed
                answer.set_exception(error)
            else:
                refused = [nth for nth in range(len(batch)) if fate < 0.4 and self.luck.random() < 0.5]
                one.owned.update(
                    number_of(each.message) for nth, each in enumerate(batch) if nth not in refused
                )
                answer.set_result([Refusal(nth, "no", self.luck.random() < 0.2) for nth in refused])

    def turn(self) -> None:
        """The loop goes round."""

    def pass_time(self) -> None:
        self.now_ns += self.luck.choice((1, 60, 200)) * 10**9

    async def move(self) -> None:
        step = asyncio.ensure_future(self.mover.step())
        while not step.done():
            await asyncio.sleep(0.001)

    async def stop_and_start(self) -> None:
        for forwarder in self.forwarders:
            forwarder.stop()
        await self.settle()
        await self.halt()
        await self.spool.close()
        self.disk.power_cut(self.luck)
        await self.start()

    async def crash(self) -> None:
        def dead(call: str) -> None:
            raise Killed

        self.disk.before = dead
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.luck.random() < 0.5:
            self.disk.power_cut(self.luck)
        else:
            self.disk.kill()
        await self.start()

    async def die_at_work(self) -> None:
        """Dies at one of the next operations of the disk, while something is delivered."""
        left = [self.luck.randrange(6)]

        def before(call: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed

        self.disk.before = before
        for _ in range(self.luck.randrange(1, 6)):
            self.answer()
            for _ in range(40):
                await asyncio.sleep(0)
        await self.crash()

    async def drain(self) -> None:
        """At last everything is answered; afterwards every message has met one fate."""
        while any(account.stored for account in self.accounts.values()):
            for one, sink in zip(self.books, self.sinks, strict=True):
                for batch, answer in sink.waiting:
                    if not answer.done():
                        one.owned.update(number_of(each.message) for each in batch)
                        answer.set_result([])
                sink.waiting = []
            for forwarder in self.forwarders:  # every period is over
                if (sieve := forwarder.sifter.sieve) is not None and sieve.due_s is not None:
                    sieve.due_s = 0.0
                    forwarder._news.set()
            await self.settle()
        self.check()
        for one in self.books:
            account, tally = self.accounts[one.route.name], self.accounts[one.route.name].tally
            let_go = tally.refused + tally.expired + tally.filtered + account.lost
            assert (tally.delivered + let_go, tally.damaged) == (len(one.taken), 0)
            assert not tally.filtered or one.route.rules.any
            missing = one.taken - one.owned
            assert len(missing) <= let_go, "one is gone and in no account"
            assert tally.delivered <= len(one.owned)

    # ---- what has to be true -------------------------------------------------------

    def check(self) -> None:
        for one in self.books:
            account, route = self.accounts[one.route.name], one.route
            assert account.accepted == len(one.taken), f"{route.name} {route.when_full}: {account.tally}"
            assert account.stored >= account.leaving >= 0
            assert account.queued == account.queued_bytes == 0
            held = account.stored - account.leaving
            one.found = min(one.found, held)
            if route.max_messages is not None:
                assert held <= max(route.max_messages, one.found), f"{route.name} is beyond its bound"
            held_bytes = account.stored_bytes - account.leaving_bytes
            one.found_bytes = min(one.found_bytes, held_bytes)
            if route.max_bytes is not None and held > 1:
                assert held_bytes <= max(route.max_bytes, one.found_bytes), (
                    f"{route.name} is beyond its bound"
                )
            if route.max_bytes is None:
                assert account.stored_bytes == 0
        assert self.spool.uplink.size <= QUOTA


def number_of(message: Message) -> int:
    return int(message.payload.split(b":")[0])
