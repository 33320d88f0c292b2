import errno
import os
import stat
import subprocess
import sys

import pytest

from bridge.errors import StoreFailed
from bridge.message import Message
from bridge.store import Spool
from bridge.store.files import Files
from tests.store.test_log import change, contents, numbered, numbers

QUOTA = 100 << 20

OPEN_IT = """
import asyncio, sys
from bridge.errors import StoreFailed
from bridge.store import Spool
async def main():
    try:
        Spool.open(sys.argv[1], 1 << 30)
    except StoreFailed as error:
        sys.exit(str(error))
asyncio.run(main())
"""


def opened_elsewhere(path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", OPEN_IT, str(path)], capture_output=True, text=True, timeout=60
    )


async def filled(path) -> str:
    spool = Spool.open(str(path), QUOTA)
    spool.uplink.cursor("cloud")
    for log in (spool.uplink, spool.downlink, spool.dead):
        log.extend(numbered(1, 2))
    for table in (spool.sessions, spool.retained, spool.marks):
        table.put("a", b"1")
    assert await spool.committer.flush() is None
    await spool.close()
    return str(path)


async def test_what_was_committed_is_there_after_a_clean_stop(tmp_path):
    path = await filled(tmp_path / "state")
    spool = Spool.open(path, QUOTA)
    for log in (spool.uplink, spool.downlink, spool.dead):
        assert numbers(log.read(0)) == [1, 2]
    for table in (spool.sessions, spool.retained, spool.marks):
        assert table.get("a") == b"1"
    assert spool.size == sum(log.size for log in (spool.uplink, spool.downlink, spool.dead))
    assert spool.damaged == 0
    await spool.close()


async def test_what_is_queued_at_the_end_is_written_by_close(tmp_path):
    spool = Spool.open(str(tmp_path / "state"), QUOTA)
    spool.uplink.extend(numbered(1))
    await spool.close()
    spool = Spool.open(str(tmp_path / "state"), QUOTA)
    assert numbers(spool.uplink.read(0)) == [1]
    await spool.close()


async def test_a_second_process_is_refused_and_told_what_to_do(tmp_path):
    spool = Spool.open(str(tmp_path / "state"), QUOTA)
    refused = opened_elsewhere(tmp_path / "state")
    assert refused.returncode == 1
    assert "in use by another process" in refused.stderr
    await spool.close()
    assert opened_elsewhere(tmp_path / "state").returncode == 0


@pytest.mark.parametrize("name", ["dead", "downlink", "marks.tab", "cloud.cur"])
async def test_a_newer_format_anywhere_stops_the_start_before_a_byte_is_written(tmp_path, name):
    path = await filled(tmp_path / "state")
    for above, _, names in os.walk(path):
        for one in names:
            if name in (one, os.path.basename(above)) and one.endswith((".seg", ".tab")):
                change(os.path.join(above, one), lambda data: newer(data, 8, 64))
            elif name == one:
                change(os.path.join(above, one), lambda data: newer(data, 0, 512))
    with open(os.path.join(path, "uplink", "0" * 20 + ".seg"), "r+b") as file:
        file.seek(300)
        file.write(b"torn")  # recovery would have something to do here
    with open(os.path.join(path, "tables", "sessions.tab.new"), "wb") as file:
        file.write(b"and here")
    before = contents(os.path.join(path, "uplink"))
    with pytest.raises(StoreFailed, match="nothing was touched"):
        Spool.open(path, QUOTA)
    assert contents(os.path.join(path, "uplink")) == before
    assert opened_elsewhere(path).returncode == 1, "the lock was let go: this one too sees the format"


def newer(data: bytes, *at: int) -> bytes:
    changed = bytearray(data)
    for begin in (0, at[1]):
        changed[begin + at[0]] = 9
    return bytes(changed)


async def test_files_and_folders_are_nobody_elses_business(tmp_path):
    path = await filled(tmp_path / "some" / "where" / "state")
    for above, _, names in os.walk(path):
        assert stat.S_IMODE(os.stat(above).st_mode) == 0o700
        for name in names:
            assert stat.S_IMODE(os.stat(os.path.join(above, name)).st_mode) == 0o600


async def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreFailed, match="file"):
        Spool.open(str(tmp_path / "file" / "state"), QUOTA)


async def test_given_a_disk_that_fails_at_the_end_the_lock_is_let_go_all_the_same(tmp_path):
    class Failing(Files):
        failing = False

        def sync(self, fd):
            if self.failing:
                raise OSError(errno.EIO, "bad sector")
            super().sync(fd)

    files = Failing()
    spool = Spool.open(str(tmp_path / "state"), QUOTA, files)
    spool.uplink.cursor("cloud")
    spool.uplink.append(Message("a", b"1:"))
    files.failing = True
    with pytest.raises(OSError, match="bad sector"):
        await spool.close()
    assert opened_elsewhere(tmp_path / "state").returncode == 0


async def test_neither_direction_takes_the_others_room(tmp_path):
    spool = Spool.open(str(tmp_path / "state"), QUOTA)
    assert spool.uplink.reserve(79 << 20)
    assert not spool.uplink.reserve(2 << 20)
    assert spool.downlink.reserve(9 << 20)
    assert spool.dead.reserve(9 << 20)
    await spool.close()
