"""What the house says of itself under `$SYS`."""

from bridge.mqtt.packet import Puback, Publish, Subscription
from bridge.mqtt.reason import ReasonCode
from tests.gateway import until


async def heard(device, count):
    return {packet.topic: packet for packet in await device.several(Publish, count)}


async def test_whoever_subscribes_gets_the_conventional_topics_and_the_backlog_of_each_route(house):
    await until(lambda: house.broker.retained.get("$SYS/broker/uptime"))
    device = await house.connect()
    await device.published("a")
    wanted = [
        "version", "uptime", "clients/connected", "clients/total", "clients/maximum", "messages/received",
        "messages/sent", "bytes/received", "bytes/sent", "publish/messages/received", "subscriptions/count",
        "retained messages/count", "load/messages/received/1min", "load/publish/sent/15min",
        "routes/all/backlog/messages", "routes/all/backlog/bytes", "routes/all/backlog/age",
        "sinks/cloud/state",
    ]  # fmt: skip
    for name in wanted:
        await device.subscribe(Subscription(f"$SYS/broker/{name}", 0))
        found = await device.expect(Publish)
        assert found.topic == f"$SYS/broker/{name}"
        assert found.retain
        assert found.payload


async def test_they_follow_what_happens_and_are_published_when_they_change(bare):
    await bare.start(sys={"interval": "1s"})
    device = await bare.connect()
    await device.subscribe(Subscription("$SYS/broker/publish/messages/received", 0))
    first = await device.expect(Publish)
    assert first.payload == b"0"
    await device.published("a")
    second = await device.expect(Publish)
    assert (second.payload, second.retain) == (b"1", False)


async def test_they_are_not_part_of_a_hash_and_no_route_takes_them(bare):
    await bare.start(sys={"interval": "1s"})
    device = await bare.connect()
    await device.subscribe("#", "+/broker/#")
    turns = bare.broker.now()
    await until(lambda: bare.broker.now() - turns > 1.2)
    await device.quiet()
    assert bare.gateway.spool.uplink.appended == len(bare.gateway.spool.retained) == 0


async def test_nobody_publishes_there_but_the_house(house):
    for version in (4, 5):
        device = await house.connect("device", version)
        await device.subscribe(Subscription("$SYS/broker/lie", 0))
        for topic in ("$SYS/broker/lie", "$share/g/a", "$SYS"):
            device.publish(topic, b"x", 1, 1, retain=True)
            puback = await device.expect(Puback)
            assert puback.reason == (ReasonCode.NOT_AUTHORIZED if version == 5 else 0)
        await device.quiet()
    assert house.broker.inlet.denied == 6
    assert house.broker.retained.get("$SYS/broker/lie") is None


async def test_off_means_that_there_are_none(bare):
    await bare.start(sys="off")
    device = await bare.connect()
    await device.subscribe(Subscription("$SYS/#", 0))
    await device.quiet()


async def test_nothing_of_it_reaches_the_disk(bare):
    await bare.start(sys={"interval": "1s"})
    await until(lambda: bare.broker.retained.get("$SYS/broker/version"))
    commits = bare.gateway.spool.committer.commits
    began = bare.broker.now()
    await until(lambda: bare.broker.now() - began > 1.5)
    assert bare.gateway.spool.committer.commits == commits
