"""What is asked of a server that grants less than everything: tests that rows of the clause tables name."""

import pytest

from bridge.message import Properties
from bridge.mqtt.packet import Connack, Connect, Puback, Pubcomp, Publish, Pubrec, Pubrel, Subscription, Will
from bridge.mqtt.reason import ReasonCode
from tests.broker.test_clauses_connect import both, lasting, payloads
from tests.gateway import until

FORBID = {"rules": [{"publish": ["open/#"], "subscribe": ["#"]}]}


# ---- Maximum QoS -----------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, 1, 2])
async def test_the_highest_qos_is_said_where_it_is_not_2_and_every_subscribe_is_accepted(bare, most):
    await bare.start(limits={"maximum_qos": most})
    device = await bare.connect()
    assert device.connack.properties.maximum_qos == (None if most == 2 else most)
    assert (await device.subscribe(*(Subscription(f"a/{qos}", qos) for qos in (0, 1, 2)))).reasons == (
        0,
        min(1, most),
        min(2, most),
    )
    old = await bare.connect("old", 4)
    assert (await old.subscribe("a", qos=2)).reasons == (most,)
    device.publish("b", b"x", most, 1)
    if most:
        await device.expect(Puback if most == 1 else Pubrec)
    await device.quiet()


@both
@pytest.mark.parametrize(("most", "asked"), [(0, 1), (0, 2), (1, 2)])
async def test_a_will_above_the_highest_qos_is_refused_and_never_published(bare, version, most, asked):
    await bare.start(limits={"maximum_qos": most})
    device = await bare.socket(version)
    device.send(Connect("device", version, will=Will("gone", b"x", asked)))
    assert await device.goodbye() == (ReasonCode.QOS_NOT_SUPPORTED if version == 5 else None)
    assert not bare.broker.subscribers
    device.drop()
    listener = await bare.connect("listener")
    await listener.subscribe("#")
    await listener.quiet()


# ---- Retain Available ------------------------------------------------------------------


@both
async def test_where_nothing_is_retained_a_will_to_be_retained_is_refused(bare, version):
    await bare.start(limits={"retain": False})
    device = await bare.socket(version)
    device.send(Connect("device", version, will=Will("gone", b"x", 0, True)))
    assert await device.goodbye() == (ReasonCode.RETAIN_NOT_SUPPORTED if version == 5 else None)
    welcome = await bare.connect("other", version, will=Will("gone", b"x", 0, False))
    assert welcome.connack.reason == 0
    if version == 5:
        assert welcome.connack.properties.retain_available == 0
    welcome.publish("a", b"x", 1, 1, retain=True)
    assert await welcome.goodbye() == (ReasonCode.RETAIN_NOT_SUPPORTED if version == 5 else None)
    assert len(bare.broker.retained) == 0


# ---- client identifiers ----------------------------------------------------------------


@both
async def test_a_client_identifier_that_is_refused_is_said_so_and_the_connection_closed(bare, version):
    await bare.start(limits={"empty_client_ids": False})
    device = await bare.socket(version)
    device.send(Connect("", version))
    connack = await device.expect(Connack)
    assert (connack.reason, connack.session_present) == (ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, False)
    assert await device.next() is None
    assert (await bare.connect("a", version)).connack.reason == 0


# ---- topic aliases towards the device --------------------------------------------------


async def test_aliases_towards_a_device_keep_to_its_maximum_and_to_one_connection(house):
    device = await house.connect(topic_alias_maximum=3, **lasting(5))
    await device.subscribe("t/#", qos=1)
    sender = await house.connect("sender")
    topics = [f"t/{nth}" for nth in (1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1)]

    async def hear():
        meant, heard, saved = {}, [], 0
        for nth, topic in enumerate(topics, 1):
            sender.publish(topic, b"x", nth % 2, nth)
            packet = await device.expect(Publish)
            if packet.qos:
                device.send(Puback(packet.packet_id))
            alias = packet.properties.topic_alias if packet.properties is not None else None
            if alias is not None:
                assert 1 <= alias <= 3
                if packet.topic:
                    meant[alias] = packet.topic
                else:
                    saved += 1
            heard.append(packet.topic or meant[alias])
        assert heard == topics
        return saved

    assert await hear() > 0
    device.drop()
    device = await house.connect(topic_alias_maximum=3, **lasting(5))
    assert await hear() > 0  # fails for an alias of the connection before: nobody knows what it means


# ---- Response Information --------------------------------------------------------------


@pytest.mark.parametrize(("asked", "told"), [(None, None), (0, None), (1, "answers/device")])
async def test_response_information_is_given_to_who_asks_for_it(bare, asked, told):
    await bare.start(access={"response_topic": "answers/{client}"})
    device = await bare.connect(request_response_information=asked)
    assert device.connack.properties.response_information == told


# ---- PUBLISH that is not allowed -------------------------------------------------------


async def test_3_1_1_is_acknowledged_as_ever_for_what_it_may_not_publish(bare):
    await bare.start(access=FORBID)
    listener = await bare.connect("listener", 4)
    await listener.subscribe("#", qos=2)
    device = await bare.connect("device", 4)
    device.publish("closed", b"0", 0)
    device.publish("closed", b"1", 1, 1)
    assert await device.expect(Puback) == Puback(1)
    device.publish("closed", b"2", 2, 2)
    assert await device.expect(Pubrec) == Pubrec(2)
    device.send(Pubrel(2))
    assert await device.expect(Pubcomp) == Pubcomp(2)
    await device.published("open/a", b"allowed")
    assert await listener.receive(1) == [b"allowed"]
    await listener.quiet()
    await until(lambda: payloads(bare, "open/a") == [b"allowed"])
    assert payloads(bare, "closed") == []


async def test_5_is_told_and_the_identifier_of_a_refused_qos_2_is_a_new_message_the_next_time(bare):
    await bare.start(access=FORBID)
    listener = await bare.connect("listener")
    await listener.subscribe("#", qos=2)
    device = await bare.connect()
    device.publish("closed", b"1", 1, 1)
    assert (await device.expect(Puback)).reason == ReasonCode.NOT_AUTHORIZED
    for _ in range(2):
        device.publish("closed", b"2", 2, 7)
        refused = await device.expect(Pubrec)
        assert (refused.packet_id, refused.reason) == (7, ReasonCode.NOT_AUTHORIZED)
    device.publish("open/a", b"new", 2, 7)
    assert await device.expect(Pubrec) == Pubrec(7)
    device.send(Pubrel(7))
    assert await device.expect(Pubcomp) == Pubcomp(7)
    assert (await listener.expect(Publish)).payload == b"new"
    await listener.quiet()


async def test_why_it_was_refused_is_told_only_to_who_wants_to_know(bare):
    await bare.start(access=FORBID)
    for wanted in (None, 1, 0):
        device = await bare.connect(request_problem_information=wanted)
        device.publish("closed", b"1", 1, 1)
        found = (await device.expect(Puback)).properties
        assert (found is None) is (wanted == 0)
        if found is not None:
            assert found == Properties(reason_string=found.reason_string)
            assert found.reason_string
