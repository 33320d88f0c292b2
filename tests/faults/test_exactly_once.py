"""The house dies at every single operation of its disk, and a QoS 2 message arrives exactly once.

A device publishes with QoS 2 and another one hears it with QoS 2; both keep what the
specification makes a client keep, and go on where they were. Once the disk has done
its n-th operation, or just before, the house is gone; what the next one finds is what
a kill leaves, or what a power cut may leave.
"""

import asyncio
import contextlib
import copy
import errno
import logging
from random import Random

import pytest

from bridge.mqtt.packet import Pubcomp, Publish, Pubrec, Pubrel, Subscription
from tests.broker.device import Device
from tests.gateway import port_of, running, until
from tests.store.disk import HostileDisk

MESSAGES = [b"1", b"2", b"3", b"4"]
EXPIRY_S = 1000


class MortalDisk(HostileDisk):
    """Remembers what it held when its n-th operation began, or ended, and fails from then on."""

    def __init__(self, last: int, after: bool) -> None:
        super().__init__()
        self.operations = 0
        self.left = None
        self._last, self._after = last, after
        self.before = self._count

    def _count(self, call: str) -> None:
        self.operations += 1
        if self.operations == self._last and not self._after:
            self._die()
        if self.left is not None:
            raise OSError(errno.EIO, "the house is gone")

    def sync(self, fd: int) -> None:
        super().sync(fd)
        if self.operations == self._last and self._after and self.left is None:
            self._die()
            raise OSError(errno.EIO, "the house is gone")

    def _die(self) -> None:
        self.left = copy.deepcopy(self.root)


class Says:
    """Publishes each message once, and never forgets what the other side has not confirmed."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.unsent = list(enumerate(MESSAGES, 1))
        self.flying: dict[int, bytes | None] = {}  # None: PUBREC came, PUBREL is what counts now

    async def run(self, port: int) -> None:
        device = await Device.connect(port, "says", self.version, clean=False, expiry_s=EXPIRY_S)
        try:
            if device.connack.reason:
                return
            if not device.connack.session_present:
                assert not self.flying, "the session was lost"
            for packet_id, payload in self.flying.items():
                device.send(
                    Pubrel(packet_id)
                    if payload is None
                    else Publish("a", payload, 2, dup=True, packet_id=packet_id)
                )
            while self.unsent or self.flying:
                if self.unsent and len(self.flying) < 2:
                    packet_id, payload = self.unsent.pop(0)
                    # The identifier of the one before last comes again: it is free only if PUBCOMP means it.
                    packet_id = packet_id % 2 + 1
                    self.flying[packet_id] = payload
                    device.publish("a", payload, 2, packet_id)
                    continue
                packet = await device.next()
                if packet is None:
                    return
                if isinstance(packet, Pubrec) and packet.packet_id in self.flying:
                    self.flying[packet.packet_id] = None
                    device.send(Pubrel(packet.packet_id))
                elif isinstance(packet, Pubcomp):
                    self.flying.pop(packet.packet_id, None)
        finally:
            device.drop()


class Hears:
    """Takes each PUBLISH once, however often it is repeated under its identifier."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.held: set[int] = set()
        self.heard: list[bytes] = []
        self.subscribed = False

    async def run(self, port: int) -> None:
        device = await Device.connect(port, "hears", self.version, clean=False, expiry_s=EXPIRY_S)
        try:
            if device.connack.reason:
                return
            if self.subscribed:
                assert device.connack.session_present, "the session was lost"
            else:
                if not device.connack.session_present:
                    self.held.clear()
                await device.subscribe(Subscription("a", 2))
                self.subscribed = True
            while len(self.heard) < len(MESSAGES) or self.held:
                packet = await device.next()
                if packet is None:
                    return
                if isinstance(packet, Publish):
                    if packet.packet_id not in self.held:
                        self.held.add(packet.packet_id)
                        self.heard.append(packet.payload)
                    device.send(Pubrec(packet.packet_id))
                elif isinstance(packet, Pubrel):
                    self.held.discard(packet.packet_id)
                    device.send(Pubcomp(packet.packet_id))
        finally:
            device.drop()


async def live(disk: HostileDisk, folder, says: Says, hears: Hears) -> list[bytes]:
    """One house on this disk, until both are content or it is gone; what lies in its uplink then."""
    async with running(folder, disk, routes={"all": {"from": "a", "to": "cloud"}}) as gateway:
        # Nothing may be let go of: the uplink is what is counted.
        gateway.spool.uplink.trim = lambda mark=None: False
        port = port_of(gateway)
        listening = asyncio.create_task(hears.run(port))
        # The first message must not be published before there is somebody to hear it.
        await until(lambda: hears.subscribed or listening.done() or is_gone(disk))
        both = asyncio.gather(listening, says.run(port))
        await until(lambda: both.done() or is_gone(disk))
        if not both.done():
            both.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await both
        found, position = [], 0
        while entries := gateway.spool.uplink.read(position):
            position = entries[-1].end
            found += [entry.message.payload for entry in entries]
        return found


def is_gone(disk: HostileDisk) -> bool:
    return isinstance(disk, MortalDisk) and disk.left is not None


async def through_a_death(folder, last: int, after: bool, version: int, luck: Random | None) -> int:
    """Die at the operation `last`, live again, and be content; returns how many operations there were."""
    says, hears = Says(version), Hears(version)
    disk = MortalDisk(last, after)
    # However it ends: the house stops on a disk that is not there any more.
    with contextlib.suppress(Exception):
        await live(disk, folder, says, hears)
    if disk.left is None and last <= disk.operations:
        return disk.operations  # that operation was no sync
    again = HostileDisk()
    again.root = disk.left or disk.root
    again.kill() if luck is None else again.power_cut(luck)
    stored = await live(again, folder, says, hears)
    assert not says.unsent
    assert not says.flying
    assert hears.heard == MESSAGES
    assert not hears.held
    assert sorted(stored) == MESSAGES, "exactly once in the uplink too"
    return disk.operations


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


EVERY = [
    (version, when, how) for version in (4, 5) for when in ("before", "after") for how in ("kill", "cut")
]
SHORT = {(5, "before", "kill"), (4, "after", "kill"), (4, "before", "cut"), (5, "after", "cut")}


@pytest.mark.parametrize(
    ("version", "when", "how"),
    [pytest.param(*each, marks=[] if each in SHORT else pytest.mark.long) for each in EVERY],
)
async def test_a_qos_2_message_arrives_exactly_once_wherever_the_house_dies(tmp_path, version, when, how):
    after = when == "after"
    operations = await through_a_death(tmp_path / "whole", 1 << 30, after, version, None)
    assert operations > 40
    for last in range(1, operations + 1):
        luck = Random(last) if how == "cut" else None
        try:
            await through_a_death(tmp_path / str(last), last, after, version, luck)
        except AssertionError as error:
            raise AssertionError(f"dead at operation {last} of {operations}: {error}") from error
