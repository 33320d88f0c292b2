"""QoS 2 in both directions, with repetitions wherever a connection can break."""

from bridge.broker.stored import decode_mark
from bridge.mqtt.packet import Puback, Pubcomp, Publish, Pubrec, Pubrel
from bridge.mqtt.reason import ReasonCode
from tests.gateway import sink_of, until


def payloads(house):
    return [each.message.payload for each in sink_of(house.gateway).received]


async def test_a_repetition_before_and_after_pubrec_is_answered_and_not_stored_again(house):
    device = await house.connect()
    first = Publish("a", b"once", 2, packet_id=7)
    again = Publish("a", b"once", 2, dup=True, packet_id=7)
    device.send(first, again)
    await device.several(Pubrec, 2)
    device.send(again)
    await device.expect(Pubrec)
    device.send(Pubrel(7))
    assert (await device.expect(Pubcomp)).reason == 0
    device.send(Pubrel(7))
    assert (await device.expect(Pubcomp)).reason == ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
    await device.published("a", b"end")
    await until(lambda: b"end" in payloads(house))
    assert payloads(house) == [b"once", b"end"]


async def test_a_repetition_after_reconnect_is_not_stored_again(house):
    for version in (4, 5):
        expiry_s = 100 if version == 5 else None
        device = await house.connect(f"v{version}", version, clean=False, expiry_s=expiry_s)
        device.publish("a", b"once", 2, 7)
        await device.expect(Pubrec)
        device.drop()
        device = await house.connect(f"v{version}", version, clean=False, expiry_s=expiry_s)
        assert device.connack.session_present
        device.publish("a", b"once", 2, 7, dup=True)
        await device.expect(Pubrec)
        device.send(Pubrel(7))
        await device.expect(Pubcomp)
        device.publish("a", b"twice", 2, 7)
        await device.expect(Pubrec)
    await until(lambda: len(payloads(house)) >= 4)
    assert payloads(house) == [b"once", b"twice"] * 2


async def test_a_refused_identifier_of_a_clean_start_is_a_new_message(house):
    device = await house.connect(expiry_s=100)
    device.publish("a", b"first", 2, 7)
    await device.expect(Pubrec)
    device.drop()
    device = await house.connect(clean=True)
    device.publish("a", b"second", 2, 7)
    await device.expect(Pubrec)
    await until(lambda: len(payloads(house)) == 2)


async def test_towards_the_device_publish_and_pubrel_are_repeated_after_reconnect(house):
    sender = await house.connect("sender")
    device = await house.connect(expiry_s=100)
    await device.subscribe("a", qos=2)
    sender.publish("a", b"1", 2, 1)
    sender.publish("a", b"2", 2, 2)
    await sender.several(Pubrec, 2)
    one, two = await device.several(Publish, 2)
    device.send(Pubrec(one.packet_id))
    await device.expect(Pubrel)
    device.drop()
    device = await house.connect(clean=False, expiry_s=100)
    again = await device.expect(Publish)
    assert (again.payload, again.packet_id, again.dup) == (b"2", two.packet_id, True)
    assert (await device.expect(Pubrel)).packet_id == one.packet_id
    device.send(Pubcomp(one.packet_id), Pubrec(two.packet_id))
    await device.expect(Pubrel)
    device.send(Pubcomp(two.packet_id))
    await device.quiet()
    device.drop()
    device = await house.connect(clean=False, expiry_s=100)
    await device.quiet()


async def test_an_acknowledgement_for_nothing_changes_nothing(house):
    device = await house.connect()
    device.send(Puback(9), Pubcomp(9))
    await device.quiet()
    device.send(Pubrec(9))
    assert (await device.expect(Pubrel)).reason == ReasonCode.PACKET_IDENTIFIER_NOT_FOUND


async def test_a_device_that_never_releases_is_sent_away_with_0x93(bare):
    await bare.start(limits={"receive_maximum": 10})
    for version, reason in ((5, ReasonCode.RECEIVE_MAXIMUM_EXCEEDED), (4, None)):
        device = await bare.connect("greedy", version)
        for packet_id in range(1, 30):
            device.publish("a", b"x", 2, packet_id)
        assert await device.goodbye() == reason
    await (await bare.connect()).published("a")


async def test_the_same_identifier_two_thousand_times_costs_one_entry(house):
    device = await house.connect("device", 4)
    for _ in range(2000):
        device.publish("a", b"x", 2, 7, dup=True)
    await device.several(Pubrec, 2000)
    assert len(house.broker.subscribers["device"].session.inbound) == 1
    assert house.gateway.spool.uplink.appended == 1


async def test_what_was_not_stored_is_not_held_either_though_the_device_had_gone_meanwhile(house):
    """The next start would have taken the repetition for something that was stored."""
    device = await house.connect(expiry_s=100)
    house.slow_disk()
    house.disk.hold()
    device.publish("a", b"x", 2, 7)
    await until(house.disk.waiting.is_set)
    device.drop()
    await until(lambda: not house.broker.links)
    house.disk.fail()
    house.disk.release()
    await until(lambda: house.gateway.spool.committer.fault is not None)
    house.disk.mend()
    await until(lambda: house.gateway.spool.committer.accepting)
    await (await house.connect("other")).published("b")
    marks = house.gateway.spool.marks
    assert decode_mark(marks.get("device")).inbound == []
    device = await house.connect(clean=False, expiry_s=100)
    device.publish("a", b"x", 2, 7, dup=True)
    await device.expect(Pubrec)
    await until(lambda: payloads(house) == [b"x", b"x"])
    assert decode_mark(marks.get("device")).inbound == [7]
