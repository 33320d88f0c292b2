"""A route with conditions and report by exception, in motion: over a real log, through outages and kills."""

import asyncio
import json
import time

import pytest

from bridge.policy.batch import BatchLimits
from bridge.policy.sieve import GRACE_S
from tests.gateway import until

S = 1_000_000_000


def told(t, n=0):
    return json.dumps({"t": t, "n": n})


def received(hall):
    return [json.loads(each.message.payload)["t"] for each in hall.sink.received]


def fates(forwarder):
    tally = forwarder.account.tally
    return tally.delivered, tally.filtered, forwarder.account.stored


async def test_what_the_condition_does_not_take_is_filtered_and_counted_as_the_cursor_passes(hall):
    route = hall.route(where="payload.t > 20")
    hall.run()
    await hall.append(told(21), told(19), "no JSON", "{}", told(22))
    await hall.drained(route)
    assert received(hall) == [21, 22]
    assert fates(route) == (2, 3, 0)
    assert (route.sifter.sieve.not_json, route.sifter.sieve.unknown) == (1, 1)
    await hall.append(told(1), told(2))
    await hall.drained(route)  # nothing is sent, and the cursor moves all the same
    assert fates(route) == (2, 5, 0)


async def test_a_condition_and_its_count_survive_a_restart(hall):
    route = hall.route(where="payload.t > 20")
    hall.run()
    await hall.append(told(21), told(19), told(22))
    await hall.drained(route)
    await hall.halt()
    await hall.spool.close()
    hall.open()
    route = hall.route(where="payload.t > 20")
    assert fates(route) == (2, 1, 0)


async def test_given_a_link_that_breaks_then_what_passed_the_deadband_and_was_not_confirmed_comes_again(hall):
    route = hall.route(deadband=("payload.t", 0.5), batch=BatchLimits(2))
    hall.run()
    await hall.append(told(20.0), told(20.1))
    await hall.drained(route)
    hall.sink.pause()
    await hall.append(*map(told, [20.6, 20.7, 21.5, 21.6, 30.0]))
    await until(lambda: len(route._in_flight) == 2)
    hall.sink.go_away()
    await until(lambda: not hall.keeper.up)
    hall.sink.resume()
    hall.sink.come_back()
    await hall.drained(route)
    assert received(hall) == [20.0, 20.6, 21.5, 30.0]
    assert fates(route) == (4, 3, 0)


async def test_of_each_period_the_latest_is_sent_though_nothing_more_comes(hall):
    route = hall.route(every_s=0.5)
    hall.run()
    begin_ns = time.time_ns() // (S // 2) * (S // 2)
    await hall.append(told(1), told(2), received_ns=begin_ns)
    await hall.append(told(10), topic="b", received_ns=begin_ns)
    await hall.append(told(3), received_ns=begin_ns + 1)
    before = route.cursor.position
    assert received(hall) == []
    begin = time.monotonic()
    await hall.drained(route)
    assert time.monotonic() - begin < 0.5 + GRACE_S + 1
    assert received(hall) == [10, 3]
    assert route.cursor.position > before
    assert fates(route) == (2, 2, 0)


async def test_while_a_message_is_held_the_cursor_does_not_pass_it(hall):
    route = hall.route(every_s=3600)
    hall.run()
    now_ns = time.time_ns()
    await hall.append(*map(told, range(50)), received_ns=now_ns)
    await until(lambda: route.sifter.sieve.scanned == hall.spool.uplink.durable)
    await asyncio.sleep(0.05)
    assert route.cursor.position < hall.spool.uplink.durable
    assert fates(route) == (0, 0, 50)
    # Killed and started an hour later: the period is over, and its latest was not lost.
    await hall.halt()
    await hall.spool.close()
    hall.open()
    route = hall.route(every_s=3600)
    counting = asyncio.create_task(route.count_backlog())
    route.sifter._clock = Later(now_ns + 2 * 3600 * S)
    hall.run()
    await counting
    await hall.drained(route)
    assert received(hall) == [49]
    assert fates(route) == (1, 49, 0)


class Later:
    """A clock that stands."""

    jumps = ()

    def __init__(self, ns):
        self.ns = ns

    def now_ns(self):
        return self.ns


@pytest.mark.parametrize("batch", [1, 3, 500])
async def test_a_backlog_of_many_periods_goes_in_order_through_broken_links(hall, batch):
    route = hall.route(every_s=10, batch=BatchLimits(batch))
    topics = ["a", "b", "c"]
    for number in range(300):
        await hall.append(told(number), topic=topics[number % 3], received_ns=10**18 + number * S)
    hall.sink.pause()
    hall.run()
    for _ in range(3):
        await until(lambda: route._in_flight)
        hall.sink.go_away()
        await until(lambda: not hall.keeper.up)
        hall.sink.come_back()
    hall.sink.resume()
    await hall.drained(route)
    expected = [number for end in range(10, 301, 10) for number in range(end - 3, end)]
    assert received(hall) == expected
    assert fates(route) == (len(expected), 300 - len(expected), 0)


async def test_what_has_to_make_way_while_it_is_held_is_counted_as_dropped(hall):
    route = hall.route(every_s=3600)
    hall.run()
    await hall.append(*map(told, range(50)), received_ns=time.time_ns())
    await until(lambda: route.sifter.sieve.scanned == hall.spool.uplink.durable)
    route.let_go(hall.spool.uplink.durable)
    await hall.drained(route)
    tally = route.account.tally
    assert (tally.delivered, tally.filtered, tally.full_oldest, route.account.stored) == (0, 0, 50, 0)
    await hall.append(told(99), received_ns=10**18)  # of another period: goes as soon as its time is over
    await hall.drained(route)
    assert received(hall) == [99]


async def test_a_route_that_filters_nearly_all_of_a_long_log_lets_others_have_their_turn(hall):
    route = hall.route(where="payload.t == 4999", batch=BatchLimits(500))
    await hall.append(*map(told, range(5000)))
    hall.run()
    await hall.drained(route)
    assert received(hall) == [4999]
    assert fates(route) == (1, 4999, 0)


async def test_a_route_that_is_told_to_stop_in_the_moment_of_news_stops(hall):
    """Before Python 3.12 `asyncio.wait_for` forgot the one for the other, and the house never ended."""
    for turns in range(6):
        route = hall.route(f"r{turns}", every_s=3600)
        task = hall.run(hall.keeper, route) if not turns else hall.run(route)
        await hall.append(told(1), received_ns=time.time_ns())
        await until(lambda route=route: route.sifter.sieve.due_s is not None)
        await asyncio.sleep(0.01)
        route._news.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task}, timeout=2)
        assert task.done()
