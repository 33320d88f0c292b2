"""Routes with `durability: memory`: not a byte on the disk, bounded, in order, and said to lose messages."""

import errno

import pytest

from bridge.mqtt.packet import Puback, Will
from bridge.mqtt.reason import ReasonCode
from bridge.policy.route import MEMORY_MESSAGES
from tests.broker.test_bounds import accounts
from tests.gateway import sink_of, until


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("bridge.app.DRAIN_WAIT_S", 0.02)  # for a far end that takes nothing


async def start(bare, **routes):
    gateway = await bare.start(
        routes={
            name: {"from": "fast/#", "to": "cloud", "durability": "memory"} | more
            for name, more in routes.items()
        }
    )
    await until(lambda: gateway.keepers["cloud"].up)
    return gateway


async def publish(device, numbers, topic="fast/a"):
    for number in numbers:
        await device.published(topic, b"%d" % number, number + 1)


def received(gateway):
    return [int(one.message.payload) for one in sink_of(gateway).received]


async def test_what_only_routes_in_memory_want_is_acknowledged_and_delivered_and_never_written(bare):
    gateway = await start(bare, fast={})
    device = await bare.connect()
    written, commits = gateway.spool.written_bytes, gateway.spool.committer.commits
    await publish(device, range(100))
    await until(lambda: gateway.status().routes["fast"].delivered == 100)
    assert received(gateway) == list(range(100))
    assert (gateway.spool.written_bytes, gateway.spool.committer.commits) == (written, commits)
    assert gateway.spool.uplink.appended == 0
    found = accounts(gateway)["fast"]
    assert (found.durability, found.accepted, found.delivered, found.backlog_bytes) == ("memory", 100, 100, 0)
    ids = [one.id for one in sink_of(gateway).received]
    assert len(set(ids)) == 100


async def test_it_is_taken_though_the_disk_fails(bare):
    gateway = await start(bare, fast={}, safe={"from": "safe", "durability": "disk"})
    device = await bare.connect("device")
    bare.disk.fail(errno.EIO)
    device.publish("safe", b"1", 1, 1)
    assert await device.goodbye() == ReasonCode.QUOTA_EXCEEDED
    device = await bare.connect("device")
    await publish(device, range(5))
    await until(lambda: received(gateway) == list(range(5)))
    accounts(gateway)


async def test_where_a_route_on_the_disk_wants_it_too_the_strongest_decides(bare):
    gateway = await start(bare, fast={}, safe={"durability": "disk"})
    bare.slow_disk()
    bare.disk.hold()
    device = await bare.connect()
    device.publish("fast/a", b"1", 1, 1)
    await until(bare.disk.waiting.is_set)
    await device.quiet()
    bare.disk.release()
    assert isinstance(await device.next(), Puback)
    await until(lambda: all(one.delivered for one in gateway.status().routes.values()))
    assert received(gateway) == [1, 1]
    found = accounts(gateway)
    assert found["fast"].accepted == found["safe"].accepted == 1


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_order_holds_over_an_outage_and_a_stop_loses_what_waits(bare, qos):
    gateway = await start(bare, fast={}, safe={"from": "safe", "durability": "disk"})
    sink_of(gateway).go_away()
    await until(lambda: not gateway.keepers["cloud"].up)
    device = await bare.connect()
    for number in range(50):
        device.publish("fast/a", b"%d" % number, qos, number + 1)
        if qos:
            await device.next()
    await until(lambda: gateway.status().routes["fast"].stored == 50)
    sink_of(gateway).come_back()
    await until(lambda: len(received(gateway)) == 50)
    assert received(gateway) == list(range(50))
    sink_of(gateway).go_away()
    await until(lambda: not gateway.keepers["cloud"].up)
    await publish(await bare.connect("another"), range(60, 70))
    await bare.restart(routes={"fast": {"from": "fast/#", "to": "cloud", "durability": "memory"}})
    found = accounts(bare.gateway)["fast"]
    assert (found.accepted, found.stored) == (0, 0), "and it counts from the start"


@pytest.mark.parametrize("when_full", ["refuse", "drop_oldest", "drop_newest"])
async def test_it_is_bounded_by_its_route(bare, when_full):
    gateway = await start(
        bare, fast={"when_full": when_full, "max_messages": 20}, safe={"durability": "disk"}
    )
    sink_of(gateway).go_away()
    await until(lambda: not gateway.keepers["cloud"].up)
    device = await bare.connect()
    for number in range(50):
        device.publish("fast/a", b"%d" % number, 1, number + 1)
    answers = 0
    while answers < 50 and isinstance(await device.next(), Puback):
        answers += 1
    assert answers == (20 if when_full == "refuse" else 50)
    found = accounts(gateway)
    leaving = gateway.forwarders[0].account.leaving  # let go under way, and not answered yet
    assert found["fast"].stored - leaving == 20
    dropped = found["fast"].dropped
    assert dropped["bound_oldest"] + leaving == (30 if when_full == "drop_oldest" else 0)
    assert dropped["bound_newest"] == (30 if when_full == "drop_newest" else 0)
    assert (found["safe"].stored, found["safe"].lost) == (answers, 0)
    sink_of(gateway).come_back()
    await until(lambda: not any(one.stored for one in gateway.status().routes.values()))
    accounts(gateway)


async def test_a_route_that_says_nothing_has_a_bound_all_the_same(bare):
    gateway = await start(bare, fast={"when_full": "drop_oldest"})
    sink_of(gateway).go_away()
    await until(lambda: not gateway.keepers["cloud"].up)
    device = await bare.connect()
    for _ in range(MEMORY_MESSAGES + 50):
        device.publish("fast/a", b"", 0)
    await device.quiet()
    await until(lambda: gateway.status().routes["fast"].accepted == MEMORY_MESSAGES + 50)
    assert 0 < accounts(gateway)["fast"].stored <= MEMORY_MESSAGES


async def test_a_will_goes_through_memory_too(bare):
    gateway = await start(bare, fast={})
    willing = await bare.connect("willing", will=Will("fast/w", b"7", 1))
    willing.drop()
    await until(lambda: gateway.status().routes["fast"].delivered == 1)
    assert received(gateway) == [7]
    assert accounts(gateway)["fast"].delivered == 1


async def test_a_route_that_moves_from_the_disk_into_memory_says_what_stays_behind(bare, caplog):
    route = {"from": "fast/#", "to": "cloud"}
    await bare.start(routes={"fast": route})
    await publish(await bare.connect(), range(3))
    await bare.restart(routes={"fast": route | {"durability": "memory"}})
    assert "route in memory now route=fast; what the disk has for it stays there" in caplog.messages
