import errno
import itertools
import os
import struct
import zlib
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.errors import StoreFailed
from bridge.store.cursor import CURSOR_BYTES, NOTE_BYTES_MAX, Cursor, damaged_slots, read_slots
from bridge.store.files import OS_FILES
from tests.store.disk import HostileDisk

SLOT = CURSOR_BYTES // 3


@pytest.fixture
def cursor(tmp_path):
    cursor = Cursor(OS_FILES, str(tmp_path / "cloud.cur"), "cloud")
    yield cursor
    cursor.close()


def content(cursor: Cursor) -> bytes:
    return OS_FILES.read(cursor.fd, 2 * CURSOR_BYTES, 0)


def old_slot(position: int, turn: int) -> bytes:
    """As version 1 wrote it."""
    fields = struct.pack("<IQQ", 0xC0550101, position, turn)
    return fields + struct.pack("<I", zlib.crc32(fields))


def test_the_latest_save_counts(cursor, tmp_path):
    assert not cursor.found
    for position, note in ((5, b"five"), (9, None), (2**40, b"x" * NOTE_BYTES_MAX), (2**41, b"")):
        cursor.save(position, note)
        again = Cursor(OS_FILES, str(tmp_path / "cloud.cur"), "cloud")
        assert (again.found, again.position) == (True, position)
        assert again.note == (b"five" if note is None else note), "one that is not given stays"
        again.close()
    assert os.path.getsize(tmp_path / "cloud.cur") <= CURSOR_BYTES


def test_a_torn_save_leaves_the_value_before_it(cursor):
    cursor.save(10, b"of 10")
    cursor.begin(10)
    before = content(cursor)
    cursor.save(20, b"of 20")
    after = content(cursor)
    for size in range(CURSOR_BYTES + 1):
        for torn in (after[:size] + before[size:], before[:size] + after[size:]):
            slot = read_slots(torn, "x")
            assert (slot.position, slot.note) in ((10, b"of 10"), (20, b"of 20"))


@settings(suppress_health_check=list(HealthCheck), deadline=None)
@given(st.integers(0, 8 * 2 * SLOT - 1), st.booleans())
def test_one_rotten_bit_costs_the_latest_save_at_most(tmp_path, bit, new):
    cursor = Cursor(OS_FILES, str(tmp_path / f"{bit}{new}.cur"), "cloud")
    cursor.begin(10)
    if not new:
        cursor.save(20)
    data = bytearray(content(cursor))
    cursor.close()
    data[bit // 8] ^= 1 << bit % 8
    assert damaged_slots(bytes(data)) == 1
    assert read_slots(bytes(data), "x")[0] in ((10,) if new else (10, 20))


def test_whatever_a_power_cut_tears_of_what_was_saved_since_a_sync_the_synced_value_is_there(cursor):
    cursor.begin(10)
    for position in range(20, 100, 10):
        cursor.save(position, b"%d" % position)
        if position % 30 == 0:
            cursor.sync()
        assert cursor.synced == max(10, position // 30 * 30)
        data = content(cursor)
        for torn in itertools.product((False, True), repeat=3):
            spoiled = bytearray(data.ljust(CURSOR_BYTES, b"\0"))
            for nth, spoil in enumerate(torn):
                slot = read_slots(data[SLOT * nth : SLOT * (nth + 1)], "x")
                if spoil and not (slot is not None and slot.position == cursor.synced):
                    spoiled[SLOT * nth + 200] ^= 255
            assert cursor.synced <= read_slots(bytes(spoiled), "x").position <= position


def test_a_cursor_of_version_1_is_read_and_a_torn_save_over_it_leaves_what_it_said(tmp_path):
    for turn in (6, 7):
        path = tmp_path / f"{turn}.cur"
        slots = [old_slot(10, turn), old_slot(5, turn - 1)]
        before = b"".join(slots if turn % 2 == 0 else slots[::-1])
        path.write_bytes(before)
        cursor = Cursor(OS_FILES, str(path), "cloud")
        assert (cursor.found, cursor.position, cursor.note, cursor.damaged) == (True, 10, b"", 0)
        for position in (20, 30, 40):
            stood = cursor.position
            cursor.save(position, b"new")
            after = content(cursor)
            for size in range(len(after) + 1):
                assert read_slots(after[:size] + before[size:], "x").position in (stood, position)
            assert damaged_slots(after) == 0
            before = after
        cursor.close()


def test_one_rotten_bit_of_a_cursor_of_version_1_is_noticed():
    data = old_slot(10, 6) + old_slot(5, 5)
    for bit in range(8 * len(data)):
        rotten = bytearray(data)
        rotten[bit // 8] ^= 1 << bit % 8
        assert damaged_slots(bytes(rotten)) == 1
        assert read_slots(bytes(rotten), "x").position in (5, 10)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_position_or_none(data):
    assert read_slots(data, "x") is None


def test_a_newer_format_is_refused_and_nothing_is_touched(tmp_path):
    path = tmp_path / "cloud.cur"
    path.write_bytes((b"\x03\x01\x55\xc0" + b"?" * 20) * 2)
    before = path.read_bytes()
    with pytest.raises(StoreFailed, match="nothing was touched"):
        Cursor(OS_FILES, str(path), "cloud")
    assert path.read_bytes() == before


def test_given_a_sync_that_failed_then_the_next_one_writes_again_what_the_kernel_has_forgotten():
    """A history on the hostile disk: everything delivered, a sync fails, a clean stop, and all came again."""
    disk = HostileDisk()
    for folder in ("/log", "/log/cursors"):
        disk.add_folder(folder)
        disk.sync_folder(os.path.dirname(folder))
    cursor = Cursor(disk, "/log/cursors/cloud.cur", "cloud")
    cursor.begin(5)
    cursor.save(9, b"nine")

    def fails_once(call: str) -> None:
        disk.before = lambda call: None
        raise OSError(errno.EIO, "injected")

    disk.before = fails_once
    with pytest.raises(OSError, match="injected"):
        cursor.sync()
    cursor.sync()
    disk.power_cut(Random(1))
    found = Cursor(disk, "/log/cursors/cloud.cur", "cloud")
    assert (found.position, found.note) == (9, b"nine")
