"""One route, two sinks, one at a time: what went where, and nothing twice but for an outage."""

import asyncio
import logging

from bridge.forward.fallback import Fallback
from bridge.forward.keeper import Keeper
from bridge.sinks.memory import MemorySink
from tests.gateway import until


class Pair:
    """A route to `hall.sink`, with a second sink for when that was away for `after_s`."""

    def __init__(self, hall, after_s):
        self.hall = hall
        self.passed_s = 0.0
        self.first, self.second = hall.keeper, Keeper(MemorySink("backup"))
        loop = asyncio.get_running_loop()
        self.both = Fallback("all", self.first, self.second, after_s, lambda: loop.time() + self.passed_s)
        self.route = hall.route(keeper=self.both)
        hall.run(self.first, self.second, self.route)

    def numbers(self):
        return self.hall.numbers(self.first.sink), self.hall.numbers(self.second.sink)

    async def publish(self, *numbers):
        await self.hall.append(*numbers)
        await self.hall.drained(self.route)


async def test_while_the_first_is_away_for_less_than_the_time_its_messages_wait(hall):
    pair = Pair(hall, after_s=60)
    await pair.publish(1, 2)
    pair.first.sink.go_away()
    await until(lambda: not pair.first.up)
    await hall.append(3)
    await asyncio.sleep(0.05)
    assert pair.numbers() == ([1, 2], [])
    pair.first.sink.come_back()
    await hall.drained(pair.route)
    assert pair.numbers() == ([1, 2, 3], [])


async def test_given_a_first_that_stays_away_then_the_second_gets_the_rest_until_it_is_back(hall, caplog):
    caplog.set_level(logging.INFO)
    pair = Pair(hall, after_s=0.05)
    await pair.publish(*range(10))
    pair.first.sink.go_away()
    await until(lambda: not pair.first.up)
    await pair.publish(*range(10, 40))
    assert pair.both.sink is pair.second.sink
    pair.first.sink.come_back()
    await until(lambda: pair.first.up)
    await pair.publish(*range(40, 50))
    assert pair.numbers() == ([*range(10), *range(40, 50)], list(range(10, 40)))
    assert (pair.route.account.tally.delivered, hall.backlog(pair.route)) == (50, 0)
    said = [record.message for record in caplog.records if record.message.startswith("fallback")]
    assert said[0].startswith("fallback route=all sink=cloud away_s=")
    assert said[1:] == ["fallback over route=all sink=cloud"]


async def test_what_is_under_way_to_the_second_is_waited_for_and_not_sent_again(hall):
    pair = Pair(hall, after_s=0.05)
    await until(lambda: pair.first.up)
    pair.first.sink.go_away()
    await pair.publish(1)
    pair.second.sink.pause()
    await hall.append(2, 3)
    await asyncio.sleep(0.02)
    pair.first.sink.come_back()
    await until(lambda: pair.first.up)
    await hall.append(4)
    await asyncio.sleep(0.05)
    assert pair.numbers() == ([], [1])
    pair.second.sink.resume()
    await hall.drained(pair.route)
    first, second = pair.numbers()
    assert sorted(first + second) == [1, 2, 3, 4]
    assert 4 in first


async def test_given_both_away_then_the_one_that_comes_back_first_gets_them(hall):
    pair = Pair(hall, after_s=0.02)
    await until(lambda: pair.first.up and pair.second.up)
    pair.first.sink.go_away()
    pair.second.sink.go_away()
    await hall.append(1)
    await asyncio.sleep(0.05)
    pair.second.sink.come_back()
    await hall.drained(pair.route)
    assert pair.numbers() == ([], [1])


async def test_a_stalled_first_is_away_and_tried_again_after_the_same_time(hall):
    pair = Pair(hall, after_s=3600)
    await pair.publish(1)
    pair.first.sink.pause()
    pair.first.sink.confirm_timeout_s = 0.05
    await hall.append(2)
    await until(lambda: pair.first.state == "stalled" and pair.first.stalls >= 2)
    assert pair.numbers() == ([1], []), "it has its time, and was tried again meanwhile"
    pair.passed_s = 3601
    await hall.drained(pair.route)
    assert pair.numbers() == ([1], [2])
    await pair.publish(3, 4)
    assert pair.numbers() == ([1], [2, 3, 4])
    pair.first.sink.resume()
    await until(lambda: pair.first.up)
    pair.passed_s = 7300
    await pair.publish(5)
    assert pair.numbers() == ([1, 5], [2, 3, 4])
    assert pair.first.state == "up"


async def test_a_route_that_is_stopped_while_both_are_away_ends(hall):
    pair = Pair(hall, after_s=0.02)
    await until(lambda: pair.first.up)
    pair.first.sink.go_away()
    pair.second.sink.go_away()
    await hall.append(1)
    await asyncio.sleep(0.05)
    await asyncio.wait_for(hall.halt(), 5)
    assert hall.backlog(pair.route) == 1
