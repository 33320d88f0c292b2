"""PUBACK means: on the disk. Nothing less, and nothing before."""

import asyncio

import pytest

from bridge.mqtt.packet import Puback, Pubcomp, Publish, Pubrec, Pubrel, Subscription
from bridge.mqtt.reason import ReasonCode
from tests.gateway import sink_of, until


async def test_no_puback_before_the_sync_has_returned(house):
    device = await house.connect()
    house.slow_disk()
    house.disk.hold()
    device.publish("a", b"1", 1, 7)
    await until(house.disk.waiting.is_set)
    await device.quiet()
    house.disk.release()
    assert (await device.expect(Puback)).packet_id == 7


async def test_no_pubrec_before_the_sync_has_returned(house):
    device = await house.connect()
    house.slow_disk()
    house.disk.hold()
    device.publish("a", b"1", 2, 7)
    await until(house.disk.waiting.is_set)
    await device.quiet()
    house.disk.release()
    assert (await device.expect(Pubrec)).packet_id == 7


async def test_what_comes_during_a_commit_is_acknowledged_by_the_next_one_in_one_write_in_order(house):
    device = await house.connect()
    house.slow_disk()
    house.disk.hold()
    device.publish("a", b"0", 1, 1)
    await until(house.disk.waiting.is_set)
    for packet_id in range(2, 202):
        device.publish(f"a/{packet_id % 3}", b"x", 1, packet_id)
        if packet_id % 50 == 0:
            await device.quiet()
    await device.quiet()
    commits = house.gateway.spool.committer.commits
    device.reads.clear()
    house.disk.release()
    pubacks = await device.several(Puback, 201)
    assert [each.packet_id for each in pubacks] == list(range(1, 202))
    assert house.gateway.spool.committer.commits - commits == 2
    assert len(device.reads) <= 2, "one write for each commit"


@pytest.mark.parametrize("qos", [1, 2])
async def test_given_a_failing_sync_then_a_5_device_hears_0x97_and_its_next_copy_is_stored_once(house, qos):
    device = await house.connect(expiry_s=100)
    house.disk.fail()
    device.publish("a", b"precious", qos, 7)
    assert await device.goodbye() == ReasonCode.QUOTA_EXCEEDED
    assert not sink_of(house.gateway).received
    house.disk.mend()
    await _resend_until_taken(house, qos, 5)


@pytest.mark.parametrize("qos", [1, 2])
async def test_given_a_failing_sync_then_a_3_device_is_cut_off_and_its_next_copy_is_stored_once(house, qos):
    device = await house.connect("device", 4, clean=False)
    house.disk.fail()
    device.publish("a", b"precious", qos, 7)
    assert await device.next() is None
    house.disk.mend()
    await _resend_until_taken(house, qos, 4)


async def _resend_until_taken(house, qos, version):
    """As a device would: the same packet again on every new connection until it is answered."""
    sink = sink_of(house.gateway)
    for _ in range(1000):
        device = await house.connect("device", version, clean=False, expiry_s=100 if version == 5 else None)
        device.publish("a", b"precious", qos, 7, dup=True)
        answer = await device.next()
        if isinstance(answer, Puback | Pubrec):
            break
    else:
        raise AssertionError("the store did not come back")
    await until(lambda: sink.received)
    await device.quiet()
    assert [each.message.payload for each in sink.received] == [b"precious"]
    status = house.gateway.status()
    assert status.routes["all"].backlog_messages == 0, "what was never stored waits for nobody"


async def test_given_a_device_that_left_before_its_commit_failed_then_its_next_qos_2_copy_is_stored(house):
    """The identifier was once kept as "on its way to the disk": the copy was answered, and never stored."""
    device = await house.connect("device", 4, clean=False)
    house.slow_disk()
    house.disk.hold()
    device.publish("a", b"precious", 2, 7)
    await until(house.disk.waiting.is_set)
    device.drop()
    await until(lambda: not house.broker.links)
    house.disk.fail()
    house.disk.release()
    await until(lambda: house.gateway.spool.committer.fault)
    house.disk.mend()
    await _resend_until_taken(house, 2, 4)


async def test_given_a_stored_qos_2_id_when_the_commit_of_its_repetition_fails_then_it_stays_stored(house):
    """A failed commit once forgot every identifier it answered, so the third copy was a second message."""
    device = await house.connect("device", expiry_s=100)
    device.publish("a", b"precious", 2, 7)
    await device.expect(Pubrec)
    house.disk.fail()
    device.send(Publish("a", b"precious", 2, dup=True, packet_id=7), Publish("a", b"other", 1, packet_id=8))
    assert await device.goodbye() == ReasonCode.QUOTA_EXCEEDED
    house.disk.mend()
    device = await house.connect("device", clean=False, expiry_s=100)
    device.publish("a", b"precious", 2, 7, dup=True)
    await device.expect(Pubrec)
    sink = sink_of(house.gateway)
    await until(lambda: sink.received)
    assert [each.message.payload for each in sink.received] == [b"precious"]


async def test_pubcomp_says_more_than_pubrec_and_waits_for_the_disk_too(house):
    """A device that did not wait for PUBREC was told that all is done while nothing was on the disk."""
    device = await house.connect()
    house.slow_disk()
    house.disk.hold()
    device.send(Publish("a", b"x", 2, packet_id=7), Pubrel(7))
    await until(house.disk.waiting.is_set)
    await device.quiet()
    house.disk.release()
    kinds = {type(await device.next()), type(await device.next())}
    assert kinds == {Pubrec, Pubcomp}


async def test_a_message_that_nobody_wants_is_answered_0x10_without_being_stored(bare):
    await bare.start(routes={"few": {"from": "wanted/#", "to": "cloud"}})
    device = await bare.connect()
    assert (await device.published("other", packet_id=5)).reason == ReasonCode.NO_MATCHING_SUBSCRIBERS
    assert (await device.published("wanted/x", packet_id=6)).reason == 0
    old = await bare.connect("old", 4)
    assert (await old.published("other", packet_id=5)).reason == 0
    status = bare.gateway.status()
    assert (status.mqtt.unrouted, status.mqtt.acknowledged, status.store.appended) == (2, 3, 1)


async def test_what_is_only_retained_is_answered_0x10_when_that_is_on_the_disk(bare):
    await bare.start(routes={"few": {"from": "wanted/#", "to": "cloud"}})
    bare.slow_disk()
    device = await bare.connect()
    bare.disk.hold()
    device.publish("other", b"kept", 1, 5, retain=True)
    await until(bare.disk.waiting.is_set)
    await device.quiet()
    bare.disk.release()
    assert await device.expect(Puback) == Puback(5, ReasonCode.NO_MATCHING_SUBSCRIBERS)
    await bare.restart(routes={"few": {"from": "wanted/#", "to": "cloud"}})
    device = await bare.connect()
    await device.subscribe("other")
    assert await device.receive(1) == [b"kept"]


async def test_a_route_for_everything_does_not_take_what_begins_with_a_dollar(house):
    device = await house.connect()
    await device.subscribe("#", "+/x")
    puback = await device.published("$sys/x")
    assert puback.reason == ReasonCode.NO_MATCHING_SUBSCRIBERS
    await device.quiet()
    await device.subscribe(Subscription("$sys/#", 0))
    device.publish("$sys/x", b"asked for", 0)
    assert (await device.expect(Publish)).payload == b"asked for"
    assert not sink_of(house.gateway).received


async def test_suback_of_a_session_that_outlives_waits_for_the_disk_and_then_come_the_retained(house):
    other = await house.connect("other")
    other.publish("a", b"last", 1, 1, retain=True)
    await other.expect(Puback)
    device = await house.connect("device", expiry_s=100)
    await until(lambda: not house.gateway.spool.committer._scheduled)
    house.slow_disk()
    house.disk.hold()
    subscribing = asyncio.ensure_future(device.subscribe("a"))
    await until(house.disk.waiting.is_set)
    assert not subscribing.done()
    house.disk.release()
    await subscribing
    retained = await device.expect(Publish)
    assert (retained.payload, retained.retain) == (b"last", True)
