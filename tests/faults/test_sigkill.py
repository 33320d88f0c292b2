"""SIGKILL at any moment, with the configuration that runs when nobody writes one (D1).

Devices publish with QoS 1 and 2 all the time, a receiver comes, goes and is
killed, a sleeper's session waits for its own messages, and a listener hears the rest
as they come.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from bridge.broker.limits import Limits
from bridge.forward.forwarder import BATCHES_IN_FLIGHT
from bridge.mqtt.packet import Subscription
from bridge.policy.batch import BatchLimits
from tests.gateway import until
from tests.house.device import Device, Listener, Sleeper
from tests.house.receiver import FarEnd
from tests.house.shipped import Shipped
from tests.house.verdict import judge

ENDLESS = 10_000_000
IN_FLIGHT_TO_DEVICE = Limits().window_max
IN_FLIGHT_MAX = BATCHES_IN_FLIGHT * BatchLimits().messages
WAKES_EVERY = 20  # rounds: less than a session may keep, by a margin


@pytest.mark.parametrize(
    ("rounds", "seed"),
    [
        pytest.param(20, 1, id="20-rounds"),
        pytest.param(500, 2, id="500-rounds", marks=[pytest.mark.long, pytest.mark.timeout(3000)]),
    ],
)
async def test_given_sigkills_at_random_moments_then_no_acknowledged_message_is_lost(
    tmp_path: Path, rounds: int, seed: int
) -> None:
    luck = random.Random(seed)
    gateway = Shipped(tmp_path / "gateway")
    far_end = FarEnd(tmp_path / "far", gateway.endpoint)
    devices = [
        Device("once", gateway.port, ENDLESS, 400),
        Device("twice", gateway.port, ENDLESS, 200, qos=2),
        Device("alarms", gateway.port, ENDLESS, 15, topic="alarm/alarms"),
    ]
    sleeper = Sleeper("sleeper", gateway.port, "alarm/#")
    listener = Listener(
        "listener", gateway.port, Subscription("plant/once/#", 1), Subscription("plant/twice/#", 2)
    )
    alarms = devices[-1]
    far_end_kills = 0
    gateway.start()
    await sleeper.subscribe()
    listening = asyncio.create_task(listener.run())
    await listener.subscribed.wait()
    running = [asyncio.create_task(device.run()) for device in devices]
    try:
        for number in range(rounds):
            if luck.random() < 0.5:
                if far_end.up:
                    far_end.kill()
                    far_end_kills += 1
                else:
                    far_end.start()
            # Not a wait for anything: the moment of the kill is the random part of this test.
            await asyncio.sleep(luck.uniform(0, 0.5))
            gateway.kill()
            await asyncio.to_thread(gateway.start)
            for task in (*running, listening):
                assert not task.done(), task.result()
            if number % WAKES_EVERY == WAKES_EVERY - 1:
                missing = await sleeper.collect({f"alarms:{each}" for each in alarms.acknowledged})
                assert not missing, f"{len(missing)} messages for the sleeper are lost"
        for device in devices:
            device.finish()
        await asyncio.wait_for(asyncio.gather(*running), 60)
        if not far_end.up:
            far_end.start()
        acknowledged = {f"{device.name}:{number}" for device in devices for number in device.acknowledged}
        await asyncio.to_thread(far_end.wait_for, acknowledged)
        missing = await sleeper.collect({f"alarms:{each}" for each in alarms.acknowledged})
        assert not missing, f"{len(missing)} messages for the sleeper are lost"
        heard = {one for one in acknowledged if not one.startswith("alarms:")}
        await until(lambda: heard <= listener.fresh.keys(), 60)
        status = gateway.status()
        assert gateway.stop() == 0
    finally:
        for task in (*running, listening):
            task.cancel()
        gateway.kill()
        far_end.kill()
    verdict = judge([(one["id"], one["payload"]) for one in far_end.received()], devices)
    assert len(acknowledged) > rounds * 20, "too little was under way for this to mean anything"
    assert verdict.repeated <= (rounds + far_end_kills) * IN_FLIGHT_MAX
    assert status["dead_letters"] == status["routes"]["default"]["lost"] == 0
    for device in devices[:2]:
        for number, sent in device.sent.items():
            # Two messages without DUP are two messages: the device must have sent it twice.
            assert listener.fresh[f"{device.name}:{number}"] <= sent
    assert listener.again.total() <= rounds * IN_FLIGHT_TO_DEVICE
    again = sum(sleeper.received.values()) - len(sleeper.received)
    told = gateway.output()
    assert "Traceback" not in told
    print(
        f"{rounds} kills, {len(acknowledged):,} acknowledged, 0 lost; {verdict}; {again} again to the"
        f" sleeper, {listener.again.total()} to the listener"
    )


@pytest.mark.parametrize(
    ("deaths", "seed"),
    [
        pytest.param(8, 1, id="8-deaths"),
        # Two kills in each recovery, as a mean: a hundred in all.
        pytest.param(50, 2, id="50-deaths", marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)
async def test_given_it_is_killed_again_while_it_recovers_then_no_acknowledged_message_is_lost(
    tmp_path: Path, deaths: int, seed: int
) -> None:
    """D5: whoever restarts a gateway that died is no more patient than a watchdog."""
    luck = random.Random(seed)
    gateway = Shipped(tmp_path / "gateway")
    assert gateway.endpoint is not None
    far_end = FarEnd(tmp_path / "far", gateway.endpoint)
    devices = [Device("once", gateway.port, ENDLESS, 400), Device("twice", gateway.port, ENDLESS, 200, qos=2)]
    running = [asyncio.create_task(device.run()) for device in devices]
    far_end.start()
    again = 0
    try:
        await asyncio.to_thread(gateway.start)
        for _ in range(deaths):
            before = len(devices[0].acknowledged)
            await until(lambda before=before: len(devices[0].acknowledged) > before, 30)
            gateway.kill()
            for _ in range(luck.randint(1, 3)):
                again += 1
                gateway.launch()
                # Not a wait for anything: the moment of the kill is the random part of this test.
                await asyncio.sleep(luck.uniform(0, 2))
                gateway.kill()
            await asyncio.to_thread(gateway.start)
            for task in running:
                assert not task.done(), task.result()
        for device in devices:
            device.finish()
        await asyncio.wait_for(asyncio.gather(*running), 60)
        acknowledged = {f"{device.name}:{number}" for device in devices for number in device.acknowledged}
        await asyncio.to_thread(far_end.wait_for, acknowledged)
        assert gateway.stop() == 0
    finally:
        for task in running:
            task.cancel()
        gateway.kill()
        far_end.kill()
    verdict = judge([(one["id"], one["payload"]) for one in far_end.received()], devices)
    assert "Traceback" not in gateway.output()
    print(f"{deaths} deaths, {again} more in recovery; {len(acknowledged):,} acknowledged; {verdict}")
