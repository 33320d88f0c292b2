"""What one slow route still wants of segments that everybody else has passed.

Ten undelivered alarms must not hold a gigabyte of delivered telemetry. So their
records are copied here, and the segments they lay in are freed. A record keeps
the position, the sequence number and the arrival time that it had: for its reader
nothing has moved, and its cursor keeps its one meaning.

    ROUTE/BEGIN-END.mvd     all that the route wants between these two positions
    file := a segment (`bridge.store.segment`) of MOVED records, its base is BEGIN

Left: moving records to the end of the log, under their old numbers. There every
reader would meet them, in the wrong order, and a crash between the copy and the
free would leave the same number twice in one log.

A file is written under another name, synced, and gets its name at one stroke; the
name is synced before anything in the log is freed. So at every moment either the
log or one file here has the record, mostly both for an instant, and where both have
it the reader takes this one: nothing is lost, sent out of order, or even sent twice.

A small last file is written again together with what comes next, so their number
grows with the bytes in them and not with the time that the route is away.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from bridge.store.damaged import Damaged
from bridge.store.files import Files
from bridge.store.record import Entry, encode_moved
from bridge.store.segment import HEADER_BYTES, Header, Segment, read_entries, read_header

__all__ = ["ASIDE", "Aside", "Part", "part_places"]

ASIDE: Final = "aside"  # the folder in that of a log; in it one for each route
_NAME: Final = re.compile(r"(\d{20})-(\d{20})\.mvd")
_MERGE_BELOW: Final = 512 * 1024  # bytes; a smaller last file is written again
_READ_BYTES: Final = 256 * 1024


def part_places(name: str) -> tuple[int, int] | None:
    """Between which two positions a file of this name holds what is wanted; None for another file."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


class Part(NamedTuple):
    """One file: all that is wanted between the positions `begin` and `end`."""

    begin: int
    end: int
    size: int
    segment: Segment


class Aside:
    """The moved records of one reader, in the order of their positions."""

    def __init__(self, files: Files, folder: str, damage: Damaged) -> None:
        """Find what is there. Writes nothing but what a start has to."""
        self.folder = folder
        self._files = files
        self._damage = damage
        self._parts: list[Part] = []
        self._next = (-1, -1, 0)  # (position, begin of a part, offset): where to read on
        self._made = False
        if not files.has_folder(folder):
            return
        # A killed process may have given a file its name and not synced that, and what is
        # in it may be freed from the log from now on.
        self._make_folder()
        files.sync_folder(folder)
        for name in files.names(folder):
            path = os.path.join(folder, name)
            if name.endswith(".new"):
                files.unlink(path)
            elif places := part_places(name):
                self._find(path, *places)

    def _make_folder(self) -> None:
        """Afterwards its name is safe and that of the one above, whoever made them and was killed."""
        if not self._made:
            self._files.make_folder(os.path.dirname(self.folder))
            self._files.make_folder(self.folder)
            self._made = True

    def _find(self, path: str, begin: int, end: int) -> None:
        fd = self._files.open(path)
        size = self._files.size(fd)
        header = read_header(self._files.read(fd, HEADER_BYTES, 0), path)
        self._files.close(fd)
        if header is None or header.base != begin:
            self._damage.set_aside(path, size, move=True)
            return
        part = Part(begin, end, size, Segment(self._files, path, header))
        if self._parts and self._parts[-1].end > begin:
            # The power went between the new name and the end of the old one.
            self._files.unlink(self._parts.pop().segment.path)
        self._parts.append(part)

    # ---- facts ---------------------------------------------------------------------

    @property
    def begin(self) -> int | None:
        """Where the oldest file begins; None when there is none."""
        return self._parts[0].begin if self._parts else None

    @property
    def covered(self) -> int:
        """Up to here nothing has to be looked for in the log; 0 when nothing was moved."""
        return self._parts[-1].end if self._parts else 0

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(part.size for part in self._parts)

    @property
    def damaged(self) -> int:
        """Stretches of bytes found damaged since the start."""
        return self._damage.count

    # ---- reading -------------------------------------------------------------------

    def read(self, position: int, messages_max: int, bytes_max: int) -> list[Entry]:
        """The next moved entries at or behind `position`; none when there are no more."""
        for part in self._parts:
            if part.end <= position:
                continue
            known = self._next[:2] == (position, part.begin)
            offset = self._next[2] if known else HEADER_BYTES
            while offset < part.size:
                entries, offset = self._read_part(part, offset, messages_max, bytes_max)
                entries = [entry for entry in entries if entry.position >= position]
                if entries:
                    self._next = (entries[-1].end, part.begin, offset)
                    return entries
        return []

    def _read_part(
        self, part: Part, offset: int, messages_max: int, bytes_max: int
    ) -> tuple[list[Entry], int]:
        """Entries from an offset of a file, and where to go on; no entries where there was only damage."""
        at, limit = part.begin + offset, part.begin + part.size
        entries, end, damage = read_entries(part.segment, at, limit, messages_max, bytes_max)
        if damage is not None:
            data = part.segment.read(damage.begin, damage.end - damage.begin)
            self._damage.keep(damage.begin, damage.end, data)
        return entries, end - part.begin

    # ---- writing -------------------------------------------------------------------

    def prepare(self, cursor: int) -> tuple[int, list[Entry]]:
        """Where the next file has to begin, and with what: a small last file goes into it."""
        if not self._parts or self._parts[-1].size >= _MERGE_BELOW:
            return max(cursor, self.covered), []
        entries: list[Entry] = []
        begin = position = max(cursor, self._parts[-1].begin)
        while more := self.read(position, 1000, _READ_BYTES):
            entries += more
            position = more[-1].end
        return begin, entries

    def write(self, begin: int, end: int, entries: Sequence[Entry]) -> Part:
        """Write a file that has `entries`, all that is wanted from `begin` to `end`; any thread.

        Afterwards it is safe, name and all. Raises OSError; then there is nothing of it.
        """
        path = os.path.join(self.folder, f"{begin:020d}-{end:020d}.mvd")
        header = Header(int.from_bytes(os.urandom(4), "little"), begin, begin, entries[0].sequence, 0)
        data = header.encode() + encode_moved(entries, begin + HEADER_BYTES, header.salt)
        self._make_folder()
        self._files.unlink(path + ".new")
        fd = self._files.create(path + ".new", len(data))
        try:
            try:
                self._files.write(fd, data, 0)
                self._files.sync(fd)
            finally:
                self._files.close(fd)
            self._files.rename(path + ".new", path)
            self._files.sync_folder(self.folder)
        except OSError:
            with contextlib.suppress(OSError):
                self._files.unlink(path + ".new")
                self._files.unlink(path)
            raise
        return Part(begin, end, len(data), Segment(self._files, path, header))

    def settle(self, part: Part) -> None:
        """The file counts from now on; files that lie within it do not any more."""
        within = [one for one in self._parts if one.end > part.begin]
        self._parts = [*(one for one in self._parts if one.end <= part.begin), part]
        self._next = (-1, -1, 0)
        for other in within:
            self._remove(other)

    def _remove(self, part: Part) -> None:
        # What a disk that fails leaves behind is found at the next start, and does not count.
        with contextlib.suppress(OSError):
            part.segment.close()
            self._files.unlink(part.segment.path)

    def ends_before(self, cursor: int) -> bool:
        """Whether a file lies wholly before the cursor."""
        return bool(self._parts) and self._parts[0].end <= cursor

    def trim(self, cursor: int) -> None:
        """Let go of files wholly before the cursor."""
        while self._parts and self._parts[0].end <= cursor:
            self._remove(self._parts.pop(0))

    def close(self) -> None:
        """Let go of the files."""
        for part in self._parts:
            part.segment.close()
