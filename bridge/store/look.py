"""A store, looked at from outside: nothing is written, locked or waited for.

A gateway may be writing there meanwhile. Three things can then be other than a file
at rest would have them, and none of them is damage:

    a segment has gone       everyone was through with it; what was in it was delivered
    a segment is new         it began after the look did; the look ends before it
    bytes are half there     the write is under way: they are looked at once more

So a look gives each message at most once, in order, and ends where the log ended when
its newest segment was read. What was written and not yet synced is seen as well.

Older segments end where the next one says that it `follows`. What lies there and is no
record is damage, also where it is all zeros, or where the file is too short.

Memory: one segment at a time, whatever the size of the store.
"""

from __future__ import annotations

import contextlib
import os
import time
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple, NoReturn

from bridge.errors import StoreFailed
from bridge.store.cursor import CURSOR_BYTES, damaged_slots, read_slots
from bridge.store.files import Files
from bridge.store.record import HEADER_BYTES as RECORD_BYTES
from bridge.store.record import Entry, RawRecord, decode_all, decode_record
from bridge.store.segment import (
    HEADER_BYTES,
    Damage,
    Header,
    Segment,
    file_name,
    half_damaged,
    read_header,
    scan,
)
from bridge.store.survey import peek

__all__ = ["LOOKING", "Flaw", "LogLook", "StoreLook", "TableLook"]

LOGS: Final = ("uplink", "downlink", "dead")
TABLES: Final = ("sessions", "retained", "marks")
READ_BYTES: Final = 256 * 1024
_AGAIN_S: Final = 0.02  # a write of one commit is over long before
_TRIES: Final = 5
_HALF_HEADER: Final = "one of the two copies of its header cannot be read; the other one counts"
_NAME_LENGTH: Final = len(file_name(0))


class _Looking(Files):
    """The disk for those who only read: it opens nothing for writing, and refuses the rest."""

    def open(self, path: str, *, create: bool = False) -> int:
        """Open for reading only."""
        assert not create
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _never(self, *_: object, **__: object) -> NoReturn:
        raise AssertionError("a look changes nothing")

    make_folder = add_folder = create = write = sync = sync_folder = _never
    truncate = rename = unlink = keep = lock = _never


LOOKING: Final = _Looking()


class Flaw(NamedTuple):
    """Something that is not as it was written: where, and what it means.

    `begin` and `end` are positions in the log (in a table or cursor, in the file); `lost` says
    whether a message or a value may be gone with it.
    """

    file: str
    begin: int
    end: int
    what: str
    lost: bool


class SegmentLook(NamedTuple):
    """One segment file with a header that counts."""

    path: str
    header: Header
    size: int


class LogLook:
    """One log as it stands: its segments, its cursors, and what of it has no readable header.

    Raises StoreFailed for a file of a newer format, OSError as it comes.
    """

    def __init__(self, folder: str, files: Files = LOOKING) -> None:
        self.folder = folder
        self.name = os.path.basename(folder)
        self.segments: list[SegmentLook] = []
        self.cursors: dict[str, int | None] = {}  # None: it cannot be read
        self.flaws: list[Flaw] = []  # of whole files; those of records come from `walk`
        self._files = files
        self._see_cursors()  # first: a cursor seen later could be ahead of the segments seen
        self._see_segments()

    @property
    def head(self) -> int:
        """Where the oldest segment begins."""
        return self.segments[0].header.base if self.segments else 0

    @property
    def bytes(self) -> int:
        """Bytes of files, room not yet written included."""
        return sum(segment.size for segment in self.segments)

    def _see_cursors(self) -> None:
        folder = os.path.join(self.folder, "cursors")
        for name in self._files.names(folder):
            if not name.endswith(".cur"):
                continue
            path = os.path.join(folder, name)
            for _ in range(_TRIES):
                data, size = peek(self._files, path, CURSOR_BYTES)
                damaged = damaged_slots(data)
                if not damaged:
                    break
                time.sleep(_AGAIN_S)  # a save is under way, or it is damaged for good
            slot = read_slots(data, path)
            self.cursors[name[:-4]] = slot[0] if slot else None
            if slot is None:
                what = "no position can be read: the route goes back to the oldest message"
                self.flaws.append(Flaw(path, 0, size, what, lost=False))
            elif damaged:
                what = "one of its two slots cannot be read; the other one counts"
                self.flaws.append(Flaw(path, 0, size, what, lost=False))

    def _see_segments(self) -> None:
        for name in self._files.names(self.folder):
            if not (name.endswith(".seg") and name[:-4].isdecimal() and len(name) == _NAME_LENGTH):
                continue
            path = os.path.join(self.folder, name)
            try:
                header, size = self._see_header(path, name)
            except FileNotFoundError:
                continue
            base = int(name[:-4])
            if header is None:
                if size:
                    what = "no header can be read, so none of its records counts"
                    self.flaws.append(Flaw(path, base, base + size, what, lost=True))
            elif self.segments and header.sequence < self.segments[-1].header.sequence:
                what = "left by a commit that failed; nothing in it was acknowledged"
                self.flaws.append(Flaw(path, base, base + size, what, lost=False))
            else:
                self.segments.append(SegmentLook(path, header, size))
        self._bases = [segment.header.base for segment in self.segments]

    def _see_header(self, path: str, name: str) -> tuple[Header | None, int]:
        """The header, and the file's size; no header and 0 for a file that was only just begun."""
        for _ in range(_TRIES):
            data, size = peek(self._files, path, HEADER_BYTES)
            header = read_header(data, path)
            if header is not None and not half_damaged(data):
                break
            time.sleep(_AGAIN_S)  # the file is being made, or damaged for good
        if header is not None and name == file_name(header.base):
            if half_damaged(data):
                end = header.base + HEADER_BYTES
                self.flaws.append(Flaw(path, header.base, end, _HALF_HEADER, lost=False))
            return header, size
        fd = self._files.open(path)
        try:
            empty = not any(self._files.read(fd, 1 << 20, at).strip(b"\0") for at in range(0, size, 1 << 20))
        finally:
            self._files.close(fd)
        return None, 0 if empty else size

    # ---- records -------------------------------------------------------------------

    def walk(self, position: int = 0) -> Iterator[Entry | Damage]:
        """Every message at or behind `position`, in order, and every stretch where one should be."""
        for segment in self.segments:
            end = self.end_of(segment)
            if end is None or end > position:
                for found in self.walk_segment(segment):
                    if found.end > position:
                        yield found

    def walk_segment(self, segment: SegmentLook) -> Iterator[Entry | Damage]:
        """The same of one segment; nothing where it has gone meanwhile."""
        end = self.end_of(segment)
        position = segment.header.base + HEADER_BYTES
        try:
            for entries in _sound_stretches(self._files, segment, end):
                yield from entries
                position = entries[-1].end
            if position == end:
                return
            for found in _records(self._files, segment, end, position):
                if isinstance(found, RawRecord):
                    begin = found.end - len(found.body) - RECORD_BYTES
                    yield decode_record(found) or Damage(begin, found.end, at_tail=False)
                else:
                    yield found
        except FileNotFoundError:
            return

    def end_of(self, segment: SegmentLook) -> int | None:
        """Where its records stop, as the one behind it says; None while there is none."""
        at = bisect_right(self._bases, segment.header.base)
        if at < len(self.segments):
            return self.segments[at].header.follows
        for name in self._files.names(self.folder):  # one may have begun since the look
            if name > os.path.basename(segment.path) and name.endswith(".seg"):
                with contextlib.suppress(FileNotFoundError):
                    path = os.path.join(self.folder, name)
                    header = read_header(peek(self._files, path, HEADER_BYTES)[0], path)
                    if header is not None and header.sequence >= segment.header.sequence:
                        return header.follows
        return None


class TableLook:
    """One table as it stands: how many records it has, and what in it is damaged."""

    def __init__(self, path: str, files: Files = LOOKING) -> None:
        """Read all of it. Raises StoreFailed for a newer format, FileNotFoundError when there is none."""
        self.path = path
        self.records = 0
        self.flaws: list[Flaw] = []
        data, self.bytes = peek(files, path, HEADER_BYTES)
        header = read_header(data, path)
        if header is None:
            what = "no header can be read, so nothing in it counts"
            self.flaws.append(Flaw(path, 0, self.bytes, what, lost=True))
            return
        if half_damaged(data):
            self.flaws.append(Flaw(path, 0, HEADER_BYTES, _HALF_HEADER, lost=False))
        for found in _records(files, SegmentLook(path, header, self.bytes), None):
            if isinstance(found, RawRecord):
                self.records += 1
            else:
                self.flaws.append(Flaw(path, found.begin, found.end, "no record of the table", lost=True))


class StoreLook:
    """A whole store as it stands. `damaged` has the copies that earlier starts kept, and their sizes."""

    def __init__(self, path: str, files: Files = LOOKING) -> None:
        """Look at every file's header. Raises StoreFailed when this is no store, or a newer one."""
        self.path = path
        if not any(files.has_folder(os.path.join(path, name)) for name in LOGS):
            raise StoreFailed(f"there is no store in {path}; name its folder with --state DIR")
        self.logs = {name: LogLook(os.path.join(path, name), files) for name in LOGS}
        self.damaged: list[tuple[str, int]] = []
        for name in files.names(os.path.join(path, "damaged")):
            with contextlib.suppress(FileNotFoundError):
                copy = os.path.join(path, "damaged", name)
                self.damaged.append((copy, peek(files, copy, 0)[1]))
        self._files = files

    def tables(self) -> Iterator[TableLook]:
        """Each table that is there, read."""
        for name in TABLES:
            with contextlib.suppress(FileNotFoundError):
                yield TableLook(os.path.join(self.path, "tables", name + ".tab"), self._files)


def _sound_stretches(files: Files, segment: SegmentLook, end: int | None) -> Iterator[list[Entry]]:
    """The messages of a segment up to the first place where there is none, many at once.

    This is the fast way through a segment, and mostly all of it. Raises FileNotFoundError
    when the file has gone.
    """
    file = Segment(files, segment.path, segment.header)
    try:
        stop = segment.header.base + files.size(file.fd) if end is None else end
        position, length = file.first, READ_BYTES
        while position < stop:
            length = min(length, stop - position)
            data = file.read(position, length)
            entries, _, needs = decode_all(data, 0, position, file.salt, len(data))
            if entries:
                yield entries
                position, length = entries[-1].end, READ_BYTES
            elif needs and length < needs <= stop - position:
                length = needs
            else:
                return
    finally:
        file.close()


def _records(
    files: Files, segment: SegmentLook, end: int | None, begin: int | None = None
) -> Iterator[RawRecord | Damage]:
    """The records of a segment, and its damage, but not what only looks like it for a moment.

    From `begin` on, where a record should begin; default: from the first one.

    Raises FileNotFoundError when the file has gone.
    """
    header = segment.header
    file = Segment(files, segment.path, header)
    try:
        stop = header.base + files.size(file.fd) if end is None else end
        at = file.first if begin is None else begin
        for found in scan(file, stop, at):
            if isinstance(found, RawRecord):
                at = found.end
                yield found
                continue
            _check_still_there(files, segment)
            if end is not None:
                bad = Damage(found.begin, end if found.at_tail else found.end, at_tail=False)
                at = bad.end
                yield bad
                continue
            for again in _look_again(files, file, found):
                at = again.end
                yield again
        if end is not None and at < end:
            _check_still_there(files, segment)
            yield Damage(at, end, at_tail=False)
    finally:
        file.close()


def _look_again(files: Files, file: Segment, seen: Damage) -> Iterator[RawRecord | Damage]:
    """What lies in the newest segment where there was no record a moment ago."""
    if not seen.at_tail:
        # What is behind it was written later, so by now this is as it will stay.
        at = seen.begin
        for found in scan(file, seen.end, seen.begin):
            if isinstance(found, RawRecord):
                begin = found.end - len(found.body) - RECORD_BYTES
                if begin > at:
                    yield Damage(at, begin, at_tail=False)
                yield found
                at = found.end
        if at < seen.end:
            yield Damage(at, seen.end, at_tail=False)
        return
    for _ in range(_TRIES):
        time.sleep(_AGAIN_S)
        tail = list(scan(file, file.base + files.size(file.fd), seen.begin))
        if seen in tail:
            break
        if not tail or isinstance(tail[-1], RawRecord):
            yield from tail
            return
        yield from tail[:-1]
        assert isinstance(tail[-1], Damage)
        seen = tail[-1]
    yield seen


def _check_still_there(files: Files, segment: SegmentLook) -> None:
    """Raise FileNotFoundError when the file is not the one that was seen: it is not damaged, but gone."""
    data, _ = peek(files, segment.path, HEADER_BYTES)
    if read_header(data, segment.path) != segment.header:
        raise FileNotFoundError(segment.path)
