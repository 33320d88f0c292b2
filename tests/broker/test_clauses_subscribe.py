"""SUBSCRIBE and UNSUBSCRIBE as 3.1.1 and 5 ask for them: tests that rows of the clause tables name."""

import pytest

from bridge.mqtt.packet import (
    Puback,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
)
from bridge.mqtt.reason import ReasonCode
from tests.broker.test_clauses_connect import both, lasting
from tests.gateway import until


async def retained(house, version, *topics):
    sender = await house.connect("retaining", version)
    for nth, topic in enumerate(topics, 1):
        sender.publish(topic, b"kept", 1, nth, retain=True)
        await sender.expect(Puback)
    sender.drop()


def either(version):
    """Both kinds of session: through memory where it ends with its connection, else through the log."""
    return [{"version": version}, lasting(version)]


@both
@pytest.mark.parametrize("lasts", [0, 1])
async def test_suback_and_unsuback_carry_the_identifier_of_what_they_answer(house, version, lasts):
    device = await house.connect(**either(version)[lasts])
    for packet_id in (65_535, 1, 258):
        device.send(Subscribe(packet_id, (Subscription("a", 1),)))
        assert (await device.expect(Suback)).packet_id == packet_id
        device.send(Unsubscribe(packet_id, ("a",)))
        assert (await device.expect(Unsuback)).packet_id == packet_id


@both
@pytest.mark.parametrize("lasts", [0, 1])
async def test_suback_has_one_answer_for_each_filter_in_their_order(bare, version, lasts):
    await bare.start(limits={"subscriptions": 4})
    device = await bare.connect(**either(version)[lasts])
    wanted = [("a", 2), ("b", 0), ("c/#", 1), ("d", 2), ("e", 1), ("a", 1), ("f", 0)]
    device.send(Subscribe(7, tuple(Subscription(*each) for each in wanted)))
    refused = ReasonCode.QUOTA_EXCEEDED if version == 5 else 0x80
    suback = await device.expect(Suback)
    assert (suback.packet_id, suback.reasons) == (7, (2, 0, 1, 2, refused, 1, refused))


@both
async def test_many_filters_in_one_packet_do_what_as_many_packets_do_and_are_answered_once(house, version):
    await retained(house, version, "a", "b")
    at_once, in_turn = await house.connect("at once", version), await house.connect("in turn", version)
    subscriptions = tuple(Subscription(*each) for each in (("a", 0), ("b", 1), ("a", 2)))
    at_once.send(Subscribe(1, subscriptions))
    assert (await at_once.expect(Suback)).reasons == (0, 1, 2)
    got = await at_once.several(Publish, 3)
    for subscription in subscriptions:
        in_turn.send(Subscribe(1, (subscription,)))
        assert (await in_turn.expect(Suback)).reasons == (subscription.qos,)
        got.append(await in_turn.expect(Publish))
    assert [(each.topic, each.qos) for each in got] == [("a", 0), ("b", 1), ("a", 1)] * 2
    for name, device in (("at once", at_once), ("in turn", in_turn)):
        device.send(Unsubscribe(2, ("a", "x", "b")))
        assert (await device.expect(Unsuback)).reasons == ((0, 0x11, 0) if version == 5 else ())
        assert not house.broker.subscriptions.of(house.broker.subscribers[name])
        await device.quiet()


@both
async def test_the_same_filter_again_replaces_the_subscription_and_brings_the_retained_again(house, version):
    await retained(house, version, "a")
    device = await house.connect("device", version)
    for qos in (2, 0):
        assert (await device.subscribe("a", qos=qos)).reasons == (qos,)
        got = await device.expect(Publish)
        assert (got.retain, got.qos) == (True, min(qos, 1))
    sender = await house.connect("sender", version)
    sender.publish("a", b"x", 2, 1)
    assert (await device.expect(Publish)).qos == 0  # by the new one, and once
    await device.quiet()


@both
@pytest.mark.parametrize("lasts", [0, 1])
async def test_replacing_a_subscription_loses_nothing_of_what_flows(house, version, lasts):
    device = await house.connect(**either(version)[lasts])
    await device.subscribe("a", qos=1)
    sender = await house.connect("sender", version)
    for nth in range(1, 101):
        sender.publish("a", b"%d" % nth, 1, nth)
        if nth % 10 == 0:
            device.send(Subscribe(nth, (Subscription("a", 1),)))
    got, subacks = [], 0
    while len(got) < 100 or subacks < 10:
        packet = await device.next()
        if isinstance(packet, Suback):
            subacks += 1
        else:
            got.append(int(packet.payload))
            device.send(Puback(packet.packet_id))
    assert got == list(range(1, 101))


@both
async def test_an_unsubscribe_for_nothing_is_answered_all_the_same(house, version):
    device = await house.connect("device", version)
    device.send(Unsubscribe(3, ("never/subscribed", "+")))
    assert await device.expect(Unsuback) == Unsuback(3, (0x11, 0x11) if version == 5 else ())


@both
@pytest.mark.parametrize("other", ["a/+", "a/#", "a/B", "a", "a/b/", "/a/b", "+/b", "a/b "])
async def test_only_the_very_same_filter_is_unsubscribed(house, version, other):
    device = await house.connect("device", version)
    await device.subscribe("a/b")
    device.send(Unsubscribe(3, (other,)))
    await device.expect(Unsuback)
    sender = await house.connect("sender", version)
    await sender.published("a/b", b"still")
    assert await device.receive(1) == [b"still"]
    device.send(Unsubscribe(3, ("a/b",)))
    await device.expect(Unsuback)
    await sender.published("a/b", b"no more", 2)
    await device.quiet()


@both
@pytest.mark.parametrize("lasts", [0, 1])
async def test_what_was_begun_before_unsubscribe_is_finished(house, version, lasts):
    device = await house.connect(**either(version)[lasts])
    await device.subscribe("a", qos=2)
    sender = await house.connect("sender", version)
    sender.publish("a", b"1", 1, 1)
    sender.publish("a", b"2", 2, 2)
    one, two = await device.several(Publish, 2)
    device.send(Unsubscribe(3, ("a",)))
    await device.expect(Unsuback)
    sender.publish("a", b"3", 1, 3)
    await sender.several(Puback, 1)
    device.send(Pubrec(two.packet_id))
    assert (await device.expect(Pubrel)).packet_id == two.packet_id
    if not lasts:
        return
    device.drop()
    await until(lambda: len(house.broker.links) == 1)
    device = await house.connect(**lasting(version))
    again = await device.expect(Publish)
    assert (again.packet_id, again.payload, again.dup) == (one.packet_id, b"1", True)
    assert (await device.expect(Pubrel)).packet_id == two.packet_id
    await device.quiet()


@both
async def test_every_kind_of_wildcard_is_taken(house, version):
    device = await house.connect("device", version)
    filters = ("#", "+", "/+", "+/+", "a/+/b", "a/#", "+/#", "/", "a//b")
    device.send(Subscribe(1, tuple(Subscription(each, 2) for each in filters)))
    assert (await device.expect(Suback)).reasons == (2,) * len(filters)


async def test_a_shared_subscription_gets_no_retained_messages_and_an_ordinary_one_does(house):
    await retained(house, 5, "a")
    device = await house.connect()
    await device.subscribe("$share/g/a")
    await device.quiet()
    await device.subscribe("a")
    assert (await device.expect(Publish)).retain


@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("retain", [False, True])
async def test_retain_as_published_decides_about_the_flag(house, as_published, retain):
    device = await house.connect()
    await device.subscribe(Subscription("a", 1, retain_as_published=as_published))
    sender = await house.connect("sender")
    sender.publish("a", b"x", 1, 1, retain=retain)
    assert (await device.expect(Publish)).retain is (retain and as_published)


@pytest.mark.parametrize(
    ("handling", "new", "again"),
    [(0, True, True), (1, True, False), (2, False, False)],
)
async def test_retain_handling_decides_about_retained_messages(house, handling, new, again):
    await retained(house, 5, "a/1", "a/2")
    device = await house.connect()
    for expected in (new, again):
        await device.subscribe(Subscription("a/+", 1, retain_handling=handling))
        if expected:
            assert {each.topic for each in await device.several(Publish, 2)} == {"a/1", "a/2"}
        await device.quiet()


async def test_a_new_subscription_under_the_same_filter_has_the_new_options(house):
    device = await house.connect()
    await device.subscribe(Subscription("a", 1, no_local=True))
    await device.published("a")
    await device.quiet()
    await device.subscribe(Subscription("a", 1, retain_as_published=True), identifier=9)
    device.publish("a", b"x", 1, 2, retain=True)
    found = [await device.next(), await device.next()]
    [publish] = [each for each in found if isinstance(each, Publish)]
    assert publish.retain
    assert publish.properties.subscription_identifiers == (9,)


async def test_an_identifier_comes_with_what_its_subscription_caused_and_with_nothing_else(house):
    device = await house.connect()
    await device.subscribe("a/#", identifier=268_435_455)
    await device.subscribe("b/#")
    sender = await house.connect("sender")
    await sender.published("a/1")
    await sender.published("b/1", packet_id=2)
    one, two = await device.several(Publish, 2)
    assert one.properties.subscription_identifiers == (268_435_455,)
    assert two.properties is None
