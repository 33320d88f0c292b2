"""A disk that does the worst it may: the `Files` of the tests.

What the store sees while it runs is the *live* state. What is left when the power
goes is the *safe* state, plus any part of what was not synced: each write whole,
torn or not at all, each change of a name or not, in any combination. Only `sync`
makes bytes safe and only `sync_folder` makes names safe; a name that is safe
says nothing about the bytes behind it, nor the other way round.

A sync that fails has thrown the bytes away, as Linux does: they stay visible, and
the next sync succeeds without writing them.
"""

from __future__ import annotations

import errno
import itertools
import os
import sys
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from bridge.store.files import Files

SECTOR_BYTES = 64  # small, so that the small writes of the tests are torn too


class Killed(BaseException):
    """The process ends here; nothing in it may catch this."""


class File:
    """One inode."""

    def __init__(self) -> None:
        self.live = bytearray()
        self.safe = bytearray()
        self.unsafe: list[tuple[int, bytes | None]] = []  # (offset, bytes) or (size, None)

    def change(self, at: int, data: bytes | None) -> None:
        apply(self.live, at, data)
        self.unsafe.append((at, data))

    def sync(self) -> None:
        for at, data in self.unsafe:
            apply(self.safe, at, data)
        self.unsafe.clear()

    def cut(self, luck: Random) -> None:
        for at, data in self.unsafe:
            if data is None:
                if luck.random() < 0.5:
                    apply(self.safe, at, None)
                continue
            fate = luck.choice(("lost", "whole", "torn"))
            for begin in range(0, len(data), SECTOR_BYTES):
                if fate == "whole" or (fate == "torn" and luck.random() < 0.5):
                    apply(self.safe, at + begin, data[begin : begin + SECTOR_BYTES])
        self.lose()

    def lose(self) -> None:
        self.unsafe.clear()
        self.live = bytearray(self.safe)


class Folder:
    """Names, and what each of them stands for."""

    def __init__(self) -> None:
        self.live: dict[str, File | Folder] = {}
        self.safe: dict[str, File | Folder] = {}
        self.unsafe: list[dict[str, File | Folder | None]] = []  # each happens as a whole or not

    def change(self, names: dict[str, File | Folder | None]) -> None:
        rename(self.live, names)
        self.unsafe.append(names)

    def sync(self) -> None:
        for names in self.unsafe:
            rename(self.safe, names)
        self.unsafe.clear()

    def cut(self, luck: Random) -> None:
        for names in self.unsafe:
            if luck.random() < 0.5:
                rename(self.safe, names)
        self.lose()
        for one in self.live.values():
            one.cut(luck)

    def lose(self) -> None:
        self.unsafe.clear()
        self.live = dict(self.safe)


def apply(content: bytearray, at: int, data: bytes | None) -> None:
    if data is None:
        del content[at:]
        content.extend(bytes(at - len(content)))
        return
    content.extend(bytes(max(0, at - len(content))))
    content[at : at + len(data)] = data


def rename(names: dict[str, File | Folder], changes: dict[str, File | Folder | None]) -> None:
    for name, target in changes.items():
        if target is None:
            names.pop(name, None)
        else:
            names[name] = target


class Site(NamedTuple):
    """One place in the store that syncs."""

    function: str
    call: str
    line: int


class HostileDisk(Files):
    """`Files` in memory.

    `before` is called with the name of each operation that changes something and
    may raise: OSError for a disk that fails, Killed for a process that dies.
    Syncs asked for at the site `forgetful` do nothing at all.
    """

    def __init__(self, forgetful: Site | None = None) -> None:
        self.root = Folder()
        self.before: Callable[[str], None] = lambda call: None
        self.forgetful = forgetful
        self.sites: set[Site] = set()
        self.open_files: dict[int, tuple[str, File]] = {}
        self._locks: set[str] = set()
        self._numbers = itertools.count(1000)

    # ---- what tests do to it -------------------------------------------------------

    def kill(self) -> None:
        """The process is gone; the operating system is not."""
        self.open_files.clear()
        self._locks.clear()
        self.before = lambda call: None

    def power_cut(self, luck: Random) -> None:
        """Afterwards there is what a disk owes, and of the rest what luck left."""
        self.kill()
        self.root.cut(luck)

    def content(self, path: str) -> bytearray:
        """A file's live bytes; what is changed in them is changed on the disk, as rot does."""
        found = self._find(path)
        assert isinstance(found, File)
        return found.live

    def rot(self, path: str, bit: int) -> None:
        """Flip one bit, for good."""
        found = self._find(path)
        assert isinstance(found, File)
        for content in (found.live, found.safe):
            if bit // 8 < len(content):
                content[bit // 8] ^= 1 << bit % 8

    # ---- Files ---------------------------------------------------------------------

    def has_folder(self, path: str) -> bool:
        return isinstance(self._look(path), Folder)

    def add_folder(self, path: str) -> None:
        self.before("add_folder")
        if self._look(path) is not None:
            raise FileExistsError(errno.EEXIST, "exists", path)
        self._folder(os.path.dirname(path)).change({os.path.basename(path): Folder()})

    def names(self, path: str) -> list[str]:
        found = self._look(path)
        return sorted(found.live) if isinstance(found, Folder) else []

    def create(self, path: str, size: int = 0) -> int:
        self.before("create")
        if self._look(path) is not None:
            raise FileExistsError(errno.EEXIST, "exists", path)
        file = File()
        self._folder(os.path.dirname(path)).change({os.path.basename(path): file})
        if size:
            file.change(size, None)
        return self._number(path, file)

    def allocate(self, fd: int, size: int) -> None:
        self.before("allocate")
        file = self._file(fd)
        if size > len(file.live):
            file.change(size, None)

    def open(self, path: str, *, create: bool = False) -> int:
        if create and self._look(path) is None:
            return self.create(path)
        found = self._find(path)
        assert isinstance(found, File)
        return self._number(path, found)

    def close(self, fd: int) -> None:
        if self.open_files.pop(fd, None) is None:
            raise OSError(errno.EBADF, "not open")

    def free(self, path: str) -> int:
        return 1 << 40

    def total(self, path: str) -> int:
        return 1 << 40

    def size(self, fd: int) -> int:
        return len(self._file(fd).live)

    def read(self, fd: int, length: int, offset: int) -> bytes:
        if length < 0 or offset < 0:
            raise OSError(errno.EINVAL, "negative")
        return bytes(self._file(fd).live[offset : offset + length])

    def write(self, fd: int, data: bytes, offset: int) -> None:
        file = self._file(fd)
        try:
            self.before("write")
        except BaseException:
            file.change(offset, bytes(data[: len(data) // 2]))  # as far as it came
            raise
        file.change(offset, bytes(data))

    def truncate(self, fd: int, size: int) -> None:
        self.before("truncate")
        self._file(fd).change(size, None)

    def sync(self, fd: int) -> None:
        if self._forgets("sync"):
            return
        file = self._file(fd)
        try:
            self.before("sync")
        except OSError:
            file.unsafe.clear()
            raise
        file.sync()

    def sync_folder(self, path: str) -> None:
        if self._forgets("sync_folder"):
            return
        self.before("sync_folder")
        self._folder(path).sync()

    def rename(self, old: str, new: str) -> None:
        self.before("rename")
        target = self._find(old)
        above, below = self._folder(os.path.dirname(new)), self._folder(os.path.dirname(old))
        if above is below:
            above.change({os.path.basename(old): None, os.path.basename(new): target})
        else:
            above.change({os.path.basename(new): target})
            below.change({os.path.basename(old): None})

    def unlink(self, path: str) -> None:
        self.before("unlink")
        if self._look(path) is not None:
            self._folder(os.path.dirname(path)).change({os.path.basename(path): None})

    def lock(self, path: str) -> int | None:
        if path in self._locks:
            return None
        self._locks.add(path)
        return self.open(path, create=True)

    # ---- inside --------------------------------------------------------------------

    def _forgets(self, call: str) -> bool:
        frame = sys._getframe(2)
        site = Site(frame.f_code.co_qualname, call, frame.f_lineno)
        self.sites.add(site)
        return site == self.forgetful

    def _look(self, path: str) -> File | Folder | None:
        found: File | Folder | None = self.root
        for name in path.strip("/").split("/"):
            if name and found is not None:
                found = found.live.get(name) if isinstance(found, Folder) else None
        return found

    def _find(self, path: str) -> File | Folder:
        found = self._look(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return found

    def _folder(self, path: str) -> Folder:
        found = self._find(path)
        assert isinstance(found, Folder)
        return found

    def _file(self, fd: int) -> File:
        if fd not in self.open_files:
            raise OSError(errno.EBADF, "not open")
        return self.open_files[fd][1]

    def _number(self, path: str, file: File) -> int:
        number = next(self._numbers)
        self.open_files[number] = path, file
        return number
