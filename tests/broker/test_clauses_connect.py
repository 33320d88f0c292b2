"""CONNECT to DISCONNECT as 3.1.1 and 5 ask for it: tests that rows of the clause tables name.

What only one version promises stands in a test that says so; all others run in both.
"""

import string

import pytest

from bridge.message import Properties
from bridge.mqtt.codec import encode
from bridge.mqtt.packet import (
    Connack,
    Connect,
    Disconnect,
    Puback,
    Publish,
    Pubrec,
    Will,
)
from bridge.mqtt.reason import ReasonCode
from tests.gateway import sink_of, until

both = pytest.mark.parametrize("version", [4, 5])
ALPHABET = string.digits + string.ascii_letters


def lasting(version):
    """What CONNECT says to get a session that outlives the connection, and to get it back."""
    return {"version": version, "clean": False, "expiry_s": 1000 if version == 5 else None}


def payloads(house, topic="a"):
    return [each.message.payload for each in sink_of(house.gateway).received if each.message.topic == topic]


class Clock:
    """The broker's clock, moved by hand."""

    def __init__(self, broker):
        self.s = 0.0
        real = broker.now
        broker.now = lambda: real() + self.s


# ---- CONNECT and CONNACK ---------------------------------------------------------------


@both
async def test_the_first_packet_is_connack_even_where_messages_wait_and_no_other_follows(house, version):
    device = await house.connect(**lasting(version))
    await device.subscribe("a")
    device.drop()
    sender = await house.connect("sender", version)
    await sender.published("a", b"waiting")
    device = await house.connect(**lasting(version))  # fails where the first packet is no CONNACK
    assert (device.connack.reason, device.connack.session_present) == (0, True)
    assert await device.receive(1) == [b"waiting"]
    await device.quiet()


@both
async def test_a_second_connect_ends_the_connection_and_gets_no_connack(house, version):
    device = await house.connect("device", version)
    device.send(Connect("device", version))
    answer = await device.next()
    assert answer is None if version == 4 else answer.reason == ReasonCode.PROTOCOL_ERROR
    assert await device.next() is None


@both
async def test_what_follows_a_refused_connect_is_not_processed(house, version):
    asking = Properties(authentication_method="SCRAM-SHA-1") if version == 5 else None
    refused = Connect("" if version == 4 else "x", version, False, properties=asking)
    device = await house.socket(version)
    device.send(refused, Publish("a", b"smuggled", 1, packet_id=1), Publish("a", b"too", 0))
    connack = await device.expect(Connack)
    assert connack.reason >= 0x80
    assert not connack.session_present
    assert await device.next() is None
    await (await house.connect("other", version)).published("a", b"end")
    await until(lambda: b"end" in payloads(house))
    assert payloads(house) == [b"end"]


@both
async def test_what_follows_an_accepted_connect_need_not_wait_for_connack(house, version):
    device = await house.socket(version)
    device.send(Connect("device", version), Publish("a", b"early", 1, packet_id=1))
    assert (await device.expect(Connack)).reason == 0
    assert (await device.expect(Puback)).packet_id == 1


@both
@pytest.mark.parametrize("client_id", ["a", ALPHABET[:23], ALPHABET[23:46], ALPHABET[46:]])
async def test_every_client_identifier_that_must_be_allowed_is(house, version, client_id):
    device = await house.connect(client_id, version)
    assert device.connack.reason == 0
    await device.published("a")


@both
async def test_without_a_client_identifier_each_device_gets_one_of_its_own_and_works(house, version):
    """Two of them once would have been one session, had the empty identifier been taken literally."""
    devices = [await house.connect("", version) for _ in range(3)]
    names = set(house.broker.subscribers)
    assert len(names) == 3
    assert "" not in names
    if version == 5:
        assert {device.connack.properties.assigned_client_identifier for device in devices} == names
    for device in devices:
        assert not device.connack.session_present
        await device.subscribe("a")
    await (await house.connect("sender", version)).published("a", b"to all")
    for device in devices:
        assert await device.receive(1) == [b"to all"]


async def test_3_1_1_without_a_client_identifier_and_with_a_session_to_keep_hears_code_2(house):
    device = await house.socket(4)
    device.send(Connect("", 4, False))
    connack = await device.expect(Connack)
    assert (connack.reason, connack.session_present) == (ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, False)
    assert await device.next() is None
    assert not house.broker.subscribers


async def test_5_without_a_client_identifier_may_keep_its_session_under_the_assigned_one(house):
    device = await house.connect("", clean=False, expiry_s=1000)
    name = device.connack.properties.assigned_client_identifier
    assert not device.connack.session_present
    device.drop()
    again = await house.connect(name, clean=False, expiry_s=1000)
    assert again.connack.session_present
    assert again.connack.properties.assigned_client_identifier is None


@pytest.mark.parametrize(
    ("version", "spelled", "reason"),
    [
        (4, "10 0d 0004 4d515454 02 02 003c 0001 61", 0x84),  # a level below ours
        (5, "10 0e 0004 4d515454 07 02 003c 00 0001 61", 0x84),  # a level above ours
        (4, "10 0d 0004 48545450 04 02 003c 0001 61", None),  # not MQTT at all
        (4, "10 0d 0004 4d515454 04 03 003c 0001 61", None),  # the reserved flag, for which 3.1.1 has no code
        (5, "10 0e 0004 4d515454 05 03 003c 00 0001 61", 0x81),
    ],
)
async def test_a_connect_that_cannot_be_taken_is_told_so_where_it_can_be_and_closed(
    house, version, spelled, reason
):
    device = await house.socket(version)
    device.send_bytes(bytes.fromhex(spelled))
    if reason is not None:
        connack = await device.expect(Connack)
        assert (connack.reason, connack.session_present) == (reason, False)
    assert await device.next() is None
    assert not house.broker.subscribers


# ---- sessions --------------------------------------------------------------------------


@both
async def test_a_clean_session_leaves_nothing_to_the_next_one(house, version):
    device = await house.connect("device", version, clean=True)
    await device.subscribe("a")
    device.publish("b", b"first", 2, 7)
    await device.expect(Pubrec)
    device.drop()
    await until(lambda: "device" not in house.broker.subscribers)
    await (await house.connect("sender", version)).published("a")
    device = await house.connect("device", version, clean=False)
    assert not device.connack.session_present
    device.publish("b", b"second", 2, 7)  # with the state of before, a repetition of the first
    await device.expect(Pubrec)
    await device.quiet()
    await until(lambda: payloads(house, "b") == [b"first", b"second"])


@both
async def test_clean_start_discards_the_session_that_is_there(house, version):
    device = await house.connect(**lasting(version))
    await device.subscribe("a")
    device.drop()
    sender = await house.connect("sender", version)
    await sender.published("a", b"for the old one")
    device = await house.connect(**lasting(version) | {"clean": True})
    assert not device.connack.session_present
    await sender.published("a", b"for nobody", 2)
    await device.quiet()


@both
@pytest.mark.parametrize("qos", [1, 2])
async def test_a_session_keeps_what_matches_while_its_device_is_away_also_through_a_restart(
    bare, version, qos
):
    await bare.start()
    device = await bare.connect(**lasting(version))
    await device.subscribe("a/+", qos=2)
    device.drop()
    sender = await bare.connect("sender", version)
    for nth in (1, 2, 3):
        sender.publish("a/b", b"%d" % nth, qos, nth)
    sender.publish("other", b"not this", qos, 4)
    await sender.several(Puback if qos == 1 else Pubrec, 4)
    await bare.restart()
    device = await bare.connect(**lasting(version))
    assert device.connack.session_present
    got = await device.several(Publish, 3)
    assert [(each.topic, each.payload, each.qos) for each in got] == [
        ("a/b", b"%d" % nth, qos) for nth in (1, 2, 3)
    ]


@both
async def test_a_session_lasts_as_long_as_its_connection_at_least(house, version):
    clock = Clock(house.broker)
    device = await house.connect("device", version, expiry_s=0 if version == 5 else None)
    await device.subscribe("a")
    clock.s += 10_000_000
    house.broker.tick()
    await (await house.connect("sender", version)).published("a", b"after months")
    assert await device.receive(1) == [b"after months"]


@both
async def test_retained_messages_are_no_part_of_a_session_and_outlive_it(house, version):
    device = await house.connect("device", version)
    device.publish("a", b"kept", 1, 1, retain=True)
    await device.expect(Puback)
    await device.leave()
    await until(lambda: "device" not in house.broker.subscribers)
    other = await house.connect("other", version)
    await other.subscribe("a")
    assert await other.receive(1) == [b"kept"]


# ---- wills -----------------------------------------------------------------------------


@both
@pytest.mark.parametrize("ending", ["lost", "protocol error", "silence", "taken over"])
async def test_a_will_is_published_however_the_connection_ends_but_by_disconnect(house, version, ending):
    clock = Clock(house.broker)
    about = {"clean": False, "expiry_s": 1000 if version == 5 else None}
    device = await house.connect(
        "device", version, keep_alive_s=10, will=Will("gone", b"farewell", 1), **about
    )
    if ending == "lost":
        device.drop()
    elif ending == "protocol error":
        device.send_bytes(b"\x00\x00")
    elif ending == "silence":
        clock.s += 16
        house.broker.tick()
    else:
        await house.connect("device", version, **about)
    await until(lambda: payloads(house, "gone") == [b"farewell"])


@both
@pytest.mark.parametrize("returns", [False, True])
async def test_a_will_is_published_once_and_then_removed(bare, version, returns):
    await bare.start()
    device = await bare.connect(will=Will("gone", b"once", 1), **lasting(version))
    device.drop()
    await until(lambda: payloads(bare, "gone") == [b"once"])
    assert bare.broker.subscribers["device"].session.will is None
    if returns:
        device = await bare.connect(**lasting(version))  # this time it left no will
        device.drop()
        await until(lambda: not bare.broker.links)
    await bare.restart()
    await (await bare.connect("other", version)).published("a")
    await until(lambda: payloads(bare))
    assert payloads(bare, "gone") == []


@both
async def test_a_disconnect_removes_the_will_for_good(bare, version):
    await bare.start()
    device = await bare.connect(will=Will("gone", b"never", 1), **lasting(version))
    await device.leave()
    await until(lambda: not bare.broker.links)
    assert bare.broker.subscribers["device"].session.will is None
    for _ in range(2):
        await (await bare.connect("other", version)).published("a")
        await until(lambda: payloads(bare))
        assert payloads(bare, "gone") == []
        await bare.restart()


@both
async def test_without_a_will_nothing_is_published(house, version):
    listener = await house.connect("listener", version)
    await listener.subscribe("#")
    device = await house.connect("device", version)
    device.drop()
    await until(lambda: len(house.broker.links) == 1)
    await listener.quiet()


@both
@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_will_has_the_qos_and_the_retain_that_connect_gave_it(house, version, retain, qos):
    listener = await house.connect("listener", version)
    await listener.subscribe("gone", qos=2)
    device = await house.connect("device", version, will=Will("gone", b"x", qos, retain))
    device.drop()
    got = await listener.expect(Publish)
    assert (got.payload, got.qos, got.retain) == (b"x", qos, False)
    late = await house.connect("late", version)
    await late.subscribe("gone", qos=2)
    if retain:
        got = await late.expect(Publish)
        assert (got.payload, got.qos, got.retain) == (b"x", qos, True)
    await late.quiet()


async def test_a_will_keeps_its_properties_and_the_order_of_its_user_properties(house):
    listener = await house.connect("listener")
    await listener.subscribe("gone")
    names = tuple((name, str(nth)) for nth, name in enumerate("zebra"))
    about = Properties(
        payload_format_indicator=1,
        content_type="t",
        response_topic="r",
        correlation_data=b"\0",
        user_properties=names,
    )
    device = await house.connect(will=Will("gone", b"x", 1, properties=about))
    device.drop()
    assert (await listener.expect(Publish)).properties == about


# ---- the end ---------------------------------------------------------------------------


@both
async def test_silence_for_one_and_a_half_keep_alives_is_the_end_and_for_less_is_not(house, version):
    clock = Clock(house.broker)
    device = await house.connect("device", version, keep_alive_s=10)
    if version == 5:
        assert device.connack.properties.server_keep_alive_s is None
    clock.s += 14
    house.broker.tick()
    await device.quiet()
    clock.s += 14
    house.broker.tick()
    await device.quiet()
    clock.s += 16
    house.broker.tick()
    assert await device.goodbye() == (ReasonCode.KEEP_ALIVE_TIMEOUT if version == 5 else None)


@both
async def test_a_new_connection_with_the_client_identifier_ends_the_old_one(house, version):
    first = await house.connect("device", version)
    await house.connect("device", version)
    assert await first.goodbye() == (ReasonCode.SESSION_TAKEN_OVER if version == 5 else None)
    assert len(house.broker.links) == 1


@both
async def test_after_disconnect_nothing_that_follows_is_processed(house, version):
    device = await house.connect("device", version)
    device.send(Disconnect(), Publish("a", b"too late", 1, packet_id=1))
    assert await device.next() is None
    await (await house.connect("other", version)).published("a", b"end")
    await until(lambda: b"end" in payloads(house))
    assert payloads(house) == [b"end"]


@both
async def test_a_pingreq_is_answered(house, version):
    device = await house.connect("device", version)
    for _ in range(3):
        await device.quiet()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (b"\x00\x00", ReasonCode.MALFORMED_PACKET),
        (encode(Connect("device", 5), 5), ReasonCode.PROTOCOL_ERROR),
        (bytes.fromhex("30 07 0001 61 03 23ffff"), ReasonCode.TOPIC_ALIAS_INVALID),
    ],
)
async def test_a_disconnect_from_here_says_why_and_carries_no_session_expiry(house, fault, reason):
    device = await house.connect(expiry_s=100)
    device.send_bytes(fault)
    goodbye = await device.expect(Disconnect)
    assert goodbye.reason == reason
    assert goodbye.properties == Properties(reason_string=goodbye.properties.reason_string)
    assert goodbye.properties.reason_string
    assert await device.next() is None


async def test_a_goodbye_that_would_be_too_long_for_the_device_leaves_its_words_out(house):
    device = await house.connect(maximum_packet_size=30)
    device.send_bytes(bytes.fromhex("30 03 0001 61"))
    assert await device.expect(Disconnect) == Disconnect(ReasonCode.MALFORMED_PACKET)


async def test_a_device_that_would_not_take_even_a_connack_is_not_let_in(house):
    """It was once accepted without a word, and then sent packets before any CONNACK."""
    device = await house.socket()
    will = Will("gone", b"x", 1)
    device.send(Connect("tiny", 5, will=will, properties=Properties(maximum_packet_size=4)))
    assert await device.next() is None
    await until(lambda: not house.broker.subscribers)
    await (await house.connect("other")).published("a")
    await until(lambda: payloads(house))
    assert not payloads(house, "gone")


@pytest.mark.parametrize("asked", [None, 0])
async def test_response_information_is_not_given_to_who_does_not_ask(house, asked):
    device = await house.connect(request_response_information=asked)
    assert device.connack.properties.response_information is None


async def test_nobody_is_sent_an_authentication_he_did_not_ask_for(house):
    device = await house.connect()
    properties = device.connack.properties
    assert (properties.authentication_method, properties.authentication_data) == (None, None)
    await device.subscribe("a")
    await (await house.connect("sender")).published("a")
    await device.expect(Publish)
    await device.quiet()  # every packet so far was named, and none was AUTH
