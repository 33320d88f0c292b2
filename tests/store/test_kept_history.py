"""What was delivered is kept as long as it was asked for, and never at the cost of what is new."""

import asyncio
import errno
import os

import pytest

from bridge.errors import StoreFull
from bridge.message import Message, age_ns
from bridge.store import Spool
from bridge.store.files import Files
from bridge.store.history import History

HOUR_NS = 3600 * 10**9
MINUTE_NS = HOUR_NS // 60
BEGAN_NS = 1_800_000_000 * 10**9
QUOTA = 2 << 20  # of which the uplink has 1.6 MiB, in segments of 104 KiB
SIZE = 10_000


class Disk(Files):
    """The real one, with as little left as a test says."""

    def __init__(self):
        super().__init__()
        self.left = 1 << 40
        self.creates_left = 1 << 40
        self.failing = self.tables_failing = False
        self.segments_in_the_way = 0

    def free(self, path):
        return self.left

    def create(self, path, size=0):
        if self.failing or (self.tables_failing and ".tab" in path):
            raise OSError(errno.ENOSPC, "no space left", path)
        if self.creates_left == 0:
            raise OSError(errno.ENOSPC, "no space left", path)
        if self.segments_in_the_way > 0 and path.endswith("reserve"):
            raise OSError(errno.ENOSPC, "no space left", path)
        self.creates_left -= 1
        return super().create(path, size)

    def unlink(self, path):
        self.creates_left += os.path.exists(path)
        self.segments_in_the_way -= path.endswith(".seg")
        super().unlink(path)


class Plant:
    """A store whose clock stands where a message arrives, one each minute; `route` is its one cursor."""

    def __init__(self, folder, keep_s):
        self.folder, self.keep_s = folder, keep_s
        self.now_ns = BEGAN_NS
        self.number = 0
        self.disk = Disk()
        self.open()

    def open(self):
        self.spool = Spool.open(str(self.folder), QUOTA, self.disk, self.keep_s)
        self.log = self.spool.uplink
        self.log.history.age_s = lambda received_ns: age_ns(received_ns, self.now_ns) / 1e9
        self.route = self.log.cursor("route")

    async def take(self, count=1, delivered=True, received_ns=None):
        for _ in range(count):
            assert self.log.reserve(SIZE + 100), f"message {self.number} was refused"
            message = Message(
                "a", str(self.number).encode().ljust(SIZE), 1, received_ns=received_ns or self.now_ns
            )
            self.log.append(message)
            assert await self.spool.committer.flush() is None
            if delivered:
                self.deliver()
            self.number += 1
            self.now_ns += MINUTE_NS

    def deliver(self):
        self.route.save(self.log.durable)
        self.log.trim()

    def kept(self):
        numbers = []
        position = 0
        while entries := self.log.read(position):
            numbers += [int(entry.message.payload) for entry in entries]
            position = entries[-1].end
        return numbers

    @property
    def on_disk(self):
        return sum(path.stat().st_size for path in (self.folder / "uplink").glob("*.seg"))


@pytest.fixture
async def plant(tmp_path):
    plant = Plant(tmp_path / "store", keep_s=60 * 60)
    yield plant
    await plant.spool.close()


async def test_without_keep_what_was_delivered_goes_with_its_segment(tmp_path):
    plant = Plant(tmp_path / "store", keep_s=0)
    await plant.take(100)
    assert len(plant.kept()) < 15
    assert plant.log.history.bytes == 0
    await plant.spool.close()


async def test_what_was_delivered_is_kept_for_the_time_asked_and_then_goes(plant):
    await plant.take(100)
    kept = plant.kept()
    assert kept == list(range(kept[0], 100))
    # At least the last hour; at most a segment more.
    assert 28 < kept[0] <= 40
    plant.now_ns += HOUR_NS
    plant.log.trim()
    assert len(plant.kept()) < 15  # the newest segment is still being filled


async def test_history_counts_as_free_and_the_oldest_goes_first(plant):
    plant.log.history.keep_s = 10**9
    await plant.take(400)  # 4 MB through 1.6
    kept = plant.kept()
    assert kept == list(range(kept[0], 400))
    assert len(kept) > 120
    assert plant.on_disk <= plant.log.max_bytes
    assert plant.log.history.bytes > 1 << 20
    assert plant.log.has_room(1 << 20)


async def test_given_a_far_end_away_then_history_makes_way_for_all_of_the_backlog(plant):
    plant.log.history.keep_s = 10**9
    await plant.take(150)
    before = plant.number
    while plant.log.has_room(SIZE + 100):
        await plant.take(1, delivered=False)
        assert plant.on_disk <= plant.log.max_bytes
    # As many as an empty store of this size takes, but for the segment that the cursor stands in.
    assert plant.number - before > 145
    assert plant.kept()[-(plant.number - before) :] == list(range(before, plant.number))
    assert not plant.log.reserve(SIZE + 100)  # refused now, for what is still wanted
    plant.deliver()
    await plant.take(10)


async def test_given_a_small_quota_then_history_stays_within_it(tmp_path):
    plant = Plant(tmp_path / "store", keep_s=10**9)
    plant.log.max_bytes = 300_000
    await plant.take(100)
    assert plant.on_disk <= 300_000
    await plant.spool.close()


async def test_a_clock_not_set_yet_ages_nothing(plant):
    await plant.take(40, received_ns=5 * 10**9)
    plant.now_ns += 10 * 365 * 24 * HOUR_NS
    plant.log.trim()
    assert len(plant.kept()) == 40


async def test_a_clock_that_goes_back_keeps_longer_and_loses_nothing(plant):
    await plant.take(30)
    plant.now_ns -= 24 * HOUR_NS
    await plant.take(10)
    assert plant.kept() == list(range(40))


async def test_given_a_restart_then_history_is_still_there_and_still_counts_as_free(plant):
    plant.log.history.keep_s = plant.keep_s = 10**9
    await plant.take(400)
    kept = plant.kept()
    await plant.spool.close()
    plant.open()
    plant.log.trim()
    assert plant.kept() == kept
    await plant.take(100, delivered=False)


async def test_given_a_disk_smaller_than_the_quota_then_history_leaves_room_on_it(plant):
    plant.log.history.keep_s = 10**9
    await plant.take(100)
    assert plant.log.history.bytes > 800_000
    plant.disk.left = 1 << 20
    await plant.take(100)
    assert plant.log.history.bytes < 300_000


async def test_given_a_disk_that_is_full_then_a_commit_takes_its_room_from_history(plant):
    plant.log.history.keep_s = 10**9
    await plant.take(100)
    before = plant.log.history.bytes
    plant.disk.creates_left = 0
    await plant.take(60)  # none was refused
    kept = plant.kept()
    assert kept == list(range(kept[0], 160))
    assert 0 < plant.log.history.bytes <= before


async def test_given_a_disk_without_any_room_then_all_history_goes(plant):
    plant.log.history.keep_s = 10**9
    await plant.take(100)
    plant.disk.failing = True
    with pytest.raises(AssertionError):
        await plant.take(60)
    assert isinstance(plant.spool.committer.fault, StoreFull)
    assert plant.log.history.bytes == 0
    plant.disk.failing = False
    await asyncio.sleep(0)
    await plant.take(1)
    assert plant.kept()[-1] == plant.number - 1


async def test_given_no_room_for_a_table_then_history_goes_and_the_next_commit_finds_it(plant):
    plant.log.history.keep_s = 10**9
    await plant.take(100)
    plant.disk.tables_failing = True
    plant.spool.retained.put("a", b"value")
    with pytest.raises(AssertionError):
        await plant.take(1)
    assert plant.log.history.bytes == 0
    plant.disk.tables_failing = False
    await plant.take(1)
    assert plant.spool.committer.fault is None


async def test_given_no_room_for_the_reserve_then_history_makes_it(plant):
    plant.log.history.keep_s = 10**9
    await plant.take(100)
    before, reserve = plant.log.sealed(), plant.spool.committer._reserve
    assert reserve.give_up()
    plant.disk.segments_in_the_way = 3
    assert reserve.take() is None
    assert reserve.held
    assert plant.log.sealed() == before[3:]
    reserve.give_up()
    plant.disk.segments_in_the_way = 1000
    assert reserve.take().errno == errno.ENOSPC
    assert plant.log.history.bytes == 0


async def test_how_long_is_looked_up_once_a_segment(plant, monkeypatch):
    reads = []
    read = plant.log.read

    def counted(*args):
        reads.append(args)
        return read(*args)

    monkeypatch.setattr(plant.log, "read", counted)
    await plant.take(60)
    assert 0 < len(reads) <= len(plant.log.sealed()) + 1
    assert isinstance(plant.log.history, History)
