"""Who is not allowed gets nothing: by no path, by no trick with a name, and not a second longer.

The rows A2 to A5 of the list of faults, against whole gateways and over real sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from bridge.config.model import Config
from bridge.message import Message, Properties
from bridge.mqtt.packet import Connack, Connect, Disconnect, Puback, Publish, Pubrec, Will
from tests.broker.device import Device
from tests.gateway import Gateway, configuration, port_of, running, until
from tests.policy.test_access import HOSTILE
from tests.users import write_users

REFUSED = 0x87
USERS = {"pub": "pub's", "sub": "sub's", "other": "other's", "thief": "thief's", "all": "all's"}


class House:
    """A gateway with users, whose rules a test replaces; and devices that log in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.devices: list[Device] = []
        write_users(folder / "passwords", USERS)

    def parts(self, rules: list[dict[str, Any]] | None, **more: Any) -> dict[str, Any]:
        access = {"users": str(self.folder / "passwords")} | ({} if rules is None else {"rules": rules})
        return {"access": access, "limits": {"failed_logins": 1_000}} | more

    @contextlib.asynccontextmanager
    async def open(self, rules: list[dict[str, Any]] | None, **more: Any) -> Any:
        async with running(self.folder, **self.parts(rules, **more)) as self.gateway:
            try:
                yield self
            finally:
                for device in self.devices:
                    device.drop()

    def reload(self, rules: list[dict[str, Any]] | None, **more: Any) -> None:
        document = configuration(self.folder, **self.parts(rules, **more))
        self.gateway.reload(Config.model_validate_json(json.dumps(document)))

    async def knock(self, client_id: str, version: int = 5, **says: Any) -> tuple[Device, int]:
        """CONNECT as whoever; the device and the reason in CONNACK, 3.1.1's as it stands there."""
        device = Device(port_of(self.gateway), version)
        await device.open()
        self.devices.append(device)
        says = {"clean_start": True} | says
        device.send(Connect(client_id, version, **says))
        answer = await device.next()
        assert isinstance(answer, Connack), answer
        device.connack = answer
        return device, answer.reason

    async def login(
        self, user: str, version: int = 5, *, stays: bool = False, client_id: str = "", **says: Any
    ) -> Device:
        """A device that is let in; `stays`: its session outlives the connection."""
        if version == 5:
            properties = says.pop("properties", Properties())
            says["properties"] = properties.__class__(
                **{name: getattr(properties, name) for name in properties.__struct_fields__}
                | {"session_expiry_interval_s": 3600 if stays else None}
            )
        device, reason = await self.knock(
            client_id or f"{user}'s device",
            version,
            clean_start=says.pop("clean_start", not stays),
            user_name=user,
            password=USERS[user].encode(),
            **says,
        )
        assert reason == 0
        return device


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# ---- A2: the same Client Identifier, somebody else ---------------------------------

THIEVES: dict[str, dict[str, Any]] = {
    "another user": {"user_name": "thief", "password": b"thief's"},
    "nobody": {},
    "nobody with an empty name": {"user_name": "", "password": b""},
    "the name without the password": {"user_name": "sub"},
    "the name with another's password": {"user_name": "sub", "password": b"thief's"},
}


async def _keep(house: House, version: int, client_id: str, *, awake: bool) -> Device:
    """A victim: subscribed, with two messages that wait for it when it sleeps."""
    victim = await house.login("sub", version, stays=True, client_id=client_id)
    assert (await victim.subscribe(f"for/{client_id}/#")).reasons == (1,)
    if not awake:
        await victim.leave()
    return victim


@pytest.mark.parametrize("version", [4, 5])
async def test_a_hundred_thefts_and_none_succeeds(house: House, version: int) -> None:
    """50 for each version: five kinds of thief × Clean Start 0 and 1 × asleep, awake, and repeated."""
    tried = 0
    async with house.open(None, listeners=[{"mqtt": "127.0.0.1:0", "anonymous": True}]):
        other = await house.login("other")
        for (kind, says), clean, (number, awake) in itertools.product(
            THIEVES.items(), [False, True], enumerate([False, True, True, False, True])
        ):
            client_id = f"press-{kind.replace(' ', '-')}-{clean:d}-{number}"
            victim = await _keep(house, version, client_id, awake=awake)
            for payload in (b"1", b"2"):
                await other.published(f"for/{client_id}/x", payload)
            if awake:
                queued = [packet.payload for packet in await victim.several(Publish, 2)]
                assert queued == [b"1", b"2"]

            will = Will(f"for/{client_id}/will", b"stolen")
            thief, reason = await house.knock(client_id, version, clean_start=clean, will=will, **says)
            assert reason != 0, kind
            assert not thief.connack.session_present
            assert await thief.next() is None, "it was closed"
            tried += 1

            if awake:
                await victim.quiet()  # the same connection, and nothing came on it
                await other.published(f"for/{client_id}/x", b"3")
                assert (await victim.expect(Publish)).payload == b"3"
                victim.drop()
            again = await house.login("sub", version, stays=True, client_id=client_id, clean_start=False)
            assert again.connack.session_present
            wanted = [b"1", b"2", b"3"] if awake else [b"1", b"2"]
            assert await again.receive(len(wanted)) == wanted
            await again.quiet()
            await again.leave()
    assert tried == 50


@pytest.mark.parametrize(("version", "code"), [(4, 0x87), (5, 0x87)])
async def test_another_user_with_the_same_client_identifier_is_told_so(
    house: House, version: int, code: int
) -> None:
    """0x87, or 5 in 3.1.1: the codec reads that back as 0x87."""
    async with house.open(None):
        await house.login("sub", version, client_id="press")
        _, reason = await house.knock("press", version, user_name="thief", password=b"thief's")
        assert reason == code


async def test_a_session_still_belongs_to_its_user_after_a_restart(house: House) -> None:
    async with house.open(None):
        await _keep(house, 5, "press", awake=False)
    async with house.open(None):
        for clean in (False, True):
            _, reason = await house.knock("press", clean_start=clean, user_name="thief", password=b"thief's")
            assert reason == REFUSED
        assert (
            await house.login("sub", stays=True, client_id="press", clean_start=False)
        ).connack.session_present


# ---- A3: names that look like something else ---------------------------------------


TRIED = ["plant/victim/x", "victim/x", "plant/victim", "$SYS/x", "plant/a/b/x", "plant//x", "/x"]
WIDE = ["#", "+/#", "plant/+/x", "plant/#", "+/x", "$SYS/#", "plant/+/#", "+/+/x"]


async def test_forty_hostile_names_and_none_opens_anything(house: House) -> None:
    """As user and as Client Identifier, over a socket; `unverified_users` lets anyone choose both."""
    own = ["plant/{user}/x", "{user}/#", "plant/{client}/x", "{client}/#"]
    rules = [{"publish": own, "subscribe": own}, {"client": "watcher", "subscribe": ["#", "$SYS/#"]}]
    listener = {"mqtt": "127.0.0.1:0", "anonymous": True, "unverified_users": True}
    async with running(
        house.folder, listeners=[listener], access={"rules": rules}, sys="off"
    ) as house.gateway:
        watcher, reason = await house.knock("watcher")
        assert reason == 0
        assert (await watcher.subscribe("#", "$SYS/#")).reasons == (1, 1)
        for name in HOSTILE:
            for as_user in (True, False):
                user, client_id = (name, "c") if as_user else ("u", name)
                device, reason = await house.knock(client_id, user_name=user)
                assert reason == 0
                tried = [
                    "plant/victim/x",
                    "victim/x",
                    "plant/victim",
                    "$SYS/x",
                    "plant/a/b/x",
                    "plant//x",
                    "/x",
                ]
                forbidden = [topic for topic in tried if name not in topic.split("/")]
                for topic in forbidden:
                    assert (await device.published(topic, b"forged")).reason == REFUSED, (name, topic)
                filters = [
                    *forbidden,
                    "#",
                    "+/#",
                    "plant/+/x",
                    "plant/#",
                    "+/x",
                    "$SYS/#",
                    "plant/+/#",
                    "+/+/x",
                ]
                suback = await device.subscribe(*filters)
                assert set(suback.reasons) == {REFUSED}, (name, suback)
                suback = await device.subscribe(*(f"$share/g/{each}" for each in filters))
                assert set(suback.reasons) == {REFUSED}, (name, suback)
                device.drop()
        await watcher.quiet()


@pytest.mark.parametrize("version", [4, 5])
async def test_every_filter_of_a_subscribe_is_judged_by_itself(house: House, version: int) -> None:
    rules = [{"user": "sub", "subscribe": ["a/#", "b"]}]
    async with house.open(rules):
        device = await house.login("sub", version)
        no = REFUSED if version == 5 else 0x80
        asked = ["a/x", "secret", "b", "#", "$share/g/a/#", "$share/g/secret", "a/+/c", "+"]
        assert (await device.subscribe(*asked)).reasons == (1, no, 1, no, 1, no, 1, no)
        assert (await device.subscribe(*reversed(asked))).reasons == (no, 1, no, 1, no, 1, no, 1)


# ---- A4: every path, from both sides -----------------------------------------------

SECRET, OPEN = "t/secret", "t/open"
PATHS = ["live", "retained", "queued", "in flight", "shared", "will", "from the house", "rewritten topic"]
CELLS = list(itertools.product(PATHS, ["publisher", "subscriber"], ["allow", "deny", "revoked"]))


def _rules(side: str, *, allowed: bool) -> list[dict[str, Any]]:
    """`all` may do everything, and so may the two others, but for one topic on one side."""
    denied: dict[str, dict[str, list[str]]] = {"pub": {}, "sub": {}}
    if not allowed:
        denied.update(
            {"pub": {"publish": [SECRET]}} if side == "publisher" else {"sub": {"receive": [SECRET]}}
        )
    everything = {"publish": ["#"], "subscribe": ["#"]}
    return [
        {"user": "pub", **everything, "deny": denied["pub"]},
        {"user": "sub", **everything, "deny": denied["sub"]},
        {"user": "all", **everything},
    ]


class Cell:
    """One cell: devices, and the moment at which the right is taken away."""

    def __init__(self, house: House, version: int, side: str, right: str) -> None:
        self.house, self.version, self.side, self.right = house, version, side, right

    def revoke(self) -> None:
        if self.right == "revoked":
            self.house.reload(_rules(self.side, allowed=False))

    def revoke_before_publishing(self) -> None:
        """What was accepted was promised: on this side only what is published later is refused."""
        if self.side == "publisher":
            self.revoke()

    def revoke_before_delivery(self) -> None:
        if self.side == "subscriber":
            self.revoke()

    async def pub(self, **says: Any) -> Device:
        return await self.house.login("pub", self.version, **says)

    async def sub(self, **says: Any) -> Device:
        return await self.house.login("sub", self.version, **says)

    async def mark(self, sub: Device) -> list[bytes]:
        """What the subscriber gets until a message that everyone may send and have has come."""
        marker = await self.house.login("all", self.version)
        await marker.published(OPEN, b"marker")
        await marker.leave()
        return await self.until_marker(sub)

    async def until_marker(self, sub: Device) -> list[bytes]:
        got: list[bytes] = []
        while True:
            packet = await sub.expect(Publish)
            if packet.qos == 1:
                sub.send(Puback(packet.packet_id))
            if packet.payload == b"marker":
                return got
            got.append(packet.payload)

    # ---- the paths ----

    async def live(self) -> list[bytes]:
        sub, pub = await self.sub(), await self.pub()
        assert (await sub.subscribe("t/#")).reasons == (1,)
        self.revoke()
        for qos in (0, 1, 2):
            pub.publish(SECRET, b"secret", qos, qos + 1)
        await pub.several(Puback, 1)
        await pub.several(Pubrec, 1)
        return await self.mark(sub)

    async def retained(self) -> list[bytes]:
        pub, sub = await self.pub(), await self.sub()
        pub.publish(SECRET, b"secret", retain=True)
        await pub.expect(Puback)
        self.revoke()
        await sub.subscribe("t/#")
        return await self.mark(sub)

    async def queued(self) -> list[bytes]:
        sub, pub = await self.sub(stays=True), await self.pub()
        await sub.subscribe("t/#")
        await sub.leave()
        self.revoke_before_publishing()
        await pub.published(SECRET, b"secret")
        self.revoke_before_delivery()
        return await self.mark(await self.sub(stays=True))

    async def in_flight(self) -> list[bytes]:
        if self.side == "publisher":
            return await self._sent_again()
        sub, pub = await self.sub(stays=True), await self.pub()
        await sub.subscribe("t/#")
        await pub.published(SECRET, b"secret")
        await pub.published(OPEN, b"first", 2)
        packets = await sub.several(Publish, 1 if self.right == "deny" else 2)
        assert packets[-1].payload == b"first"
        sub.drop()  # without a PUBACK: both are sent again
        await until(lambda: self.house.gateway.broker.subscribers["sub's device"].link is None)
        self.revoke()
        return [payload for payload in await self.mark(await self.sub(stays=True)) if payload != b"first"]

    async def _sent_again(self) -> list[bytes]:
        sub, pub = await self.sub(), await self.pub(stays=True)
        await sub.subscribe("t/#")
        pub.drop()
        self.revoke()
        pub = await self.pub(stays=True)
        pub.publish(SECRET, b"secret", 1, 7, dup=True)
        await pub.expect(Puback)
        pub.publish(SECRET, b"secret", 2, 8, dup=True)
        await pub.expect(Pubrec)
        return await self.mark(sub)

    async def shared(self) -> list[bytes]:
        sub, member, pub = await self.sub(), await self.house.login("all", self.version), await self.pub()
        await sub.subscribe("$share/g/t/#", OPEN)
        await member.subscribe("$share/g/t/#")
        self.revoke()
        for number in range(10):
            await pub.published(SECRET, b"secret", number + 1)
        got = await self.mark_shared(sub)
        if self.right == "allow":
            assert 0 < len(got) < 10, "both members get some"
        elif self.side == "subscriber":
            # None of them is lost: the other member has them all.
            assert [packet.payload for packet in await member.several(Publish, 10)] == [b"secret"] * 10
        return got

    async def mark_shared(self, sub: Device) -> list[bytes]:
        marker = await self.house.login("all", self.version, client_id="marker")
        await marker.published(OPEN, b"marker")
        return await self.until_marker(sub)

    async def will(self) -> list[bytes]:
        sub = await self.sub()
        await sub.subscribe("t/#")
        pub = await self.pub(will=Will(SECRET, b"secret", 1))
        self.revoke()
        pub.drop()
        await until(lambda: "pub's device" not in self.house.gateway.broker.subscribers)
        return await self.mark(sub)

    async def from_the_house(self) -> list[bytes]:
        """A command of the cloud: no rule about devices silences it, and no device passes for it."""
        sub, pub = await self.sub(), await self.pub()
        await sub.subscribe("t/#")
        self.revoke()
        house = Message(SECRET, b"from the house", 1, False, "", time.time_ns())
        self.house.gateway.broker.inlet.publish(house)
        await pub.published(SECRET, b"secret")
        got = await self.mark(sub)
        if self.side == "publisher":
            assert got.pop(0) == b"from the house"
        elif self.right == "allow":
            assert got == [b"from the house", b"secret"]
        return got

    async def rewritten_topic(self) -> list[bytes]:
        """The topic that counts is the one an alias stands for, whenever that was said."""
        sub = await self.sub(properties=Properties(topic_alias_maximum=10))
        pub = await self.pub()
        await sub.subscribe("t/#")
        alias = Properties(topic_alias=1)
        pub.publish(SECRET, b"secret", 1, 1, properties=alias)
        await pub.expect(Puback)
        before = [] if self.right == "deny" else [b"secret"]
        assert await sub.receive(len(before)) == before
        self.revoke()
        pub.publish("", b"secret", 1, 2, properties=alias)
        await pub.expect(Puback)
        return await self.mark(sub)


@pytest.mark.parametrize(
    ("path", "side", "right", "version"),
    # Only MQTT 5 has topics that stand for others.
    [
        (*cell, version)
        for cell in CELLS
        for version in (4, 5)
        if version == 5 or cell[0] != "rewritten topic"
    ],
)
async def test_a_right_counts_on_every_path(
    house: House, path: str, side: str, right: str, version: int
) -> None:
    async with house.open(_rules(side, allowed=right != "deny")):
        cell = Cell(house, version, side, right)
        got = await getattr(cell, path.replace(" ", "_"))()
        assert (b"secret" in got) is (right == "allow"), got
        assert set(got) <= {b"secret", b"from the house"}
        assert b"from the house" not in got or right == "allow"


def test_the_matrix_has_48_cells() -> None:
    assert len(CELLS) == 48


# ---- A5: rights that are taken away while all runs ---------------------------------


class Reloaded:
    """A gateway in a process of its own, with files that a test writes anew before it sends SIGHUP."""

    def __init__(self, folder: Path) -> None:
        self.passwords, self.rules = folder / "passwords", folder / "rules.yaml"
        write_users(self.passwords, USERS)
        self.allow(True)
        access = {"users": str(self.passwords), "rules": str(self.rules)}
        self.gateway = Gateway(folder, access=access, limits={"failed_logins": 1_000})
        self.devices: list[Device] = []

    def allow(self, allowed: bool) -> None:
        """JSON is YAML."""
        self.rules.write_text(json.dumps(_rules("subscriber", allowed=allowed)))

    def hang_up(self) -> None:
        os.kill(self.gateway.pid, signal.SIGHUP)

    async def connect(self, user: str, *, stays: bool = False, name: str = "") -> Device:
        device = Device(self.gateway.port)
        await device.open()
        self.devices.append(device)
        about = Properties(session_expiry_interval_s=3600 if stays else None)
        device.send(
            Connect(
                name or user,
                5,
                not stays,
                user_name=user,
                password=USERS[user].encode(),
                properties=about,
            )
        )
        assert (await device.expect(Connack)).reason == 0
        return device


@pytest.fixture
async def reloaded(tmp_path: Path) -> Any:
    house = Reloaded(tmp_path)
    house.gateway.start()
    yield house
    for device in house.devices:
        device.drop()
    house.gateway.kill()


async def _keep_publishing(pub: Device, seconds: float) -> None:
    """One message every 5 ms, each with the time at which it was sent."""
    packet_ids = itertools.cycle(range(1, 1000))
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        pub.publish(SECRET, str(time.monotonic()).encode(), 1, next(packet_ids))
        await asyncio.sleep(0.005)


async def test_given_sighup_then_live_queued_and_retained_stop_within_a_second(reloaded: Reloaded) -> None:
    pub, live = await reloaded.connect("pub"), await reloaded.connect("sub", name="live")
    sleeper = await reloaded.connect("sub", stays=True, name="sleeper")
    await live.subscribe("t/#", qos=0)
    await sleeper.subscribe("t/#")
    await sleeper.leave()
    pub.publish(SECRET, b"kept", 1, 1, retain=True)
    await pub.expect(Puback)
    assert await live.receive(1) == [b"kept"]

    sending = asyncio.ensure_future(_keep_publishing(pub, 1.6))
    await asyncio.sleep(0.4)
    reloaded.allow(False)
    reloaded.hang_up()
    revoked_at = time.monotonic()
    await sending
    last_sent_at = 0.0
    live.send(Disconnect())
    while (packet := await live.next()) is not None:
        assert isinstance(packet, Publish)
        last_sent_at = float(packet.payload)
    assert revoked_at - 0.3 < last_sent_at, "it came until then"
    assert last_sent_at - revoked_at <= 1.0

    awake = await reloaded.connect("sub", stays=True, name="sleeper")
    await awake.quiet()  # hundreds were queued for it while it was allowed
    late = await reloaded.connect("sub", name="late")
    await late.subscribe("t/#")
    await late.quiet()

    # What is allowed again comes again.
    reloaded.allow(True)
    reloaded.hang_up()
    await until(lambda: reloaded.gateway.output().count("reloaded users=") == 2)
    again = await reloaded.connect("sub", name="again")
    await again.subscribe("t/#")
    assert await again.receive(1) == [b"kept"]


async def test_given_sighup_then_whose_user_or_password_is_gone_is_sent_away(reloaded: Reloaded) -> None:
    stays, gone, changed = [await reloaded.connect(user) for user in ("pub", "sub", "other")]
    write_users(reloaded.passwords, {**USERS, "other": "new", "sub": ""} | {"x": "x"})
    lines = reloaded.passwords.read_text().splitlines()
    reloaded.passwords.write_text("".join(f"{line}\n" for line in lines if not line.startswith("sub:")))
    began = time.monotonic()
    reloaded.hang_up()
    assert await gone.goodbye() == REFUSED
    assert await changed.goodbye() == REFUSED
    assert time.monotonic() - began <= 1.0
    await stays.quiet()
