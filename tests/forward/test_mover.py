"""One dead route must not pin the disk: what it still wants moves, and the rest is freed."""

import asyncio
import os
import re

import pytest

from bridge.errors import SinkUnavailable
from bridge.forward.keeper import Keeper
from bridge.forward.mover import Mover
from bridge.sinks.memory import MemorySink
from tests.forward.conftest import Hall
from tests.gateway import until

MIB = 1 << 20
PAYLOAD_BYTES = 8000


class Counting(MemorySink):
    """A far end that remembers numbers only: a gigabyte of payloads would be a gigabyte here too."""

    def __init__(self, name):
        super().__init__(name)
        self.numbers, self.ids, self.stamps = [], [], []

    async def send_batch(self, batch):
        for each in batch:
            self.numbers.append(int(re.match(rb"\d+", each.message.payload)[0]))
            self.ids.append(each.id)
            self.stamps.append(each.message.received_ns)
        return []


class Dead(Counting):
    """Cannot be reached until `alive`."""

    alive = False

    async def open(self):
        if not self.alive:
            raise SinkUnavailable("dead")
        await super().open()


class Plant:
    """Telemetry to a cloud that answers, alarms to one that does not."""

    def __init__(self, folder, max_bytes, dead=Dead):
        self.hall = Hall(folder, max_bytes)
        self.folder = folder
        self.dead_kind = dead
        self.taken = []  # alarms that arrived, in all lives of the gateway
        self.begin()

    def begin(self):
        hall, spool = self.hall, self.hall.spool
        self.cloud, self.dead = Counting("cloud"), self.dead_kind("alarms")
        self.keepers = Keeper(self.cloud), Keeper(self.dead)
        self.telemetry = hall.route("telemetry", "t/#", self.keepers[0])
        self.alarms = hall.route("alarms", "alarm/#", self.keepers[1])
        self.mover = Mover(spool.uplink, hall.forwarders, spool.committer)
        hall.run(*self.keepers, *hall.forwarders, self.mover)

    async def restart(self):
        await self.hall.halt()
        self.taken += self.dead.numbers
        await self.hall.spool.close()
        self.hall.open()
        self.begin()

    def disk_bytes(self):
        return sum(
            os.path.getsize(os.path.join(folder, name))
            for folder, _, names in os.walk(self.folder)
            for name in names
        )

    async def publish(self, number, topic):
        payload = str(number) + " " * PAYLOAD_BYTES
        size = PAYLOAD_BYTES + 400
        while not self.hall.room.make(size * 16):
            await asyncio.sleep(0.001)
        await self.hall.append(payload, topic=topic, received_ns=2 * 10**18 + number)

    async def telemetry_of(self, numbers):
        """As fast as there is room; what does not fit waits, as a device does."""
        payload = " " * PAYLOAD_BYTES
        for number in numbers:
            if number % 16 == 0:
                waited = 0
                while not self.hall.room.make(16 * (PAYLOAD_BYTES + 400)):
                    waited += 1
                    assert waited < 5000, "a dead route pins the disk"
                    await asyncio.sleep(0.002)
                await self.hall.append(
                    *[f"{one}{payload}" for one in range(number, number + 16)], topic="t/1"
                )


@pytest.fixture
async def plant(tmp_path, monkeypatch):
    monkeypatch.setattr("bridge.forward.keeper.delay", lambda attempt, luck: 0.02)
    monkeypatch.setattr("bridge.forward.mover._REST_S", 0.005)
    plants = []

    def make(max_bytes, **more):
        plants.append(Plant(tmp_path / "spool", max_bytes, **more))
        return plants[-1]

    yield make
    for one in plants:
        await one.hall.close()


@pytest.mark.parametrize(
    "scale", [pytest.param(1, marks=[pytest.mark.long, pytest.mark.timeout(1200)]), 16], ids=["1GB", "64MB"]
)
async def test_a_gigabyte_flows_past_ten_alarms_that_nobody_takes(plant, scale):
    """1 GB through a quota of 64 MB, or a sixteenth of both."""
    quota = 64 * MIB // scale
    plant = plant(quota)
    for number in range(10):
        await plant.publish(number, "alarm/1")
    count = (1 << 30) // scale // PAYLOAD_BYTES // 16 * 16
    largest = 0
    for begin in range(0, count, 160):
        await plant.telemetry_of(range(begin, min(begin + 160, count)))
        largest = max(largest, plant.disk_bytes())
    assert largest <= quota
    await until(lambda: len(plant.cloud.numbers) == count, 60)
    assert plant.cloud.numbers == list(range(count))
    assert plant.dead.numbers == []
    assert plant.mover.moved >= 10

    await plant.restart()
    plant.dead.alive = True
    await until(lambda: len(plant.dead.numbers) == 10, 30)
    assert plant.dead.numbers == list(range(10))
    prefix = f"plant-7/{plant.hall.spool.uplink.epoch:08x}/"
    assert plant.dead.ids == [f"{prefix}{nth + 1}" for nth in range(10)], "moved, and still the same messages"
    assert plant.dead.stamps == [2 * 10**18 + nth for nth in range(10)]
    await until(lambda: plant.alarms.cursor.position == plant.hall.spool.uplink.durable)
    assert plant.hall.spool.uplink.aside_bytes == 0
    assert (plant.telemetry.account.lost, plant.alarms.account.lost) == (0, 0)


async def test_alarms_among_the_telemetry_come_in_order_whatever_was_moved_meanwhile(plant):
    """Also while the far end takes some, and across restarts in the middle of it."""
    plant = plant(2 * MIB)
    count = 0
    for stretch in range(8):
        for _ in range(3):
            await plant.publish(count, "alarm/1")
            count += 1
            await plant.telemetry_of(range(160))
        if stretch == 3:
            plant.dead.alive = True
            await until(lambda: plant.alarms.cursor.position == plant.hall.spool.uplink.durable, 30)
        if stretch in (1, 5):
            await plant.restart()
    assert plant.mover.moved
    plant.dead.alive = True
    await until(lambda: plant.alarms.cursor.position == plant.hall.spool.uplink.durable, 30)
    assert plant.taken + plant.dead.numbers == list(range(count))


async def test_given_the_one_route_is_away_then_nothing_is_written_twice(plant):
    """All of it is wanted: to move it would gain nothing."""
    plant = plant(4 * MIB)
    size = PAYLOAD_BYTES + 400
    number = 0
    while plant.hall.room.make(size):
        await plant.hall.append(f"{number}" + " " * PAYLOAD_BYTES, topic="alarm/1")
        number += 1
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    assert plant.mover.moved == 0
    plant.dead.alive = True
    await until(lambda: len(plant.dead.numbers) == number, 30)
    assert plant.dead.numbers == list(range(number))


async def test_given_a_disk_that_cannot_move_anything_then_all_stays_where_it_is_and_is_said_once(
    plant, monkeypatch, caplog
):
    plant = plant(2 * MIB)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bridge.forward.mover._RETRY_S", 0.01)
    for number in range(3):
        await plant.publish(number, "alarm/1")
    with monkeypatch.context() as patch:
        patch.setattr(plant.alarms.reader, "write", full)
        number = 0
        while plant.hall.room.make(PAYLOAD_BYTES + 400):
            await plant.hall.append("7" + " " * PAYLOAD_BYTES, topic="t/1")
        await asyncio.sleep(0.1)
        assert not plant.hall.room.make(PAYLOAD_BYTES + 400)
        assert caplog.text.count("records not moved") == 1
    await plant.hall.append("7", topic="t/1")  # the next commit is when it is tried again
    await until(lambda: plant.hall.room.make(PAYLOAD_BYTES + 400))
    plant.dead.alive = True
    await until(lambda: len(plant.dead.numbers) == 3)
    assert plant.dead.numbers == [0, 1, 2]
