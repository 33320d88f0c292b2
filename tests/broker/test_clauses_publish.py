"""PUBLISH and its answers as 3.1.1 and 5 ask for them: tests that rows of the clause tables name."""

import itertools

import pytest

from bridge.message import Properties
from bridge.mqtt.packet import Puback, Pubcomp, Publish, Pubrec, Pubrel, Subscription
from bridge.mqtt.reason import ReasonCode
from tests.broker.test_clauses_connect import Clock, both, lasting, payloads
from tests.gateway import sink_of, until
from tests.passing import pass_time


async def retained(house, version, topic, payload, qos=1):
    sender = await house.connect("retaining", version)
    sender.publish(topic, payload, qos, 1, retain=True)
    await sender.quiet() if qos == 0 else await sender.next()
    sender.drop()


# ---- what is answered ------------------------------------------------------------------


@both
async def test_each_qos_has_its_answer_with_the_identifier_of_the_publish(house, version):
    device = await house.connect("device", version)
    device.publish("a", b"0", 0)
    await device.quiet()
    device.publish("a", b"1", 1, 65_535)
    assert await device.expect(Puback) == Puback(65_535)
    device.publish("a", b"2", 2, 258)
    assert await device.expect(Pubrec) == Pubrec(258)
    device.send(Pubrel(258))
    assert await device.expect(Pubcomp) == Pubcomp(258)
    await until(lambda: payloads(house) == [b"0", b"1", b"2"])


@both
async def test_answers_come_in_the_order_of_what_they_answer(house, version):
    device = await house.connect("device", version)
    ids = [7, 3, 65_000, 1, 500]
    for packet_id in ids:
        device.publish("a", b"x", 1, packet_id)
    assert [each.packet_id for each in await device.several(Puback, 5)] == ids
    for packet_id in ids:
        device.publish("a", b"x", 2, packet_id)
    assert [each.packet_id for each in await device.several(Pubrec, 5)] == ids
    for packet_id in reversed(ids):
        device.send(Pubrel(packet_id))
    assert [each.packet_id for each in await device.several(Pubcomp, 5)] == ids[::-1]


@both
async def test_after_puback_the_same_identifier_is_a_new_message_whatever_dup_says(house, version):
    device = await house.connect("device", version)
    for dup in (False, True):
        device.publish("a", b"x", 1, 7, dup=dup)
        await device.expect(Puback)
    await until(lambda: len(payloads(house)) == 2)


@both
async def test_until_pubrel_a_repetition_is_answered_and_reaches_nobody_twice(house, version):
    listener = await house.connect("listener", version)
    await listener.subscribe("a", qos=2)
    device = await house.connect("device", version)
    for dup in (False, True, True):
        device.publish("a", b"once", 2, 7, dup=dup)
        assert (await device.expect(Pubrec)).packet_id == 7
    device.send(Pubrel(7))
    await device.expect(Pubcomp)
    device.publish("a", b"new", 2, 7)
    await device.expect(Pubrec)
    got = await listener.several(Publish, 2)
    assert [each.payload for each in got] == [b"once", b"new"]
    await listener.quiet()
    await until(lambda: payloads(house) == [b"once", b"new"])


# ---- DUP, identifiers, repetitions -----------------------------------------------------


@both
@pytest.mark.parametrize("lasts", [False, True])
async def test_dup_of_what_came_in_does_not_go_out(house, version, lasts):
    about = lasting(version) if lasts else {"version": version}
    device = await house.connect(**about)
    await device.subscribe("a", qos=2)
    sender = await house.connect("sender", version)
    for qos in (1, 2):
        sender.publish("a", b"x", qos, qos, dup=True)
        got = await device.expect(Publish)
        assert (got.dup, got.qos) == (False, qos)
    sender.publish("a", b"x", 0)
    got = await device.expect(Publish)
    assert (got.dup, got.qos, got.packet_id) == (False, 0, 0)


@both
async def test_what_is_unanswered_is_repeated_with_dup_its_identifier_and_in_order(house, version):
    device = await house.connect(**lasting(version))
    await device.subscribe("a", qos=2)
    sender = await house.connect("sender", version)
    for nth, qos in enumerate((1, 2, 1, 2), 1):
        sender.publish("a", b"%d" % nth, qos, nth)
    first = await device.several(Publish, 4)
    assert len({each.packet_id for each in first} - {0}) == 4
    assert [each.dup for each in first] == [False] * 4
    device.send(Puback(first[2].packet_id))
    await device.quiet()
    device.drop()
    device = await house.connect(**lasting(version))
    again = await device.several(Publish, 3)
    expected = [first[0], first[1], first[3]]
    assert [(each.packet_id, each.payload, each.dup) for each in again] == [
        (each.packet_id, each.payload, True) for each in expected
    ]
    await device.quiet()


@both
async def test_nothing_is_repeated_while_the_connection_stands(house, version):
    clock = Clock(house.broker)
    device = await house.connect(**lasting(version))
    await device.subscribe("a", qos=2)
    sender = await house.connect("sender", version)
    sender.publish("a", b"1", 1, 1)
    sender.publish("a", b"2", 2, 2)
    _, two = await device.several(Publish, 2)
    device.send(Pubrec(two.packet_id))
    await device.expect(Pubrel)
    for _ in range(5):
        clock.s += 3600
        house.broker.tick()
        await device.quiet()


@both
async def test_a_qos_2_delivery_walks_through_its_four_packets(house, version):
    device = await house.connect(**lasting(version))
    await device.subscribe("a", qos=2)
    sender = await house.connect("sender", version)
    sender.publish("a", b"x", 2, 1)
    publish = await device.expect(Publish)
    device.send(Pubrec(publish.packet_id))
    assert await device.expect(Pubrel) == Pubrel(publish.packet_id)
    device.drop()
    for _ in range(2):  # PUBLISH is never sent again, PUBREL until it is answered
        device = await house.connect(**lasting(version))
        assert await device.expect(Pubrel) == Pubrel(publish.packet_id)
        await device.quiet()
        device.drop()
    device = await house.connect(**lasting(version))
    await device.expect(Pubrel)
    device.send(Pubcomp(publish.packet_id))
    await device.quiet()
    device.drop()
    device = await house.connect(**lasting(version))
    await device.quiet()


@both
async def test_pubrels_follow_the_order_of_the_pubrecs(house, version):
    device = await house.connect(**lasting(version))
    await device.subscribe("a", qos=2)
    sender = await house.connect("sender", version)
    for nth in (1, 2, 3):
        sender.publish("a", b"%d" % nth, 2, nth)
    one, two, three = [each.packet_id for each in await device.several(Publish, 3)]
    device.send(Pubrec(three), Pubrec(one), Pubrec(two))
    assert [each.packet_id for each in await device.several(Pubrel, 3)] == [three, one, two]
    device.drop()
    device = await house.connect(**lasting(version))
    assert [each.packet_id for each in await device.several(Pubrel, 3)] == [three, one, two]


async def test_a_refusal_by_the_device_is_final(house):
    device = await house.connect(**lasting(5))
    await device.subscribe("a", qos=2)
    sender = await house.connect("sender")
    sender.publish("a", b"1", 1, 1)
    sender.publish("a", b"2", 2, 2)
    one, two = await device.several(Publish, 2)
    device.send(Puback(one.packet_id, 0x97), Pubrec(two.packet_id, 0x97))
    await device.quiet()
    device.drop()
    device = await house.connect(**lasting(5))
    await device.quiet()


async def test_an_exchange_that_was_begun_goes_on_although_its_message_has_expired(house, monkeypatch):
    device = await house.connect(**lasting(5))
    await device.subscribe("a", qos=2)
    sender = await house.connect("sender")
    about = Properties(message_expiry_interval_s=10)
    for nth in (1, 2, 3):
        sender.publish("a", b"%d" % nth, 2 if nth > 1 else 1, nth, properties=about)
    one, two, three = await device.several(Publish, 3)
    device.send(Pubrec(three.packet_id))
    await device.expect(Pubrel)
    device.drop()
    pass_time(monkeypatch, 3600)
    device = await house.connect(**lasting(5))
    again = [await device.next() for _ in range(3)]
    assert [(type(each), each.packet_id) for each in again] == [
        (Publish, one.packet_id), (Publish, two.packet_id), (Pubrel, three.packet_id)
    ]  # fmt: skip
    device.send(Pubrec(two.packet_id))
    assert await device.expect(Pubrel) == Pubrel(two.packet_id)


# ---- order, QoS, matching --------------------------------------------------------------


@both
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("lasts", [False, True])
async def test_messages_of_one_topic_keep_the_order_of_their_publisher(house, version, qos, lasts):
    device = await house.connect(**(lasting(version) if lasts else {"version": version}))
    await device.subscribe("a/+", qos=qos)
    sender = await house.connect("sender", version)
    for nth in range(1, 51):
        sender.publish(f"a/{nth % 2}", b"%d" % nth, qos, nth)
    got = []
    while len(got) < 50:
        packet = await device.next()
        if isinstance(packet, Pubrel):
            device.send(Pubcomp(packet.packet_id))
            continue
        got.append((packet.topic, int(packet.payload)))
        if qos:
            device.send((Puback if qos == 1 else Pubrec)(packet.packet_id))
    for topic in ("a/0", "a/1"):
        numbers = [number for each, number in got if each == topic]
        assert numbers == sorted(numbers)
        assert len(numbers) == 25


@both
@pytest.mark.parametrize(("published", "granted"), list(itertools.product((0, 1, 2), repeat=2)))
async def test_the_qos_of_a_delivery_is_the_smaller_of_the_two(house, version, published, granted):
    device = await house.connect("device", version)
    assert (await device.subscribe("a", qos=granted)).reasons == (granted,)
    sender = await house.connect("sender", version)
    sender.publish("a", b"x", published, 1)
    assert (await device.expect(Publish)).qos == min(published, granted)


@both
@pytest.mark.parametrize("order", list(itertools.permutations((0, 1, 2))))
async def test_overlapping_filters_deliver_with_the_highest_of_their_qos(house, version, order):
    device = await house.connect("device", version)
    for topic_filter, qos in zip(("a/+", "a/#", "a/b"), order, strict=True):
        await device.subscribe(topic_filter, qos=qos)
    sender = await house.connect("sender", version)
    sender.publish("a/b", b"x", 2, 1)
    assert (await device.expect(Publish)).qos == 2
    await device.quiet()


# A filter, topics that it takes, topics that it leaves.
MATCHING = [
    ("sport/tennis/#", ["sport/tennis", "sport/tennis/a", "sport/tennis/a/b"], ["sport", "sport/tennisx"]),
    ("sport/tennis/+", ["sport/tennis/a", "sport/tennis/"], ["sport/tennis", "sport/tennis/a/b"]),
    ("+", ["finance"], ["/finance", "a/b"]),
    ("/+", ["/finance"], ["finance", "/a/b"]),
    ("+/+", ["/finance", "a/b"], ["finance"]),
    ("+/monitor/#", ["a/monitor/b", "/monitor"], ["$sys/monitor/b"]),
    ("#", ["a", "/", "a/b"], ["$sys/a", "$other"]),
    ("$sys/#", ["$sys/a"], ["sys/a"]),
    ("Accounts", ["Accounts"], ["ACCOUNTS", "accounts", "Accounts ", " Accounts", "/Accounts", "Accounts/"]),
    ("é", ["é"], ["e\u0301"]),  # one character, two spellings: two topics
    ("\ufeffa", ["\ufeffa"], ["a"]),  # a byte order mark is a character
    ("a\u0001\u009f\uffff", ["a\u0001\u009f\uffff"], ["a"]),
    ("a//b", ["a//b"], ["a/b", "a/x/b"]),
    ("ａ", ["ａ"], ["a"]),
]  # fmt: skip


@both
@pytest.mark.parametrize(
    ("topic_filter", "taken", "left"), MATCHING, ids=[ascii(row[0])[1:-1] for row in MATCHING]
)
async def test_topics_match_level_by_level_and_byte_for_byte(house, version, topic_filter, taken, left):
    device = await house.connect("device", version)
    await device.subscribe(topic_filter)
    sender = await house.connect("sender", version)
    for nth, topic in enumerate([*left, *taken], 1):
        await sender.published(topic, b"x", nth)
    for topic in taken:
        assert (await device.expect(Publish)).topic == topic
    await device.quiet()


@both
async def test_a_topic_of_65535_bytes_is_a_topic(house, version):
    topic = "ä" * 32_767 + "x"
    device = await house.connect("device", version)
    await device.subscribe(topic)
    await (await house.connect("sender", version)).published(topic)
    assert (await device.expect(Publish)).topic == topic


# ---- retained messages -----------------------------------------------------------------


@both
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_the_last_retained_message_is_sent_with_its_qos_to_whoever_subscribes_later(
    house, version, qos
):
    await retained(house, version, "a/b", b"first", 1)
    await retained(house, version, "a/b", b"last", qos)
    device = await house.connect("device", version)
    await device.subscribe("a/+", qos=2)
    got = await device.expect(Publish)
    assert (got.topic, got.payload, got.retain, got.qos, got.dup) == ("a/b", b"last", True, qos, False)
    await device.quiet()


@both
async def test_established_subscribers_get_a_retained_message_without_the_flag(house, version):
    device = await house.connect("device", version)
    await device.subscribe("a")
    await retained(house, version, "a", b"x")
    got = await device.expect(Publish)
    assert (got.payload, got.retain) == (b"x", False)


@both
async def test_an_empty_retained_message_is_sent_as_any_other_and_leaves_none_behind(house, version):
    await retained(house, version, "a", b"x")
    device = await house.connect("device", version)
    await device.subscribe("a")
    got = await device.expect(Publish)
    assert got.retain
    device.send(Puback(got.packet_id))
    await retained(house, version, "a", b"")
    got = await device.expect(Publish)
    assert (got.payload, got.retain) == (b"", False)
    late = await house.connect("late", version)
    await late.subscribe("a")
    await late.quiet()
    assert len(house.broker.retained) == 0


@both
async def test_a_message_without_the_flag_is_not_kept_and_touches_nothing_kept(house, version):
    await retained(house, version, "a", b"kept")
    sender = await house.connect("sender", version)
    await sender.published("a", b"passing")
    await sender.published("a", b"", 2)
    await sender.published("b", b"passing", 3)
    device = await house.connect("device", version)
    await device.subscribe("+")
    assert await device.receive(1) == [b"kept"]
    await device.quiet()


# ---- MQTT 5: what travels with the message ---------------------------------------------

ABOUT = Properties(
    payload_format_indicator=1,
    content_type="text/plain; charset=ü",
    response_topic="answers/to/me",
    correlation_data=b"\x00\xff\x00",
    user_properties=(("z", "1"), ("a", "2"), ("z", "1"), ("", "")),
)


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("way", ["live", "queued", "retained", "shared", "after a restart"])
async def test_properties_of_the_application_arrive_unaltered_on_every_way(bare, way, qos):
    await bare.start()
    topic_filter = "$share/g/a" if way == "shared" else "a"
    device = await bare.connect(**lasting(5))
    if way != "retained":
        await device.subscribe(topic_filter, qos=2)
    if way in ("queued", "after a restart"):
        device.drop()
        qos = max(qos, 1)
    sender = await bare.connect("sender")
    sender.publish("a", b"x", qos, 1, properties=ABOUT, retain=way == "retained")
    await (sender.quiet() if qos == 0 else sender.next())
    if way == "after a restart":
        await bare.restart()
    if way in ("queued", "after a restart"):
        device = await bare.connect(**lasting(5))
    elif way == "retained":
        await device.subscribe(topic_filter, qos=2)
    got = await device.expect(Publish)
    assert (got.topic, got.payload, got.qos, got.properties) == ("a", b"x", qos, ABOUT)


async def test_every_alias_up_to_the_maximum_is_taken_and_none_is_carried_to_the_next_connection(house):
    device = await house.connect()
    maximum = device.connack.properties.topic_alias_maximum
    for alias in range(1, maximum + 1):
        device.publish(f"t/{alias}", b"set", 1, alias, properties=Properties(topic_alias=alias))
        device.publish("", b"used", 1, 1000 + alias, properties=Properties(topic_alias=alias))
    await device.several(Puback, 2 * maximum)
    await until(lambda: len(sink_of(house.gateway).received) == 2 * maximum)
    topics = [each.message.topic for each in sink_of(house.gateway).received]
    assert topics == [f"t/{alias}" for alias in range(1, maximum + 1) for _ in range(2)]
    device.drop()
    device = await house.connect()
    device.publish("", b"x", 1, 1, properties=Properties(topic_alias=1))
    assert await device.goodbye() == ReasonCode.PROTOCOL_ERROR


@pytest.mark.parametrize("maximum", [None, 0])
async def test_a_device_that_allows_no_aliases_is_sent_none(house, maximum):
    device = await house.connect(topic_alias_maximum=maximum)
    await device.subscribe("a/#", qos=1)
    sender = await house.connect("sender")
    for nth in range(1, 11):
        sender.publish("a/long/topic/that/is/worth/an/alias", b"x", nth % 2, nth)
        got = await device.expect(Publish)
        assert got.topic == "a/long/topic/that/is/worth/an/alias"
        assert got.properties is None


async def test_a_full_window_holds_back_publish_and_nothing_else(house):
    device = await house.connect(receive_maximum=2)
    await device.subscribe("a", qos=2)
    sender = await house.connect("sender")
    for nth in range(1, 6):
        sender.publish("a", b"%d" % nth, 1, nth)
    first = await device.several(Publish, 2)
    await device.quiet()
    assert (await device.subscribe("b")).reasons == (1,)
    device.publish("c", b"x", 1, 9)
    assert (await device.expect(Puback)).packet_id == 9
    device.publish("c", b"x", 2, 10)
    await device.expect(Pubrec)
    device.send(Pubrel(10))
    await device.expect(Pubcomp)
    device.send(Puback(first[0].packet_id))
    assert (await device.expect(Publish)).payload == b"3"
    await device.quiet()


# ---- MQTT 5: shared subscriptions ------------------------------------------------------


async def test_copies_of_one_message_have_each_the_identifier_of_its_own_subscription(house):
    device = await house.connect()
    await device.subscribe("a", identifier=1)
    await device.subscribe("$share/g/a", identifier=2)
    await device.subscribe("$share/h/a")
    await (await house.connect("sender")).published("a")
    got = await device.several(Publish, 3)
    found = [each.properties.subscription_identifiers if each.properties else () for each in got]
    assert sorted(found) == [(), (1,), (2,)]


async def test_each_member_of_a_group_gets_its_own_granted_qos(house):
    members = {}
    for qos in (0, 1, 2):
        members[qos] = await house.connect(f"m{qos}")
        await members[qos].subscribe("$share/g/a", qos=qos)
    sender = await house.connect("sender")
    for nth in range(1, 4):
        sender.publish("a", b"x", 2, nth)
    for qos, member in members.items():
        assert (await member.expect(Publish)).qos == qos


async def test_a_qos_2_message_under_way_to_a_member_is_finished_with_it_and_given_to_no_other(house):
    first = await house.connect("first", **lasting(5))
    await first.subscribe("$share/g/a", qos=2)
    sender = await house.connect("sender")
    sender.publish("a", b"x", 2, 1)
    got = await first.expect(Publish)
    second = await house.connect("second")
    await second.subscribe("$share/g/a", qos=2)
    first.drop()
    await until(lambda: len(house.broker.links) == 2)
    await second.quiet()
    first = await house.connect("first", **lasting(5))
    again = await first.expect(Publish)
    assert (again.packet_id, again.payload, again.dup) == (got.packet_id, b"x", True)
    await second.quiet()


async def test_a_qos_2_message_of_a_member_whose_session_ends_is_given_to_no_other(house):
    first = await house.connect("first")  # the session ends with the connection
    await first.subscribe("$share/g/a", qos=2)
    second = await house.connect("second")
    sender = await house.connect("sender")
    sender.publish("a", b"x", 2, 1)
    await first.expect(Publish)
    await second.subscribe("$share/g/a", qos=2)
    first.drop()
    await until(lambda: "first" not in house.broker.subscribers)
    await second.quiet()


async def test_what_a_member_refuses_is_given_to_no_other(house):
    first, second = await house.connect("first"), await house.connect("second")
    await first.subscribe("$share/g/a", qos=2)
    sender = await house.connect("sender")
    sender.publish("a", b"1", 1, 1)
    sender.publish("a", b"2", 2, 2)
    one, two = await first.several(Publish, 2)
    await second.subscribe("$share/g/a", qos=2)
    first.send(Puback(one.packet_id, 0x97), Pubrec(two.packet_id, 0x80))
    await first.quiet()
    await second.quiet()


@both
async def test_every_device_that_subscribed_gets_its_own_copy(house, version):
    listeners = [await house.connect(f"l{nth}", version) for nth in range(3)]
    for listener in listeners:
        await listener.subscribe(Subscription("a/#", 1))
    await (await house.connect("sender", version)).published("a/b", b"x")
    for listener in listeners:
        assert await listener.receive(1) == [b"x"]
