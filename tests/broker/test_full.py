"""A store without room: what each route asked for happens, and every message is accounted for."""

import errno

import pytest

from bridge.mqtt.packet import Puback, Pubrec, Will
from bridge.mqtt.reason import ReasonCode
from tests.gateway import sink_of, until

PAYLOAD = bytes(8_000)


def accounted(gateway, accepted, route="all"):
    """accepted = delivered + refused + expired + lost + backlog, to the message."""
    found = gateway.status().routes[route]
    settled = found.delivered + found.refused + found.expired + found.lost
    assert accepted == settled + found.backlog_messages, found
    return found


async def start(bare, when_full, max_bytes="1MiB"):
    gateway = await bare.start(
        store={"path": str(bare.folder / "spool"), "max_bytes": max_bytes},
        routes={"all": {"from": "#", "to": "cloud", "when_full": when_full, "batch": {"messages": 10}}},
    )
    sink_of(gateway).pause()
    await until(lambda: gateway.keepers["cloud"].up)
    return gateway


async def fill(bare, version, qos=1):
    """Publish until the gateway closes; return how many were acknowledged, and the reason."""
    device = await bare.connect("filler", version)
    for packet_id in range(1, 500):
        device.publish("a", b"%04d" % packet_id + PAYLOAD, qos, packet_id)
        answer = await device.next()
        if not isinstance(answer, Puback | Pubrec):
            return packet_id - 1, getattr(answer, "reason", None)
    raise AssertionError("it was never full")


@pytest.mark.parametrize(("version", "reason"), [(5, ReasonCode.QUOTA_EXCEEDED), (4, None)])
@pytest.mark.parametrize("qos", [1, 2])
async def test_refuse_sends_the_device_away_and_takes_it_back_when_the_cloud_has_drained(
    bare, version, reason, qos
):
    gateway = await start(bare, "refuse")
    accepted, said = await fill(bare, version, qos)
    assert said == reason
    assert 50 < accepted < 105
    status = gateway.status()
    assert (status.store.state, status.mqtt.refused) == ("full", 1)
    accounted(gateway, accepted)
    again = await bare.connect("filler", version)
    again.publish("a", PAYLOAD, qos, 1)
    assert await again.goodbye() == reason

    sink_of(gateway).resume()
    await until(lambda: gateway.status().routes["all"].backlog_messages == 0)
    device = await bare.connect("filler", version)
    device.publish("a", PAYLOAD, qos, 1)
    assert isinstance(await device.next(), Puback | Pubrec)
    await until(lambda: gateway.status().routes["all"].delivered == accepted + 1)
    accounted(gateway, accepted + 1)
    assert gateway.status().store.state == "ok"


async def test_what_came_before_the_one_that_found_no_room_is_acknowledged(bare):
    gateway = await start(bare, "refuse")
    device = await bare.connect()
    for packet_id in range(1, 150):
        device.publish("a", PAYLOAD, 1, packet_id)
    accepted = 0
    while isinstance(answer := await device.next(), Puback):
        accepted += 1
        assert answer.packet_id == accepted
    assert answer.reason == ReasonCode.QUOTA_EXCEEDED
    accounted(gateway, accepted)


async def test_qos_0_is_dropped_and_counted_and_the_device_stays(bare):
    gateway = await start(bare, "refuse")
    accepted, _ = await fill(bare, 5)
    device = await bare.connect("other")
    for _ in range(5):
        device.publish("a", PAYLOAD, 0)
    await device.quiet()
    assert gateway.status().mqtt.dropped == 5
    accounted(gateway, accepted)


async def test_drop_newest_acknowledges_and_counts(bare):
    gateway = await start(bare, "drop_newest")
    device = await bare.connect()
    for packet_id in range(1, 201):
        await device.published("a", PAYLOAD, packet_id)
    found = accounted(gateway, 200)
    assert 95 < found.lost < 150
    sink_of(gateway).resume()
    await until(lambda: gateway.status().routes["all"].backlog_messages == 0)
    found = accounted(gateway, 200)
    assert found.delivered + found.lost == 200


async def test_drop_oldest_frees_the_oldest_and_keeps_the_newest(bare):
    gateway = await start(bare, "drop_oldest")
    device = await bare.connect()
    for packet_id in range(1, 301):
        await device.published("a", b"%03d" % packet_id + PAYLOAD, packet_id)
        accounted_now = gateway.status().routes["all"]
        assert accounted_now.lost + accounted_now.backlog_messages <= packet_id
    sink = sink_of(gateway)
    sink.resume()
    await until(lambda: gateway.status().routes["all"].backlog_messages == 0)
    found = accounted(gateway, 300)
    assert found.lost > 100
    numbers = [int(each.message.payload[:3]) for each in sink.received]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 300
    assert len(numbers) == found.delivered


async def test_one_route_that_refuses_is_enough_to_keep_what_the_others_would_drop(bare):
    gateway = await bare.start(
        store={"path": str(bare.folder / "spool"), "max_bytes": "1MiB"},
        routes={
            "strict": {"from": "#", "to": "cloud", "when_full": "refuse"},
            "loose": {"from": "#", "to": "cloud", "when_full": "drop_oldest"},
        },
    )
    sink_of(gateway).pause()
    await until(lambda: gateway.keepers["cloud"].up)
    accepted, reason = await fill(bare, 5)
    assert reason == ReasonCode.QUOTA_EXCEEDED
    for name in ("strict", "loose"):
        assert accounted(gateway, accepted, name).lost == 0


async def test_given_a_full_disk_then_nothing_is_acknowledged_and_it_goes_on_when_there_is_room(bare):
    gateway = await bare.start()
    device = await bare.connect()
    await device.published("a", b"before")
    bare.disk.fail(errno.ENOSPC)
    device.publish("a", b"lost?", 1, 2)
    assert await device.goodbye() == ReasonCode.QUOTA_EXCEEDED
    other = await bare.connect("other")
    other.publish("a", b"x", 0)
    await other.quiet()
    assert not gateway.status().ready
    bare.disk.mend()
    await until(lambda: gateway.spool.committer.accepting)
    device = await bare.connect("other")
    await device.published("a", b"after")
    sink = sink_of(gateway)
    await until(lambda: len(sink.received) == 2)
    assert [each.message.payload for each in sink.received] == [b"before", b"after"]
    accounted(gateway, 2)
    assert gateway.status().ready


async def test_a_will_that_cannot_be_stored_is_counted(bare):
    gateway = await start(bare, "refuse")
    willing = await bare.connect("willing", will=Will("a", bytes(40_000), 1))
    accepted, _ = await fill(bare, 5)
    willing.drop()
    await until(lambda: gateway.status().mqtt.dropped == 1)
    accounted(gateway, accepted)
