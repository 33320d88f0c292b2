"""One file of a store, looked at while somebody may be writing to it: read only, and read twice.

A record half there may be damage, or a write that is under way. In the newest segment
whatever is no record is therefore looked at once more, and a file whose header has
changed meanwhile is not damaged, but gone: it was used again, or another one has its
name. FileNotFoundError says so here, as the operating system does of one that was unlinked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Final, NamedTuple, NoReturn

from bridge.store.files import Files
from bridge.store.record import HEADER_BYTES as RECORD_BYTES
from bridge.store.record import Entry, RawRecord, decode_all, decode_record
from bridge.store.segment import HEADER_BYTES, Damage, Header, Segment, read_header, scan
from bridge.store.survey import peek

__all__ = ["AGAIN_S", "LOOKING", "TRIES", "Flaw", "SegmentLook", "messages", "records"]

READ_BYTES: Final = 256 * 1024
AGAIN_S: Final = 0.02  # a write of one commit is over long before
TRIES: Final = 5


class _Looking(Files):
    """The disk for those who only read: it opens nothing for writing, and refuses the rest."""

    def open(self, path: str, *, create: bool = False) -> int:
        """Open for reading only."""
        assert not create
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _never(self, *_: object, **__: object) -> NoReturn:
        raise AssertionError("a look changes nothing")

    make_folder = add_folder = create = write = sync = sync_folder = _never
    allocate = truncate = rename = unlink = keep = lock = _never


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


def messages(files: Files, segment: SegmentLook, end: int | None) -> Iterator[Entry | Damage]:
    """Every message of a segment, in order, and every stretch where one should be.

    Its records stop before `end`; None for a newest segment, that of which nobody knows yet.
    Raises FileNotFoundError when the file has gone.
    """
    position = segment.header.base + HEADER_BYTES
    for entries, position in _sound_stretches(files, segment, end):  # noqa: B007 - where it stopped is needed
        yield from entries
    if position == end:
        return
    for found in records(files, segment, end, position):
        if isinstance(found, RawRecord):
            begin = found.end - len(found.body) - RECORD_BYTES
            yield decode_record(found) or Damage(begin, found.end, at_tail=False)
        else:
            yield found


def _sound_stretches(
    files: Files, segment: SegmentLook, end: int | None
) -> Iterator[tuple[list[Entry], int]]:
    """The messages of a segment up to the first place where there is none, and where each stretch ends.

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
            entries, read, needs = decode_all(data, 0, position, file.salt, len(data))
            if entries:
                position, length = position + read, READ_BYTES
                yield entries, position
            elif needs and length < needs <= stop - position:
                length = needs
            else:
                return
    finally:
        file.close()


def records(
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
    for _ in range(TRIES):
        time.sleep(AGAIN_S)
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
