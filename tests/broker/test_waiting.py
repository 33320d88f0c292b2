"""What waits for a device: in order, within bounds, and across restarts."""

import asyncio

import pytest

from bridge.message import Properties
from bridge.mqtt.packet import Connack, Connect, Puback, Publish, Suback, Subscribe, Subscription
from bridge.store.log import NOTE_BYTES_MAX
from tests.broker.device import Device
from tests.gateway import Gateway, until
from tests.passing import pass_time


async def sleeping(house, name="device", *filters, qos=1):
    """A session that subscribed and is away."""
    device = await house.connect(name, expiry_s=1000)
    await device.subscribe(*filters or ("a",), qos=qos)
    await device.leave()


async def send(device, topic, payloads):
    for packet_id, payload in enumerate(payloads, 1):
        device.publish(topic, payload, 1, packet_id)
    await device.several(Puback, len(payloads))


def numbered(count, begin=0):
    return [str(nth).encode() for nth in range(begin, begin + count)]


async def test_what_was_published_meanwhile_arrives_in_order(house):
    await sleeping(house)
    sender = await house.connect("sender")
    await send(sender, "a", numbered(500))
    device = await house.connect(clean=False, expiry_s=1000)
    assert await device.receive(500) == numbered(500)


async def test_what_waits_survives_a_restart_in_order_and_what_was_acknowledged_is_not_repeated(bare):
    await bare.start()
    await sleeping(bare)
    sender = await bare.connect("sender")
    await send(sender, "a", numbered(300))
    device = await bare.connect(clean=False, expiry_s=1000)
    assert await device.receive(120) == numbered(120)
    session = bare.broker.subscribers["device"].session
    await until(lambda: len(session.in_flight) + session.queued == 180)
    await bare.restart()
    sender = await bare.connect("sender")
    await send(sender, "a", numbered(50, 300))
    device = await bare.connect(clean=False, expiry_s=1000)
    received = await device.receive(230)
    assert received[-50:] == numbered(50, 300)
    assert received == numbered(230, 120)
    await device.quiet()


async def test_after_a_restart_there_is_room_for_everything_that_waited_before(bare):
    """What had been sent and not acknowledged once found no place in the restored queue."""
    limits = {"session_messages": 300, "in_flight": 100}
    await bare.start(limits=limits)
    device = await bare.connect(expiry_s=1000)
    await device.subscribe("a")
    sender = await bare.connect("sender")
    await send(sender, "a", numbered(400))
    got = await device.several(Publish, 100)
    assert [each.payload for each in got] == numbered(100)
    await bare.restart(limits=limits)
    device = await bare.connect(clean=False, expiry_s=1000)
    assert await device.receive(300) == numbered(300)


async def test_a_session_keeps_no_more_than_its_bound_and_the_rest_is_counted(bare):
    await bare.start(limits={"session_messages": 20})
    await sleeping(bare)
    sender = await bare.connect("sender")
    await send(sender, "a", numbered(50))
    device = await bare.connect(clean=False, expiry_s=1000)
    assert await device.receive(20) == numbered(20)
    await device.quiet()
    assert bare.gateway.status().mqtt.dropped == 30


async def test_two_sessions_get_their_own_from_one_record(house):
    await sleeping(house, "one", "a/+")
    await sleeping(house, "two", "a/b", "a/#")
    sender = await house.connect("sender")
    await send(sender, "a/b", numbered(3))
    await send(sender, "a/c", [b"c"])
    one = await house.connect("one", clean=False, expiry_s=1000)
    two = await house.connect("two", clean=False, expiry_s=1000)
    assert await one.receive(4) == await two.receive(4) == [*numbered(3), b"c"]


async def test_what_everyone_has_acknowledged_is_let_go(bare):
    await bare.start(store={"path": str(bare.folder / "spool"), "max_bytes": "4MiB"})
    await sleeping(bare)
    sender = await bare.connect("sender")
    log = bare.gateway.spool.downlink
    for _ in range(30):
        await send(sender, "a", [bytes(5000)] * 20)
        device = await bare.connect(clean=False, expiry_s=1000)
        await device.receive(20)
        await device.leave()
        bare.broker.delivery.tidy()
    assert log.size < 256 * 1024
    assert bare.gateway.status().mqtt.dropped == 0


async def test_a_full_downlink_lets_the_oldest_go_and_makes_place_for_the_newest(bare):
    """The places of what was let go once stayed taken, so the newest was dropped as well."""
    await bare.start(
        store={"path": str(bare.folder / "spool"), "max_bytes": "4MiB"}, limits={"session_messages": 200}
    )
    await sleeping(bare)
    sender = await bare.connect("sender")
    payloads = [number + bytes(4000) for number in numbered(300)]
    for begin in range(0, 300, 20):
        await send(sender, "a", payloads[begin : begin + 20])
    assert bare.gateway.spool.downlink.size <= 4 * 1024 * 1024 // 10
    device = await bare.connect(clean=False, expiry_s=1000)
    waiting = 300 - bare.gateway.status().mqtt.dropped
    assert 20 < waiting < 200
    assert await device.receive(waiting) == payloads[-waiting:]
    await device.quiet()


async def test_a_session_that_comes_back_for_the_last_time_gets_what_waited(house):
    await sleeping(house)
    sender = await house.connect("sender")
    await send(sender, "a", numbered(50))
    device = await house.connect(clean=False, expiry_s=0)
    house.broker.delivery.tidy()
    assert await device.receive(50) == numbered(50)
    await device.leave()
    await until(lambda: "device" not in house.broker.subscribers)


async def test_a_message_whose_time_is_over_is_not_delivered_and_one_whose_time_is_not_says_what_is_left(
    house, monkeypatch
):
    await sleeping(house)
    sender = await house.connect("sender")
    for packet_id, expiry_s in ((1, 10), (2, 100)):
        sender.publish(
            "a", b"%d" % expiry_s, 1, packet_id, properties=Properties(message_expiry_interval_s=expiry_s)
        )
    await sender.several(Puback, 2)
    pass_time(monkeypatch, 30)
    device = await house.connect(clean=False, expiry_s=1000)
    got = await device.expect(Publish)
    assert got.payload == b"100"
    assert 60 <= got.properties.message_expiry_interval_s <= 70
    await device.quiet()


async def test_one_session_that_cannot_be_read_does_not_keep_the_others_from_starting(bare):
    await bare.start()
    await sleeping(bare, "whole")
    bare.broker.spool.sessions.put("broken", b"no session")
    bare.broker.spool.committer.schedule()
    await bare.restart()
    assert (await bare.connect("whole", clean=False, expiry_s=100)).connack.session_present
    assert not (await bare.connect("broken", clean=False, expiry_s=100)).connack.session_present


# ---- in groups -------------------------------------------------------------------------


async def test_a_group_gets_each_message_once_and_shares_the_work(house):
    members = [await house.connect(f"m{nth}") for nth in range(3)]
    for member in members:
        await member.subscribe("$share/g/a")
    sender = await house.connect("sender")
    await send(sender, "a", numbered(30))
    got = [await member.receive(10) for member in members]
    assert sorted(payload for each in got for payload in each) == sorted(numbered(30))


async def test_a_group_of_sleepers_keeps_its_choice_across_a_restart(bare):
    await bare.start()
    await sleeping(bare, "one", "$share/g/a")
    await sleeping(bare, "two", "$share/g/a")
    sender = await bare.connect("sender")
    await send(sender, "a", numbered(10))
    await bare.restart()
    one = await bare.connect("one", clean=False, expiry_s=1000)
    two = await bare.connect("two", clean=False, expiry_s=1000)
    assert sorted(await one.receive(5) + await two.receive(5)) == sorted(numbered(10))


async def test_of_a_group_of_sleepers_those_who_asked_for_qos_0_are_not_chosen(house):
    """They were, in their turn, and every second message went to nobody."""
    await sleeping(house, "one", "$share/g/a", qos=0)
    await sleeping(house, "two", "$share/g/a", qos=1)
    sender = await house.connect("sender")
    await send(sender, "a", numbered(10))
    two = await house.connect("two", clean=False, expiry_s=1000)
    assert await two.receive(10) == numbered(10)


async def test_one_session_with_a_filter_and_a_share_gets_both_and_both_must_be_settled(bare):
    """The second copy of one record once ran into an assertion, and the rest of the commit was forgotten."""
    await bare.start()
    device = await bare.connect(expiry_s=1000)
    await device.subscribe("a", "$share/g/a", "$share/h/a")
    sender = await bare.connect("sender")
    await send(sender, "a", [b"1"])
    await send(sender, "a", [b"2"])
    got = await device.several(Publish, 6)
    assert [each.payload for each in got] == [b"1"] * 3 + [b"2"] * 3
    for each in got[:2]:
        device.send(Puback(each.packet_id))
    await device.quiet()
    await bare.restart()
    device = await bare.connect(clean=False, expiry_s=1000)
    assert await device.receive(4) == [b"1"] + [b"2"] * 3
    await device.quiet()


async def test_more_names_in_groups_than_a_record_has_room_for_do_no_harm_to_the_sender(house):
    """The note beside the message once grew past its bound, and the sender was thrown out, for ever."""
    names = ["m" * 9000 + str(nth) for nth in range(3)]
    for nth, name in enumerate(names):
        device = await house.connect(name, expiry_s=1000)
        await device.subscribe(f"$share/g{nth}/a")
        await device.leave()
    assert sum(map(len, names)) > NOTE_BYTES_MAX
    sender = await house.connect("sender")
    assert (await sender.published("a")).reason == 0
    assert house.gateway.status().mqtt.dropped == 2


# ---- devices that do not read, or do not answer ----------------------------------------


async def test_a_device_that_does_not_read_costs_a_bounded_memory_and_no_one_else_anything(house):
    limits = house.broker.limits
    slow = await house.connect("slow", 4)
    await slow.subscribe("#", qos=0)
    slow._writer.transport.pause_reading()
    well = await house.connect("well", 4)
    await well.subscribe("count", qos=1)
    sender = await house.connect("sender")
    link = house.broker.subscribers["slow"].link
    payload = bytes(60_000)
    for packet_id in range(1, 200):
        sender.publish("big", payload, 1, packet_id)
        await sender.expect(Puback)
        assert link.unsent_bytes < limits.unsent_bytes_max + len(payload) + 100
    await send(sender, "count", numbered(5))
    assert await well.receive(5) == numbered(5)
    assert house.gateway.status().mqtt.dropped > 20


async def test_a_device_that_does_not_acknowledge_costs_a_bounded_memory(house):
    house.limit(session_bytes_max=200_000, window_max=100)
    slow = await house.connect("slow", 4)
    await slow.subscribe("a")
    sender = await house.connect("sender")
    await send(sender, "a", [bytes(10_000)] * 200)
    session = house.broker.subscribers["slow"].session
    assert session.queued <= 20
    assert house.gateway.status().mqtt.dropped == 200 - 100 - session.queued
    assert len(await slow.receive(100 + session.queued)) > 115
    await send(sender, "a", numbered(3))
    assert await slow.receive(3) == numbered(3)


async def test_retained_messages_do_not_flood_a_device_that_does_not_read(house):
    """All of them were once written to its socket at one stroke."""
    sender = await house.connect("sender")
    payload = bytes(20_000)
    for nth in range(1, 501):
        sender.publish(f"r/{nth}", payload, 1, nth, retain=True)
    await sender.several(Puback, 500)
    slow = await house.socket(4)
    slow._reader._limit = 1000  # the test does not read ahead either
    slow.send(Connect("slow", 4))
    await slow.expect(Connack)
    slow.send(Subscribe(1, (Subscription("r/#", 0),)))
    await slow.expect(Suback)
    slow._writer.transport.pause_reading()
    link = house.broker.subscribers["slow"].link
    await until(lambda: link.congested)
    assert link.unsent_bytes < house.broker.limits.unsent_bytes_max + 100 * (len(payload) + 20)
    await sender.published("other")
    slow._writer.transport.resume_reading()
    got = await slow.receive(500)
    assert len(got) == 500


# ---- kill ------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [1, 2])
async def test_what_waits_survives_a_kill_in_order(tmp_path, qos):
    gateway = Gateway(tmp_path, limits={"in_flight": 100})
    gateway.start()
    try:
        device = await Device.connect(gateway.port, expiry_s=1000)
        await device.subscribe("a", qos=qos)
        other = await Device.connect(gateway.port, "online", expiry_s=1000)
        await other.subscribe("a", qos=qos)
        await device.leave()
        sender = await Device.connect(gateway.port, "sender")
        for packet_id, payload in enumerate(numbered(200), 1):
            sender.publish("a", payload, 1, packet_id)
        await sender.several(Puback, 200)
        await asyncio.to_thread(gateway.kill)
        await asyncio.to_thread(gateway.start)
        for name in ("device", "online"):
            device = await Device.connect(gateway.port, name, clean=False, expiry_s=1000)
            assert device.connack.session_present
            got = await device.several(Publish, 100)
            assert [each.payload for each in got] == numbered(100)
            device.drop()
        assert await asyncio.to_thread(gateway.stop) == 0
        assert "Traceback" not in gateway.output()
    finally:
        gateway.kill()
