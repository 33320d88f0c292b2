"""What the far end refuses is tried again, and only its own key waits; and all of it is in one account."""

import asyncio
import time

import pytest

from bridge.forward.letters import letter_of
from bridge.policy.pace import Drain
from bridge.policy.retry import RetryLimits
from tests.gateway import until

SOON = RetryLimits(3, 0.3)
LATER = RetryLimits(3, 7.5)


def refusing(topic, times=10**9):
    """A judge who refuses this topic so often."""
    left = [times]

    def judge(outgoing):
        if outgoing.message.topic != topic:
            return None
        left[0] -= 1
        return "no queue takes it" if left[0] >= 0 else None

    return judge


def dead(hall):
    return [(entry.message.payload, letter_of(entry).tries) for entry in hall.spool.dead.read(0)]


async def test_others_go_on_while_a_key_waits_and_then_it_goes_in_order(hall):
    refused = iter(("no queue takes it",) * 2)
    hall.sink.judge = lambda outgoing: next(refused, None) if outgoing.message.payload == b"1" else None
    route = hall.route(retry=SOON)
    hall.run()
    await hall.append(1)
    await until(lambda: route._retrying)
    await hall.append(2, 3)
    await hall.append(4, 5, topic="b")
    await hall.append(6, publisher="another")
    await hall.drained(route)
    assert hall.numbers() == [4, 5, 6, 1, 2, 3]
    assert dead(hall) == []
    assert (route.account.tally.delivered, route.account.stored) == (6, 0)


async def test_what_is_refused_at_every_try_becomes_a_dead_letter_that_says_how_often(hall):
    hall.sink.judge = refusing("a", 3)
    route = hall.route(retry=SOON)
    hall.run()
    await hall.append(1)
    await until(lambda: route._retrying)
    await hall.append(2)
    await hall.drained(route)
    assert (hall.numbers(), dead(hall)) == ([2], [(b"1", 3)])


async def test_given_a_kill_then_what_was_held_comes_again_and_nothing_else(hall):
    hall.sink.judge = refusing("a")
    route = hall.route(retry=LATER)
    hall.run()
    await hall.append(1)
    await hall.append(2, 3, topic="b")
    await until(lambda: hall.numbers() == [2, 3])
    await hall.append(4)
    await hall.append(5, topic="b")
    await until(lambda: hall.numbers() == [2, 3, 5])
    assert (route.account.stored, route.oldest_ns()) == (2, 2 * 10**18)
    await hall.close()
    hall.open()
    route = hall.route(retry=LATER)
    hall.run()
    await hall.drained(route)
    assert hall.numbers() == [1, 4]
    assert (route.account.tally.delivered, route.account.accepted) == (5, 5)


async def test_given_a_link_that_breaks_then_the_tries_are_counted_on(hall):
    hall.sink.judge = refusing("a")
    route = hall.route(retry=SOON)
    hall.run()
    await hall.append(1)
    for _ in range(2):
        await until(lambda: route._retrying)
        hall.sink.go_away()
        await until(lambda: not route._retrying)
        hall.sink.come_back()
    await hall.drained(route)
    assert dead(hall) == [(b"1", 3)]


async def test_given_a_route_at_its_bound_then_what_is_held_makes_way_like_any_other(hall):
    hall.sink.judge = refusing("a")
    route = hall.route(retry=LATER, max_messages=3, when_full="drop_oldest")
    hall.run()
    await hall.append(1)
    await until(lambda: route._retrying)
    for number in range(2, 8):
        await hall.append(number)
        await asyncio.sleep(0)
    hall.sink.judge = refusing("nothing")
    account = route.account
    await until(lambda: account.stored <= 3)
    await hall.append(8, topic="b")
    await until(lambda: 8 in hall.numbers())
    assert account.tally.bound_oldest >= 4
    assert account.accepted == 8


async def test_given_no_more_room_then_the_refused_has_its_last_try_and_what_waited_goes(hall, monkeypatch):
    monkeypatch.setattr("bridge.policy.retry.HELD_MAX", 50)
    hall.sink.judge = refusing("a", 2)
    route = hall.route(retry=LATER)
    hall.run()
    began_s = time.monotonic()
    await hall.append(0)
    await until(lambda: route._retrying)
    await hall.append(*range(1, 500))
    await hall.drained(route)
    assert time.monotonic() - began_s < LATER.wait_s
    assert (hall.numbers(), dead(hall)) == (list(range(1, 500)), [(b"0", 2)])


async def test_a_stop_does_not_wait_for_what_is_held(hall):
    hall.sink.judge = refusing("a")
    route = hall.route(retry=LATER)
    task = hall.run()
    await hall.append(1)
    await until(lambda: route._retrying)
    route.stop()
    await asyncio.wait_for(task, 5)
    assert route.account.stored == 1


async def test_the_far_end_is_told_under_live_first_that_newer_ones_went_before(hall):
    hall.sink.judge = refusing("a", 1)
    route = hall.route(retry=SOON, drain=Drain(live_first=True))
    hall.run()
    await hall.append(1)
    await hall.append(2, topic="b")
    await hall.drained(route)
    assert {int(each.message.payload): each.replayed for each in hall.sink.received} == {1: True, 2: False}


@pytest.mark.parametrize("order", [Drain(), Drain(live_first=True)], ids=["fifo", "live-first"])
async def test_at_a_start_nothing_is_read_behind_what_was_settled_before_it_was_counted(
    hall, order, monkeypatch
):
    """A stretch that is settled led the reading past the count, and what lay behind it was never found."""
    hall.sink.judge = refusing("a")
    route = hall.route(retry=LATER)
    hall.run()
    await hall.append("1" * 10)
    await hall.append(*["2" * 20_000] * 300, topic="b")
    await until(lambda: len(hall.sink.received) == 300)
    await hall.halt()
    assert route.reading.settled.stretches
    await hall.append(*["3" * 20_000] * 300, topic="b", received_ns=16 * 10**17)
    await hall.close()
    hall.open()
    route = hall.route(retry=LATER, max_age_s=3600, drain=order)
    monkeypatch.setattr("bridge.forward.forwarder._SCAN_MESSAGES", 2)  # counted in each turn of the loop
    hall.run(hall.keeper)
    await until(lambda: hall.keeper.up)
    hall.run(route)
    await hall.drained(route)
    await until(lambda: not route.account.counting)
    assert (route.account.tally.delivered, route.account.tally.expired) == (301, 300)
    assert (route.account.accepted, route.account.stored) == (601, 0)
