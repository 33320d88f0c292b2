"""Commands from the cloud: to whom they go, what the cloud is told, and what a restart knows of them."""

import asyncio
import contextlib
import errno
import json
import sys
from pathlib import Path

import msgspec
import pytest
import zmq
import zmq.asyncio

from bridge.message import Properties
from bridge.mqtt.packet import Puback, Pubcomp, Publish, Pubrec, Pubrel
from bridge.policy.incoming import Incoming
from bridge.sources.kit import Sent
from bridge.sources.memory import MemorySource
from tests.gateway import sink_of, until
from tests.servers import free_port
from tests.sources.sender import Sender


def command(body, device="press-1", **more):
    return Incoming(0, body, f"plant-7.{device}", **more)


class Cloud:
    """The queue that the commands of a house come from."""

    def __init__(self, house, **about):
        self.house = house
        self.about = {"from": {"memory": {}}, "to": "plant/{routing_key[1]}/set"} | about

    async def start(self, **parts):
        await self.house.start(commands={"set": self.about}, **parts)
        self.intake = self.house.gateway.intakes[0]
        self.source = self.intake.source
        assert isinstance(self.source, MemorySource)
        await until(lambda: self.intake.keeper.up)

    async def kill(self, **parts):
        """What is in the memory of the gateway is gone; the queue hands out again what was not settled."""
        source = self.source
        await self.house.stop()
        await self.start(**parts)
        unsettled = [msgspec.structs.replace(one, again=True) for one in source.out.values()]
        self.source.put(*unsettled, *[msgspec.structs.replace(one, again=True) for one in source.queue])

    @property
    def accepted(self):
        return [one.body for one in self.source.accepted]

    @property
    def dead(self):
        return {one.body: reason for one, reason in self.source.dead}

    async def settled(self, count):
        await until(lambda: len(self.source.accepted) + len(self.source.dead) >= count)


@pytest.fixture
async def cloud(bare):
    async def start(parts=None, **about):
        cloud = Cloud(bare, **about)
        await cloud.start(**(parts or {}))
        return cloud

    return start


async def sleeper(house, client_id="press-1", topic="plant/press-1/set", qos=1):
    """A device that has subscribed and sleeps."""
    device = await house.connect(client_id, clean=False, expiry_s=3600)
    await device.subscribe(topic, qos=qos)
    await device.leave()


async def awake(house, client_id="press-1"):
    return await house.connect(client_id, clean=False, expiry_s=3600)


# ---- stored ----------------------------------------------------------------------


async def test_a_command_reaches_its_device_and_is_accepted_when_it_is_stored(bare, cloud):
    cloud = await cloud()
    device = await bare.connect("press-1", expiry_s=3600)
    await device.subscribe("plant/press-1/set")
    cloud.source.put(*(command(b"%d" % number) for number in range(50)))
    assert await device.receive(50) == [b"%d" % number for number in range(50)]
    await cloud.settled(50)
    assert cloud.accepted == [b"%d" % number for number in range(50)]
    assert cloud.intake.stored == 50


async def test_a_command_for_a_sleeping_device_is_stored_and_waits_there(bare, cloud):
    cloud = await cloud()
    await sleeper(bare)
    cloud.source.put(command(b"on"))
    await cloud.settled(1)
    await cloud.kill()
    device = await awake(bare)
    assert await device.receive(1) == [b"on"]


async def test_nobody_subscribed_is_undeliverable_and_goes_to_the_dead_letters(bare, cloud):
    cloud = await cloud()
    cloud.source.put(command(b"on"))
    await cloud.settled(1)
    assert "nobody" in cloud.dead[b"on"]
    assert cloud.intake.undeliverable == 1


async def test_a_retained_command_waits_for_whoever_subscribes_later(bare, cloud):
    cloud = await cloud(retain=True)
    cloud.source.put(command(b"on"))
    await cloud.settled(1)
    assert cloud.accepted == [b"on"]
    device = await bare.connect("press-1")
    await device.subscribe("plant/press-1/set")
    assert (await device.expect(Publish)).payload == b"on"


@pytest.mark.parametrize(
    ("key", "body", "why"),
    [
        ("plant-7", b"x", "no word 1"),
        ("plant-7.a+b", b"x", "wildcards"),
        ("plant-7.a\0b", b"x", "U+0000"),
        ("plant-7.", b"x", "no word 1"),
        ("plant-7.big", b"x" * (1 << 20), "limits.packet_bytes"),
    ],
)
async def test_what_makes_no_publish_is_rejected_with_a_reason_and_harms_no_other(
    bare, cloud, key, body, why
):
    cloud = await cloud()
    await sleeper(bare)
    cloud.source.put(command(b"before"), Incoming(0, body, key), command(b"after"))
    await cloud.settled(3)
    assert cloud.accepted == [b"before", b"after"]
    assert why in cloud.dead[body]
    assert cloud.intake.rejected == 1


async def test_a_command_may_not_speak_for_the_gateway(bare, cloud):
    cloud = await cloud(to="{header.topic}")
    cloud.source.put(
        *(Incoming(0, topic.encode(), "k", {"topic": topic}) for topic in ("$SYS/x", "$share/g/x"))
    )
    await cloud.settled(2)
    assert all("the gateway itself" in reason for reason in cloud.dead.values())


async def test_properties_of_the_cloud_become_those_of_mqtt_5(bare, cloud):
    cloud = await cloud(expiry="1h")
    device = await bare.connect("press-1")
    await device.subscribe("plant/press-1/set")
    headers = {"unit": "mm", "n": 7, "x-death": "broker's own", "table": {}, "received_at": "then"}
    cloud.source.put(
        command(
            b"{}",
            headers=headers,
            content_type="application/json",
            correlation_id=b"\0\1",
            reply_to="answers/7",
            expiration_s=59.2,
        )
    )
    got = (await device.expect(Publish)).properties
    assert got.content_type == "application/json"
    assert got.correlation_data == b"\0\1"
    assert got.response_topic == "answers/7"
    assert got.user_properties == (("unit", "mm"), ("n", "7"))
    assert 58 <= got.message_expiry_interval_s <= 60


async def test_a_session_without_room_says_so_and_the_flood_harms_no_other_device(bare, cloud):
    cloud = await cloud({"limits": {"session_messages": 10}})
    await sleeper(bare)
    await sleeper(bare, "press-2", "plant/press-2/set")
    cloud.source.put(*(command(b"%d" % number) for number in range(30)), command(b"other", "press-2"))
    await cloud.settled(31)
    assert cloud.accepted == [*(b"%d" % number for number in range(10)), b"other"]
    assert all("session_messages" in reason for reason in cloud.dead.values())
    assert len(cloud.dead) == 20


async def test_a_full_store_leaves_commands_in_the_queue_until_there_is_room(bare, cloud):
    cloud = await cloud({"store": {"path": str(bare.folder / "spool"), "max_bytes": "1MiB"}})
    await sleeper(bare)
    bodies = [b"%03d" % number + b"x" * 4000 for number in range(60)]
    cloud.source.put(*(command(body) for body in bodies))
    await until(lambda: "no room" in cloud.intake.held_back)
    assert not cloud.dead
    stored = len(cloud.source.accepted)
    assert 0 < stored < 60
    device = await awake(bare)
    assert await device.receive(60) == bodies
    await cloud.settled(60)
    assert cloud.accepted == bodies
    assert bare.broker.delivery.dropped == 0


async def test_a_failing_disk_accepts_nothing_and_the_order_is_kept(bare, cloud, disk):
    cloud = await cloud()
    await sleeper(bare)
    disk.fail(errno.EIO)
    cloud.source.put(*(command(b"%d" % number) for number in range(5)))
    await until(lambda: cloud.intake.held_back)
    assert not cloud.accepted
    disk.mend()
    await cloud.settled(5)
    device = await awake(bare)
    assert await device.receive(5) == [b"0", b"1", b"2", b"3", b"4"]
    await device.quiet()


async def test_a_command_does_not_go_straight_back_up_unless_a_route_asks_for_it(bare, cloud):
    routes = {
        "all": {"from": ["#", "plant/#"], "to": "cloud"},
        "record": {"from": "$edgespool/commands/plant/{machine}/set", "to": "echo", "address": "{machine}"},
    }
    sinks = {"cloud": {"memory": {}}, "echo": {"memory": {}}}
    cloud = await cloud({"routes": routes, "sinks": sinks})
    device = await bare.connect("press-1")
    await device.subscribe("plant/press-1/set")
    cloud.source.put(command(b"lost", "press-9"), command(b"down"))
    assert await device.receive(1) == [b"down"]
    # Nobody but the gateway says that something was a command.
    assert (await device.published("$edgespool/commands/plant/press-1/set", b"forged")).reason == 0x87
    await device.published("plant/press-1/set", b"up")
    await until(lambda: sink_of(bare.gateway).received)
    assert [one.message.payload for one in sink_of(bare.gateway).received] == [b"up"]
    await until(lambda: sink_of(bare.gateway, "echo").received)
    assert [(one.address, one.message.payload) for one in sink_of(bare.gateway, "echo").received] == [
        ("press-1", b"down")
    ]


# ---- with a receipt from the device ------------------------------------------------


@pytest.mark.parametrize("expiry_s", [None, 3600])
async def test_a_receipt_comes_with_the_puback_of_the_device_and_not_before(bare, cloud, expiry_s):
    cloud = await cloud(receipt="device")
    device = await bare.connect("press-1", expiry_s=expiry_s)
    await device.subscribe("plant/press-1/set")
    cloud.source.put(command(b"a"), command(b"b"))
    got = await device.several(Publish, 2)
    assert not cloud.accepted
    device.send(Puback(got[1].packet_id))
    await cloud.settled(1)
    assert cloud.accepted == [b"b"]
    device.send(Puback(got[0].packet_id))
    await cloud.settled(2)
    assert cloud.intake.waiting == bare.broker.commands.watching == 0


async def test_with_qos_2_the_receipt_is_pubcomp(bare, cloud):
    cloud = await cloud(receipt="device", qos=2)
    device = await bare.connect("press-1", expiry_s=3600)
    await device.subscribe("plant/press-1/set", qos=2)
    cloud.source.put(command(b"a"))
    got = await device.expect(Publish)
    device.send(Pubrec(got.packet_id))
    await device.expect(Pubrel)
    assert not cloud.accepted
    device.send(Pubcomp(got.packet_id))
    await cloud.settled(1)
    assert cloud.accepted == [b"a"]


async def test_a_device_that_refuses_is_a_rejection_with_its_reason_code(bare, cloud):
    cloud = await cloud(receipt="device")
    device = await bare.connect("press-1")
    await device.subscribe("plant/press-1/set")
    cloud.source.put(command(b"a"))
    device.send(Puback((await device.expect(Publish)).packet_id, 0x83))
    await cloud.settled(1)
    assert "0x83" in cloud.dead[b"a"]


async def test_an_offline_device_holds_up_no_other(bare, cloud):
    cloud = await cloud(receipt="device")
    await sleeper(bare)
    other = await bare.connect("press-2")
    await other.subscribe("plant/press-2/set")
    cloud.source.put(*(command(b"%d" % number, f"press-{1 + number % 2}") for number in range(20)))
    assert await other.receive(10) == [b"%d" % number for number in range(1, 20, 2)]
    await cloud.settled(10)
    assert cloud.intake.waiting == 10
    device = await awake(bare)
    assert await device.receive(10) == [b"%d" % number for number in range(0, 20, 2)]
    await cloud.settled(20)


async def test_qos_0_acknowledges_nothing_so_it_is_undeliverable(bare, cloud):
    cloud = await cloud(receipt="device")
    device = await bare.connect("press-1")
    await device.subscribe("plant/press-1/set", qos=0)
    cloud.source.put(command(b"a"))
    await cloud.settled(1)
    assert "QoS 1 or 2" in cloud.dead[b"a"]
    await device.quiet()


async def test_all_who_subscribed_have_to_acknowledge(bare, cloud):
    cloud = await cloud(receipt="device")
    device, panel = await bare.connect("press-1"), await bare.connect("panel", expiry_s=3600)
    await device.subscribe("plant/press-1/set")
    await panel.subscribe("plant/#")
    cloud.source.put(command(b"a"))
    await panel.receive(1)
    await panel.quiet()
    assert not cloud.accepted
    await device.receive(1)
    await cloud.settled(1)
    assert cloud.accepted == [b"a"]


async def test_a_session_that_ends_before_it_has_answered_is_reported(bare, cloud):
    cloud = await cloud(receipt="device")
    device = await bare.connect("press-1")
    await device.subscribe("plant/press-1/set")
    cloud.source.put(command(b"a"))
    await device.expect(Publish)
    device.drop()
    await cloud.settled(1)
    assert "the session ended" in cloud.dead[b"a"]
    assert bare.broker.commands.watching == 0


# ---- time ------------------------------------------------------------------------


class Later:
    """The clock of a house, put forward by hand."""

    def __init__(self, house, monkeypatch):
        clock = house.gateway.clock
        self._now_ns, self.ahead_ns = clock.now_ns, 0
        monkeypatch.setattr(clock, "now_ns", lambda: self._now_ns() + self.ahead_ns)
        self._house = house

    def pass_(self, seconds):
        self.ahead_ns += int(seconds * 1e9)
        self._house.broker.commands.tick()


async def test_a_command_that_waits_too_long_is_expired_and_never_delivered(bare, cloud, monkeypatch):
    cloud = await cloud(receipt="device", max_age="10m")
    later = Later(bare, monkeypatch)
    await sleeper(bare)
    cloud.source.put(command(b"a"), command(b"b", expiration_s=60.0))
    await until(lambda: cloud.intake.waiting == 2)
    later.pass_(61)
    await cloud.settled(1)
    assert "time was over" in cloud.dead[b"b"]
    later.pass_(540)
    await cloud.settled(2)
    assert cloud.intake.expired == 2
    assert bare.broker.subscribers["press-1"].session.queued == 0  # its places are free again
    device = await awake(bare)
    await device.quiet()


async def test_one_that_was_sent_and_not_acknowledged_is_not_repeated_when_it_is_too_late(
    bare, cloud, monkeypatch
):
    cloud = await cloud(receipt="device", max_age="10m")
    later = Later(bare, monkeypatch)
    device = await bare.connect("press-1", clean=False, expiry_s=3600)
    await device.subscribe("plant/press-1/set")
    cloud.source.put(command(b"a"))
    await device.expect(Publish)
    later.pass_(601)
    await device.quiet()
    assert not cloud.dead  # it may have it, and say so
    await device.leave()
    device = await awake(bare)
    await device.quiet()
    await cloud.settled(1)
    assert cloud.intake.expired == 1


async def test_a_device_that_sleeps_over_what_it_was_sent_is_reported_without_its_help(
    bare, cloud, monkeypatch
):
    cloud = await cloud(receipt="device", max_age="10m")
    later = Later(bare, monkeypatch)
    device = await bare.connect("press-1", clean=False, expiry_s=3600)
    await device.subscribe("plant/press-1/set")
    cloud.source.put(command(b"a"))
    await device.expect(Publish)
    await device.leave()
    later.pass_(601)
    await cloud.settled(1)
    assert cloud.intake.expired == 1
    assert not bare.broker.subscribers["press-1"].session.in_flight


# ---- again -----------------------------------------------------------------------


async def test_after_a_cut_a_command_with_an_id_is_known_and_not_stored_twice(bare, cloud):
    cloud = await cloud(receipt="device")
    await sleeper(bare)
    cloud.source.put(command(b"a", message_id="m-1"), command(b"b"))
    await until(lambda: cloud.intake.waiting == 2)
    cloud.source.go_away()
    cloud.source.come_back()
    await until(lambda: cloud.intake.received == 4)
    device = await awake(bare)
    # Without an id a repetition is a new command: at least once.
    assert await device.receive(3) == [b"a", b"b", b"b"]
    await device.quiet()
    await cloud.settled(2)
    assert sorted(cloud.accepted) == [b"a", b"b"]
    assert cloud.intake.repeated == 1


async def test_an_outcome_that_the_queue_did_not_hear_is_told_again(bare, cloud):
    cloud = await cloud(receipt="device")
    await sleeper(bare)
    cloud.source.put(command(b"a", message_id="m-1"))
    await until(lambda: cloud.intake.waiting == 1)
    cloud.source.go_away()
    device = await awake(bare)
    assert await device.receive(1) == [b"a"]
    await until(lambda: cloud.intake.waiting == 0)
    cloud.source.come_back()
    await cloud.settled(1)
    assert cloud.accepted == [b"a"]
    await device.quiet()


async def test_one_id_on_two_different_commands_loses_neither(bare, cloud):
    cloud = await cloud(receipt="device")
    await sleeper(bare)
    cloud.source.put(command(b"a", message_id="1"), command(b"b", message_id="1"))
    await until(lambda: cloud.intake.waiting == 2)
    cloud.source.put(command(b"c", message_id="1", again=True))
    await until(lambda: cloud.intake.waiting == 3)
    device = await awake(bare)
    assert await device.receive(3) == [b"a", b"b", b"c"]
    await cloud.settled(3)


@pytest.mark.parametrize("receipt", ["stored", "device"])
async def test_after_a_restart_a_command_is_found_in_its_session_and_not_stored_twice(bare, cloud, receipt):
    cloud = await cloud(receipt=receipt)
    await sleeper(bare)
    cloud.source.settle = lambda settlements: None  # the queue hears nothing more
    cloud.source.put(command(b"a", message_id="m-1"), command(b"b", message_id="m-2"))
    await until(lambda: cloud.intake.received == 2)
    await bare.broker.commands.durable()
    await cloud.kill()
    await until(lambda: cloud.intake.repeated == 2)
    device = await awake(bare)
    assert await device.receive(2) == [b"a", b"b"]
    await device.quiet()
    await cloud.settled(2)
    assert sorted(cloud.accepted) == [b"a", b"b"]


async def test_after_a_restart_one_in_flight_is_waited_for_and_one_that_was_too_late_is_reported(
    bare, cloud, monkeypatch
):
    cloud = await cloud(receipt="device", max_age="10m")
    device = await bare.connect("press-1", clean=False, expiry_s=3600)
    await device.subscribe("plant/press-1/set")
    await sleeper(bare, "press-2", "plant/press-2/set")
    cloud.source.put(command(b"a", message_id="m-1"), command(b"b", "press-2", message_id="m-2"))
    await device.expect(Publish)
    await cloud.kill()
    await until(lambda: cloud.intake.repeated == 2)
    assert cloud.intake.waiting == 2
    device = await awake(bare)
    assert await device.receive(1) == [b"a"]
    await cloud.settled(1)
    Later(bare, monkeypatch).pass_(601)
    await cloud.settled(2)
    assert cloud.accepted == [b"a"]
    assert "time was over" in cloud.dead[b"b"]


async def test_who_asks_for_a_reply_gets_the_outcome(bare, cloud):
    cloud = await cloud(receipt="device")
    device = await bare.connect("press-1")
    await device.subscribe("plant/press-1/set")
    asked = {"reply_to": "back", "correlation_id": b"7"}
    cloud.source.put(
        command(b"a", **asked), command(b"b", "nobody", **asked), Incoming(0, b"c", "x", **asked)
    )
    await device.receive(1)
    await cloud.settled(3)
    replies = {json.loads(one.body)["outcome"]: one for one in cloud.source.replies}
    assert set(replies) == {"delivered", "undeliverable", "rejected"}
    assert {one.reply_to for one in replies.values()} == {"back"}
    assert {one.correlation_id for one in replies.values()} == {b"7"}
    assert "QoS 1 or 2" in replies["undeliverable"].headers["reason"]


# ---- what devices answer -----------------------------------------------------------


ASKED = {"reply_to": "back", "correlation_id": b"7"}


async def answers(device):
    """Wait for a command and answer it, as MQTT 5 has it."""
    got = await device.expect(Publish)
    device.send(Puback(got.packet_id))
    about = Properties(correlation_data=got.properties.correlation_data, content_type="text/plain")
    device.publish(got.properties.response_topic, b"done " + got.payload, 1, 9, properties=about)
    assert (await device.expect(Puback)).reason == 0
    return got


async def test_a_device_answers_to_a_topic_of_ours_and_who_asked_gets_what_it_said(bare, cloud):
    cloud = await cloud(receipt="device", answer_timeout="30s")
    device, spy = await bare.connect("press-1"), await bare.connect("spy")
    await device.subscribe("plant/press-1/set")
    await spy.subscribe("$edgespool/#", "#")
    cloud.source.put(command(b"on", **ASKED))
    got = await answers(device)
    assert got.properties.correlation_data == b"7"
    assert got.properties.response_topic != "back"
    assert await spy.receive(1) == [b"on"]  # who subscribed to it gets it, and nobody overhears the answer
    await spy.quiet()
    await cloud.settled(1)
    [reply] = cloud.source.replies
    assert (reply.reply_to, reply.correlation_id) == ("back", b"7")
    assert (reply.body, reply.content_type) == (b"done on", "text/plain")
    assert reply.headers == {"outcome": "answered"}
    assert not sink_of(bare.gateway).received


async def test_an_answer_may_come_before_the_acknowledgement(bare, cloud):
    cloud = await cloud(receipt="device", answer_timeout="30s")
    device = await bare.connect("press-1")
    await device.subscribe("plant/press-1/set")
    cloud.source.put(command(b"on", **ASKED))
    got = await device.expect(Publish)
    await device.published(got.properties.response_topic, b"first")
    await device.published(got.properties.response_topic, b"second")
    assert not cloud.accepted
    device.publish(got.properties.response_topic, b"third", 1, 2, retain=True)
    assert (await device.expect(Puback)).reason == 0
    assert not len(bare.broker.retained)
    device.send(Puback(got.packet_id))
    await cloud.settled(1)
    assert [one.body for one in cloud.source.replies] == [b"first"]


async def test_a_device_that_says_nothing_has_taken_the_command_all_the_same(bare, cloud):
    cloud = await cloud(receipt="device", answer_timeout="1s")
    device = await bare.connect("press-1", version=4)
    await device.subscribe("plant/press-1/set")
    cloud.source.put(command(b"on", **ASKED), command(b"off"))
    await device.receive(2)
    await cloud.settled(1)
    assert cloud.accepted == [b"off"]  # nobody asked for more than a receipt
    await cloud.settled(2)
    [reply] = cloud.source.replies
    assert reply.headers == {"outcome": "delivered", "reason": "no answer within 1 s"}
    assert not bare.broker.commands._answers


async def test_an_answer_is_remembered_for_a_queue_that_did_not_hear_it(bare, cloud):
    cloud = await cloud(receipt="device", answer_timeout="30s")
    device = await bare.connect("press-1")
    await device.subscribe("plant/press-1/set")
    cloud.source.put(command(b"on", message_id="m-1", **ASKED))
    await until(lambda: cloud.intake.waiting == 1)
    cloud.source.go_away()
    await answers(device)
    await until(lambda: cloud.intake.waiting == 0)
    cloud.source.come_back()
    await cloud.settled(1)
    assert [one.body for one in cloud.source.replies] == [b"done on"]
    await device.quiet()


async def test_after_a_restart_an_answer_still_finds_who_asked(bare, cloud):
    cloud = await cloud(receipt="device", answer_timeout="30s")
    await sleeper(bare)
    cloud.source.put(command(b"on", message_id="m-1", **ASKED))
    await until(lambda: cloud.intake.waiting == 1)
    await cloud.kill()
    await until(lambda: cloud.intake.repeated == 1)
    await answers(await awake(bare))
    await cloud.settled(1)
    assert [one.body for one in cloud.source.replies] == [b"done on"]


# ---- over ZeroMQ -------------------------------------------------------------------


async def test_a_program_sends_commands_over_zeromq_and_hears_which_are_refused(bare):
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    about = {"from": {"zeromq": {"bind": endpoint}}, "to": "plant/{routing_key[1]}/set"}
    await bare.start(commands={"set": about})
    device = await bare.connect("press-1", expiry_s=3600)
    await device.subscribe("plant/press-1/set")
    sender = Sender(connect=endpoint)
    sender.send(*(Sent(body, key) for body, key in ((b"1", "p.press-1"), (b"x", "p.#"), (b"2", "p.press-1"))))
    sender.start()
    assert await device.receive(2) == [b"1", b"2"]
    await until(lambda: not sender.left)
    assert sender.refused == [b"x"]
    await sender.stop()


@pytest.fixture
async def lossy(bare):
    """A house of 1 MiB with one route from a plain socket, and a real sender at it."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(socket, sender, **options):
            endpoint = f"tcp://127.0.0.1:{free_port()}"
            about = {"bind": endpoint, "socket": socket, "confirm": "none"} | options
            store = {"path": str(bare.folder / "spool"), "max_bytes": "1MiB"}
            route = {"from": {"zeromq": about}, "to": "plant/{routing_key[1]}/set"}
            await bare.start(commands={"set": route}, store=store)
            await sleeper(bare)
            far = zmq.asyncio.Context.instance().socket(sender)
            stack.callback(far.close)
            far.linger, far.sndhwm = 0, 10_000
            far.connect(endpoint)
            [intake] = bare.gateway.intakes
            await until(lambda: intake.keeper.up)
            return far, intake

        yield start


async def test_a_plain_sender_commands_a_device_and_what_is_unfit_is_counted(bare, lossy):
    sender, intake = await lossy("pull", zmq.PUSH)
    for frames in ([b"p.press-1", b"1"], [b"p.#", b"x"], [b"alone"], [b"p.press-1", b'{"id": "7"}', b"2"]):
        await sender.send_multipart(frames)
    await sender.send_multipart([b"p.press-1", b'{"id": "7"}', b"2"])  # known by its id
    device = await awake(bare)
    assert await device.receive(2) == [b"1", b"2"]
    await until(lambda: intake.received == 5)
    await until(lambda: intake.stored == 2)
    assert (intake.rejected, intake.repeated, intake.lost) == (2, 1, 0)
    said = bare.gateway.status().commands["set"]
    assert (said.lossy, said.lost) == (True, 0)
    assert "may lose commands; high-water mark 1,000" in said.address


async def test_a_full_store_stops_a_pull_from_reading_and_nothing_is_lost(bare, lossy):
    sender, intake = await lossy("pull", zmq.PUSH, prefetch=20)
    bodies = [b"%03d" % number + b"x" * 4000 for number in range(90)]
    for body in bodies:
        await sender.send_multipart([b"p.press-1", body])
    await until(lambda: "no room" in intake.held_back)
    assert intake.stored < intake.received < len(bodies)
    device = await awake(bare)
    assert await device.receive(len(bodies)) == bodies
    assert intake.lost == 0


async def test_a_full_store_makes_a_sub_drop_the_newest_and_every_one_of_them_is_counted(bare, lossy):
    sender, intake = await lossy("sub", zmq.XPUB, prefetch=10, high_water_mark=20)
    assert await asyncio.wait_for(sender.recv(), 10) == b"\1"
    bodies = [b"%03d" % number + b"x" * 4000 for number in range(300)]
    for number, body in enumerate(bodies, 1):
        await sender.send_multipart([b"p.press-1", body])
        await until(lambda number=number: intake.received + intake.source.kept + intake.lost == number)
    assert "no room" in intake.held_back
    lost = intake.lost
    assert lost > 100
    device = await awake(bare)
    assert await device.receive(len(bodies) - lost) == bodies[: len(bodies) - lost]
    assert intake.lost == lost
    await until(lambda: intake.stored == len(bodies) - lost)
    assert bare.gateway.status().commands["set"].lost == lost


async def test_what_a_stop_takes_with_it_is_counted_too(bare, lossy):
    sender, intake = await lossy("pull", zmq.PUSH, prefetch=10)
    bodies = [b"%03d" % number + b"x" * 4000 for number in range(300)]
    for body in bodies:
        await sender.send_multipart([b"p.press-1", body])
    await until(lambda: "no room" in intake.held_back)
    await asyncio.sleep(0.3)  # the rest lies in libzmq, where nobody can look
    await bare.stop()
    assert intake.stored + intake.lost == len(bodies)


async def test_the_sender_that_we_hand_out_sends_each_once_though_the_gateway_starts_again(bare):
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    about = {"from": {"zeromq": {"bind": endpoint}}, "to": "plant/{routing_key[1]}/set"}
    program = Path(__file__).parents[2] / "deploy" / "receivers" / "sender.py"

    async def send(address, lines):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, program, endpoint, address),
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(process.communicate(b"\n".join(lines)), 60)
        return process.returncode, said.decode()

    lines = [b"%d" % number for number in range(2_000)]
    await bare.start(commands={"set": about})
    await sleeper(bare)
    sending = asyncio.ensure_future(send("p.press-1", lines))
    await until(lambda: bare.gateway.intakes[0].stored > 100)
    await bare.stop()
    assert not sending.done()
    await bare.start(commands={"set": about})
    assert await sending == (0, "")
    device = await awake(bare)
    assert await device.receive(len(lines)) == lines
    code, said = await send("p.#", [b"x"])
    assert code == 1
    assert said.startswith("refused: x: 'plant/#/set' is no topic")
