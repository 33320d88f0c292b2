"""A store, looked at from outside: nothing is written, locked or waited for.

A gateway may be writing there meanwhile. Three things can then be other than a file
at rest would have them, and none of them is damage:

    a segment has gone       everyone was through with it, or what was still wanted of it
                             lies aside now, and is read there; its file may be another's by now
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
from collections.abc import Callable, Iterator
from heapq import merge
from typing import Final, NamedTuple

from bridge.errors import StoreFailed
from bridge.store.aside import ASIDE, part_places
from bridge.store.cursor import CURSOR_BYTES, damaged_slots, read_slots
from bridge.store.files import Files
from bridge.store.look_file import AGAIN_S, LOOKING, TRIES, Flaw, SegmentLook, messages, records
from bridge.store.record import Entry, RawRecord
from bridge.store.segment import HEADER_BYTES, Damage, Header, file_name, half_damaged, read_header
from bridge.store.settled import is_settled
from bridge.store.spares import spare_places
from bridge.store.survey import peek
from bridge.store.table import take_in

__all__ = ["LOOKING", "Flaw", "LogLook", "PartLook", "SegmentLook", "StoreLook", "TableLook"]

LOGS: Final = ("uplink", "downlink", "dead")
TABLES: Final = ("sessions", "retained", "marks", "settled")
_NO_HEADER: Final = "no header can be read, so nothing in it counts"
_HALF_HEADER: Final = "one of the two copies of its header cannot be read; the other one counts"
_LISTINGS_MAX: Final = 1000  # a file can be written anew while it is looked at, but not for ever
_NAME_LENGTH: Final = len(file_name(0))


class PartLook(NamedTuple):
    """One file of moved records: all that its route wants between two positions of the log."""

    begin: int
    end: int
    path: str
    header: Header | None
    size: int
    half_damaged: bool


class LogLook:
    """One log as it stands: its segments, its cursors, and what of it has no readable header.

    Raises StoreFailed for a file of a newer format, OSError as it comes.
    """

    def __init__(self, folder: str, files: Files = LOOKING) -> None:
        self.folder = folder
        self.name = os.path.basename(folder)
        self.segments: list[SegmentLook] = []
        self.spares: list[tuple[str, int]] = []  # files kept to be written again, and their sizes
        self.cursors: dict[str, int | None] = {}  # None: it cannot be read
        self.flaws: list[Flaw] = []  # of whole files; those of records come from `walk`
        self._files = files
        self._see_cursors()  # first: a cursor seen later could be ahead of the segments seen
        self._see_segments()
        for route in self.routes_aside():
            for part in self.parts(route):
                if part.header is None or part.half_damaged:
                    what = _NO_HEADER if part.header is None else _HALF_HEADER
                    self.flaws.append(Flaw(part.path, 0, part.size, what, lost=part.header is None))

    @property
    def head(self) -> int:
        """Where the oldest segment begins."""
        return self.segments[0].header.base if self.segments else 0

    @property
    def epoch(self) -> int:
        """That of the log: part of the identity of its messages."""
        return self.segments[-1].header.epoch if self.segments else 0

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
            for _ in range(TRIES):
                data, size = peek(self._files, path, CURSOR_BYTES)
                damaged = damaged_slots(data)
                if not damaged:
                    break
                time.sleep(AGAIN_S)  # a save is under way, or it is damaged for good
            slot = read_slots(data, path)
            self.cursors[name[:-4]] = slot[0] if slot else None
            if slot is None:
                what = "no position can be read: the route goes back to the oldest message"
                self.flaws.append(Flaw(path, 0, size, what, lost=False))
            elif damaged:
                what = "one of its slots cannot be read; another one counts"
                self.flaws.append(Flaw(path, 0, size, what, lost=False))

    def _see_segments(self) -> None:
        for name in self._files.names(self.folder):
            if spare_places(name):
                with contextlib.suppress(FileNotFoundError):
                    path = os.path.join(self.folder, name)
                    data, size = peek(self._files, path, HEADER_BYTES)
                    read_header(data, path)
                    self.spares.append((path, size))
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
                    self.flaws.append(Flaw(path, base, base + size, _NO_HEADER, lost=True))
            elif self.segments and header.sequence < self.segments[-1].header.sequence:
                what = "left by a commit that failed; nothing in it was acknowledged"
                self.flaws.append(Flaw(path, base, base + size, what, lost=False))
            else:
                self.segments.append(SegmentLook(path, header, size))
        self._bases = [segment.header.base for segment in self.segments]

    def _see_header(self, path: str, name: str) -> tuple[Header | None, int]:
        """The header, and the file's size; no header and 0 for a file that was only just begun."""
        for _ in range(TRIES):
            data, size = peek(self._files, path, HEADER_BYTES)
            header = read_header(data, path)
            if header is not None and not half_damaged(data):
                break
            time.sleep(AGAIN_S)  # the file is being made, or damaged for good
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

    def walk(self, position: int = 0, route: str | None = None) -> Iterator[Entry | Damage]:
        """Every message at or behind `position`, in order, and every stretch where one should be.

        What was moved aside comes in its place: with `route`, only what was moved for that one
        (it has nothing more to want where it was moved from), else for all of them.
        """
        routes = [route] if route is not None else self.routes_aside()
        covered = -1
        while (now := self._covered(route)) > covered:  # more may be moved in the meantime
            covered = now
            for moved in self._moved(routes, position, covered):
                yield moved
                position = moved.end
            if route is not None:
                position = max(position, covered)
        for segment in self.segments:
            end = self.end_of(segment)
            if end is not None and end <= position:
                continue
            try:
                for found in messages(self._files, segment, end):
                    if found.end > position:
                        yield found
                        position = found.end
            except FileNotFoundError:
                for moved in self._moved(routes, position, end):
                    yield moved
                    position = moved.end

    def walk_segment(self, segment: SegmentLook) -> Iterator[Entry | Damage]:
        """The same of one segment; nothing where it has gone meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            yield from messages(self._files, segment, self.end_of(segment))

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

    # ---- what was moved aside ------------------------------------------------------

    def routes_aside(self) -> list[str]:
        """The routes that something was moved aside for."""
        return self._files.names(os.path.join(self.folder, ASIDE))

    def parts(self, route: str) -> list[PartLook]:
        """The files that hold what was moved aside for a route, as of now."""
        folder = os.path.join(self.folder, ASIDE, route)
        parts: list[PartLook] = []
        for name in self._files.names(folder):
            if (places := part_places(name)) is None:
                continue
            path = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError):
                data, size = peek(self._files, path, HEADER_BYTES)
                header = read_header(data, path)
                while parts and parts[-1].end > places[0]:
                    parts.pop()  # what was in it has been written anew
                parts.append(PartLook(*places, path, header, size, header is not None and half_damaged(data)))
        return parts

    def walk_part(self, part: PartLook) -> Iterator[Entry | Damage]:
        """Every message of such a file, and its damage. Raises FileNotFoundError when it has gone."""
        if part.header is not None:
            segment = SegmentLook(part.path, part.header, part.size)
            yield from messages(self._files, segment, part.header.base + part.size)

    def _covered(self, route: str | None) -> int:
        """Up to here nothing has to be looked for in the log; without a route, up to its head."""
        if route is None:
            return self.head
        return max((part.end for part in self.parts(route)), default=0)

    def _moved(self, routes: list[str], position: int, end: int | None) -> Iterator[Entry]:
        """What was moved from `position` on and before `end`; once, also if several routes want it."""
        entries = [self._moved_for(route, position, end) for route in routes]
        for entry in merge(*entries, key=lambda entry: entry.position):
            if entry.position >= position:
                yield entry
                position = entry.end

    def _moved_for(self, route: str, position: int, end: int | None) -> Iterator[Entry]:
        for _ in range(_LISTINGS_MAX):
            try:
                for part in self.parts(route):
                    if part.end > position:
                        for found in self.walk_part(part):
                            if isinstance(found, Entry) and found.position >= position:
                                if end is not None and found.position >= end:
                                    return
                                yield found
                                position = found.end
                return
            except FileNotFoundError:
                continue  # it was delivered, or has been written anew with what came next


class TableLook:
    """One table as it stands: how many records it has, and what in it is damaged."""

    def __init__(self, path: str, files: Files = LOOKING, values: dict[str, bytes] | None = None) -> None:
        """Read all of it, into `values` too if there are some to be had.

        Raises StoreFailed for a newer format, FileNotFoundError when there is none.
        """
        self.path = path
        self.records = 0
        self.flaws: list[Flaw] = []
        data, self.bytes = peek(files, path, HEADER_BYTES)
        header = read_header(data, path)
        if header is None:
            self.flaws.append(Flaw(path, 0, self.bytes, _NO_HEADER, lost=True))
            return
        if half_damaged(data):
            self.flaws.append(Flaw(path, 0, HEADER_BYTES, _HALF_HEADER, lost=False))
        for found in records(files, SegmentLook(path, header, self.bytes), None):
            if isinstance(found, RawRecord):
                self.records += 1
                if values is not None:
                    take_in(values, found)
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

    def settled(self) -> Callable[[Entry], bool]:
        """Whether a dead letter is done with, as of now."""
        epoch = self.logs["dead"].epoch
        path = os.path.join(self.path, "tables", "settled.tab")
        for _ in range(_LISTINGS_MAX):
            values: dict[str, bytes] = {}
            try:
                TableLook(path, self._files, values)
            except FileNotFoundError:
                if os.path.basename(path) in self._files.names(os.path.dirname(path)):
                    continue  # it has just been written anew
            break
        return lambda entry: is_settled(values.get, epoch, entry.sequence)

    def tables(self) -> Iterator[TableLook]:
        """Each table that is there, read."""
        for name in TABLES:
            with contextlib.suppress(FileNotFoundError):
                yield TableLook(os.path.join(self.path, "tables", name + ".tab"), self._files)
