"""How a route goes through a backlog: in which order, how fast, and what is still exact about it."""

import asyncio
import shutil
import time

import pytest

from bridge.policy.batch import BatchLimits
from bridge.policy.pace import Drain, PaceLimits
from bridge.sinks.memory import MemorySink
from tests.forward.conftest import Hall
from tests.forward.test_forwarder import Handed
from tests.gateway import until

LIVE_FIRST = Drain(live_first=True)
HOUR_NS = 3600 * 10**9


async def wait_an_hour(hall, *numbers, **more):
    """These messages have waited for an hour."""
    await hall.append(*numbers, received_ns=time.time_ns() - HOUR_NS, **more)


@pytest.fixture
async def handed(hall):
    await hall.spool.close()
    hall.open(Handed())
    return hall


async def confirm_all(hall, route):
    """Whatever is sent from now on is confirmed at once."""
    done = 0
    while hall.backlog(route):
        while done < len(hall.sink.batches):
            if not hall.sink.batches[done][1].done():
                hall.sink.confirm(done)
            done += 1
        await asyncio.sleep(0)
    return [number for batch in hall.sink.sent() for number in batch]


async def test_what_is_new_goes_before_the_backlog_and_the_backlog_says_that_it_is_one(handed):
    route = handed.route(drain=LIVE_FIRST)
    await wait_an_hour(handed, *range(200))
    handed.run()
    await until(lambda: len(handed.sink.batches) == 3)
    await handed.append(1000, 1001)
    await until(lambda: len(handed.sink.batches) == 4)
    assert handed.sink.sent()[3] == [1000, 1001], "one place in the line is left free for it"
    assert sorted(await confirm_all(handed, route)) == [*range(200), 1000, 1001]
    for batch, _ in handed.sink.batches:
        for each in batch:
            assert each.replayed == (int(each.message.payload) < 1000)
    assert (route.account.tally.delivered, handed.backlog(route)) == (202, 0)
    await handed.drained(route)


async def test_the_backlog_is_in_order_and_so_is_what_is_new(hall):
    route = hall.route(drain=LIVE_FIRST)
    await wait_an_hour(hall, *range(500))
    hall.run()
    for begin in range(1000, 1300, 20):
        await hall.append(*range(begin, begin + 20))
        await asyncio.sleep(0)
    await hall.drained(route)
    numbers = hall.numbers()
    assert [number for number in numbers if number < 1000] == list(range(500))
    assert [number for number in numbers if number >= 1000] == list(range(1000, 1300))


async def test_a_backlog_beside_live_traffic_without_end_is_not_starved(handed):
    route = handed.route(drain=LIVE_FIRST)
    await wait_an_hour(handed, *range(100))
    handed.run()
    await until(lambda: len(handed.sink.batches) == 3)
    await handed.append(*range(1000, 2000))  # there is always more of it than may go
    sent = await confirm_all(handed, route)
    last_old = max(at for at, number in enumerate(sent) if number < 1000)
    newer = [number for number in sent[:last_old] if number >= 1000]
    assert len(newer) < 1000, "the backlog ended before what is new did"
    assert sorted(sent) == [*range(100), *range(1000, 2000)]


async def test_a_link_that_breaks_sends_again_what_was_under_way_and_nothing_that_was_settled(handed):
    route = handed.route(drain=LIVE_FIRST)
    await wait_an_hour(handed, *range(60))
    handed.run()
    await until(lambda: len(handed.sink.batches) == 3)
    await handed.append(1000, 1001)
    await until(lambda: len(handed.sink.batches) == 4)
    handed.sink.confirm(0)
    handed.sink.confirm(1)
    await until(lambda: len(handed.sink.batches) == 5)
    handed.sink.confirm(2)
    handed.sink.confirm(3)
    await until(lambda: route.account.tally.delivered == 32)
    handed.sink.fail(4)
    await until(lambda: handed.keeper.turn == 2)
    again = len(handed.sink.batches)
    await confirm_all(handed, route)
    resent = [number for batch in handed.sink.sent()[again:] for number in batch]
    assert not {1000, 1001} & set(resent)
    assert (route.account.tally.delivered, route.account.accepted) == (62, 62)


async def test_after_a_kill_what_was_settled_ahead_is_neither_sent_nor_counted_twice(hall, tmp_path):
    route = hall.route(drain=Drain(live_first=True, backlog=PaceLimits(messages_per_s=100)))
    await wait_an_hour(hall, *range(300))
    hall.run()
    await until(lambda: len(hall.sink.received) >= 20)
    await hall.append(*range(1000, 1040))
    await until(lambda: route.account.tally.delivered >= 60)
    assert hall.backlog(route) > 100
    delivered = set(hall.numbers())
    counted = route.account.tally.delivered
    # As a kill leaves it: nothing more is saved. One stretch, so both are of the same moment.
    shutil.copytree(hall.folder, tmp_path / "killed", ignore=shutil.ignore_patterns("lock"))
    other = Hall(tmp_path / "killed")
    try:
        again = other.route(drain=LIVE_FIRST)
        assert again.account.tally.delivered == counted
        assert again.reading.settled.stretches, "what went ahead is remembered"
        other.run()
        await until(lambda: not again.account.counting and not other.backlog(again))
        assert again.account.accepted == 340
        sent_again = set(other.numbers()) & delivered
        assert len(sent_again) <= len(delivered) - counted, "only what was not settled yet"
        assert not any(number >= 1000 for number in other.numbers())
        assert delivered | set(other.numbers()) == {*range(300), *range(1000, 1040)}
    finally:
        await other.close()


async def test_what_is_let_go_of_a_backlog_leaves_alone_what_went_ahead(hall):
    route = hall.route(
        drain=Drain(live_first=True, backlog=PaceLimits(messages_per_s=1)), when_full="drop_oldest"
    )
    await wait_an_hour(hall, *range(100))
    hall.run()
    await until(lambda: hall.sink.received)
    await hall.append(*range(1000, 1020))
    await until(lambda: sum(number >= 1000 for number in hall.numbers()) == 20)
    await until(lambda: route.account.tally.delivered >= 20)
    route.give_way(30, 0)
    account = route.account
    assert account.tally.bound_oldest >= 30
    assert account.accepted == 120
    route.let_go(hall.spool.uplink.durable, "full_oldest")
    await until(lambda: account.stored == 0)
    tally = account.tally
    assert tally.delivered + tally.bound_oldest + tally.full_oldest == account.accepted == 120
    assert tally.delivered == len(hall.sink.received)


async def test_a_backlog_keeps_its_rate_and_what_is_new_keeps_its_own(hall):
    drain = Drain(live_first=True, backlog=PaceLimits(messages_per_s=100))
    route = hall.route(drain=drain, batch=BatchLimits(500))
    await wait_an_hour(hall, *range(1000))
    hall.run()
    await until(lambda: hall.sink.received)
    began = time.monotonic()
    await asyncio.sleep(0.5)
    await hall.append(*range(1000, 1400))
    await until(lambda: sum(number >= 1000 for number in hall.numbers()) == 400, 2)
    took_s = time.monotonic() - began
    old = sum(number < 1000 for number in hall.numbers())
    assert 0.4 * 100 <= old <= 20 + took_s * 100
    assert took_s < 1.5
    assert hall.backlog(route) > 0


async def test_in_order_a_limited_backlog_holds_up_what_is_behind_it_and_a_limited_live_stream_itself(hall):
    drain = Drain(backlog=PaceLimits(messages_per_s=200), live=PaceLimits(bytes_per_s=10_000))
    hall.route(drain=drain, batch=BatchLimits(500))
    await wait_an_hour(hall, *range(60))
    began = time.monotonic()
    hall.run()
    await hall.append(*["7" * 1000] * 5)
    await until(lambda: len(hall.sink.received) == 65)
    took_s = time.monotonic() - began
    # A burst of each goes at once, and the last one when there are tokens for its first byte.
    assert took_s >= (60 - 20 - 1) / 200 + (4 * 1000 - 1000) / 10_000 - 0.02
    assert [each.message.payload for each in hall.sink.received[:60]] == [b"%d" % n for n in range(60)]
    assert not any(each.replayed for each in hall.sink.received)


async def test_a_far_end_that_is_slow_gets_smaller_pieces_of_a_backlog(hall, monkeypatch):
    class Slow(MemorySink):
        async def send_batch(self, batch):
            sizes.append(len(batch))
            await asyncio.sleep(0.002 * len(batch))
            return await super().send_batch(batch)

    sizes = []
    monkeypatch.setattr("bridge.forward.reading._BATCH_S", 0.1)
    await hall.spool.close()
    hall.open(Slow("cloud"))
    route = hall.route(drain=LIVE_FIRST, batch=BatchLimits(200))
    await wait_an_hour(hall, *range(1000))
    await hall.append("1000")
    hall.run()
    await hall.drained(route)
    assert min(sizes[3:-1]) < 100


class Narrow(MemorySink):
    """One batch at a time, in the order of the calls."""

    async def send_batch(self, batch):
        async with self._gate:
            await asyncio.sleep(0.002)
            return await super().send_batch(batch)

    def __init__(self, name):
        super().__init__(name)
        self._gate = asyncio.Lock()


@pytest.mark.parametrize(("high", "low", "least", "most"), [(9, 1, 10, 35), (5, 5, 80, 100)])
async def test_on_a_narrow_link_the_higher_priority_goes_first_and_the_other_is_not_starved(
    hall, high, low, least, most
):
    await hall.spool.close()
    hall.open(Narrow("cloud"))
    first = hall.route("alarms", "alarm/#", priority=high)
    hall.route("values", "value/#", priority=low)
    for number in range(100):
        await hall.append(*range(number * 10, number * 10 + 10), topic="value/1")
        await hall.append(*range(number * 10, number * 10 + 10), topic="alarm/1")
    hall.run()
    await until(lambda: first.account.tally.delivered == 1000, 30)
    others = sum(each.message.topic == "value/1" for each in hall.sink.received)
    assert least <= others / 10 <= most
    await until(lambda: len(hall.sink.received) == 2000)
