"""Making way: by the routes' rules, and with nothing that is not counted."""

import asyncio

import pytest

from tests.forward.conftest import Hall
from tests.gateway import until


@pytest.fixture
async def hall(tmp_path):
    hall = Hall(tmp_path / "spool", 1 << 20)
    yield hall
    await hall.close()


async def fill(hall):
    """Append until there is no room; return how many that were."""
    count = 0
    while hall.spool.uplink.has_room(4200):
        await hall.append("7" * 4000)
        count += 1
    return count


async def test_drop_oldest_frees_the_oldest_segment_and_counts_what_was_in_it(hall):
    route = hall.route(when_full="drop_oldest")
    count = await fill(hall)
    assert hall.room.make(4200)
    assert 0 < route.account.lost < count
    await hall.append("7" * 4000)
    hall.run()
    await hall.drained(route)
    assert route.account.lost + route.account.tally.delivered == hall.appended


async def test_refuse_and_drop_newest_let_nothing_go(hall):
    for name, when_full in (("strict", "refuse"), ("newest", "drop_newest")):
        hall.forwarders = []
        route = hall.route(name, when_full=when_full)
        await fill(hall)
        assert not hall.room.make(4200)
        assert route.account.lost == 0


async def test_a_strict_route_that_has_passed_is_not_in_the_way(hall):
    loose = hall.route("loose", when_full="drop_oldest")
    strict = hall.route("strict", when_full="refuse")
    await fill(hall)
    assert not hall.room.make(4200)
    strict.cursor.save(hall.spool.uplink.durable)
    assert hall.room.make(4200)
    assert (loose.account.lost > 0, strict.account.lost) == (True, 0)


@pytest.mark.parametrize("broken", [False, True])
async def test_given_batches_under_way_when_their_segment_is_let_go_then_each_counts_once(hall, broken):
    """Delivered all the same if they are confirmed, lost if the link breaks."""
    route = hall.route(when_full="drop_oldest")
    hall.sink.pause()
    hall.run()
    count = await fill(hall)
    await until(lambda: len(route._in_flight) == 4)
    assert hall.room.make(4200)
    before = route.account.lost
    if broken:
        hall.sink.go_away()
        await until(lambda: not hall.keeper.up)
        hall.sink.come_back()
    hall.sink.resume()
    await hall.drained(route)
    assert route.account.lost + route.account.tally.delivered == count == hall.appended
    assert (route.account.lost > before) == broken


async def test_letting_go_while_the_backlog_of_the_start_is_counted(hall):
    hall.route(when_full="drop_oldest")
    count = await fill(hall)
    await hall.spool.close()
    hall.open()
    route = hall.route(when_full="drop_oldest")
    counting = asyncio.create_task(route.count_backlog())
    await asyncio.sleep(0)
    assert hall.room.make(4200)
    await counting
    assert route.account.accepted == count
    hall.run()
    await hall.drained(route)
    assert route.account.lost + route.account.tally.delivered == count


async def test_damage_at_the_end_of_the_log_ends_the_reading_and_not_the_house(hall):
    """Reading what cannot be read was once tried again, for ever, in one stretch."""
    route = hall.route(when_full="drop_oldest")
    await fill(hall)
    log = hall.spool.uplink
    log.read = lambda position, *more: []
    end = log.oldest_segment_end()
    route.let_go(end)
    await asyncio.wait_for(route.count_backlog(), 5)
    assert route.cursor.position == end


async def fill_both(hall):
    """One alarm for nine values, until there is no room; return how many of each."""
    values = alarms = 0
    while hall.spool.uplink.has_room(4200):
        if (values + alarms) % 10 == 0:
            await hall.append(f"{alarms}" + " " * 4000, topic="alarm/1")
            alarms += 1
        else:
            await hall.append(f"{values}" + " " * 4000, topic="t/1")
            values += 1
    return values, alarms


@pytest.mark.parametrize("when_full", ["refuse", "drop_newest", "drop_oldest"])
async def test_the_lowest_priority_gives_way_and_what_the_others_want_is_moved(hall, when_full):
    low = hall.route("values", "t/#", when_full="drop_oldest", priority=1)
    high = hall.route("alarms", "alarm/#", when_full=when_full, priority=9)
    values, alarms = await fill_both(hall)
    for _ in range(30):
        assert hall.room.make(4200)
        await hall.append(f"{values}" + " " * 4000, topic="t/1")
        values += 1
    assert (low.account.lost > 0, high.account.lost) == (True, 0)
    assert hall.spool.uplink.size <= hall.spool.uplink.max_bytes
    hall.run()
    await hall.drained(low)
    await hall.drained(high)
    assert low.account.lost + low.account.tally.delivered == values
    assert high.account.tally.delivered == alarms
    of_alarms = [int(one.message.payload) for one in hall.sink.received if one.message.topic == "alarm/1"]
    assert of_alarms == list(range(alarms)), "in order, though some of them were moved"


async def test_where_both_want_the_same_the_lower_one_cannot_give_way_alone(hall):
    low = hall.route("low", when_full="drop_oldest", priority=1)
    high = hall.route("high", when_full="drop_oldest", priority=9)
    await fill(hall)
    assert hall.room.make(4200)
    assert low.account.lost == high.account.lost > 0, "to keep it for one is to keep it"


async def test_what_was_too_much_to_be_moved_is_not_looked_at_for_every_message(hall):
    hall.route("low", when_full="drop_oldest", priority=1)
    hall.route("strict", when_full="refuse")
    await fill(hall)
    assert not hall.room.make(4200)
    hall.spool.uplink.read = None  # nobody may read it again
    for _ in range(3):
        assert not hall.room.make(4200)


async def test_while_the_mover_is_at_it_nobody_else_moves_or_gives_way(hall):
    """Two at a time would write, and take away, files of the same name."""
    low = hall.route("values", "t/#", when_full="drop_oldest", priority=1)
    high = hall.route("alarms", "alarm/#", when_full="drop_oldest", priority=9)
    await fill_both(hall)
    high.reader.moving = True
    assert not hall.room.make(4200)
    assert (low.account.lost, high.account.lost) == (0, 0)
    high.reader.moving = False
    assert hall.room.make(4200)
