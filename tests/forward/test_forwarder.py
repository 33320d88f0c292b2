"""One route: in order, settled before the cursor moves, and every message accounted for."""

import asyncio
import time
from types import SimpleNamespace

import msgspec
import pytest

from bridge.errors import SinkUnavailable
from bridge.forward.forwarder import BATCHES_IN_FLIGHT
from bridge.forward.keeper import Keeper
from bridge.forward.letters import DeadLetter
from bridge.message import Properties
from bridge.policy.batch import BatchLimits
from bridge.sinks.base import Refusal
from bridge.sinks.memory import MemorySink
from tests.gateway import until


class Handed(MemorySink):
    """Confirms nothing by itself: each batch waits for what the test makes of it."""

    def __init__(self, name="cloud"):
        super().__init__(name)
        self.batches = []

    async def send_batch(self, batch):
        answer = asyncio.get_running_loop().create_future()
        self.batches.append((batch, answer))
        return await answer

    def confirm(self, nth, refusals=()):
        self.batches[nth][1].set_result(list(refusals))

    def fail(self, nth):
        self.batches[nth][1].set_exception(SinkUnavailable("broke"))

    def sent(self):
        return [[int(each.message.payload) for each in batch] for batch, _ in self.batches]


@pytest.fixture
async def handed(hall):
    """A hall whose far end is `Handed`."""
    await hall.spool.close()
    hall.open(Handed())
    return hall


async def test_given_a_sink_that_stays_away_when_messages_become_too_old_then_they_take_no_room(
    hall, monkeypatch
):
    """Only a reader finds what has expired, and a route whose sink is away does not read for sending."""
    monkeypatch.setattr("bridge.forward.forwarder._OVERDUE_EVERY_S", 0.01)
    route = hall.route(max_age_s=60, topic_filter="a")
    now_ns = time.time_ns()
    hall.run(route)
    await hall.append(*range(1200), received_ns=now_ns - 61 * 10**9)
    await hall.append(*range(5), topic="nobody's", received_ns=now_ns)
    await hall.append("fresh", received_ns=now_ns)
    await hall.append("late, and behind one that is not", received_ns=now_ns - 61 * 10**9)
    fresh = hall.spool.uplink.read(0, 2000)[-2]
    await until(lambda: route.cursor.position == fresh.position)
    account = route.account
    assert (account.accepted, account.stored, account.tally.expired) == (1202, 2, 1200)
    hall.run(hall.keeper)
    await hall.drained(route)
    assert [each.message.payload for each in hall.sink.received] == [b"fresh"]
    assert (account.accepted, account.tally.delivered, account.tally.expired) == (1202, 1, 1201)


async def test_given_an_outage_when_the_sink_returns_then_all_arrive_in_order(hall):
    route = hall.route()
    hall.run()
    await hall.append(*range(30))
    await hall.drained(route)
    hall.sink.go_away()
    await until(lambda: not hall.keeper.up)
    for begin in range(30, 130, 10):
        await hall.append(*range(begin, begin + 10))
    assert hall.backlog(route) == 100
    hall.sink.come_back()
    await hall.drained(route)  # without another publish
    assert hall.numbers() == list(range(130))
    assert (route.account.tally.delivered, hall.backlog(route)) == (130, 0)


async def test_a_link_that_returns_is_found_with_the_wait_under_way_and_drained_without_a_publish(
    hall, monkeypatch
):
    waits = []
    monkeypatch.setattr("bridge.forward.keeper.delay", lambda attempt, luck: waits.append(attempt) or 0.02)
    route = hall.route()
    hall.run()
    await hall.append(*range(30))
    hall.sink.go_away()
    await until(lambda: len(waits) >= 5)
    await hall.append(*range(30, 130))
    hall.sink.come_back()
    tries = len(waits)
    await hall.drained(route)
    assert hall.numbers() == list(range(130))
    assert len(waits) <= tries + 1


async def test_ids_name_the_gateway_the_log_and_the_place_in_it(hall):
    hall.route()
    hall.run()
    await hall.append(1, 2, 3)
    await until(lambda: len(hall.sink.received) == 3)
    prefix = f"plant-7/{hall.spool.uplink.epoch:08x}/"
    first = int(hall.sink.received[0].id.removeprefix(prefix))
    assert [each.id for each in hall.sink.received] == [f"{prefix}{first + nth}" for nth in range(3)]


async def test_several_batches_are_under_way_and_the_cursor_moves_only_over_the_settled_prefix(handed):
    route = handed.route()
    begin = route.cursor.position
    handed.run()
    await handed.append(*range(100))
    await until(lambda: len(handed.sink.batches) == BATCHES_IN_FLIGHT)
    handed.sink.confirm(1)
    handed.sink.confirm(2)
    await asyncio.sleep(0.01)
    assert (route.cursor.position, route.account.tally.delivered) == (begin, 0)
    handed.sink.confirm(0)
    await until(lambda: route.account.tally.delivered == 30)
    assert route.cursor.position > begin
    assert handed.backlog(route) == 70
    await until(lambda: len(handed.sink.batches) == BATCHES_IN_FLIGHT + 3)
    assert [number for batch in handed.sink.sent() for number in batch] == list(range(70))


async def test_given_a_link_that_breaks_in_the_middle_then_the_same_ids_come_again(handed):
    route = handed.route()
    handed.run()
    await handed.append(*range(40))
    await until(lambda: len(handed.sink.batches) == 4)
    handed.sink.confirm(0)
    handed.sink.confirm(2)
    handed.sink.fail(1)
    await until(lambda: len(handed.sink.batches) == 7)
    assert handed.sink.sent()[4:] == handed.sink.sent()[1:4]
    for old, new in zip(handed.sink.batches[1:4], handed.sink.batches[4:], strict=True):
        assert [each.id for each in old[0]] == [each.id for each in new[0]]
    for nth in (4, 5, 6):
        handed.sink.confirm(nth)
    await handed.drained(route)
    assert (route.account.tally.delivered, handed.backlog(route)) == (40, 0)
    assert handed.keeper.turn == 2


async def test_a_route_goes_on_where_its_cursor_stood(hall):
    hall.route()
    hall.run()
    await hall.append(*range(25))
    await until(lambda: len(hall.sink.received) == 25)
    hall.sink.pause()
    await hall.append(*range(25, 50))
    await hall.halt()
    await hall.spool.close()
    hall.open()
    route = hall.route()
    await route.count_backlog()
    assert (route.account.tally.delivered, hall.backlog(route), route.account.accepted) == (25, 25, 50)
    hall.run()
    await hall.drained(route)
    assert hall.numbers() == list(range(25, 50))
    assert hall.backlog(route) == 0


async def test_a_batch_is_full_by_count_by_bytes_or_when_its_time_has_come(hall, monkeypatch):
    sizes = []
    send = hall.sink.send_batch

    async def watched(batch):
        sizes.append(len(batch))
        return await send(batch)

    monkeypatch.setattr(hall.sink, "send_batch", watched)
    now_s = [1000.0]
    clock = SimpleNamespace(monotonic=lambda: now_s[0], time_ns=time.time_ns)
    monkeypatch.setattr("bridge.forward.forwarder.time", clock)
    route = hall.route(batch=BatchLimits(5, 2000, 3600.0))
    await hall.append(*range(12))
    hall.run()
    await until(lambda: len(sizes) == 2)
    await asyncio.sleep(0.01)
    assert sizes == [5, 5], "the rest waits for more"
    await hall.append("9" * 3000)
    await until(lambda: len(sizes) >= 3)
    assert sizes[:3] == [5, 5, 3], "one that is larger than allowed ends the batch"
    await hall.append(99)
    await asyncio.sleep(0.01)
    assert len(sizes) == 3
    now_s[0] += 3601
    route._news.set()  # what the clock of the loop would do
    await hall.drained(route)
    assert sizes == [5, 5, 3, 1]


async def test_what_is_too_old_is_counted_and_not_sent_and_an_outage_does_not_count_it_again(handed):
    route = handed.route(max_age_s=3600)
    now_ns = time.time_ns()
    fresh, stale = now_ns, now_ns - 7200 * 10**9
    for nth in range(20):
        await handed.append(nth, received_ns=stale if nth % 2 else fresh)
    handed.run()
    await until(lambda: handed.sink.batches)
    assert route.account.tally.expired == 0, "it counts when the cursor passes"
    handed.sink.fail(0)
    await until(lambda: len(handed.sink.batches) >= 2)
    assert handed.sink.sent()[-1] == list(range(0, 20, 2))
    assert handed.backlog(route) == 20
    handed.sink.confirm(len(handed.sink.batches) - 1)
    await handed.drained(route)
    assert (route.account.tally.delivered, route.account.tally.expired, handed.backlog(route)) == (10, 10, 0)
    await handed.append(*range(5), received_ns=stale)
    await handed.drained(route)
    assert (route.account.tally.expired, handed.backlog(route)) == (15, 0)


async def test_a_message_whose_own_expiry_is_over_is_not_sent(hall):
    route = hall.route()
    about = Properties(message_expiry_interval_s=10)
    await hall.append(1, received_ns=time.time_ns() - 60 * 10**9, properties=about)
    await hall.append(2, received_ns=time.time_ns(), properties=about)
    hall.run()
    await hall.drained(route)
    assert (hall.numbers(), route.account.tally.expired) == ([2], 1)


async def test_a_slow_far_end_does_not_hold_up_the_others(hall):
    slow = Keeper(Handed("slow"))
    stuck = hall.route("stuck", keeper=slow)
    free = hall.route("free")
    hall.run(hall.keeper, slow, stuck, free)
    await hall.append(*range(200))
    await hall.drained(free)
    assert hall.numbers() == list(range(200))
    assert stuck.account.tally.delivered == 0
    assert len(slow.sink.batches) == BATCHES_IN_FLIGHT, "and it takes no memory without end"


async def test_a_route_that_wants_little_lets_the_others_run_while_it_reads_much(hall):
    """Its whole backlog was once read in one stretch, and the loop stood still for that long."""
    route = hall.route("alarms", "alarm/#")
    for _ in range(10):
        await hall.append(*range(2000), topic="telemetry")
    await hall.append(1, topic="alarm/x")
    turns = 0
    hall.run()
    while not hall.sink.received:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 10
    await hall.drained(route)
    assert route.account.tally.delivered == 1


async def test_stop_waits_for_what_is_under_way_and_sends_nothing_more(handed):
    route = handed.route()
    running = handed.run()
    await handed.append(*range(20))
    await until(lambda: len(handed.sink.batches) == 2)
    route.stop()
    await handed.append(*range(20, 40))
    assert not running.done()
    handed.sink.confirm(0)
    handed.sink.confirm(1)
    await asyncio.wait_for(running, 5)
    assert len(handed.sink.batches) == 2
    assert (route.account.tally.delivered, handed.backlog(route)) == (20, 20)


# ---- refusals --------------------------------------------------------------------------


async def test_a_refusal_is_in_the_dead_letters_before_the_cursor_moves(hall):
    hall.sink.judge = lambda outgoing: "no such queue" if outgoing.message.payload == b"3" else None
    route = hall.route()
    hall.run()
    await hall.append(*range(10))
    await hall.drained(route)
    assert (route.account.tally.delivered, route.account.tally.refused) == (9, 1)
    assert hall.numbers() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    (entry,) = hall.spool.dead.read(0)
    letter = msgspec.json.decode(entry.note, type=DeadLetter)
    assert (entry.message.payload, letter.route, letter.reason) == (b"3", "all", "no such queue")
    assert letter.id.startswith("plant-7/")


async def test_while_the_dead_letters_cannot_be_written_the_cursor_stays(hall, monkeypatch):
    hall.sink.judge = lambda outgoing: "never"
    route = hall.route()
    begin = route.cursor.position
    await hall.append(1)
    sync, failing = hall.spool.dead.files.sync, [True]
    tries = []

    def broken(fd):
        if failing[0]:
            tries.append(fd)
            raise OSError(5, "injected")
        sync(fd)

    monkeypatch.setattr(hall.spool.dead.files, "sync", broken, raising=False)
    pause = asyncio.sleep
    monkeypatch.setattr("bridge.forward.forwarder.asyncio.sleep", lambda s: pause(min(s, 0.01)))
    hall.run()
    await until(lambda: len(tries) >= 3)
    assert (route.cursor.position, route.account.tally.refused) == (begin, 0)
    failing[0] = False
    await hall.drained(route)
    assert route.account.tally.refused == 1
    assert [entry.message.payload for entry in hall.spool.dead.read(0)] == [b"1"]


async def test_a_reason_of_any_length_and_letters_finds_room_in_its_note(hall):
    """A far end that explains itself at length once stopped its route for good."""
    hall.sink.judge = lambda outgoing: "\x00🜁" * 50_000 + "\ud800"
    route = hall.route()
    hall.run()
    await hall.append(1)
    await hall.drained(route)
    assert route.account.tally.refused == 1


async def test_one_refusal_names_one_message_of_the_batch(handed):
    route = handed.route()
    handed.run()
    await handed.append(*range(10))
    await until(lambda: handed.sink.batches)
    handed.sink.confirm(0, [Refusal(2, "no"), Refusal(9, "no")])
    await handed.drained(route)
    assert (route.account.tally.delivered, route.account.tally.refused) == (8, 2)
    assert [entry.message.payload for entry in handed.spool.dead.read(0)] == [b"2", b"9"]


# ---- counting --------------------------------------------------------------------------


async def test_the_backlog_of_the_start_is_counted_right_beside_a_drain_that_frees_segments(hall):
    """The drain once overtook the count, and what it had freed was never counted."""
    hall.route()
    for _ in range(20):
        await hall.append(*["7" * 2000] * 500)
    await hall.spool.close()
    hall.open()
    route = hall.route(batch=BatchLimits(500))
    other = hall.route("other", "other/#")
    counting = asyncio.create_task(route.count_backlog())
    hall.run()
    await counting
    assert route.account.accepted == 10_000
    await hall.drained(route)
    assert route.account.tally.delivered == 10_000
    await hall.drained(other)
    assert hall.backlog(route) == 0
    assert hall.spool.uplink.head > 0, "the test is about segments that are gone"
