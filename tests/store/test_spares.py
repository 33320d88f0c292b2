"""Files that are used again: which are kept, when they go, and what of their past is seen."""

import errno
import os

import pytest

from bridge.errors import StoreFailed
from bridge.message import Message
from bridge.store.files import Files
from bridge.store.log import Log
from bridge.store.look import LogLook
from bridge.store.record import Entry
from bridge.store.segment import HEADER_BYTES, Earlier, Header, read_header

QUOTA = 1 << 20
SEGMENT = 8192
PAYLOAD = 500
PER_SEGMENT = 14  # messages, about


class Disk(Files):
    """The real one, as large and as full as a test says, that fails when it is told to."""

    def __init__(self):
        super().__init__()
        self.all = self.left = 1 << 40
        self.fails = ""
        self.reason = errno.EIO

    def total(self, path):
        return self.all

    def free(self, path):
        return self.left

    def _may_fail(self, call):
        if self.fails == call:
            raise OSError(self.reason, os.strerror(self.reason))

    def sync(self, fd):
        self._may_fail("sync")
        super().sync(fd)

    def allocate(self, fd, size):
        self._may_fail("allocate")
        super().allocate(fd, size)

    def rename(self, old, new):
        self._may_fail("rename")
        super().rename(old, new)


class Plant:
    """A log whose far end takes everything as it comes, as long as a test lets it."""

    def __init__(self, folder, disk):
        self.folder, self.disk = folder, disk
        self.number = 0
        self.open()

    def open(self):
        self.log = Log.open(
            str(self.folder),
            max_bytes=QUOTA,
            segment_bytes=SEGMENT,
            files=self.disk,
            damaged_folder=str(self.folder) + "-damaged",
        )
        self.cursor = self.log.cursor("cloud")

    def reopen(self):
        self.log.close()
        self.open()

    def take(self, count=1, size=PAYLOAD):
        """Take messages in, one a commit; True when the last one was taken."""
        for _ in range(count):
            if not self.log.reserve(size + 100):
                return False
            self.log.append(Message("a", f"{self.number}:".encode().ljust(size, b"x"), 1))
            batch = self.log.take()
            try:
                self.log.write(batch)
            except OSError as error:
                self.log.fail(batch, error)
                return False
            self.log.settle(batch)
            self.number += 1
        return True

    def deliver(self):
        self.cursor.save(self.log.durable)
        self.log.trim()

    def turn(self, segments=1):
        """Fill so many segments, with a far end that keeps up."""
        for _ in range(segments * PER_SEGMENT):
            assert self.take()
            self.deliver()

    def files(self, end):
        return sorted(self.folder.glob(f"*.{end}"))

    @property
    def on_disk(self):
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())

    def numbers(self):
        found, position = [], 0
        while entries := self.log.read(position):
            found += [int(entry.message.payload.split(b":")[0]) for entry in entries]
            position = entries[-1].end
        return found

    def newest(self):
        path = self.files("seg")[-1]
        return read_header(path.read_bytes()[:HEADER_BYTES], str(path))


@pytest.fixture
def plant(tmp_path):
    plant = Plant(tmp_path / "uplink", Disk())
    yield plant
    plant.log.close()


# ---- from one segment to the next --------------------------------------------------


def test_the_file_of_a_segment_that_everyone_has_passed_becomes_the_next_ones(plant):
    plant.turn(3)
    [spare] = plant.files("spare")
    file = spare.stat().st_ino
    plant.take(PER_SEGMENT)
    assert plant.files("seg")[-1].stat().st_ino == file
    assert plant.newest().earlier.base == int(spare.name[:20])
    plant.turn(20)
    assert len(plant.files("seg")) + len(plant.files("spare")) == 2


def test_of_a_backlog_that_is_delivered_at_once_only_two_files_are_kept(plant):
    plant.take(10 * PER_SEGMENT)
    plant.deliver()
    assert len(plant.files("spare")) == 2


def test_what_was_in_the_file_before_is_not_in_the_log_after_a_stop_or_a_kill(plant):
    plant.turn(6)
    for stop in (plant.log.close, lambda: None, plant.log.close):
        begin = plant.number
        plant.take(5)
        stop()
        plant.open()
        numbers = plant.numbers()
        assert numbers == list(range(numbers[0], plant.number))
        assert numbers[-5:] == list(range(begin, plant.number))
        assert plant.log.damaged == 0
        plant.deliver()
    assert not list(plant.folder.parent.glob("uplink-damaged/*"))


def test_given_no_file_was_used_again_then_an_older_program_can_still_read_the_store(plant):
    plant.take(3 * PER_SEGMENT)
    assert {path.read_bytes()[8] for path in plant.files("seg")} == {1}
    plant.turn(4)
    assert {path.read_bytes()[8] for path in plant.files("seg")} == {2}


def test_given_a_restart_then_the_spares_are_still_there(plant):
    plant.turn(3)
    spares = plant.files("spare")
    plant.reopen()
    assert plant.files("spare") == spares
    plant.turn(2)
    assert plant.newest().earlier is not None


def test_a_message_longer_than_a_segment_gets_all_its_room_in_a_spare(plant):
    plant.turn(4)
    assert plant.take(size=3 * SEGMENT)
    assert plant.take()
    plant.reopen()
    assert plant.numbers()[-2:] == [plant.number - 2, plant.number - 1]
    assert plant.log.damaged == 0


def test_a_look_from_outside_sees_every_message_once_and_no_damage_while_files_are_used_again(plant):
    for _ in range(40):
        plant.take(5)
        look = LogLook(str(plant.folder))
        walking = look.walk()
        seen = [next(walking)]
        plant.turn(1)  # the file that is being looked at is written anew under it
        plant.turn(1)
        seen += walking
        assert all(isinstance(one, Entry) for one in seen), seen
        assert [one.sequence for one in seen] == sorted({one.sequence for one in seen})
        assert not look.flaws


# ---- when there is no room for them ------------------------------------------------


def test_with_spares_the_disk_holds_no_more_than_the_quota(plant):
    for _ in range(3):
        plant.turn(5)
        while plant.take(size=6 * PAYLOAD):
            assert plant.on_disk <= QUOTA
        assert plant.log.size > QUOTA - 3 * SEGMENT, "they took no room from messages"
        assert not plant.files("spare")
        while plant.log.head < plant.log.durable - SEGMENT:
            plant.log.trim(plant.log.oldest_segment_end())
            assert plant.on_disk <= QUOTA
        plant.deliver()


def test_given_a_small_disk_then_none_is_kept(tmp_path):
    disk = Disk()
    disk.all = 63 * SEGMENT
    plant = Plant(tmp_path / "uplink", disk)
    plant.turn(5)
    assert not plant.files("spare")
    assert plant.newest().earlier is None


def test_given_a_disk_nearly_full_then_none_is_kept(plant):
    plant.disk.left = SEGMENT
    plant.turn(5)
    assert not plant.files("spare")


def test_given_a_disk_that_is_full_then_they_are_given_up_one_by_one(plant):
    plant.turn(5)
    count = len(plant.files("spare"))
    assert count
    for left in range(count - 1, -1, -1):
        assert plant.log.give_up_spare()
        assert len(plant.files("spare")) == left
    assert not plant.log.give_up_spare()
    plant.turn(1)


def test_given_no_room_behind_the_end_of_a_spare_then_it_makes_room_for_a_new_file(plant):
    plant.turn(4)
    plant.disk.fails, plant.disk.reason = "allocate", errno.ENOSPC
    plant.take(PER_SEGMENT)  # until a segment is begun
    assert not plant.files("spare")
    plant.disk.fails = ""
    assert plant.take()
    plant.reopen()
    assert plant.numbers()[-1] == plant.number - 1
    assert plant.log.damaged == 0


# ---- a disk that fails -------------------------------------------------------------


@pytest.mark.parametrize("call", ["sync", "allocate", "rename"])
def test_given_a_commit_to_a_spare_fails_then_its_file_is_never_used_again(plant, call):
    plant.turn(4)
    before = {path.stat().st_ino for path in plant.files("spare")}
    assert before
    for _ in range(PER_SEGMENT):
        room = plant.log._writer.room_end - plant.log.durable
        if room < PAYLOAD + 100:
            break
        plant.take()
    plant.disk.fails = call
    assert not plant.take()
    plant.disk.fails = ""
    assert len(plant.files("spare")) == len(before) - 1, "and that is the one"
    plant.turn(3)
    plant.reopen()
    assert plant.log.damaged == 0
    assert plant.numbers()[-1] == plant.number - 1


def test_given_a_sync_failed_then_that_segment_is_no_spare_when_it_is_passed(plant):
    plant.take(PER_SEGMENT - 3)
    failed = plant.files("seg")[-1].stat().st_ino
    plant.disk.fails = "sync"
    assert not plant.take()
    plant.disk.fails = ""
    assert plant.take()
    plant.deliver()
    assert failed not in {path.stat().st_ino for path in plant.folder.iterdir()}


def test_given_a_segment_cannot_be_renamed_then_it_is_unlinked_as_before(plant):
    plant.disk.fails = "rename"
    plant.take(3 * PER_SEGMENT)
    plant.deliver()
    assert not plant.files("spare")
    assert len(plant.files("seg")) == 1


# ---- what a start finds ------------------------------------------------------------


def _begun_in(path):
    """What a commit that was killed half-way leaves: the header of another segment."""
    with open(path, "r+b") as file:
        file.write(Header(7, 1 << 30, 1 << 30, 99, 7, Earlier(8, 9)).encode())


def _half_begun_in(path):
    with open(path, "r+b") as file:
        file.write(Header(7, 1 << 30, 1 << 30, 99, 7, Earlier(8, 9)).encode()[:64])


def _cut(path):
    os.truncate(path, HEADER_BYTES + 10)


def _emptied(path):
    os.truncate(path, 0)


@pytest.mark.parametrize(
    "harm", [_begun_in, _half_begun_in, _cut, _emptied], ids=lambda harm: harm.__name__[1:]
)
def test_a_spare_that_is_not_what_its_name_says_is_removed(plant, harm):
    plant.turn(4)
    plant.log.close()
    broken, *others = plant.files("spare")
    harm(broken)
    plant.open()
    assert plant.files("spare") == others
    assert plant.log.damaged == 0, "nothing was in it that anybody wants"


def test_a_spare_of_a_newer_format_stops_the_start_and_is_not_touched(plant):
    plant.turn(4)
    plant.log.close()
    path = plant.files("spare")[0]
    content = bytearray(path.read_bytes())
    content[8] = content[72] = 9
    path.write_bytes(content)
    with pytest.raises(StoreFailed, match="store format 9"):
        plant.open()
    with pytest.raises(StoreFailed, match="store format 9"):
        LogLook(str(plant.folder))
    assert path.read_bytes() == content


def test_more_than_are_worth_keeping_are_removed(plant):
    plant.turn(4)
    plant.log.close()
    path = plant.files("spare")[-1]
    header = read_header(path.read_bytes()[:HEADER_BYTES], "")
    for number in range(3):
        base = (1 << 40) + number * SEGMENT
        other = header._replace(base=base).encode() + bytes(SEGMENT - HEADER_BYTES)
        (plant.folder / f"{base:020d}-{base + SEGMENT:020d}.spare").write_bytes(other)
    plant.open()
    assert len(plant.files("spare")) == 2
