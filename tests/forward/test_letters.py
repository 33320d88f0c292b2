"""Dead letters: they wait, are counted, make way, go back on their way or are dropped."""

import asyncio
import json
import random

import msgspec
import pytest

from bridge.forward.keeper import Keeper
from bridge.forward.letters import KINDS_MAX, DeadLetter, Letters, Selection, kind_of, letter_of
from bridge.forward.orders import LetterOrder, letter_desk
from bridge.forward.redelivery import Redelivery
from bridge.message import Message
from bridge.sinks.memory import MemorySink
from bridge.store import Entry, Spool
from tests.gateway import until


def waiting(letters):
    """Every letter that waits, as the log has it."""
    found, position = [], letters.head
    while entries := letters.read(position):
        position = entries[-1].end
        found += [entry for entry in entries if letters.waits(entry)]
    return found


def counted(letters):
    """What `counts` has to be."""
    counts = {}
    for entry in waiting(letters):
        letter = letter_of(entry)
        kinds = counts.setdefault(letter.route, {})
        kinds[kind_of(letter.reason)] = kinds.get(kind_of(letter.reason), 0) + 1
    return counts


class Office:
    """A hall with dead letters of two routes, a second sink, and a desk that is looked at often."""

    def __init__(self, hall):
        self.hall = hall
        self.other = MemorySink("other")
        self.other_keeper = Keeper(self.other)
        self.desk = letter_desk(str(hall.folder))

    def start(self):
        hall = self.hall
        keepers = {"cloud": hall.keeper, "other": self.other_keeper}
        hall.run(hall.keeper, *hall.forwarders, self.other_keeper, hall.letters)
        hall.run(Redelivery(self.desk, hall.letters, hall.forwarders, keepers))

    async def bury(self, *numbers, route="all", reason="too large", topic="a"):
        for number in numbers:
            note = DeadLetter(f"plant-7/0000abcd/{number}", route, "cloud", reason, 1, 3)
            message = Message(topic, str(number).encode(), 1, received_ns=2 * 10**18)
            self.hall.letters.bury(Entry(0, 100, number, message), note)
        assert await self.hall.spool.committer.flush() is None

    async def done(self, what, to="", **selection):
        name = self.desk.ask(LetterOrder(what, Selection(**selection), to))
        found = []
        await until(lambda: found.append(self.desk.outcome(name)) or found[-1], 30)
        return found[-1]

    def left(self):
        return [int(entry.message.payload) for entry in waiting(self.hall.letters)]


@pytest.fixture
async def office(hall, monkeypatch):
    monkeypatch.setattr("bridge.forward.clerk.LOOK_EVERY_S", 0.005)
    hall.route("all")
    hall.route("alarms", "alarm/#")
    office = Office(hall)
    office.start()
    await asyncio.sleep(0)
    return office


# ---- they wait and are counted ---------------------------------------------------------


async def test_they_are_counted_by_route_and_kind_of_reason_also_after_a_restart(office):
    hall = office.hall
    await office.bury(1, 2, reason="no queue takes it: exchange 'plant', routing key 'a.1'")
    await office.bury(3, reason="no queue takes it: exchange 'plant', routing key 'a.2'")
    await office.bury(4, route="alarms")
    there = {"all": {"no queue takes it: exchange '…', routing key '…'": 3}, "alarms": {"too large": 1}}
    await until(lambda: hall.letters.counts == there)
    assert hall.letters.waiting == 4
    await hall.close()
    hall.open()
    assert hall.letters.waiting == 0
    hall.run(hall.letters)
    await until(lambda: hall.letters.counts == there)


async def test_reasons_without_end_are_counted_as_others_and_taken_off_again(office):
    hall = office.hall
    await office.bury(*range(KINDS_MAX), reason="first")
    for number in range(3 * KINDS_MAX):
        await office.bury(100 + number, reason=f"reason {number}")
    await until(lambda: hall.letters.waiting == 4 * KINDS_MAX)
    assert len(hall.letters.counts["all"]) == KINDS_MAX + 1
    assert hall.letters.counts["all"]["other"] == 2 * KINDS_MAX + 1
    luck = random.Random(3)
    entries = waiting(hall.letters)
    luck.shuffle(entries)
    for entry in entries:
        hall.letters.settle([entry])
        assert hall.letters.waiting == len(waiting(hall.letters))
    assert hall.letters.counts == {}


async def test_a_note_that_cannot_be_read_hides_no_message(office):
    office.hall.spool.dead.append(Message("a", b"7"), b"refused")
    assert await office.hall.spool.committer.flush() is None
    await until(lambda: office.hall.letters.waiting == 1)
    assert office.left() == [7]
    assert office.hall.letters.counts == {"": {"its note cannot be read": 1}}
    assert (await office.done("replay", to="other")).settled == 1
    assert office.left() == []


async def test_a_note_of_an_earlier_version_is_a_letter_too(office):
    old = {"id": "plant-7/1/9", "route": "all", "sink": "cloud", "reason": "no", "refused_at_ns": 5}
    entry = Entry(0, 1, 1, Message("a", b"x"), json.dumps(old).encode())
    assert letter_of(entry) == DeadLetter("plant-7/1/9", "all", "cloud", "no", 5, 1)


async def test_when_there_is_no_room_the_oldest_make_way_and_are_counted_by_route(tmp_path):
    spool = Spool.open(str(tmp_path), 2 << 20)
    letters = Letters(spool)
    task = asyncio.create_task(letters.run())
    size = 2_000
    for number in range(600):
        route = "all" if number % 3 else "alarms"
        message = Message("a", b"%06d" % number + bytes(size), 1)
        letters.bury(
            Entry(0, size + 100, number, message), DeadLetter(f"g/1/{number}", route, "cloud", "no", 1)
        )
        if number % 7 == 0:
            assert await spool.committer.flush() is None
            await asyncio.sleep(0)
    assert await spool.committer.flush() is None
    await until(lambda: letters.waiting == len(waiting(letters)))
    left = [int(entry.message.payload[:6]) for entry in waiting(letters)]
    assert left == list(range(left[0], 600)), "the oldest went first, and nothing else"
    assert left[0] > 300, "the quota of dead letters is a tenth"
    assert spool.dead.size <= spool.dead.max_bytes + spool.dead.segment_bytes
    gone = range(left[0])
    assert letters.lost == {"all": sum(n % 3 > 0 for n in gone), "alarms": sum(n % 3 == 0 for n in gone)}
    assert letters.dropped()["alarms"] == {"oldest": letters.lost["alarms"]}
    assert letters.counts == counted(letters)
    task.cancel()
    await spool.close()
    spool = Spool.open(str(tmp_path), 2 << 20)
    assert [int(entry.message.payload[:6]) for entry in waiting(Letters(spool))] == left
    await spool.close()


# ---- they go ---------------------------------------------------------------------------


async def test_a_letter_goes_back_through_its_route_under_its_old_id_and_marked(office):
    await office.bury(1, 2, 3)
    outcome = await office.done("replay")
    assert (outcome.settled, outcome.refused, outcome.error) == (3, 0, "")
    sent = office.hall.sink.received
    assert [each.id for each in sent] == [f"plant-7/0000abcd/{number}" for number in (1, 2, 3)]
    assert all(each.replayed for each in sent)
    assert [each.message.payload for each in sent] == [b"1", b"2", b"3"]
    assert office.left() == []
    assert office.hall.letters.waiting == 0


async def test_only_those_that_are_meant_go(office):
    await office.bury(1, 2, reason="Too large")
    await office.bury(3, 4, reason="no queue")
    await office.bury(5, route="alarms", topic="alarm/x", reason="no queue")
    assert (await office.done("drop", reason="too LARGE")).settled == 2
    assert office.left() == [3, 4, 5]
    assert (await office.done("replay", route="alarms", to="other")).settled == 1
    assert [each.message.topic for each in office.other.received] == ["alarm/x"]
    assert (await office.done("drop", ids=["plant-7/0000abcd/3"])).settled == 1
    assert (await office.done("drop", ids=["4"])).settled == 1
    assert office.left() == []
    assert office.hall.sink.received == []


async def test_what_is_refused_again_stays_with_the_reason_told(office):
    office.hall.sink.judge = lambda outgoing: "still no" if outgoing.message.payload == b"2" else None
    await office.bury(1, 2, 3)
    outcome = await office.done("replay")
    assert (outcome.settled, outcome.refused, outcome.reason) == (2, 1, "still no")
    assert office.left() == [2]
    assert office.hall.letters.counts == {"all": {"too large": 1}}


async def test_a_letter_whose_route_is_gone_needs_a_sink_to_go_to(office):
    await office.bury(1, route="gone", topic="plant/9")
    outcome = await office.done("replay")
    assert (outcome.settled, outcome.stranded) == (0, 1)
    assert office.left() == [1]
    assert (await office.done("replay", to="other")).settled == 1
    assert [each.address for each in office.other.received] == ["plant/9"]


async def test_while_the_far_end_is_away_nothing_is_settled_and_then_all_of_it(office):
    hall = office.hall
    await office.bury(*range(100))
    hall.sink.pause()
    name = office.desk.ask(LetterOrder("replay", Selection()))
    await until(lambda: not office.desk.is_waiting(name))
    await asyncio.sleep(0.05)
    hall.sink.go_away()
    await until(lambda: not hall.keeper.up)
    assert office.left() == list(range(100))
    hall.sink.resume()
    hall.sink.come_back()
    await until(lambda: office.left() == [])
    assert sorted({int(each.message.payload) for each in hall.sink.received}) == list(range(100))


async def test_a_route_whose_sink_is_away_keeps_the_letters_of_no_other_waiting(office):
    hall = office.hall
    hall.forwarders[1].keeper = office.other_keeper
    await office.bury(*range(30))
    await office.bury(*range(30, 60), route="alarms", topic="alarm/x")
    hall.sink.pause()
    name = office.desk.ask(LetterOrder("replay", Selection()))
    await until(lambda: office.left() == list(range(30)))
    hall.sink.resume()
    await until(lambda: office.left() == [])
    found = []
    await until(lambda: found.append(office.desk.outcome(name)) or found[-1])
    assert found[-1].settled == 60


async def test_an_order_goes_on_after_a_restart_with_those_that_still_wait(office):
    hall = office.hall
    await office.bury(*range(200))
    sent = []

    def judge(outgoing):
        sent.append(outgoing.id)
        if len(sent) == 75:
            hall.sink.pause()  # the fourth batch of 20 or so is never confirmed
        return None

    hall.sink.judge = judge
    name = office.desk.ask(LetterOrder("replay", Selection()))
    await until(lambda: len(sent) >= 75)
    await asyncio.sleep(0.05)
    await hall.close()
    first = hall.sink
    hall.open()
    hall.route("all")
    office.start()
    await until(lambda: office.left() == [])
    again = [int(each.message.payload) for each in hall.sink.received]
    assert again == list(range(again[0], 200)), "it goes on where it was, and begins nothing anew"
    assert 60 <= again[0] <= 80
    before = {int(each.message.payload) for each in first.received}
    assert before | set(again) == set(range(200))
    found = []
    await until(lambda: found.append(office.desk.outcome(name)) or found[-1])
    assert found[-1].resumed


async def test_an_order_ends_where_the_letters_ended_when_it_was_taken(office):
    hall = office.hall
    hall.sink.judge = lambda outgoing: "never"
    route = hall.forwarders[0]
    await hall.append(1, 2)
    await hall.drained(route)
    outcome = await office.done("replay")
    assert (outcome.settled, outcome.refused) == (0, 2), "what is refused again is no new letter"
    assert office.left() == [1, 2]


async def test_what_is_settled_frees_the_segments_it_lay_in(hall):
    hall.spool.dead.segment_bytes = 16 << 10
    office = Office(hall)
    hall.route("all")
    office.start()
    await office.bury(*range(50), topic="t" * 1000)
    for number in range(50, 300):
        await office.bury(number, topic="t" * 1000)
    before = hall.spool.dead.size
    await office.done("drop", ids=[str(number) for number in range(250)])
    assert office.left() == list(range(250, 300))
    assert hall.spool.dead.size < before / 3
    assert hall.spool.dead.read(0)[0].message.payload > b"2"


async def test_a_sink_that_is_none_is_told(office):
    assert "there is no sink 'clowd'" in (await office.done("replay", to="clowd")).error


async def test_an_order_that_is_none_is_told(office):
    await office.done("drop", ids=["1"])  # by now the desk is there
    with open(f"{office.desk.folder}/bad.ask", "w") as file:
        file.write('{"what": "burn"}')
    found = []
    await until(lambda: found.append(office.desk.outcome("bad")) or found[-1])
    assert "burn" in found[-1].error


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("the routing key has 300 bytes", "the routing key has 300 bytes"),
        ("exchange 'a', key \"b'c\"", "exchange '…', key '…'"),
        ("it's one quote", "it's one quote"),
        ("x" * 500, "x" * 120),
    ],
)
def test_a_kind_leaves_out_what_stands_in_quotes(reason, kind):
    assert kind_of(reason) == kind


def test_a_selection_that_is_empty_means_all_of_them():
    letter = DeadLetter("g/1/7", "all", "cloud", "no", 1)
    assert Selection().has(letter)
    assert not Selection(ids=["17"]).has(letter)
    assert not Selection("al").has(letter)
    assert Selection("all").has(msgspec.structs.replace(letter, route="all.second")), "a lane of that route"
    assert msgspec.json.decode(msgspec.json.encode(Selection(ids=["7"])), type=Selection).has(letter)
