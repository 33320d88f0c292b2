"""What is found damaged is kept aside, counted, and said once.

Nothing rests on the copies: they are for whoever wants to know what it was, and
are neither synced nor needed. Where there is no room for one, the original stays
where it is.
"""

from __future__ import annotations

import logging
import os

from bridge.store.files import Files

__all__ = ["Damaged"]

log = logging.getLogger(__name__)


class Damaged:
    """The damage of one log or table, called `name`; copies go to `folder`."""

    def __init__(self, files: Files, folder: str, name: str) -> None:
        self.count = 0  # stretches and files found since the start
        self._files = files
        self._folder = folder
        self._name = name
        self._known: set[int] = set()

    def keep(self, begin: int, end: int, data: bytes, *, torn: bool = False) -> None:
        """Between two positions lies no record, but `data`, as much of it as there is."""
        if begin in self._known:
            return
        self._known.add(begin)
        self.count += 1
        kept = os.path.join(self._folder, f"{self._name}-{begin:020d}.bin")
        try:
            self._files.keep(kept, data)
        except OSError as error:
            kept = f"not ({error.strerror})"
        what = "torn tail cut" if torn else "damage skipped"
        log.warning(f"{what} log=%s begin=%d end=%d kept=%s", self._name, begin, end, kept)

    def set_aside(self, path: str, size: int, *, move: bool) -> bool:
        """Leave out a file that is no segment of its log; return whether anything was in it."""
        fd = self._files.open(path)
        empty = not self._files.read(fd, size, 0).strip(b"\0")
        self._files.close(fd)
        if empty:  # the power went before its header was written
            self._files.unlink(path)
            return False
        self.count += 1
        kept = path
        if move:
            kept = os.path.join(self._folder, f"{self._name}-{os.path.basename(path)}")
            self._files.make_folder(self._folder)
            self._files.rename(path, kept)
        # One that is not moved is the newest, and was mostly just begun when the
        # power went: nothing in it was confirmed.
        level = logging.ERROR if move else logging.WARNING
        log.log(level, "segment unreadable log=%s bytes=%d kept=%s", self._name, size, kept)
        return True

    def half_of_header(self, path: str) -> None:
        """One copy of a header has rotted; the other one is read, and nothing is lost."""
        self.count += 1
        log.warning("header damaged log=%s file=%s", self._name, os.path.basename(path))

    def forget_before(self, head: int) -> None:
        """Nobody can come there any more."""
        self._known = {begin for begin in self._known if begin >= head}
