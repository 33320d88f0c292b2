"""CONNECT to DISCONNECT: take-over, wills, keep-alive, deadlines, sessions and their end."""

import re

import pytest

from bridge.message import Properties
from bridge.mqtt.packet import Connect, Disconnect, Puback, Publish, Subscription, Will
from bridge.mqtt.reason import ReasonCode
from bridge.store import Spool
from tests.gateway import sink_of, until
from tests.passing import pass_time


class Clock:
    """The broker's clock, moved by hand."""

    def __init__(self, broker):
        self.s = 0.0
        real = broker.now
        broker.now = lambda: real() + self.s


def wills(house):
    return [each.message.payload for each in sink_of(house.gateway).received if each.message.topic == "gone"]


def will(payload=b"farewell", delay_s=None, **more):
    return Will("gone", payload, 1, properties=Properties(will_delay_interval_s=delay_s), **more)


# ---- take-over -------------------------------------------------------------------------


async def test_a_second_connection_takes_the_session_over_and_the_first_hears_0x8e(house):
    first = await house.connect(expiry_s=100)
    await first.subscribe("a")
    second = await house.connect(clean=False, expiry_s=100)
    assert second.connack.session_present
    assert await first.goodbye() == ReasonCode.SESSION_TAKEN_OVER
    sender = await house.connect("sender")
    await sender.published("a", b"for the second")
    assert await second.receive(1) == [b"for the second"]
    old = await house.connect("device", 4, clean=False)
    assert await second.goodbye() == ReasonCode.SESSION_TAKEN_OVER
    await house.connect("device", 4, clean=False)
    assert await old.goodbye() is None


async def test_what_is_published_as_a_session_comes_back_for_the_last_time_is_not_lost(bare):
    """Its session no longer went through the log, where the message was: stored, and given to nobody."""
    await bare.start()
    will = Will("gone", b"its own will", 1)
    first = await bare.connect("device", 4, clean=False, will=will)
    await first.subscribe("gone")
    second = await bare.connect("device", 5, clean=False, expiry_s=0)
    assert second.connack.session_present
    assert await second.receive(1) == [b"its own will"]
    await second.leave()
    await until(lambda: "device" not in bare.broker.subscribers)
    await bare.restart()
    assert not (await bare.connect("device", 4, clean=False)).connack.session_present


async def test_what_was_under_way_when_the_session_was_taken_over_is_repeated(house):
    first = await house.connect(expiry_s=100)
    await first.subscribe("a")
    sender = await house.connect("sender")
    await sender.published("a", b"1")
    got = await first.expect(Publish)
    second = await house.connect(clean=False, expiry_s=100)
    again = await second.expect(Publish)
    assert (again.packet_id, again.dup) == (got.packet_id, True)


async def test_a_message_of_the_displaced_connection_is_stored_all_the_same(house):
    house.slow_disk()
    first = await house.connect()
    house.disk.hold()
    first.publish("a", b"of the first")
    await until(house.disk.waiting.is_set)
    await house.connect()
    house.disk.release()
    assert await first.goodbye() == ReasonCode.SESSION_TAKEN_OVER
    await until(lambda: sink_of(house.gateway).received)


async def test_churn_of_one_client_id_leaves_nothing_behind(house):
    for _ in range(200):
        device = await house.connect()
        await device.subscribe("a/#")
    device.drop()
    await until(lambda: not house.broker.links)
    assert not house.broker.subscribers
    assert len(house.broker.subscriptions) == 0


# ---- wills -----------------------------------------------------------------------------


async def test_a_will_is_published_when_the_device_is_gone_without_a_word(house):
    device = await house.connect(will=will())
    device.drop()
    await until(lambda: wills(house) == [b"farewell"])


async def test_a_will_is_not_published_after_disconnect_and_is_after_0x04(house):
    device = await house.connect("polite", will=will(b"not this one"))
    await device.leave()
    old = await house.connect("old", 4, will=Will("gone", b"nor this", 1))
    await old.leave()
    device = await house.connect("wilful", will=will(b"but this one"))
    await device.leave(ReasonCode.DISCONNECT_WITH_WILL)
    await until(lambda: wills(house))
    assert wills(house) == [b"but this one"]


async def test_a_will_reaches_subscribers_with_its_properties_and_is_retained(house):
    listener = await house.connect("listener")
    await listener.subscribe(Subscription("gone", 1, retain_as_published=True))
    about = Properties(will_delay_interval_s=0, content_type="text/plain")
    device = await house.connect(will=Will("gone", b"x", 1, True, about))
    device.drop()
    got = await listener.expect(Publish)
    assert (got.payload, got.retain, got.properties) == (b"x", True, Properties(content_type="text/plain"))
    late = await house.connect("late")
    await late.subscribe("gone")
    assert (await late.expect(Publish)).retain


async def test_a_will_with_a_delay_waits_and_is_dropped_when_the_device_is_back_in_time(house):
    clock = Clock(house.broker)
    device = await house.connect(expiry_s=100, will=will(delay_s=30))
    device.drop()
    await until(lambda: not house.broker.links)
    await house.connect(clean=False, expiry_s=100)
    clock.s += 31
    house.broker.sessions.pass_time(house.broker.subscribers["device"])
    assert not wills(house)

    other = await house.connect("other", expiry_s=100, will=will(b"late", delay_s=30))
    other.drop()
    await until(lambda: len(house.broker.links) == 1)
    subscriber = house.broker.subscribers["other"]
    house.broker.sessions.pass_time(subscriber)
    assert not wills(house)
    clock.s += 31
    house.broker.sessions.pass_time(subscriber)
    await until(lambda: wills(house) == [b"late"])


async def test_a_will_with_a_delay_is_published_when_its_session_ends_before(house):
    device = await house.connect(expiry_s=0, will=will(delay_s=1000))
    device.drop()
    await until(lambda: wills(house) == [b"farewell"])
    device = await house.connect(expiry_s=100, will=will(b"ended by another", delay_s=1000))
    device.drop()
    await until(lambda: not house.broker.links)
    await house.connect(clean=True)
    await until(lambda: len(wills(house)) == 2)


async def test_a_stop_publishes_the_wills_that_are_due_and_a_start_those_that_become_so(bare):
    """Every will was once dropped by a stop: nobody heard of devices that never came back."""
    await bare.start()
    await bare.connect("passing", will=will(b"due at once"))
    await bare.connect("staying", expiry_s=1000, will=will(b"due later", delay_s=0))
    listener = await bare.connect("listener", expiry_s=1000)
    await listener.subscribe("gone")
    await bare.connect("patient", expiry_s=1000, will=will(b"due after a second", delay_s=1))
    await bare.restart()
    listener = await bare.connect("listener", clean=False, expiry_s=1000)
    assert sorted(await listener.receive(3)) == [b"due after a second", b"due at once", b"due later"]
    await bare.restart()
    listener = await bare.connect("listener", clean=False, expiry_s=1000)
    await listener.quiet()


# ---- silence ---------------------------------------------------------------------------


async def test_a_device_that_is_silent_for_one_and_a_half_keep_alives_is_sent_away(house):
    clock = Clock(house.broker)
    quiet = await house.connect("quiet", keep_alive_s=10)
    lively = await house.connect("lively", keep_alive_s=10)
    forever = await house.connect("forever", keep_alive_s=0)
    clock.s += 14
    house.broker.tick()
    await lively.quiet()
    clock.s += 2
    house.broker.tick()
    assert await quiet.goodbye() == ReasonCode.KEEP_ALIVE_TIMEOUT
    await lively.quiet()
    await forever.quiet()


async def test_a_device_that_is_not_read_because_the_disk_is_slow_is_not_silent(house):
    """It was once sent away for a silence that was ours."""
    clock = Clock(house.broker)
    house.limit(uncommitted_bytes_max=1000)
    device = await house.connect(keep_alive_s=10)
    house.slow_disk()
    house.disk.hold()
    device.publish("a", bytes(2000))
    link = next(iter(house.broker.links))
    await until(lambda: link._paused)
    clock.s += 60
    house.broker.tick()
    house.disk.release()
    await device.expect(Puback)
    house.broker.tick()
    await device.quiet()
    clock.s += 16
    house.broker.tick()
    assert await device.goodbye() == ReasonCode.KEEP_ALIVE_TIMEOUT


async def test_the_server_sets_a_keep_alive_where_the_device_asks_for_a_longer_one(bare):
    await bare.start(limits={"keep_alive": "60s"})
    for asked, told in ((0, 60), (100, 60), (60, None), (20, None)):
        device = await bare.connect(keep_alive_s=asked)
        assert device.connack.properties.server_keep_alive_s == told


@pytest.mark.parametrize("first", [b"", b"\x10", b"\x10\x20\x00\x04MQ"])
async def test_a_device_that_does_not_finish_connect_is_closed_at_the_deadline(house, first):
    clock = Clock(house.broker)
    device = await house.socket()
    device.send_bytes(first)
    await until(lambda: house.broker.links)
    clock.s += 9
    house.broker.tick()
    assert house.broker.links
    clock.s += 2
    house.broker.tick()
    assert await device.next() is None


# ---- sessions --------------------------------------------------------------------------


async def test_clean_start_and_session_present(house):
    for version in (4, 5):
        expiry_s = 100 if version == 5 else None
        name = f"v{version}"
        device = await house.connect(name, version, clean=False, expiry_s=expiry_s)
        assert not device.connack.session_present
        await device.subscribe("a")
        device.drop()
        device = await house.connect(name, version, clean=False, expiry_s=expiry_s)
        assert device.connack.session_present
        device.drop()
        device = await house.connect(name, version, clean=True, expiry_s=expiry_s)
        assert not device.connack.session_present
        assert not house.broker.subscribers[name].session.subscriptions
        device.drop()


async def test_a_session_ends_when_its_expiry_interval_is_over(house):
    clock = Clock(house.broker)
    device = await house.connect(expiry_s=60)
    await device.subscribe("a")
    device.drop()
    await until(lambda: not house.broker.links)
    subscriber = house.broker.subscribers["device"]
    clock.s += 59
    house.broker.sessions.pass_time(subscriber)
    assert "device" in house.broker.subscribers
    clock.s += 2
    house.broker.sessions.pass_time(subscriber)
    assert "device" not in house.broker.subscribers
    assert not (await house.connect(clean=False)).connack.session_present


async def test_disconnect_may_shorten_and_lengthen_the_life_of_a_session(house):
    device = await house.connect(expiry_s=60)
    device.send(Disconnect(0, Properties(session_expiry_interval_s=0)))
    await device.goodbye()
    await until(lambda: "device" not in house.broker.subscribers)
    device = await house.connect()
    device.send(Disconnect(0, Properties(session_expiry_interval_s=60)))
    assert await device.goodbye() == ReasonCode.PROTOCOL_ERROR


async def test_the_gateway_says_when_it_grants_less_than_was_asked_for(bare):
    await bare.start(limits={"session_expiry": "1h", "receive_maximum": 7, "topic_alias_maximum": 3})
    device = await bare.connect("", expiry_s=7200)
    granted = device.connack.properties
    assert granted.session_expiry_interval_s == 3600
    assert (granted.receive_maximum, granted.topic_alias_maximum) == (7, 3)
    assert granted.maximum_packet_size == 1024 * 1024
    assert granted.assigned_client_identifier in bare.broker.subscribers
    assert re.fullmatch(r"auto-[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}", granted.assigned_client_identifier)
    assert granted.server_keep_alive_s is None


async def test_a_session_that_was_on_line_when_the_house_fell_lives_on(bare, monkeypatch):
    """Its life once counted from CONNECT: after three hours on line an hour's session came back dead."""
    await bare.start()
    device = await bare.connect(expiry_s=3600)
    await device.subscribe("a")
    stored = bare.broker.spool.sessions.get("device")
    await bare.stop()
    # What a kill would have left: the session as it was saved while its device was there.
    spool = Spool.open(str(bare.folder / "spool"), 16 << 20)
    spool.sessions.put("device", stored)
    await spool.close()
    pass_time(monkeypatch, 3 * 3600)
    await bare.start()
    assert (await bare.connect(clean=False, expiry_s=3600)).connack.session_present


async def test_identifiers_go_on_after_a_restart(bare):
    await bare.start()
    device = await bare.connect(expiry_s=60)
    await device.subscribe("t")
    for packet_id in range(1, 4):
        await (await bare.connect("other")).published("t", b"x")
        assert (await device.expect(Publish)).packet_id == packet_id
        device.send(Puback(packet_id))
        await device.quiet()
        await bare.restart()
        device = await bare.connect(expiry_s=60, clean=False)


async def test_a_session_whose_house_falls_again_and_again_ends_all_the_same(bare, monkeypatch):
    """Its clock once began anew with every start: a gateway that restarts every hour kept it for ever."""
    await bare.start()
    await bare.connect(expiry_s=3600)
    stored = bare.broker.spool.sessions.get("device")
    await bare.stop()
    spool = Spool.open(str(bare.folder / "spool"), 16 << 20)  # as above
    spool.sessions.put("device", stored)
    await spool.close()
    for _ in range(2):
        pass_time(monkeypatch, 50 * 60)
        await bare.restart()
        assert "device" in bare.broker.subscribers
    pass_time(monkeypatch, 50 * 60)
    await bare.restart()
    assert "device" not in bare.broker.subscribers


async def test_a_clock_that_had_not_been_set_ends_no_session(bare, monkeypatch):
    await bare.start()
    device = await bare.connect(expiry_s=3600)
    await device.subscribe("a")
    with monkeypatch.context() as patch:
        patch.setattr("time.time_ns", lambda: 1_000_000_000)
        await bare.stop()
    await bare.start()
    assert (await bare.connect(clean=False, expiry_s=3600)).connack.session_present


async def test_no_more_connections_than_the_limit(bare):
    await bare.start(limits={"connections": 3})
    devices = [await bare.connect(f"d{nth}") for nth in range(3)]
    late = await bare.socket()
    assert await late.next() is None
    devices[0].drop()
    await until(lambda: len(bare.broker.links) == 2)
    await bare.connect("d4")


async def test_an_authentication_method_is_refused(house):
    device = await house.socket()
    device.send(Connect("x", 5, properties=Properties(authentication_method="SCRAM")))
    assert await device.goodbye() == ReasonCode.BAD_AUTHENTICATION_METHOD
