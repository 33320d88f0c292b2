"""History sent once more: what was asked for, under the old ids, and in nobody's way."""

import asyncio
import os
import time

import pytest

from bridge.forward.keeper import Keeper
from bridge.forward.orders import Order, replay_desk
from bridge.forward.replay import Replays
from bridge.sinks.memory import MemorySink
from tests.gateway import until

HOUR_NS = 3600 * 10**9
NOW_NS = time.time_ns()


class Replaying:
    """A hall that keeps history, with a second sink, and a desk that is looked at often."""

    def __init__(self, hall):
        self.hall = hall
        hall.spool.uplink.history.keep_s = 10**9
        hall.spool.uplink.segment_bytes = 4096
        self.other = MemorySink("other")
        self.other_keeper = Keeper(self.other)
        self.desk = replay_desk(str(hall.folder))
        self.replays = None

    def start(self):
        hall = self.hall
        keepers = {"cloud": hall.keeper, "other": self.other_keeper}
        self.replays = Replays(self.desk, hall.forwarders, keepers, hall.spool.uplink, "plant-7")
        self.task = hall.run(self.replays)

    def ask(self, route="all", hours=100.0, until_hours=-1.0, to=""):
        return self.desk.ask(
            Order(route, NOW_NS - round(hours * HOUR_NS), NOW_NS - round(until_hours * HOUR_NS), to)
        )

    async def outcome(self, name):
        found = []
        await until(lambda: found.append(self.desk.outcome(name)) or found[-1])
        return found[-1]


@pytest.fixture
async def replaying(hall, monkeypatch):
    monkeypatch.setattr("bridge.forward.clerk.LOOK_EVERY_S", 0.005)
    replaying = Replaying(hall)
    replaying.route = hall.route()
    hall.run()
    hall.run(replaying.other_keeper)
    for number in range(30):
        await hall.append(number, received_ns=NOW_NS - (30 - number) * HOUR_NS)
    await hall.drained(replaying.route)
    replaying.start()
    await asyncio.sleep(0)
    return replaying


async def test_what_was_delivered_comes_again_under_its_old_ids_in_order_and_marked(replaying):
    sink = replaying.hall.sink
    before = list(sink.received)
    outcome = await replaying.outcome(replaying.ask())
    again = sink.received[30:]
    assert [each.id for each in again] == [each.id for each in before]
    assert [each.message for each in again] == [each.message for each in before]
    assert [each.replayed for each in sink.received] == [False] * 30 + [True] * 30
    assert (outcome.sent, outcome.refused, outcome.missed_bytes, outcome.error) == (30, 0, 0, "")


async def test_only_what_arrived_in_the_time_that_was_asked_for(replaying):
    outcome = await replaying.outcome(replaying.ask(hours=20, until_hours=10))
    assert replaying.hall.numbers()[30:] == list(range(10, 20))
    assert outcome.first < outcome.last
    assert outcome.kept_since < outcome.first


async def test_only_what_the_route_wants(replaying):
    await replaying.hall.append(100, topic="b/c", received_ns=NOW_NS)
    replaying.hall.forwarders.append(one := replaying.hall.route("b", "b/#"))
    replaying.replays._forwarders["b"] = one
    outcome = await replaying.outcome(replaying.ask("b", to="other"))
    assert outcome.sent == 1
    assert replaying.hall.numbers(replaying.other) == [100]


async def test_to_another_sink_goes_everything_also_what_waits_for_the_own_one(replaying):
    hall = replaying.hall
    hall.sink.go_away()
    await until(lambda: not hall.keeper.up)
    await hall.append(30, 31, received_ns=NOW_NS)
    outcome = await replaying.outcome(replaying.ask(to="other"))
    assert outcome.sent == 32
    assert hall.numbers(replaying.other) == list(range(32))
    assert hall.numbers() == list(range(30))


async def test_what_the_route_has_still_to_send_itself_is_not_sent_twice(replaying):
    hall = replaying.hall
    hall.sink.go_away()
    await until(lambda: not hall.keeper.up)
    await hall.append(30, 31, received_ns=NOW_NS)
    name = replaying.ask()
    await until(lambda: not replaying.desk.is_waiting(name))
    hall.sink.come_back()
    assert (await replaying.outcome(name)).sent == 30
    await hall.drained(replaying.route)
    assert sorted(hall.numbers()) == sorted([*range(30), *range(30), 30, 31])
    assert [each.replayed for each in hall.sink.received if each.message.payload in (b"30", b"31")] == [
        False
    ] * 2


async def test_given_a_sink_that_goes_away_in_between_then_all_arrive_in_the_end(replaying):
    hall = replaying.hall
    taken = 0

    def judge(outgoing):
        nonlocal taken
        taken += 1
        if taken == 15:
            hall.sink.go_away()
            asyncio.get_running_loop().call_later(0.02, hall.sink.come_back)
        return None

    hall.sink.judge = judge
    outcome = await replaying.outcome(replaying.ask())
    assert outcome.sent == 30
    assert sorted(set(hall.numbers()[30:])) == list(range(30))


async def test_a_refusal_is_counted_and_makes_no_second_dead_letter(replaying):
    hall = replaying.hall
    hall.sink.judge = lambda outgoing: "too large" if outgoing.message.payload == b"7" else None
    outcome = await replaying.outcome(replaying.ask())
    assert (outcome.sent, outcome.refused) == (29, 1)
    assert hall.spool.dead.count == 0


async def test_a_replay_that_waits_for_its_sink_holds_back_no_segment_and_tells_what_it_missed(
    replaying, monkeypatch
):
    monkeypatch.setattr("bridge.forward.replay._SCAN_MESSAGES", 5)
    hall = replaying.hall
    hall.spool.uplink.history.keep_s = 0
    replaying.other.pause()
    name = replaying.ask(to="other")
    await until(lambda: not replaying.desk.is_waiting(name))
    await asyncio.sleep(0.02)
    head = hall.spool.uplink.head
    uplink = hall.spool.uplink
    for _ in range(30):
        await hall.append(*(["x" * 1000] * 3))
        hall.forwarders[0].cursor.save(uplink.durable)
        uplink.trim()
    assert uplink.head > head
    replaying.other.resume()
    outcome = await replaying.outcome(name)
    assert outcome.error == ""
    assert outcome.missed_bytes > 0
    assert outcome.sent < 30  # one batch was in its hands, and the rest has gone


async def test_given_a_restart_then_a_replay_goes_on_where_it_was(replaying):
    hall = replaying.hall
    replaying.other.pause()
    name = replaying.ask(to="other")
    await until(lambda: not replaying.desk.is_waiting(name))
    taken = []

    def judge(outgoing):
        taken.append(outgoing)
        if len(taken) == 10:
            replaying.other.pause()
        return None

    replaying.other.judge = judge
    await asyncio.sleep(0.02)
    replaying.other.resume()
    await until(lambda: len(taken) == 10)
    await asyncio.sleep(0.02)  # the second batch waits now
    replaying.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await replaying.task
    replaying.other.resume()
    replaying.start()
    outcome = await replaying.outcome(name)
    assert (outcome.resumed, outcome.sent) == (True, 20)
    assert hall.numbers(replaying.other) == list(range(30))


async def test_an_order_taken_back_stops_and_leaves_nothing(replaying):
    replaying.other.pause()
    name = replaying.ask(to="other")
    await until(lambda: not replaying.desk.is_waiting(name))
    replaying.desk.take_back(name)
    await until(lambda: not list((replaying.hall.folder / "replays").iterdir()))
    assert replaying.other.received == []
    assert (await replaying.outcome(replaying.ask())).sent == 30  # the next one is served


@pytest.mark.parametrize(
    ("order", "says"),
    [
        (Order("al", 0, NOW_NS), "there is no route 'al'; there are all"),
        (Order("all", 0, NOW_NS, "clout"), "there is no sink 'clout'; there are cloud, other"),
    ],
)
async def test_an_order_that_cannot_be_is_answered_with_why(replaying, order, says):
    outcome = await replaying.outcome(replaying.desk.ask(order))
    assert outcome.error.startswith(says)


async def test_rubbish_on_the_desk_is_answered_and_harms_nobody(replaying):
    (replaying.hall.folder / "replays" / "x.ask").write_bytes(b"\0{")
    outcome = await replaying.outcome("x")
    assert "malformed" in outcome.error
    assert (await replaying.outcome(replaying.ask())).sent == 30


@pytest.mark.skipif(os.geteuid() != 0, reason="only root asks for another user")
async def test_what_root_asks_for_the_gateway_of_another_user_can_read(replaying):
    replaying.task.cancel()
    os.chown(replaying.desk.folder, 1234, 1235)
    name = replaying.ask()
    found = os.stat(os.path.join(replaying.desk.folder, f"{name}.ask"))
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 1235, 0o600)
