"""SUBSCRIBE and its options, retained messages, topic aliases, sizes."""

import json

import pytest

from bridge.config.model import Config
from bridge.message import Properties
from bridge.mqtt.packet import (
    Disconnect,
    Puback,
    Pubcomp,
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
from tests.gateway import configuration, sink_of, until
from tests.passing import pass_time


async def test_no_local_keeps_a_device_from_hearing_itself(house):
    device, other = await house.connect("device"), await house.connect("other")
    for qos in (0, 1):
        await device.subscribe(Subscription("a", qos, no_local=True))
        device.publish("a", b"own", qos, 1)
        if qos:
            await device.expect(Puback)
        await device.quiet()
        await other.published("a", b"another's")
        assert await device.receive(1) == [b"another's"]


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_device_hears_that_its_message_arrived_before_it_gets_it_itself(house, qos):
    device = await house.connect()
    house.slow_disk()
    await device.subscribe("t", qos=qos)
    for packet_id in range(1, 6):
        device.publish("t", b"%d" % packet_id, qos, packet_id)
        assert (await device.expect(Puback if qos == 1 else Pubrec)).packet_id == packet_id
        delivered = await device.expect(Publish)
        assert (delivered.payload, delivered.packet_id) == (b"%d" % packet_id, packet_id)
        device.send(Puback(delivered.packet_id) if qos == 1 else Pubrec(delivered.packet_id))
        if qos == 2:
            await device.expect(Pubrel)
            device.send(Pubrel(packet_id), Pubcomp(delivered.packet_id))
            await device.expect(Pubcomp)


async def test_retain_as_published(house):
    plain, exact = await house.connect("plain"), await house.connect("exact")
    await plain.subscribe(Subscription("a", 1))
    await exact.subscribe(Subscription("a", 1, retain_as_published=True))
    sender = await house.connect("sender")
    sender.publish("a", b"x", 1, 1, retain=True)
    assert not (await plain.expect(Publish)).retain
    assert (await exact.expect(Publish)).retain


async def test_retain_handling_says_when_retained_messages_are_sent(house):
    sender = await house.connect("sender")
    sender.publish("a/b", b"last", 1, 1, retain=True)
    await sender.expect(Puback)
    device = await house.connect()
    await device.subscribe(Subscription("a/+", 1, retain_handling=2))
    await device.quiet()
    await device.subscribe(Subscription("a/#", 1, retain_handling=1))
    got = await device.expect(Publish)
    assert (got.payload, got.retain, got.qos) == (b"last", True, 1)
    await device.subscribe(Subscription("a/#", 1, retain_handling=1))
    await device.quiet()
    await device.subscribe(Subscription("a/#", 0, retain_handling=0))
    assert (await device.expect(Publish)).qos == 0
    await device.subscribe("$share/g/a/#")
    await device.quiet()


@pytest.mark.parametrize("expiry_s", [0, 60])
async def test_a_retained_message_that_has_expired_spends_no_identifier(house, monkeypatch, expiry_s):
    device = await house.connect(expiry_s=expiry_s)
    for packet_id, (topic, lasts_s) in enumerate([("t/a", 1), ("t/b", 60)], 1):
        about = Properties(message_expiry_interval_s=lasts_s)
        device.publish(topic, topic.encode(), 1, packet_id, retain=True, properties=about)
        await device.expect(Puback)
    pass_time(monkeypatch, 2)
    await device.subscribe("t/#")
    delivered = await device.expect(Publish)
    assert (delivered.topic, delivered.packet_id) == ("t/b", 1)


async def test_retained_messages_come_from_the_top_of_the_tree_down(house):
    device = await house.connect()
    topics = ["a/b/c", "b", "a", "a/b"]
    for packet_id, topic in enumerate(topics, 1):
        device.publish(topic, b"x", 1, packet_id, retain=True)
        await device.expect(Puback)
    await device.subscribe("#", qos=0)
    assert [(await device.expect(Publish)).topic for _ in topics] == ["a", "a/b", "a/b/c", "b"]


async def test_an_empty_payload_removes_the_retained_message_and_a_restart_does_not(bare):
    await bare.start()
    sender = await bare.connect("sender")
    for packet_id, topic in enumerate(("a", "b"), 1):
        sender.publish(topic, b"last", 1, packet_id, retain=True)
    sender.publish("a", b"", 1, 3, retain=True)
    await sender.several(Puback, 3)
    await bare.restart()
    device = await bare.connect()
    await device.subscribe("#")
    assert (await device.expect(Publish)).topic == "b"
    await device.quiet()


async def test_overlapping_filters_make_one_delivery_with_all_identifiers(house):
    device = await house.connect()
    await device.subscribe("a/+", qos=0, identifier=1)
    await device.subscribe("a/#", qos=1, identifier=2)
    await device.subscribe("a/b", qos=0)
    sender = await house.connect("sender")
    await sender.published("a/b")
    got = await device.expect(Publish)
    assert got.qos == 1
    assert sorted(got.properties.subscription_identifiers) == [1, 2]
    await device.quiet()


async def test_qos_0_messages_keep_their_order_with_and_without_properties(house):
    """Those with properties once went through the queue, and were overtaken by those without."""
    device = await house.connect()
    await device.subscribe("a", qos=0)
    sender = await house.connect("sender")
    for nth in range(100):
        sender.publish(
            "a", b"%d" % nth, 0, properties=Properties(content_type="text/plain") if nth % 3 else None
        )
    assert await device.receive(100) == [b"%d" % nth for nth in range(100)]


async def test_unsubscribing_ends_it_and_says_whether_there_was_anything(house):
    device = await house.connect()
    await device.subscribe("a")
    device.send(Unsubscribe(2, ("a", "b")))
    assert (await device.expect(Unsuback)).reasons == (0, ReasonCode.NO_SUBSCRIPTION_EXISTED)
    await device.published("a")
    await device.quiet()


async def test_wildcards_of_a_device_do_not_take_what_begins_with_a_dollar(house):
    device = await house.connect()
    await device.subscribe("#", "+/b", "$sys/#")
    device.publish("$other/b", b"x", 0)
    await device.quiet()
    device.publish("$sys/b", b"x", 0)
    await device.expect(Publish)
    await device.quiet()


async def test_a_subscription_too_many_is_answered_so_and_the_others_stand(bare):
    await bare.start(limits={"subscriptions": 2})
    device = await bare.connect()
    suback = await device.subscribe("a", "b", "c", "a")
    assert suback.reasons == (1, 1, ReasonCode.QUOTA_EXCEEDED, 1)
    old = await bare.connect("old", 4)
    assert (await old.subscribe("a", "b", "c")).reasons == (1, 1, 0x80)


@pytest.mark.parametrize("version", [4, 5])
async def test_a_filter_that_is_only_the_word_share_is_refused_alone(house, version):
    """It once raised out of SUBSCRIBE and threw the device out with a traceback."""
    device = await house.connect("device", version)
    refused = ReasonCode.TOPIC_FILTER_INVALID if version == 5 else 0x80
    device.send(Subscribe(1, (Subscription("$share", 0), Subscription("a", 0))))
    found = await device.next()
    assert found is None or getattr(found, "reasons", (refused, 0)) == (refused, 0)


# ---- topic aliases and sizes -----------------------------------------------------------


async def test_topic_aliases_stand_for_their_topics(house):
    device = await house.connect()
    device.publish("a/b", b"1", 1, 1, properties=Properties(topic_alias=3))
    device.publish("", b"2", 1, 2, properties=Properties(topic_alias=3))
    device.publish("c", b"3", 1, 3, properties=Properties(topic_alias=3))
    device.publish("", b"4", 1, 4, properties=Properties(topic_alias=3))
    await device.several(Puback, 4)
    sink = sink_of(house.gateway)
    await until(lambda: len(sink.received) == 4)
    assert [each.message.topic for each in sink.received] == ["a/b", "a/b", "c", "c"]
    assert all(each.message.properties in (None, Properties()) for each in sink.received)


@pytest.mark.parametrize(("alias", "reason"), [(33, 0x94), (0, 0x94), (5, 0x82)])
async def test_an_alias_that_was_not_granted_or_never_set_ends_the_connection(house, alias, reason):
    device = await house.connect()
    device.publish("", b"1", 1, 1, properties=Properties(topic_alias=alias))
    assert await device.goodbye() in (reason, 0x82)


async def test_more_publishes_than_the_receive_maximum_end_the_connection_with_0x93(bare):
    await bare.start(limits={"receive_maximum": 5})
    device = await bare.connect()
    bare.slow_disk()
    bare.disk.hold()
    for packet_id in range(1, 7):
        device.publish("a", b"x", 1, packet_id)
    assert await device.goodbye() == ReasonCode.RECEIVE_MAXIMUM_EXCEEDED
    bare.disk.release()
    await until(lambda: len(sink_of(bare.gateway).received) == 5)


async def test_a_packet_larger_than_allowed_ends_the_connection_with_0x95(bare):
    await bare.start(limits={"packet_bytes": "2KiB"})
    device = await bare.connect()
    await device.published("a", bytes(2000))
    device.publish("a", bytes(2100), 1, 2)
    assert await device.goodbye() == ReasonCode.PACKET_TOO_LARGE
    old = await bare.connect("old", 4)
    old.publish("a", bytes(2100), 1, 2)
    assert await old.goodbye() is None


async def test_what_is_too_large_for_a_device_is_not_sent_and_does_not_block_the_rest(house):
    device = await house.connect(expiry_s=100, maximum_packet_size=500)
    await device.subscribe("a")
    await device.subscribe(Subscription("b", 0))
    sender = await house.connect("sender")
    sender.publish("a", bytes(600), 1, 1)
    sender.publish("a", b"small", 1, 2)
    await sender.several(Puback, 2)
    assert await device.receive(1) == [b"small"]
    sender.publish("b", bytes(600), 0)
    sender.publish("b", b"small", 0)
    assert await device.receive(1) == [b"small"]
    await until(lambda: house.broker.subscribers["device"].session.oldest() is None)
    assert house.gateway.status().mqtt.dropped == 2


async def test_a_device_gets_no_more_at_once_than_its_receive_maximum(house):
    device = await house.connect(receive_maximum=3)
    await device.subscribe("a")
    sender = await house.connect("sender")
    for packet_id in range(1, 11):
        sender.publish("a", b"%d" % packet_id, 1, packet_id)
    await sender.several(Puback, 10)
    got = await device.several(Publish, 3)
    await device.quiet()
    device.send(Puback(got[0].packet_id))
    assert (await device.expect(Publish)).payload == b"4"
    await device.quiet()


async def test_many_filters_in_one_packet(house):
    device = await house.connect()
    filters = tuple(Subscription(f"a/{nth}/+", 1) for nth in range(1000))
    device.send(Subscribe(1, filters))
    assert (await device.expect(Suback)).reasons == (1,) * 1000
    sender = await house.connect("sender")
    await sender.published("a/999/x")
    await device.expect(Publish)


# ---- members of a group that leave -----------------------------------------------------------


@pytest.mark.parametrize("lasts", [False, True])
async def test_what_a_member_leaves_behind_goes_to_the_others_who_share(house, lasts):
    more = {"expiry_s": 100} if lasts else {}
    leaves, stays = await house.connect("leaves", **more), await house.connect("stays", **more)
    await leaves.subscribe(Subscription("$share/g/a", 1))
    sender = await house.connect("sender")
    for packet_id in (1, 2, 3):
        sender.publish("a", b"%d" % packet_id, 1, packet_id)
    await sender.several(Puback, 3)
    got = await leaves.several(Publish, 3)
    leaves.send(Puback(got[0].packet_id))
    await leaves.quiet()
    await stays.subscribe(Subscription("$share/g/a", 1), Subscription("other", 1))
    if lasts:
        leaves.send(Disconnect(0, Properties(session_expiry_interval_s=0)))
        await leaves.goodbye()
    else:
        leaves.drop()
    assert await stays.receive(2) == [b"2", b"3"]
    await stays.quiet()
    assert house.gateway.status().mqtt.dropped == 0


async def test_a_qos_2_message_that_was_begun_goes_to_nobody_else(house):
    leaves, stays = await house.connect("leaves"), await house.connect("stays")
    await leaves.subscribe(Subscription("$share/g/a", 2))
    sender = await house.connect("sender")
    sender.publish("a", b"begun", 2, 1)
    await sender.expect(Pubrec)
    await leaves.expect(Publish)
    await stays.subscribe(Subscription("$share/g/a", 2))
    leaves.drop()
    await until(lambda: "leaves" not in house.broker.subscribers)
    await stays.quiet()


async def test_a_member_that_sleeps_keeps_what_is_its_own_and_a_plain_subscriber_gets_it_once(house):
    plain = await house.connect("plain", expiry_s=100)
    await plain.subscribe(Subscription("a", 1))
    leaves, stays = await house.connect("leaves", expiry_s=100), await house.connect("stays", expiry_s=100)
    await leaves.subscribe(Subscription("$share/g/a", 1))
    sender = await house.connect("sender")
    await sender.published("a", b"x")
    await leaves.expect(Publish)
    await stays.subscribe(Subscription("$share/g/a", 1))
    leaves.drop()
    await stays.quiet()  # it may come back, and finds its message then
    leaves = await house.connect("leaves", clean=True)
    assert await stays.receive(1) == [b"x"]
    assert await plain.receive(1) == [b"x"]
    await plain.quiet()


async def test_a_reload_also_changes_how_much_may_be_retained(bare):
    await bare.start(limits={"retained_messages": 1})
    device = await bare.connect()
    device.publish("kept/1", b"x", 1, 1, retain=True)
    assert (await device.expect(Puback)).reason < 0x80
    device.publish("kept/2", b"x", 1, 2, retain=True)
    assert (await device.expect(Puback)).reason == ReasonCode.QUOTA_EXCEEDED
    document = configuration(bare.folder, limits={"retained_messages": 2})
    bare.gateway.reload(Config.model_validate_json(json.dumps(document)))
    device.publish("kept/2", b"x", 1, 3, retain=True)
    assert (await device.expect(Puback)).reason < 0x80
    assert len(bare.broker.retained) == 2
