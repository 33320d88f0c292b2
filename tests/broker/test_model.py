"""Three devices do whatever devices do, and the broker is held against its model.

Every byte goes through the real Link, Connection, Session and store; only the
sockets and the clock are the test's (`clockwork`). What the broker owes to whom is
in `model`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from bridge.message import Properties
from bridge.mqtt.codec import encode
from bridge.mqtt.packet import (
    PINGREQ,
    Connect,
    Disconnect,
    Packet,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from bridge.mqtt.packet import Will as WillPacket
from bridge.mqtt.reason import ReasonCode
from tests.broker.clockwork import ClockworkHouse, Wire
from tests.broker.minimal import minimal
from tests.broker.model import NEVER, Connection, Delivery, Difference, Model, Will

WINDOW_MAX = 3  # small enough that messages wait
NAMES = ("one", "two", "three")
TOPICS = ("a", "a/b", "b", "$t")
FILTERS = ("a", "a/b", "a/+", "a/#", "+", "#", "$t", "$share/g/a", "$share/g/#", "$share/h/+/b")
# Whatever falls due does so between the steps of 5 s, never at one.
EXPIRIES_S = (0, 12, 33, NEVER)
STEPS_S = (5, 10, 20)

numbers = st.integers(0, 7)
qos = st.sampled_from((0, 1, 2))
often = st.sampled_from((True, True, True, False))
topics = st.sampled_from(TOPICS)

# What devices do: how often, compared to the rest, and with what. Hypothesis would pick among
# rules by itself, but leaves half of them out of each history, and most then have nobody to talk to.
ACTIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "connect": (
        6,
        {
            "name": st.sampled_from(NAMES),
            "version": st.sampled_from((4, 5, 5)),
            "clean": st.sampled_from((False, False, True)),
            "expiry_s": st.sampled_from(EXPIRIES_S),
            "keep_alive_s": st.sampled_from((0, 0, 0, 6)),
            "receive_maximum": st.sampled_from((None, 1, 2)),
            "will": st.none() | st.tuples(qos, st.booleans(), st.sampled_from((0, 8))),
        },
    ),
    "drop": (2, {"nth": numbers}),
    "leave": (
        1,
        {"nth": numbers, "with_will": st.booleans(), "expiry_s": st.none() | st.sampled_from(EXPIRIES_S)},
    ),
    "time_passes": (1, {"seconds": st.sampled_from(STEPS_S)}),
    "subscribe": (
        5,
        {
            "nth": numbers,
            "filters": st.lists(st.sampled_from(FILTERS), min_size=1, max_size=2, unique=True),
            "qos": st.sampled_from((0, 1, 2, 2)),
            "no_local": often.map(lambda each: not each),
            "as_published": st.booleans(),
            "handling": st.sampled_from((0, 1, 2)),
            "identifier": st.sampled_from((None, None, 1, 200)),
        },
    ),
    "unsubscribe": (
        1,
        {"nth": numbers, "which": numbers, "other": st.sampled_from(FILTERS), "have": often},
    ),
    "publish": (
        10,
        {
            "nth": numbers,
            "topic": topics,
            "qos": st.sampled_from((0, 1, 1, 2, 2)),
            "retain": often.map(lambda each: not each),
            "empty": st.sampled_from((False, False, False, True)),
            "life_s": st.sampled_from((None, None, 7, 22)),
            "count": st.sampled_from((1, 1, 1, 3)),
        },
    ),
    "publish_again": (1, {"nth": numbers, "topic": topics, "which": numbers}),
    "release": (3, {"nth": numbers, "which": numbers, "known": often}),
    "answer_one": (6, {"nth": numbers, "which": numbers, "accept": often}),
    "answer_everything": (3, {"nth": numbers}),
    "ping": (1, {"nth": numbers}),
    "restart": (1, {}),
    "kill": (1, {}),
}


def action(name: str) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    return st.tuples(st.just(name), st.fixed_dictionaries(ACTIONS[name][1]))


actions = st.sampled_from([name for name, (weight, _) in ACTIONS.items() for _ in range(weight)]).flatmap(
    action
)
arrivals = st.tuples(*(st.tuples(action("connect"), action("subscribe")) for _ in NAMES))


class Device:
    """One connection, seen from both sides: the real one and the model's."""

    def __init__(self, name: str, wire: Wire, connection: Connection) -> None:
        self.name = name
        self.wire = wire
        self.connection = connection
        self.version = connection.version

    def unanswered(self) -> list[Delivery]:
        return [each for each in self.connection.session.in_flight if each.sent_on is self.connection]


def plain(packet: Packet) -> Packet:
    """Without properties, except for PUBLISH: the model knows no limits and no reason strings."""
    if isinstance(packet, Publish | Pingresp):
        return packet
    return msgspec.structs.replace(packet, properties=None)


class Devices(RuleBasedStateMachine):
    failed: ClassVar[list[tuple[str, dict[str, Any]]]] = []  # the last history that went wrong

    def __init__(self) -> None:
        super().__init__()
        # The broker begins, and from then on looks at deadlines, between two whole seconds; whatever
        # devices do and whatever falls due does so at a whole one. So nothing meets anything else.
        self.house = ClockworkHouse(window_max=WINDOW_MAX)
        self.house.loop.advance(0.5)
        self.model = Model(self.house.loop.time(), WINDOW_MAX)
        self.devices: dict[str, Device] = {}
        self.gone: list[Device] = []
        self.payload = 0
        self.packet_id = 0

        self.story: list[tuple[str, dict[str, Any]]] = []

    def teardown(self) -> None:
        self.house.end()

    # ---- words ---------------------------------------------------------------------

    def pick(self, nth: int) -> Device:
        return list(self.devices.values())[nth % len(self.devices)]

    def send(self, device: Device, *packets: Packet) -> None:
        device.wire.send_bytes(b"".join(encode(each, device.version) for each in packets))

    def next_packet_id(self) -> int:
        self.packet_id += 1
        return self.packet_id

    def next_payload(self) -> bytes:
        self.payload += 1
        return b"%d" % self.payload

    def somebody_shares(self) -> bool:
        """Then no message may be empty: who of a group got which, only the payload can tell."""
        sessions = self.model.sessions.values()
        return any(each.startswith("$share") for session in sessions for each in session.subscriptions)

    def leaves(self, name: str) -> None:
        self.gone.append(self.devices.pop(name))

    def check(self) -> None:
        """Hand everything that was received to the model."""
        self.house.loop.settle()
        assert not self.house.mistakes, self.house.mistakes
        for device in list(self.devices.values()):
            if device.connection.closed:
                self.leaves(device.name)
        for device in (*self.gone, *self.devices.values()):
            for packet in device.wire.read():
                self.model.receive(device.connection, plain(packet))
            if device.wire.closed != device.connection.closed:
                raise Difference(f"{device.name} is{'' if device.wire.closed else ' not'} sent away")
            if device.connection.closed and device.connection.answers:
                raise Difference(f"{device.name} was not told {device.connection.answers}")
        self.gone.clear()
        self.model.quiet()

    @initialize(arrivals=arrivals)
    def begin(self, arrivals: Any) -> None:
        for nth, (name, (connect, subscribe)) in enumerate(zip(NAMES, arrivals, strict=True)):
            self.act(("connect", connect[1] | {"name": name}))
            self.act(("subscribe", subscribe[1] | {"nth": nth}))

    @rule(action=actions)
    def act(self, action: tuple[str, dict[str, Any]]) -> None:
        self.story.append(action)
        name, how = action
        if self.devices or name in ("connect", "time_passes", "restart", "kill"):
            try:
                getattr(self, name)(**how)
            except Exception:
                Devices.failed = self.story
                raise

    # ---- coming and going ----------------------------------------------------------

    def connect(
        self,
        name: str,
        version: int,
        clean: bool,
        expiry_s: int,
        keep_alive_s: int,
        receive_maximum: int | None,
        will: tuple[int, bool, int] | None,
    ) -> None:
        if name in self.devices:
            self.leaves(name)
        if version == 4:
            expiry_s, receive_maximum = 0 if clean else NEVER, None
            will = will and (*will[:2], 0)
        said = None
        expected = None
        if will is not None:
            expected = Will(f"w/{name}", self.next_payload(), *will)
            delay = Properties(will_delay_interval_s=expected.delay_s) if version == 5 else None
            said = WillPacket(expected.topic, expected.payload, expected.qos, expected.retain, delay)
        about = Properties(session_expiry_interval_s=expiry_s, receive_maximum=receive_maximum)
        wire = self.house.wire(version)
        connection = self.model.connect(
            name, version, clean, expiry_s, keep_alive_s, receive_maximum, expected
        )
        self.devices[name] = device = Device(name, wire, connection)
        self.send(
            device,
            Connect(
                name, version, clean, keep_alive_s, will=said, properties=about if version == 5 else None
            ),
        )
        self.check()

    def drop(self, nth: int) -> None:
        device = self.pick(nth)
        device.wire.drop()
        self.model.drop(device.connection)
        self.check()

    def leave(self, nth: int, with_will: bool, expiry_s: int | None) -> None:
        device = self.pick(nth)
        if device.version < 5:
            with_will, expiry_s = False, None
        elif not device.connection.session.expiry_s:
            expiry_s = None  # it may not last now [section 3.14.2.2.2]
        reason = ReasonCode.DISCONNECT_WITH_WILL if with_will else 0
        about = Properties(session_expiry_interval_s=expiry_s) if expiry_s is not None else None
        self.send(device, Disconnect(reason, about))
        self.model.leave(device.connection, with_will, expiry_s)
        self.check()

    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):
            for looks in (True, False):
                self.house.loop.advance(0.5)
                self.model.pass_time(self.house.loop.time(), looks)
                self.check()

    def restart(self) -> None:
        self.house.stop()
        self.model.stop()
        self.check()
        self.house.loop.advance(0.5)
        self.house.start()
        self.model.pass_time(self.house.loop.time(), looks=True)
        self.half_a_second_later()

    def kill(self) -> None:
        """SIGKILL. Devices have seen what they have seen."""
        self.house.kill()
        self.devices.clear()
        self.house.loop.advance(0.5)
        self.house.start()
        self.model.kill(self.house.loop.time())
        self.half_a_second_later()

    def half_a_second_later(self) -> None:
        self.check()
        self.house.loop.advance(0.5)
        self.model.pass_time(self.house.loop.time(), looks=False)
        self.check()

    # ---- subscribing ---------------------------------------------------------------

    def subscribe(
        self,
        nth: int,
        filters: list[str],
        qos: int,
        no_local: bool,
        as_published: bool,
        handling: int,
        identifier: int | None,
    ) -> None:
        device = self.pick(nth)
        if device.version < 5:
            no_local, as_published, handling, identifier = False, False, 0, None
        # Who says no-local of a filter, says it always: what waits is looked up again after a restart,
        # and then the subscription is not what it was when the message came.
        known = device.connection.session.subscriptions
        if device.version < 5:
            filters = [each for each in filters if each not in known or not known[each].no_local]
            if not filters:
                return
        local = {each: known[each].no_local if each in known else no_local for each in filters}
        subscriptions = [
            Subscription(
                each, qos, local[each] and not each.startswith("$share"), as_published, handling, identifier
            )
            for each in filters
        ]
        about = Properties(subscription_identifiers=(identifier,)) if identifier else None
        packet_id = self.next_packet_id()
        self.send(device, Subscribe(packet_id, tuple(subscriptions), about))
        self.model.subscribe(device.connection, packet_id, subscriptions)
        self.check()

    def unsubscribe(self, nth: int, which: int, other: str, have: bool) -> None:
        device = self.pick(nth)
        known = list(device.connection.session.subscriptions)
        topic_filter = known[which % len(known)] if have and known else other
        packet_id = self.next_packet_id()
        self.send(device, Unsubscribe(packet_id, (topic_filter,)))
        self.model.unsubscribe(device.connection, packet_id, [topic_filter])
        self.check()

    # ---- publishing ----------------------------------------------------------------

    def publish(
        self, nth: int, topic: str, qos: int, retain: bool, empty: bool, life_s: int | None, count: int
    ) -> None:
        device = self.pick(nth)
        if device.version < 5:
            life_s = None
        packets = []
        for _ in range(count):
            payload = b"" if empty and not self.somebody_shares() else self.next_payload()
            packet_id = self.next_packet_id() if qos else 0
            about = Properties(message_expiry_interval_s=life_s) if life_s else None
            packets.append(Publish(topic, payload, qos, retain, packet_id=packet_id, properties=about))
            self.model.publish(device.connection, topic, payload, qos, retain, packet_id, life_s)
        self.send(device, *packets)
        self.check()

    def publish_again(self, nth: int, topic: str, which: int) -> None:
        """A QoS 2 PUBLISH that was not released is repeated; the server goes by its identifier alone."""
        device = self.pick(nth)
        open_ids = sorted(device.connection.session.incoming)
        if open_ids:
            packet_id = open_ids[which % len(open_ids)]
            payload = self.next_payload()
            self.send(device, Publish(topic, payload, 2, dup=True, packet_id=packet_id))
            self.model.publish(device.connection, topic, payload, 2, False, packet_id)
            self.check()

    def release(self, nth: int, which: int, known: bool) -> None:
        device = self.pick(nth)
        open_ids = sorted(device.connection.session.incoming)
        packet_id = open_ids[which % len(open_ids)] if known and open_ids else 60_000
        self.send(device, Pubrel(packet_id))
        self.model.release(device.connection, packet_id)
        self.check()

    # ---- answering -----------------------------------------------------------------

    def answer(self, device: Device, delivery: Delivery, refuse: bool = False) -> None:
        kind: Any = Puback if delivery.qos == 1 else Pubcomp if delivery.released else Pubrec
        refuse = refuse and device.version == 5 and kind is not Pubcomp
        reason = ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR if refuse else 0
        self.send(device, kind(delivery.packet_id, reason))
        self.model.acknowledge(device.connection, delivery, refuse)
        self.check()

    def answer_one(self, nth: int, which: int, accept: bool) -> None:
        device = self.pick(nth)
        if waiting := device.unanswered():
            self.answer(device, waiting[which % len(waiting)], not accept)

    def answer_everything(self, nth: int) -> None:
        device = self.pick(nth)
        while waiting := device.unanswered():
            self.answer(device, waiting[0])

    def ping(self, nth: int) -> None:
        device = self.pick(nth)
        self.send(device, PINGREQ)
        self.model.ping(device.connection)
        self.check()


def mistake(story: list[tuple[str, dict[str, Any]]]) -> Exception | None:
    """What goes wrong in this history."""
    devices = Devices()
    try:
        for action in story:
            devices.act(action)
    except Exception as error:
        return error
    finally:
        devices.teardown()
    return None


def run(examples: int, steps: int, **more: Any) -> None:
    try:
        run_state_machine_as_test(
            Devices,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=(Phase.generate,),
                report_multiple_bugs=False,
                **more,
            ),
        )
    except Exception as error:
        story = minimal(Devices.failed, lambda shorter: mistake(shorter) is not None)
        lines = [f"{mistake(story) or error}", *(f"  {name} {how}" for name, how in story)]
        raise AssertionError("\n".join(lines)) from error


def test_what_was_acknowledged_long_before_a_kill_is_not_sent_again():
    """It was, where nothing else had come since: what a device has answered waited for the next commit."""
    comes = {"name": "one", "version": 5, "clean": False, "expiry_s": 33, "keep_alive_s": 0}
    comes |= {"receive_maximum": None, "will": None}
    wants = {"nth": 0, "filters": ["a"], "qos": 1, "no_local": False}
    wants |= {"as_published": False, "handling": 2, "identifier": None}
    says = {"nth": 0, "topic": "a", "qos": 1, "retain": False, "empty": False, "life_s": None, "count": 1}
    story = [("connect", comes), ("subscribe", wants), ("publish", says), ("answer_everything", {"nth": 0})]
    assert mistake([*story, ("time_passes", {"seconds": 5}), ("kill", {}), ("connect", comes)]) is None


def test_what_waited_for_a_member_that_unsubscribed_goes_to_another_when_its_session_ends():
    """The model once knew only of what the member had not unsubscribed from."""
    comes = {"receive_maximum": None, "clean": False, "keep_alive_s": 0, "will": None, "expiry_s": 0}
    wants = {"qos": 2, "no_local": False, "as_published": False, "handling": 1, "identifier": None}
    says = {"topic": "a", "qos": 2, "life_s": None, "count": 3, "retain": False, "empty": False}
    story = [
        ("connect", {**comes, "name": "one", "version": 4}),
        ("connect", {**comes, "name": "two", "version": 5, "receive_maximum": 2}),
        ("subscribe", {**wants, "nth": 1, "qos": 1, "filters": ["+"]}),
        ("subscribe", {**wants, "nth": 1, "filters": ["$share/g/#", "$share/g/a"]}),
        ("publish", {**says, "nth": 2}),
        ("subscribe", {**wants, "nth": 2, "filters": ["$share/g/#"]}),
        ("unsubscribe", {"which": 1, "nth": 1, "have": True, "other": "a/#"}),
        ("connect", {**comes, "name": "two", "version": 4, "receive_maximum": 2}),
    ]
    assert mistake(story) is None


def test_three_devices_get_what_the_model_says():
    run(200, 30, derandomize=True)


@pytest.mark.long
def test_three_devices_get_what_the_model_says_in_many_more_histories():
    run(5_000, 50)
