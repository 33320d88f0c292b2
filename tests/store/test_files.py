import errno
import os
import stat

import pytest

from bridge.message import Message
from bridge.store import Spool
from bridge.store.files import Files, Unsynced


def test_every_folder_on_the_way_is_made_and_its_name_made_safe(tmp_path):
    class Watched(Files):
        synced: list[str] = []  # noqa: RUF012

        def sync_folder(self, path):
            self.synced.append(path)
            super().sync_folder(path)

    files = Watched()
    files.make_folder(str(tmp_path / "a" / "b" / "c"))
    assert files.synced[-3:] == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")]
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    files.make_folder(str(tmp_path / "a" / "b" / "c"))


def test_a_folder_whose_parent_is_closed_to_us_is_used_all_the_same(tmp_path):
    """As under systemd, with a state folder within one that only root may open."""

    class Closed(Files):
        def sync_folder(self, path):
            raise PermissionError(errno.EACCES, "closed")

    Closed().make_folder(str(tmp_path))


def test_the_room_of_a_new_file_is_really_there(tmp_path):
    fd = Files().create(str(tmp_path / "a"), 1 << 20)
    assert os.fstat(fd).st_size == 1 << 20
    assert os.fstat(fd).st_blocks * 512 >= 1 << 20
    os.close(fd)


def test_where_no_room_can_be_taken_in_advance_the_file_is_made_without(tmp_path, monkeypatch):
    def refuse(fd, offset, length):
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    fd = Files().create(str(tmp_path / "a"), 4096)
    assert os.fstat(fd).st_size == 4096
    os.close(fd)


def test_given_a_full_disk_a_file_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch):
    def refuse(fd, offset, length):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="full"):
        Files().create(str(tmp_path / "a"), 4096)
    assert list(tmp_path.iterdir()) == []


def test_reads_and_writes_that_stop_short_go_on(tmp_path, monkeypatch):
    files = Files()
    fd = files.create(str(tmp_path / "a"))
    pwrite, pread = os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:3], at))
    monkeypatch.setattr(os, "pread", lambda fd, length, at: pread(fd, min(length, 3), at))
    files.write(fd, b"0123456789", 2)
    assert files.read(fd, 10, 2) == b"0123456789"
    assert files.read(fd, 99, 8) == b"6789"
    files.close(fd)


def test_an_absent_file_is_removed_without_a_word_and_an_absent_folder_is_empty(tmp_path):
    Files().unlink(str(tmp_path / "nobody"))
    assert Files().names(str(tmp_path / "nobody")) == []


def test_a_lock_is_held_until_it_is_closed(tmp_path):
    path = str(tmp_path / "lock")
    first = Files().lock(path)
    assert Files().lock(path) is None
    os.close(first)
    again = Files().lock(path)
    assert again is not None
    os.close(again)


def test_what_is_written_counts_in_pages_and_once_a_sync(tmp_path):
    files = Files()
    fd = files.create(str(tmp_path / "file"), 1 << 16)
    files.write(fd, b"x" * 10, 0)
    files.write(fd, b"y" * 10, 10)
    assert files.written_bytes == 0
    files.sync(fd)
    assert files.written_bytes == 4096, "two writes to one page go out once"
    files.write(fd, b"z" * 10, 20)
    files.sync(fd)
    assert files.written_bytes == 2 * 4096, "and once more when it was synced in between"
    files.write(fd, b"z" * 4098, 4096 * 2 - 1)
    files.sync(fd)
    assert files.written_bytes == 5 * 4096, "the last byte of one page, one page, the first of the next"
    files.write(fd, b"a", 0)
    files.close(fd)
    assert files.written_bytes == 6 * 4096, "what is left goes out some time"


async def test_a_disk_that_is_not_waited_for_is_never_synced_and_holds_all_the_same(tmp_path, monkeypatch):
    """Also of names: a folder's sync costs as much as a file's."""

    def never(fd):
        raise AssertionError("synced")

    monkeypatch.setattr(os, "fsync", never)
    monkeypatch.setattr(os, "fdatasync", never)
    spool = Spool.open(str(tmp_path / "spool"), 1 << 20, Unsynced())
    spool.uplink.cursor("cloud")
    spool.uplink.append(Message("a", b"1"))
    spool.retained.put("a", b"2")
    assert await spool.committer.flush() is None
    await spool.close()
    spool = Spool.open(str(tmp_path / "spool"), 1 << 20, Unsynced())
    position = spool.uplink.cursor("cloud").position
    assert [entry.message.payload for entry in spool.uplink.read(position)] == [b"1"]
    assert spool.retained.get("a") == b"2"
    await spool.close()
    with pytest.raises(AssertionError, match="synced"):
        Spool.open(str(tmp_path / "spool"), 1 << 20)
