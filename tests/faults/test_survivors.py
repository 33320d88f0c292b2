"""SIGKILL, and what every kind of state looks like to the devices that come back."""

import asyncio
import contextlib

import pytest

from bridge.message import Properties
from bridge.mqtt.packet import (
    Disconnect,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Will,
)
from tests.broker.device import Device
from tests.gateway import Gateway

DAY_S = 86_400


@pytest.fixture
def gateway(tmp_path):
    gateway = Gateway(tmp_path)
    gateway.start()
    yield gateway
    gateway.kill()
    assert "Traceback" not in gateway.output()


async def killed(gateway):
    await asyncio.to_thread(gateway.kill)
    await asyncio.to_thread(gateway.start)


async def back(gateway, client_id, version=5, **more):
    device = await Device.connect(gateway.port, client_id, version, clean=False, expiry_s=DAY_S, **more)
    return device


both = pytest.mark.parametrize("version", [4, 5])


@both
async def test_one_publish_that_was_acknowledged_is_there_for_who_slept(gateway, version):
    sleeper = await back(gateway, "sleeper", version)
    await sleeper.subscribe(Subscription("a/#", 1))
    await sleeper.leave()
    sender = await Device.connect(gateway.port, "sender", version)
    await sender.published("a/1", b"safe")
    await killed(gateway)
    sleeper = await back(gateway, "sleeper", version)
    assert sleeper.connack.session_present
    first = await sleeper.expect(Publish)
    assert (first.topic, first.payload, first.qos, first.dup, first.packet_id) == (
        "a/1",
        b"safe",
        1,
        False,
        1,
    )


@both
@pytest.mark.parametrize("qos", [1, 2])
async def test_what_was_sent_and_not_answered_comes_again_under_its_identifier_marked_as_a_repetition(
    gateway, version, qos
):
    device = await back(gateway, "device", version)
    await device.subscribe(Subscription("a", qos))
    sender = await Device.connect(gateway.port, "sender", version)
    for packet_id in (1, 2, 3):
        sender.publish("a", b"%d" % packet_id, qos, packet_id)
    first = await device.several(Publish, 3)
    await killed(gateway)
    device = await back(gateway, "device", version)
    again = await device.several(Publish, 3)
    assert [(each.packet_id, each.payload, each.dup) for each in again] == [
        (each.packet_id, each.payload, True) for each in first
    ]


@both
async def test_a_qos_2_exchange_towards_a_device_goes_on_where_it_was(gateway, version):
    device = await back(gateway, "device", version)
    await device.subscribe(Subscription("a", 2))
    sender = await Device.connect(gateway.port, "sender", version)
    sender.publish("a", b"x", 2, 1)
    found = await device.expect(Publish)
    device.send(Pubrec(found.packet_id))
    await device.expect(Pubrel)
    await killed(gateway)
    device = await back(gateway, "device", version)
    assert (await device.expect(Pubrel)).packet_id == found.packet_id
    device.send(Pubcomp(found.packet_id))
    await device.quiet()


@both
async def test_a_qos_2_exchange_from_a_device_goes_on_where_it_was(gateway, version):
    hears = await back(gateway, "hears", version)
    await hears.subscribe(Subscription("a", 1))
    await hears.leave()
    device = await back(gateway, "device", version)
    device.publish("a", b"once", 2, 7)
    await device.expect(Pubrec)
    await killed(gateway)
    device = await back(gateway, "device", version)
    assert device.connack.session_present
    device.publish("a", b"once", 2, 7, dup=True)
    await device.expect(Pubrec)
    device.send(Pubrel(7))
    assert (await device.expect(Pubcomp)).reason == 0
    device.publish("a", b"twice", 2, 7)  # the identifier is free again
    await device.expect(Pubrec)
    hears = await back(gateway, "hears", version)
    assert await hears.receive(2) == [b"once", b"twice"]
    await hears.quiet()


async def test_subscriptions_with_their_options_retained_messages_and_properties_are_there(gateway):
    device = await back(gateway, "device")
    device.send(
        Subscribe(
            1,
            (Subscription("a", 1, no_local=True, retain_as_published=True), Subscription("$share/g/b", 1)),
            Properties(subscription_identifiers=(9,)),
        )
    )
    await device.expect(Suback)
    await device.leave()
    sender = await Device.connect(gateway.port, "sender")
    about = Properties(content_type="text/plain", user_properties=(("k", "1"), ("k", "2")))
    sender.publish("a", b"kept", 1, 1, retain=True, properties=about)
    await sender.expect(Puback)
    await sender.published("b", b"shared", 2)
    await killed(gateway)
    device = await back(gateway, "device")
    found = {each.topic: each for each in await device.several(Publish, 2)}
    assert found["a"].retain
    assert found["a"].properties == Properties(
        content_type="text/plain", user_properties=(("k", "1"), ("k", "2")), subscription_identifiers=(9,)
    )
    assert found["b"].payload == b"shared"
    device.send(*(Puback(each.packet_id) for each in found.values()))
    device.publish("a", b"mine", 1, 5)
    await device.expect(Puback)
    await device.quiet()
    late = await Device.connect(gateway.port, "late")
    await late.subscribe(Subscription("a", 1))
    retained = await late.expect(Publish)
    assert (retained.payload, retained.retain) == (b"kept", True)


async def test_a_will_that_was_waiting_is_spoken_and_one_that_was_taken_back_is_not(gateway):
    hears = await back(gateway, "hears")
    await hears.subscribe(Subscription("will/#", 1))
    await hears.leave()
    late = Properties(will_delay_interval_s=1)
    for name in ("waits", "connected", "content", "returns"):
        mortal = await back(gateway, name, will=Will(f"will/{name}", name.encode(), 1, False, late))
        if name == "waits":
            mortal.send(Disconnect(0x04))
            await mortal.goodbye()
        elif name == "content":
            await mortal.leave()
        elif name == "returns":
            mortal.drop()
    await killed(gateway)
    (await back(gateway, "returns")).drop()  # in time, and without a will this time
    hears = await back(gateway, "hears")
    spoken = await hears.receive(2)
    assert sorted(spoken) == [b"connected", b"waits"]
    with contextlib.suppress(TimeoutError):
        assert await hears.next(1.5) is None, "a will that was taken back"
