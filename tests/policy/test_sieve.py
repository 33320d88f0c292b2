"""Report by exception: what passes, what is held, and that a second look never decides otherwise."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.message import Message
from bridge.policy.fields import MessageFields, Subject
from bridge.policy.sieve import GRACE_S, Deadband, Rules, Sieve, parse_sample
from bridge.policy.tokens import ExpressionError
from bridge.policy.where import Condition

S = 1_000_000_000
NOW = 1_800_000_000 * S
FIELDS = MessageFields()
LENGTH = 10  # of a record, here


class Entry(msgspec.Struct, frozen=True):
    position: int
    end: int
    sequence: int
    message: Message


def entry(number, topic="t", value=None, at_s=0.0, payload=None):
    payload = json.dumps({"t": value}).encode() if payload is None else payload
    message = Message(topic, payload, received_ns=NOW + int(at_s * S))
    return Entry(number * LENGTH, (number + 1) * LENGTH, number, message)


def series(*values, topic="t"):
    return [entry(number, topic, value) for number, value in enumerate(values)]


def sieve(where=None, sample=None, delta=None, every_s=None, **more):
    rules = Rules(
        where and Condition.compile(where, FIELDS),
        sample,
        None if delta is None else Deadband.of("payload.t", FIELDS, delta),
        every_s,
    )
    return Sieve(rules, Subject, **more)


def passing(made, entries, mark=0):
    return [each.sequence for each in made.sift(entries, mark)[0]]


# ---- condition and sample ------------------------------------------------------------


def test_what_a_condition_does_not_take_is_held_and_what_cannot_be_told_is_counted():
    made = sieve(where="payload.t > 20")
    entries = [
        *series(21, 19, "hot", None),
        entry(4, payload=b"no JSON"),
        entry(5, payload=b"{}"),
        entry(6, "t", 30),
    ]
    passed, held = made.sift(entries, 0)
    assert [each.sequence for each in passed] == [0, 6]
    assert [each.sequence for each in held] == [1, 2, 3, 4, 5]
    assert (made.not_json, made.unknown) == (1, 3)


@pytest.mark.parametrize("sample", [(1, 10), (3, 7), (1, 1)])
def test_a_sample_is_its_part_of_every_topic_in_whatever_rhythm_they_take_turns(sample):
    made = sieve(sample=sample)
    share = sample[0] / sample[1]
    for turns in (1, 2, 7, 10):
        entries = [entry(number, value=0) for number in range(0, 20_000 * turns, turns)]
        assert len(passing(made, entries)) / 20_000 == pytest.approx(share, rel=0.08)


def test_a_sample_is_always_the_same():
    entries = series(*range(1000))
    assert passing(sieve(sample=(1, 10)), entries) == passing(sieve(sample=(1, 10)), entries)


SAMPLES = [
    "",
    "1",
    "/",
    "0/10",
    "11/10",
    "1/0",
    "1/10000000",
    "a/b",
    "1 / 10",
    "-1/10",
    "1/10/2",
    "٣/10",
    "0.1",
]


def test_a_sample_is_spelled_as_a_part():
    assert parse_sample("1/10") == (1, 10)
    for text in SAMPLES:
        with pytest.raises(ValueError, match="such as 1/10"):
            parse_sample(text)


# ---- deadband --------------------------------------------------------------------------


def test_a_deadband_passes_what_has_moved_since_the_last_that_passed():
    made = sieve(delta=0.5)
    values = [20.0, 20.2, 20.4, 20.5, 20.1, 20.0, 19.9, 25, 25.4]
    assert [values[n] for n in passing(made, series(*values))] == [20.0, 20.5, 20.0, 25]


def test_a_slow_drift_is_not_missed():
    made = sieve(delta=1)
    drift = [n / 10 for n in range(100)]
    assert [drift[n] for n in passing(made, series(*drift))] == [float(n) for n in range(10)]


def test_topics_have_deadbands_of_their_own():
    made = sieve(delta=1)
    entries = [entry(0, "a", 1), entry(1, "b", 5), entry(2, "a", 1.5), entry(3, "b", 5.5), entry(4, "a", 2)]
    assert passing(made, entries) == [0, 1, 4]


@pytest.mark.parametrize("news", [b"{}", b"no JSON", b'{"t": "broken"}', b'{"t": null}', b'{"t": true}'])
def test_what_is_no_number_is_news_and_so_is_the_number_after_it(news):
    made = sieve(delta=1)
    entries = [
        entry(0, value=5),
        entry(1, value=5),
        entry(2, payload=news),
        entry(3, value=5),
        entry(4, value=5),
    ]
    assert passing(made, entries) == [0, 2, 3]


def test_numbers_that_no_double_can_hold_are_news_and_no_exception():
    huge = b'{"t": ' + b"9" * 400 + b"}"
    entries = [entry(0, value=5), entry(1, payload=huge), entry(2, payload=huge), entry(3, value=1e308)]
    assert passing(sieve(delta=1), entries) == [0, 1, 2, 3]


def test_given_topics_without_end_then_memory_has_one_and_more_is_sent_not_less():
    made = sieve(delta=1, topics_max=10)
    entries = [entry(number, f"t{number % 20}", 5) for number in range(200)]
    assert passing(made, entries) == list(range(200))
    assert len(made._last) <= 10
    few = [entry(1000 + number, f"u{number % 10}", 5) for number in range(200)]
    assert passing(made, few) == list(range(1000, 1010))


def test_behind_what_was_delivered_in_an_earlier_life_the_next_is_news():
    """Or 20.1 would be held for the sake of 20.0, while the far end has 25 from before the restart."""
    made = sieve(delta=1)
    entries = series(20.0, 25.0, 20.1, 20.2)
    assert passing(made, entries[:1]) == [0]
    made.pass_over(entries[2].position)
    assert passing(made, entries[2:]) == [2]


def test_what_this_life_has_decided_stays_so_when_it_is_passed_over():
    made = sieve(delta=1)
    entries = series(20.0, 25.0, 25.1, 25.2)
    assert passing(made, entries[:3]) == [0, 1]
    made.pass_over(entries[2].position)
    assert passing(made, entries[2:]) == []


def test_a_deadband_wants_a_number():
    with pytest.raises(ExpressionError, match="wants a number"):
        Deadband.of("topic", FIELDS, 1)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 6)), max_size=60), st.data())
def test_however_often_the_link_breaks_what_was_decided_stays_decided(values, draw):
    entries = [entry(number, topic, value) for number, (topic, value) in enumerate(values)]
    undisturbed = passing(sieve(delta=2), entries)
    made, at, mark, sent = sieve(delta=2), 0, 0, {}
    made._kept_max = 3  # so that old decisions are forgotten on the way
    while at < len(entries):
        end = draw.draw(st.integers(at + 1, len(entries)))
        for number in passing(made, entries[at:end], entries[mark].position):
            sent[number] = True
        at = end
        mark = draw.draw(st.integers(mark, at - 1))  # the far end has confirmed so much
        if draw.draw(st.booleans()):
            at = mark  # the link breaks: read again from there
    assert sorted(sent) == undisturbed


# ---- every ---------------------------------------------------------------------------


class Reader:
    """Reads a log for a sieve as a forwarder does: looks ahead, and sifts what is decided."""

    def __init__(self, made, entries):
        self.made, self.entries = made, entries
        self.at = 0
        self.sent = []

    def turn(self, count, now_ns, now_s, end=None):
        end = len(self.entries) if end is None else end
        made = self.made
        while True:
            ahead = [each for each in self.entries[:end] if each.position >= made.scanned][:count]
            if ahead:
                made.look(ahead, ahead[-1].end, now_ns, now_s)
            else:
                made.lapse(now_s)
            ready = [each for each in self.entries[self.at : end] if each.position < made.decided]
            if ready:
                self.sent += passing(made, ready)
                self.at += len(ready)
            elif not ahead:
                return


def expected_every(entries, period_s, first=0):
    """The latest of each topic in each run of one period."""
    latest, period = {}, None
    sent = []
    for each in entries[first:]:
        number = each.message.received_ns // int(period_s * S)
        if number != period:
            sent += sorted(latest.values())
            latest, period = {}, number
        latest[each.message.topic] = each.sequence
    return sent + sorted(latest.values())


def test_of_a_period_the_latest_of_each_topic_is_sent_at_its_end_though_nothing_more_comes():
    entries = [entry(0, "a", 1, 0.1), entry(1, "b", 2, 0.2), entry(2, "a", 3, 9.5)]
    reader = Reader(sieve(every_s=10), entries)
    reader.turn(100, NOW + int(9.6 * S), 1000.0)
    assert reader.sent == []
    assert reader.made.decided == 0  # so the cursor stays where it is
    assert reader.made.due_s == pytest.approx(1000.4 + GRACE_S)
    reader.turn(100, NOW + 10 * S, 1000.4)
    assert reader.sent == []
    reader.turn(100, NOW + 10 * S, 1000.4 + GRACE_S)
    assert reader.sent == [1, 2]
    assert reader.made.decided == entries[-1].end


def test_a_backlog_is_thinned_out_like_live_traffic():
    entries = [entry(number, f"t{number % 3}", 0, number * 0.25) for number in range(1000)]
    reader = Reader(sieve(every_s=10), entries)
    reader.turn(50, NOW + 10**6 * S, 5.0)
    reader.turn(50, NOW + 10**6 * S, 5.0 + GRACE_S)
    assert reader.sent == expected_every(entries, 10)
    assert len(reader.sent) == 3 * 25


def test_the_condition_comes_before_the_period():
    entries = [entry(0, "a", 30, 0), entry(1, "a", 10, 1), entry(2, "b", 10, 2)]
    reader = Reader(sieve(where="payload.t > 20", every_s=10), entries)
    reader.turn(1, NOW, 0.0)
    reader.turn(1, NOW, 60.0)
    assert reader.sent == [0]


def test_what_does_not_pass_holds_no_cursor():
    entries = [entry(number, "a", 10, number) for number in range(5)]
    made = sieve(where="payload.t > 20", every_s=3600)
    Reader(made, entries).turn(2, NOW, 0.0)
    assert made.decided == entries[-1].end
    assert made.due_s is None


def test_given_a_clock_that_was_set_back_then_what_is_held_goes_within_a_period():
    entries = [entry(0, "a", 1, 3600), entry(1, "a", 2, 3601)]
    reader = Reader(sieve(every_s=10), entries)
    reader.turn(10, NOW, 0.0)
    reader.turn(10, NOW, 10 + GRACE_S)
    assert reader.sent == [1]


def test_given_a_clock_that_jumps_between_two_then_both_are_sent():
    entries = [entry(0, "a", 1, 0), entry(1, "a", 2, 86_400), entry(2, "a", 3, 1)]
    reader = Reader(sieve(every_s=10), entries)
    reader.turn(10, NOW, 0.0)
    reader.turn(10, NOW, 100.0)
    assert reader.sent == [0, 1, 2]


def test_given_more_topics_than_it_can_remember_then_it_sends_early_and_loses_none():
    entries = [entry(number, f"t{number}", 0, 0) for number in range(95)]
    made = sieve(every_s=3600, topics_max=10)
    reader = Reader(made, entries)
    reader.turn(7, NOW, 0.0)
    assert reader.sent == list(range(90))
    assert len(made._latest) == 5
    reader.turn(7, NOW, 3600 + GRACE_S)
    assert reader.sent == list(range(95))


def test_a_restart_in_the_middle_of_a_period_sends_its_latest():
    entries = [entry(0, "a", 1, 1), entry(1, "b", 2, 2), entry(2, "a", 3, 3)]
    Reader(sieve(every_s=10), entries).turn(10, NOW, 0.0)  # held, then killed: the cursor has not moved
    again = Reader(sieve(every_s=10), entries)
    again.turn(10, NOW + 60 * S, 0.0)
    again.turn(10, NOW + 60 * S, GRACE_S)
    assert again.sent == [1, 2]


moments = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 8)), max_size=40)
# How much more has arrived, how much is read at once, and how much the far end has when the link breaks.
turns = st.lists(st.tuples(st.integers(0, 15), st.integers(1, 7), st.none() | st.floats(0, 1)), max_size=10)


@settings(max_examples=200, deadline=None)
@given(moments, turns)
def test_however_it_is_read_each_topic_and_period_sends_its_latest_once(moments, turns):
    passed_s, entries = 0, []
    for number, (topic, later_s) in enumerate(moments):
        passed_s += later_s
        entries.append(entry(number, topic, 0, passed_s))
    made = sieve(every_s=10)
    made._kept_max = 3
    reader = Reader(made, entries)
    end = mark = 0
    confirmed = []
    for more, count, breaks in turns:
        # Live: nothing is read before it arrives. The clock stands where the last message was.
        end = min(len(entries), end + more)
        at_s = (entries[end - 1].message.received_ns - NOW) / S if end else 0.0
        reader.turn(count, NOW + int(at_s * S), at_s, end)
        if breaks is not None:
            known = mark + int(breaks * (reader.at - mark))
            confirmed += [each for each in reader.sent if mark <= each < known]
            mark = reader.at = known
            reader.sent = []
    reader.turn(5, NOW + 10**6 * S, 10.0**6)
    reader.turn(5, NOW + 10**6 * S, 10.0**6 + 11)
    confirmed += reader.sent
    assert confirmed == expected_every(entries, 10)
