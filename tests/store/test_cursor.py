import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.errors import StoreFailed
from bridge.store.cursor import CURSOR_BYTES, Cursor, read_slots
from bridge.store.files import OS_FILES


@pytest.fixture
def cursor(tmp_path):
    cursor = Cursor(OS_FILES, str(tmp_path / "cloud.cur"), "cloud")
    yield cursor
    cursor.close()


def content(cursor: Cursor) -> bytes:
    return OS_FILES.read(cursor.fd, 999, 0)


def test_the_latest_save_counts(cursor, tmp_path):
    assert not cursor.found
    for position in (5, 9, 2**40):
        cursor.save(position)
        again = Cursor(OS_FILES, str(tmp_path / "cloud.cur"), "cloud")
        assert (again.found, again.position) == (True, position)
        again.close()
    assert os.path.getsize(tmp_path / "cloud.cur") == CURSOR_BYTES


def test_a_torn_save_leaves_the_value_before_it(cursor):
    cursor.begin(10)
    before = content(cursor)
    cursor.save(20)
    after = content(cursor)
    for size in range(CURSOR_BYTES + 1):
        torn = after[:size] + before[size:]
        assert read_slots(torn, "x")[0] in (10, 20)
        torn = before[:size] + after[size:]
        assert read_slots(torn, "x")[0] in (10, 20)


@settings(suppress_health_check=list(HealthCheck), deadline=None)
@given(st.integers(0, 8 * CURSOR_BYTES - 1), st.booleans())
def test_one_rotten_bit_costs_the_latest_save_at_most(tmp_path, bit, new):
    cursor = Cursor(OS_FILES, str(tmp_path / f"{bit}{new}.cur"), "cloud")
    cursor.begin(10)
    if not new:
        cursor.save(20)
    data = bytearray(content(cursor))
    cursor.close()
    data[bit // 8] ^= 1 << bit % 8
    assert read_slots(bytes(data), "x")[0] in ((10,) if new else (10, 20))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_position_or_none(data):
    assert read_slots(data, "x") is None


def test_a_newer_format_is_refused_and_nothing_is_touched(tmp_path):
    path = tmp_path / "cloud.cur"
    path.write_bytes((b"\x02\x01\x55\xc0" + b"?" * 20) * 2)
    before = path.read_bytes()
    with pytest.raises(StoreFailed, match="nothing was touched"):
        Cursor(OS_FILES, str(path), "cloud")
    assert path.read_bytes() == before
