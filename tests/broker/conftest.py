"""A gateway in this process for each test, and devices that are gone afterwards."""

import contextlib
import errno
import threading

import msgspec
import pytest

from bridge.store.files import Files
from tests.broker.device import Device
from tests.gateway import port_of, running


class Disk(Files):
    """The real disk, with a sync that a test can hold back or let fail."""

    def __init__(self):
        super().__init__()
        self.open_gate = threading.Event()
        self.open_gate.set()
        self.error = None
        self.waiting = threading.Event()

    def sync(self, fd):
        if not self.open_gate.is_set():
            self.waiting.set()
            assert self.open_gate.wait(10), "nobody let the sync go on"
        if self.error is not None:
            raise self.error
        super().sync(fd)

    def hold(self):
        self.waiting.clear()
        self.open_gate.clear()

    def release(self):
        self.open_gate.set()

    def fail(self, number=errno.EIO):
        self.error = OSError(number, "injected")

    def mend(self):
        self.error = None


@pytest.fixture
def disk():
    disk = Disk()
    yield disk
    disk.mend()
    disk.release()


class House:
    """Starts gateways on one folder, one after the other, and connects devices to the last one."""

    def __init__(self, folder, stack, disk):
        self.folder, self.disk = folder, disk
        self._stack = stack
        self._devices = []
        self._running = None

    async def start(self, **parts):
        self._running = running(self.folder, self.disk, **parts)
        self.gateway = await self._running.__aenter__()
        self.broker = self.gateway.broker
        return self.gateway

    async def stop(self):
        if self._running is not None:
            ending, self._running = self._running, None
            await ending.__aexit__(None, None, None)

    async def restart(self, **parts):
        await self.stop()
        await self.start(**parts)

    def limit(self, **changes):
        """Bounds that no key of the configuration names; for who connects from now on."""
        self.broker.limits = msgspec.structs.replace(self.broker.limits, **changes)
        for listener in self.gateway.listeners:
            listener.door.limits = msgspec.structs.replace(listener.door.limits, **changes)

    def slow_disk(self):
        """Commit in the thread, so that a sync that is held back does not hold the loop."""
        committer = self.gateway.spool.committer
        committer.commit_s, committer._slow = 1e9, True

    async def connect(self, *args, **more):
        device = await Device.connect(port_of(self.gateway), *args, **more)
        self._devices.append(device)
        return device

    async def socket(self, version=5):
        device = Device(port_of(self.gateway), version)
        await device.open()
        self._devices.append(device)
        return device

    async def end(self):
        self.disk.mend()
        self.disk.release()
        for device in self._devices:
            device.drop()
        await self.stop()


@pytest.fixture
async def bare(tmp_path, disk):
    """A house in which no gateway runs yet."""
    async with contextlib.AsyncExitStack() as stack:
        house = House(tmp_path, stack, disk)
        stack.push_async_callback(house.end)
        yield house


@pytest.fixture
async def house(bare):
    await bare.start()
    return bare
