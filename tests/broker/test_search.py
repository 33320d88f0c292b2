"""Retained messages for new subscriptions: all of them, in bounded parts, whoever asks for how much."""

import time

import pytest

from bridge.broker.limits import Limits
from bridge.broker.retained import Retained
from bridge.broker.search import FOUND_MAX, LOOK_AT_ONCE, Search
from bridge.message import Message
from bridge.mqtt.packet import PINGREQ, Pingresp, Puback, Publish, Suback, Subscribe, Subscription
from bridge.topic import matches


class Table(dict):
    put = dict.__setitem__
    delete = dict.__delitem__


def retained_with(*topics):
    retained = Retained(Table(), Limits())
    for topic in topics:
        assert retained.keep(Message(topic, b"x", 1, True, "", 0, None))
    return retained


def all_of(search, retained, most=7):
    found = []
    while search:
        search.look(retained, most)
        while search.found:
            topic, subscription = search.found.popleft()
            found.append((topic, subscription.topic_filter))
    return found


TOPICS = [f"{a}/{b}" for a in "abc" for b in range(20)] + ["$SYS/x", "alone"]


@pytest.mark.parametrize("most", [1, 7, 1_000])
def test_every_filter_finds_what_it_matches_however_small_the_parts(most):
    retained, search = retained_with(*TOPICS), Search()
    filters = ["a/+", "+/7", "#", "$SYS/#", "b/3", "nothing", "alone"]
    for topic_filter in filters:
        search.want(retained, Subscription(topic_filter, 1))
    found = all_of(search, retained, most)
    assert sorted(found) == sorted((t, f) for f in filters for t in TOPICS if matches(f, t))


def test_what_is_wanted_while_a_pass_is_under_way_comes_after_it_once():
    retained, search = retained_with(*TOPICS), Search()
    search.want(retained, Subscription("a/+", 1))
    search.look(retained, 3)
    for qos in (0, 1, 2):
        search.want(retained, Subscription("b/+", qos))
    found = all_of(search, retained)
    assert [topic_filter for _, topic_filter in found] == ["a/+"] * 20 + ["b/+"] * 20


def test_what_is_retained_between_two_subscriptions_is_found_by_the_second_only():
    """Both lie in one read: the first hears of it as of any other message."""
    retained, search = retained_with("a/1"), Search()
    search.want(retained, Subscription("a/#", 1))
    retained.keep(Message("a/2", b"x", 1, True, "", 0, None))
    search.want(retained, Subscription("+/2", 1))
    assert all_of(search, retained) == [("a/1", "a/#"), ("a/2", "+/2")]


def test_a_device_that_subscribes_for_ever_and_reads_nothing_holds_a_bounded_amount():
    retained, search = retained_with(*(f"t/{nth}" for nth in range(2_000))), Search()
    for nth in range(100):
        for number in range(50):
            search.want(retained, Subscription(f"+/{number}", nth % 3))
            search.want(retained, Subscription(f"t/{number}", nth % 3))
            search.want(retained, Subscription("#", nth % 3))
        search.look(retained, 500)
    assert len(search.found) <= FOUND_MAX + 51
    assert len(search._next) <= 101


def test_a_session_that_is_over_looks_for_nothing():
    retained, search = retained_with(*TOPICS), Search()
    search.want(retained, Subscription("#", 1))
    search.look(retained, 3)
    search.want(retained, Subscription("+/+", 1))
    search.clear()
    assert not search
    assert all_of(search, retained) == []


# ---- in the house ----------------------------------------------------------------------


@pytest.mark.parametrize("lasts", [False, True])
@pytest.mark.parametrize("qos", [0, 1])
async def test_more_retained_messages_than_one_turn_looks_at_all_arrive(house, lasts, qos):
    count = 2 * LOOK_AT_ONCE + 30
    sender = await house.connect("sender")
    for nth in range(count):
        sender.publish(f"r/{nth}", b"x", 1, 1 + nth % 500, retain=True)
        if nth % 500 == 499 or nth == count - 1:
            await sender.several(Puback, nth % 500 + 1)
    device = await house.connect(clean=not lasts, expiry_s=1000 if lasts else None)
    await device.subscribe(Subscription("r/#", qos), Subscription("none/+", qos))
    topics = set()
    for _ in range(count):
        packet = await device.expect(Publish)
        assert packet.retain
        topics.add(packet.topic)
        if packet.qos:
            device.send(Puback(packet.packet_id))
    assert len(topics) == count
    await device.quiet()


async def test_a_thousand_wildcards_over_a_hundred_thousand_topics_stop_nobody(house):
    """Ten kilobytes of SUBSCRIBE once held the loop for as long as it takes to ask so many times: 40 s."""
    for nth in range(99_000):
        house.broker.retained.keep(Message(f"plant/{nth % 300}/{nth}", b"x", 1, True, "", 0, None))
    hostile, other = await house.connect("hostile", 4), await house.connect("other", 4)
    hostile.send(Subscribe(1, tuple(Subscription(f"+/+/+/{nth}", 0) for nth in range(1_000))))
    await hostile.expect(Suback)
    waits_s = []
    while house.broker.subscribers["hostile"].search:
        began = time.process_time()  # of both ends: whoever else works on this machine does not count
        other.send(PINGREQ)
        await other.expect(Pingresp)
        waits_s.append(time.process_time() - began)
    assert len(waits_s) > 10, "the loop was held, or there was nothing to look for"
    assert sorted(waits_s)[len(waits_s) // 2] < 0.05
