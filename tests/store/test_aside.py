"""What was moved aside: the same messages, each at its old place; and what rot costs there."""

import pytest

from bridge.errors import StoreFailed
from bridge.message import Message
from bridge.store import Reader
from bridge.store.log import Log
from bridge.store.segment import HEADER_BYTES
from tests.store.disk import HostileDisk

FOLDER = "/state/uplink"
COUNT = 12


class Shelf:
    """A log of small segments; the reader `slow` wants all of it."""

    def __init__(self):
        self.disk = HostileDisk()
        self.disk.add_folder("/state")
        self.open()

    def open(self):
        self.log = Log.open(FOLDER, max_bytes=1 << 20, segment_bytes=600, files=self.disk)
        self.fast = self.log.cursor("fast")
        self.slow = Reader(self.log, "slow")

    def reopen(self):
        self.log.close()
        self.open()

    def append(self, count):
        for number in range(count):
            self.log.append(Message("a", b"%d:" % number + b"x" * 150, received_ns=number), b"note")
        batch = self.log.take()
        self.log.write(batch)
        self.log.settle(batch)
        self.fast.save(self.log.durable)

    def move(self, nth):
        """Move all that lies before the end of the nth oldest segment."""
        end = self.log.sealed()[nth][1]
        wanted = [one for one in everything(self.log, self.slow.pin) if one.position < end]
        plan = self.slow.prepare(end, wanted)
        assert plan is not None
        self.slow.settle(end, self.slow.write(*plan))
        self.log.trim()

    def parts(self):
        folder = f"{FOLDER}/aside/slow"
        return [f"{folder}/{name}" for name in self.disk.names(folder)]


def everything(source, position=0):
    entries = []
    while more := source.read(position, 2):
        entries += more
        position = more[-1].end
    return entries


@pytest.fixture
def shelf():
    shelf = Shelf()
    shelf.append(COUNT)
    return shelf


def test_moved_entries_are_what_they_were_in_place_number_stamp_and_note(shelf):
    before = everything(shelf.slow)
    for nth in (0, 1, 0):
        head = shelf.log.head
        shelf.move(nth)
        assert shelf.log.head > head
        assert everything(shelf.slow) == before
        assert len(shelf.parts()) == 1, "a small file goes into the next"
        shelf.reopen()
        assert everything(shelf.slow) == before
    assert [one.message.received_ns for one in before] == list(range(COUNT))
    for entry in before:
        assert everything(shelf.slow, entry.position)[0] == entry
        shelf.slow.save(entry.end)
    assert shelf.parts() == []
    assert shelf.log.aside_bytes == 0


def test_one_flipped_bit_costs_one_record_and_the_header_none(shelf):
    shelf.move(1)
    before = [one.sequence for one in everything(shelf.slow)]
    [part] = shelf.parts()
    for bit in range(0, len(shelf.disk.content(part)) * 8, 37):
        shelf.disk.rot(part, bit)
        shelf.reopen()
        found = [one.sequence for one in everything(shelf.slow)]
        assert len(before) - len(found) == (bit // 8 >= HEADER_BYTES)
        assert set(found) <= set(before)
        assert shelf.log.damaged == (bit // 8 >= HEADER_BYTES)
        shelf.disk.rot(part, bit)
    shelf.reopen()
    assert [one.sequence for one in everything(shelf.slow)] == before


def test_a_newer_format_aside_stops_the_start_before_a_byte_is_written(shelf):
    shelf.move(0)
    shelf.log.close()
    [part] = shelf.parts()
    for at in (0, 64):
        shelf.disk.content(part)[at + 8] = 3

    def nothing(call):
        raise AssertionError(call)

    shelf.disk.before = nothing
    with pytest.raises(StoreFailed, match="store format 3"):
        shelf.open()
