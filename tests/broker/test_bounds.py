"""A route at its own bound: what it asked for happens to it alone, and every message is accounted for."""

import errno

import pytest

from bridge.mqtt.packet import Puback, Will
from bridge.mqtt.reason import ReasonCode
from tests.gateway import sink_of, until

BOUND = 20


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("bridge.app.DRAIN_WAIT_S", 0.02)  # for a far end that takes nothing


def spelled(routes):
    return {
        name: {"from": "#", "to": "cloud", "batch": {"messages": 3}} | more for name, more in routes.items()
    }


async def start(bare, **routes):
    """A gateway whose far end takes nothing; each route is its `when_full` and more."""
    gateway = await bare.start(routes=spelled(routes))
    sink_of(gateway).pause()
    await until(lambda: gateway.keepers["cloud"].up)
    return gateway


def accounts(gateway):
    """What each route says, once it has proven to add up."""
    found = gateway.status().routes
    for name, one in found.items():
        settled = one.delivered + one.refused + one.expired + one.filtered + one.lost + one.damaged
        assert one.accepted == settled + one.stored, name
        assert one.lost == sum(one.dropped.values()), name
    return found


async def publish(bare, count, payload=b"x"):
    device = await bare.connect()
    for packet_id in range(1, count + 1):
        await device.published("a", payload, packet_id)


async def test_drop_oldest_keeps_the_newest_of_this_route_and_all_of_the_others(bare):
    gateway = await start(bare, bound={"when_full": "drop_oldest", "max_messages": BOUND}, free={})
    await publish(bare, 100)
    found = accounts(gateway)
    leaving = gateway.forwarders[0].account.leaving  # let go under way, and not answered yet
    assert (found["bound"].accepted, found["bound"].dropped["bound_oldest"] + leaving) == (100, 80)
    assert found["bound"].stored - leaving == BOUND
    assert (found["free"].stored, found["free"].lost) == (100, 0)
    sink_of(gateway).resume()
    await until(lambda: not any(one.stored for one in gateway.status().routes.values()))
    found = accounts(gateway)
    # What was under way when it was let go has arrived after all.
    assert BOUND <= found["bound"].delivered <= BOUND + 4 * 3
    assert found["free"].delivered == 100


async def test_drop_newest_lets_the_new_one_go_for_this_route_while_another_gets_it(bare):
    routes = {"bound": {"when_full": "drop_newest", "max_messages": BOUND}, "free": {}}
    gateway = await start(bare, **routes)
    await publish(bare, 100)
    found = accounts(gateway)
    assert (found["bound"].stored, found["bound"].dropped["bound_newest"]) == (BOUND, 80)
    assert found["free"].stored == 100
    await bare.restart(routes=spelled(routes))
    await until(lambda: not any(one.counting for one in bare.gateway.status().routes.values()))
    found = accounts(bare.gateway)
    assert (found["bound"].accepted, found["bound"].dropped["bound_newest"]) == (100, 80)
    await until(lambda: not any(one.stored for one in bare.gateway.status().routes.values()))
    found = accounts(bare.gateway)
    assert (found["bound"].delivered, found["bound"].lost, found["free"].delivered) == (BOUND, 80, 100)


async def test_what_nobody_stores_is_acknowledged_only_when_its_count_is_on_the_disk(bare):
    routes = {"only": {"when_full": "drop_newest", "max_messages": BOUND}}
    gateway = await start(bare, **routes)
    await publish(bare, BOUND)
    appended = gateway.spool.uplink.appended
    bare.slow_disk()
    bare.disk.hold()
    device = await bare.connect("one more")
    device.publish("a", b"y", 1, 1)
    await until(bare.disk.waiting.is_set)
    await device.quiet()
    assert accounts(gateway)["only"].accepted == BOUND, "it counts when it is safe"
    bare.disk.release()
    assert isinstance(await device.next(), Puback)
    found = accounts(gateway)["only"]
    assert (found.accepted, found.dropped["bound_newest"]) == (BOUND + 1, 1)
    assert gateway.spool.uplink.appended == appended
    await bare.restart(routes=spelled(routes))
    await until(lambda: bare.gateway.status().routes["only"].delivered == BOUND)
    assert accounts(bare.gateway)["only"].accepted == BOUND + 1


async def test_a_count_that_could_not_be_written_is_none_and_the_message_comes_again(bare):
    routes = {"only": {"when_full": "drop_newest", "max_messages": BOUND}}
    gateway = await start(bare, **routes)
    await publish(bare, BOUND)
    device = await bare.connect("one more")
    bare.disk.fail(errno.EIO)
    device.publish("a", b"y", 1, 1)
    assert await device.goodbye() == ReasonCode.QUOTA_EXCEEDED
    assert accounts(gateway)["only"].accepted == BOUND
    bare.disk.mend()
    await until(lambda: gateway.spool.committer.accepting)
    device = await bare.connect("one more")
    await device.published("a", b"y", 1)
    assert accounts(gateway)["only"].accepted == BOUND + 1
    await bare.restart(routes=spelled(routes))
    await until(lambda: not bare.gateway.status().routes["only"].counting)
    assert accounts(bare.gateway)["only"].accepted == BOUND + 1


@pytest.mark.parametrize(("version", "reason"), [(5, ReasonCode.QUOTA_EXCEEDED), (4, None)])
async def test_refuse_sends_the_device_away_whoever_else_wants_the_message(bare, version, reason):
    gateway = await start(bare, strict={"max_messages": BOUND}, free={})
    device = await bare.connect("device", version)
    for packet_id in range(1, 2 * BOUND):
        device.publish("a", b"x", 1, packet_id)
    for packet_id in range(1, BOUND + 1):
        assert (await device.next()).packet_id == packet_id
    if version == 5:
        goodbye = await device.next()
        assert goodbye.reason == reason
        assert goodbye.properties.reason_string == (
            f"route strict is at its bound, max_messages {BOUND}; send again later"
        )
    else:
        assert await device.goodbye() is None
    found = accounts(gateway)
    assert found["strict"].stored == found["free"].stored == BOUND
    assert gateway.status().mqtt.refused == 1
    sink_of(gateway).resume()
    await until(lambda: gateway.status().routes["strict"].stored == 0)
    await publish(bare, 1)


async def test_qos_0_at_a_bound_that_refuses_is_let_go_for_that_route_alone(bare):
    gateway = await start(bare, strict={"max_messages": BOUND}, free={})
    await publish(bare, BOUND)
    device = await bare.connect("other")
    for _ in range(5):
        device.publish("a", b"y", 0)
    await device.quiet()
    await until(lambda: gateway.status().routes["free"].stored == BOUND + 5)
    found = accounts(gateway)
    assert (found["strict"].stored, found["strict"].dropped["bound_newest"]) == (BOUND, 5)


@pytest.mark.parametrize("when_full", ["refuse", "drop_oldest", "drop_newest"])
async def test_max_bytes_bounds_topics_and_payloads_and_one_message_always_finds_room(bare, when_full):
    gateway = await start(bare, bound={"when_full": when_full, "max_bytes": "10000B"})
    device = await bare.connect()
    await device.published("a", bytes(50_000), 1)
    found = accounts(gateway)["bound"]
    assert (found.stored, found.lost) == (1, 0), "alone it is let in, however large"
    sink_of(gateway).resume()
    await until(lambda: gateway.status().routes["bound"].stored == 0)
    sink_of(gateway).pause()
    for packet_id in range(2, 12):
        await device.published("a", bytes(999), packet_id)
    found = accounts(gateway)["bound"]
    assert (found.stored, found.lost) == (10, 0)
    device.publish("a", b"y", 1, 99)
    answer = await device.next()
    assert isinstance(answer, Puback) == (when_full != "refuse")
    account = gateway.forwarders[0].account
    assert account.stored_bytes - account.leaving_bytes <= 10_000
    assert accounts(gateway)["bound"].lost + account.leaving == (when_full != "refuse")


async def test_a_burst_in_one_read_is_held_to_the_bound_to_the_message(bare):
    gateway = await start(bare, bound={"when_full": "drop_newest", "max_messages": BOUND})
    device = await bare.connect()
    for packet_id in range(1, 201):
        device.publish("a", b"x", 1, packet_id)
    for packet_id in range(1, 201):
        assert (await device.next()).packet_id == packet_id
    found = accounts(gateway)["bound"]
    assert (found.accepted, found.stored, found.lost) == (200, BOUND, 200 - BOUND)


async def test_a_will_at_a_bound_is_accounted_for(bare):
    gateway = await start(bare, bound={"when_full": "drop_newest", "max_messages": BOUND}, free={})
    await publish(bare, BOUND)
    willing = await bare.connect("willing", will=Will("a", b"gone", 1))
    willing.drop()
    await until(lambda: gateway.status().routes["free"].stored == BOUND + 1)
    assert accounts(gateway)["bound"].dropped["bound_newest"] == 1


async def test_a_bound_that_was_lowered_holds_after_the_start(bare):
    gateway = await start(bare, bound={"when_full": "drop_oldest"})
    await publish(bare, 50)
    await bare.restart(routes=spelled({"bound": {"when_full": "drop_oldest", "max_messages": 5}}))
    gateway = bare.gateway
    await until(lambda: gateway.status().routes["bound"].stored == 0)
    found = accounts(gateway)["bound"]
    assert (found.accepted, found.delivered + found.lost) == (50, 50)
