"""What has broken others, sent by hand: it costs that connection, and nobody else anything."""

import asyncio
import contextlib
import logging
import time

import pytest

from bridge.message import Properties
from bridge.mqtt.codec import encode
from bridge.mqtt.packet import PINGREQ, Connack, Pingresp, Puback, Publish, Subscribe, Subscription, Will
from tests.broker.hostile import CLOSED, ELSEWHERE, GUARDED, HARMLESS, ROWS, login
from tests.gateway import port_of, sink_of, until
from tests.mqtt.vectors import HOSTILE as MALFORMED
from tests.users import write_users

AT_ONCE_S = 0.1

CLOSED_IDS = [each.name for each in CLOSED]
HARMLESS_IDS = [each.name for each in HARMLESS]


@pytest.fixture
def innocent_log(caplog):
    """Whatever the test does, nothing may come up that nobody has foreseen."""
    caplog.set_level(logging.INFO)
    yield caplog
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


# ---- the tables ------------------------------------------------------------------------


def test_every_row_of_faults_has_an_input_for_both_versions_or_a_reason_why_not():
    assert set(ROWS) | set(ELSEWHERE) == set(range(1, 35))
    assert not set(ROWS) & set(ELSEWHERE)
    covered = {(each.row, version) for each in [*CLOSED, *HARMLESS, *GUARDED] for version in each.versions}
    assert covered >= {(row, version) for row in ROWS for version in (4, 5)}
    assert len({(each.version, each.instead_of_connect, each.data) for each in CLOSED}) >= 150


async def send(house, given):
    if given.instead_of_connect:
        device = await house.socket(given.version)
    else:
        device = await house.connect("hostile", given.version)
    device.send_bytes(given.data)
    return device


@pytest.mark.parametrize("given", CLOSED, ids=CLOSED_IDS)
async def test_what_must_close_is_closed_at_once_with_its_reason(house, innocent_log, given):
    witness = await house.connect("witness")
    took_s = []
    for _ in range(3):  # again where another process had the processor just then
        began = time.monotonic()
        device = await send(house, given)
        reason = await device.goodbye()
        took_s.append(time.monotonic() - began)
        assert reason in given.reasons
        if took_s[-1] <= AT_ONCE_S:
            break
    assert min(took_s) <= AT_ONCE_S
    await witness.published("a", b"still here")
    assert house.broker.malformed == len(took_s)


@pytest.mark.parametrize("given", HARMLESS, ids=HARMLESS_IDS)
async def test_what_is_only_strange_matters_to_nobody_else(house, innocent_log, given):
    witness = await house.connect("witness")
    device = await send(house, given)
    await witness.published("a", b"still here")
    if not given.unfinished:
        if given.instead_of_connect:
            assert (await device.expect(Connack)).reason == 0
        device.send(PINGREQ)
        while not isinstance(packet := await device.next(), Pingresp):
            assert packet is not None, "it was sent away"
    device.drop()
    await until(lambda: len(house.broker.links) == 1)
    await witness.published("a", b"and still", 2)


@pytest.fixture
async def guarded(bare):
    """Users and rules; alice's device `victim` hears secret/# and plant/#, and so does she on another one."""
    write_users(bare.folder / "passwords", {"alice": "alice's", "mallory": "mallory's"})
    own = ["open/#", "plant/{user}/#"]
    rules = [{"user": "alice", "publish": ["#"], "subscribe": ["#"]}, {"publish": own, "subscribe": own}]
    await bare.start(
        listeners=[{"mqtt": "127.0.0.1:0", "anonymous": True}],
        access={"users": str(bare.folder / "passwords"), "rules": rules},
    )
    return bare


async def welcome(house, version, client_id, user):
    device = await house.socket(version)
    device.send_bytes(login(version, client_id, user))
    assert (await device.expect(Connack)).reason == 0
    return device


@pytest.mark.parametrize("given", GUARDED, ids=[each.name for each in GUARDED])
async def test_what_is_not_allowed_opens_nothing(guarded, innocent_log, given):
    victim = await welcome(guarded, 5, "victim", "alice")
    await victim.subscribe("secret/#", "plant/#")
    if given.reasons != frozenset({None}):
        took_s = []
        while not took_s or (took_s[-1] > AT_ONCE_S and len(took_s) < 3):
            attacker = await guarded.socket(given.version)
            began = time.monotonic()
            attacker.send_bytes(given.data)
            assert await attacker.goodbye() in given.reasons
            took_s.append(time.monotonic() - began)
        assert min(took_s) <= AT_ONCE_S
    else:
        if given.instead_of_connect:
            attacker = await guarded.socket(given.version)
        else:
            attacker = await welcome(guarded, given.version, "attacker", "mallory")
        attacker.send_bytes(given.data)
        attacker.send(PINGREQ)
        while not isinstance(packet := await attacker.next(), Pingresp):
            assert packet is not None, "it was sent away"
    alice = await welcome(guarded, 5, "other", "alice")
    for nth, topic in enumerate(("secret/a", "plant/alice/a", "open/a"), 1):
        await alice.published(topic, b"true", nth)
    assert await victim.receive(2) == [b"true"] * 2, "the victim heard what was forged, or not what was true"
    await victim.quiet()
    if given.reasons == frozenset({None}):
        attacker.send(PINGREQ)
        while not isinstance(packet := await attacker.next(), Pingresp):
            assert packet is not None
            assert not isinstance(packet, Publish) or packet.topic == "open/a"
    late = await welcome(guarded, 5, "late", "alice")
    await late.subscribe("#")
    await late.quiet()  # nothing forged was retained


@pytest.mark.parametrize(
    ("version", "spelled", "reason"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED]
)
async def test_every_malformed_vector_closes_a_socket(house, innocent_log, version, spelled, reason):
    data = bytes.fromhex(spelled)
    if version:
        device = await house.connect("hostile", version)
    else:
        device = await house.socket(5 if b"MQTT\5" in data or b"MQTT\6" in data else 4)
    device.send_bytes(data)
    said = await device.goodbye()
    # A packet that only a server sends, or that is too large, is refused before its fault is seen.
    assert said in ({reason, 0x82, 0x95} if version == 5 else {reason, None})


async def test_what_was_whole_before_the_nonsense_is_stored(house, innocent_log):
    device = await house.connect()
    device.send_bytes(encode(Publish("a", b"whole", 1, packet_id=1), 5) + b"\xff\xff\xff")
    assert await device.goodbye() == 0x81
    await until(lambda: sink_of(house.gateway).received)


async def test_a_publish_that_never_comes_whole_harms_nobody(house, innocent_log):
    device = await house.connect()
    device.send_bytes(b"\x30\x80\x20\x00\x01a")
    await (await house.connect("other")).published("a")
    device.drop()
    await until(lambda: len(house.broker.links) == 1)
    assert len(sink_of(house.gateway).received) <= 1


@pytest.mark.parametrize("topic", ["$SYS/x", "$CONTROL/dynamic-security/v1", "$share/g/a", "$foo", "/", "$"])
async def test_odd_topics_and_wills_to_them_are_topics_like_any_other(house, innocent_log, topic):
    device = await house.connect("willing", will=Will(topic, b"x", 1, True))
    device.publish(topic, b"x", 1, 1, retain=True)
    await device.expect(Puback)
    device.drop()
    await until(lambda: "willing" not in house.broker.subscribers)
    await (await house.connect()).published("a")


@pytest.mark.parametrize(
    "name", ["#", "+", "/", ".*", "|", "^", "%u", "a\nlevel=error event=forged", "\x1b[2J", "x" * 60_000]
)
async def test_a_client_identifier_is_only_a_name(house, innocent_log, name):
    device = await house.connect(name, expiry_s=10)
    await device.published("a")
    for record in innocent_log.records:
        assert len(record.getMessage()) < 70_000


async def test_five_thousand_user_properties_pass_or_are_refused_and_the_loop_goes_on(house, innocent_log):
    device = await house.connect()
    properties = Properties(user_properties=(("k", "v"),) * 5000)
    device.publish("a", b"x", 1, 1, properties=properties)
    answer = await device.next()
    assert answer is not None
    await (await house.connect("other")).published("a")


async def test_a_thousand_sockets_that_claim_256_mib_cost_nothing(house, innocent_log):
    async def claim():
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(house.gateway))
        writer.write(b"\x10\xff\xff\xff\x7f" + bytes(1000))
        with contextlib.suppress(ConnectionError):
            assert not await asyncio.wait_for(reader.read(), 10)
        writer.transport.abort()

    for _ in range(10):
        await asyncio.gather(*(claim() for _ in range(100)))
    await until(lambda: not house.broker.links)
    assert house.broker.malformed == 1000
    await (await house.connect()).published("a")


async def test_filters_made_to_take_long_do_not(house, innocent_log):
    device = await house.connect()
    for nth in range(0, 1000, 100):
        device.send(
            Subscribe(1, tuple(Subscription("+/" * 150 + f"{one}/#", 0) for one in range(nth, nth + 100)))
        )
        await device.next()
    sender = await house.connect("sender")
    began = asyncio.get_running_loop().time()
    await sender.published("a/" * 150 + "x")
    assert asyncio.get_running_loop().time() - began < 0.5


async def test_a_mistake_of_ours_costs_one_connection_and_is_logged_once(house, caplog, monkeypatch):
    """An exception in a delivery once left every other device without a word, for ever."""
    device, other = await house.connect("unlucky"), await house.connect("other")
    await device.subscribe("a")
    await other.subscribe("a")
    take = type(house.broker.subscribers["unlucky"].session).take
    unlucky = house.broker.subscribers["unlucky"].session

    def broken(session, *more):
        if session is unlucky:
            raise OSError("the disk does not give it back")
        return take(session, *more)

    monkeypatch.setattr(type(unlucky), "take", broken)
    sender = await house.connect("sender")
    await sender.published("a", b"1")
    assert await other.receive(1) == [b"1"]
    assert await device.goodbye() is not None
    await sender.published("a", b"2")
    assert await other.receive(1) == [b"2"]
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_a_mistake_in_reading_costs_one_connection_too(house, caplog, monkeypatch):
    device, other = await house.connect("unlucky"), await house.connect("other")
    monkeypatch.setattr(type(house.broker.inlet), "decide", lambda *_: 1 / 0)
    device.publish("never seen", b"x", 2, 7)
    assert await device.goodbye() == 0x83
    monkeypatch.undo()
    await other.published("a")
    assert len([record for record in caplog.records if record.exc_info]) == 1
