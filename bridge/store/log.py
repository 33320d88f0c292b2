"""An endless sequence of messages: segments in a row, one writer, many readers.

    head ≤ every pin ≤ durable ≤ tail        (a pin is a cursor, see `bridge.store.reader`)

`head` is where the oldest segment begins, `durable` where the last synced record
ends; readers stop there. Positions are bytes since the beginning of time and
never come back; a segment begins exactly where the one before it ended.

Writing takes three steps, so that the slow one may run in another thread while
the house goes on (see `bridge.store.commit` and `bridge.store.writer`):

    take()          what was queued becomes a batch          (owner's thread)
    write(batch)    bytes and sync; touches no shared state  (any thread)
    settle(batch)   durable moves, readers see it            (owner's thread)

A commit that fails is as if it had never been: nothing of it was acknowledged
and no reader has seen it. Its file is never trusted again: the next commit
begins a new segment at `durable`, and what lies in the old one beyond that point
does not count. Its sequence numbers are not used again either.

Neither positions nor sequence numbers come back after damage. Where the end of
the log is lost (a torn tail, the last record or the newest segment rotten, a copy
from yesterday put back), it goes on behind the place that it had once reached:
the far end knows the lost messages by their numbers, and would take new ones
with the same numbers for repetitions.

The newest entries stay decoded in memory, so a reader that has caught up reads
no disk. Everything else is read as it is needed: memory does not grow with the
backlog.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from bridge.message import Message
from bridge.store.batch import Batch
from bridge.store.cursor import Cursor, find_cursor, sync_past
from bridge.store.damaged import Damaged
from bridge.store.files import OS_FILES, Files
from bridge.store.history import History
from bridge.store.recent import Recent
from bridge.store.record import HEADER_BYTES as RECORD_BYTES
from bridge.store.record import Entry
from bridge.store.segment import HEADER_BYTES, Damage, Earlier, Segment, read_entries, scan
from bridge.store.spares import Spares
from bridge.store.survey import survey
from bridge.store.writer import Writer

if TYPE_CHECKING:
    from bridge.store.reader import Reader

__all__ = ["Log"]

READ_BYTES: Final = 256 * 1024
SEGMENT_BYTES_MAX: Final = 16 * 1024 * 1024
SEGMENT_BYTES_MIN: Final = 64 * 1024
NOTE_BYTES_MAX: Final = 16 * 1024
_OPEN_SEGMENTS_MAX: Final = 16
_NO_NOTES: Final[dict[int, bytes]] = {}


class Log:
    """One log in one folder. Made by `Log.open`; used from one thread, but for `write`."""

    def __init__(
        self, folder: str, max_bytes: int, segment_bytes: int | None, files: Files, damaged_folder: str
    ) -> None:
        self.folder = folder
        self.name = os.path.basename(folder)
        self.max_bytes = max_bytes
        self.segment_bytes = segment_bytes or min(max(max_bytes // 16, SEGMENT_BYTES_MIN), SEGMENT_BYTES_MAX)
        self.durable = 0
        self.appended = 0  # messages made durable since the start
        self.cursors: dict[str, Cursor] = {}
        self.readers: dict[str, Reader] = {}
        self.aside_bytes = 0  # what was moved out of the way for them
        self.files, self.damaged_folder = files, damaged_folder
        self._damage = Damaged(files, damaged_folder, self.name)
        self._segments: list[Segment] = []
        self._bases: list[int] = []
        self._writer = Writer(files, folder)
        self._spares = Spares(files, folder, self.segment_bytes)
        self._pending: list[Message] = []
        self._notes: dict[int, bytes] = {}
        self._reserved = 0
        self._under_way = 0
        self._writing = False
        self._passed = 0  # up to here the newest segment is only waiting for the next one to begin
        self._recent = Recent()
        self.history = History(self, files)

    # ---- opening -------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        folder: str,
        *,
        max_bytes: int,
        segment_bytes: int | None = None,
        files: Files = OS_FILES,
        damaged_folder: str | None = None,
    ) -> Log:
        """Open the log in `folder`, or begin one there, and recover it.

        Afterwards every whole record is readable; what was cut off or skipped is
        kept as a copy in `damaged_folder` and logged, one line each. Only the
        newest segment is scanned. Raises StoreFailed for a newer format, before
        anything is written; OSError as it comes.
        """
        self = cls(folder, max_bytes, segment_bytes, files, damaged_folder or folder + "-damaged")
        found, reached = survey(folder, files)
        files.make_folder(folder)
        for one in found:
            path = os.path.join(folder, one.name)
            if one.header is None:
                # The newest stays until another follows: its name tells the next start
                # how far the log once reached.
                if self._damage.set_aside(path, one.size, move=one is not found[-1]):
                    reached = max(reached, one.base + one.size)
            elif self._segments and one.header.sequence < self._segments[-1].header.sequence:
                # A commit that failed left it. Its sequence numbers were skipped, so
                # what was written in its place begins with a higher one.
                self._damage.set_aside(path, one.size, move=True)
            else:
                self._segments.append(Segment(files, path, one.header))
                if one.half_damaged:
                    self._damage.half_of_header(path)
        self._bases = [segment.base for segment in self._segments]
        if self._segments:
            reached = max(reached, self._recover_newest())
        else:
            self._writer.epoch = int.from_bytes(os.urandom(4), "little")
        if reached > self.durable:
            self._writer.next_sequence += (reached - self.durable) // RECORD_BYTES + 1
            self.durable = reached
            self._writer.segment = None
        # What a killed process wrote and did not sync is in the log from now on:
        # readers see it, and the next commit may go to the same file. So its bytes
        # and its name have to be as safe as everything else before `durable`: making
        # a folder in a folder makes all the names there safe.
        if self._segments:
            files.sync(self._segments[-1].fd)
        cursors = os.path.join(folder, "cursors")
        files.make_folder(cursors)
        files.sync_folder(cursors)
        self._spares.open(self._room_for_spares())
        return self

    def _recover_newest(self) -> int:
        """Find where the log ends; return how far it once reached, torn bytes included."""
        newest, writer = self._segments[-1], self._writer
        size = newest.size
        writer.epoch = newest.header.epoch
        writer.next_sequence = newest.header.sequence
        self.durable = reached = newest.first
        for found in scan(newest, newest.base + size):
            reached = found.end
            if isinstance(found, Damage):
                self._keep_damage(newest, found)
            else:
                self.durable = found.end
                writer.next_sequence = found.sequence + 1
        writer.records_end = self.durable
        writer.segment, writer.room_end = newest, newest.base + size
        if reached > self.durable:
            # Nothing more goes into this file; the room it still has is given back.
            with contextlib.suppress(OSError):
                self.files.truncate(newest.fd, reached - newest.base)
        return reached

    def _keep_damage(self, segment: Segment, damage: Damage) -> None:
        end = min(damage.end, segment.base + segment.size)
        data = segment.read(damage.begin, max(end - damage.begin, 0))
        self._damage.keep(damage.begin, damage.end, data, torn=damage.at_tail)

    # ---- facts ---------------------------------------------------------------------

    @property
    def head(self) -> int:
        """Where the oldest segment begins; nothing before it can be read."""
        return self._bases[0] if self._bases else self.durable

    @property
    def epoch(self) -> int:
        """Part of the identity of its messages: no other log has had it."""
        return self._writer.epoch

    @property
    def size(self) -> int:
        """Bytes of records kept, headers of segments and what was moved aside included."""
        return self.durable - self.head + self.aside_bytes

    @property
    def count(self) -> int:
        """About how many messages are kept: commits that failed leave gaps in the sequence."""
        return self._writer.next_sequence - self._segments[0].header.sequence if self._segments else 0

    @property
    def damaged(self) -> int:
        """Stretches of bytes found damaged since the start."""
        found: list[Cursor | Reader] = [*self.cursors.values(), *self.readers.values()]
        return self._damage.count + sum(one.damaged for one in found)

    @property
    def dirty(self) -> bool:
        """Whether something waits for a commit."""
        return bool(self._pending)

    def oldest_segment_end(self) -> int:
        """Where the oldest segment that somebody wants ends: letting go of all before it frees room."""
        at = bisect_right(self._bases, max(self.head, self.history.end))
        return self._bases[at] if at < len(self._bases) else self.durable

    def sealed(self) -> list[tuple[int, int]]:
        """Where each segment but the newest begins and ends, oldest first."""
        return list(pairwise(self._bases))

    # ---- writing -------------------------------------------------------------------

    def _room(self) -> int:
        # With readers a segment's worth is kept back: there has to be room to move records into.
        taken = self.aside_bytes + (self.segment_bytes if self.readers else 0)
        return self.max_bytes - taken - (self.durable - max(self.head, self._passed, self.history.end))

    def has_room(self, amount: int) -> bool:
        """Whether `amount` more bytes would fit."""
        return self._under_way + self._reserved + amount + HEADER_BYTES <= self._room()

    def reserve(self, amount: int) -> bool:
        """Whether `amount` more bytes will fit; if so they are taken until the next commit."""
        if not self.has_room(amount):
            return False
        self._reserved += amount
        if self.history.keep_s:
            taken = self.aside_bytes + self.segment_bytes + self._under_way + self._reserved
            self.history.make_way(self.max_bytes - taken)
        return True

    def extend(self, messages: Sequence[Message], notes: Mapping[int, bytes] = _NO_NOTES) -> None:
        """Queue messages for the next commit, in order. Nothing is safe before that.

        `notes` has what is to stand beside message `i` under `i`, where there is something.
        """
        if notes:
            begin = len(self._pending)
            self._notes.update((begin + nth, note) for nth, note in notes.items())
        self._pending.extend(messages)

    def append(self, message: Message, note: bytes = b"") -> None:
        """Queue one message for the next commit, with a note beside it if there is one."""
        assert len(note) <= NOTE_BYTES_MAX
        if note:
            self._notes[len(self._pending)] = note
        self._pending.append(message)

    def take(self) -> Batch:
        """What is queued, as one batch. At most one batch may be under way."""
        batch = Batch(self._pending, self._notes)
        batch.history, batch.spares = self.history.spare(), self._spares.take()
        batch.room, batch.segment_bytes = self._room(), self.segment_bytes
        self._under_way, self._writing = self._reserved, True
        self._pending, self._notes, self._reserved = [], {}, 0
        return batch

    def write(self, batch: Batch) -> None:
        """Write and sync a batch: one write and one fdatasync for each segment touched.

        Raises OSError; then nothing of the batch counts, whatever reached the disk.
        """
        self._writer.write(batch, self.durable)

    def settle(self, batch: Batch) -> None:
        """The batch is on the disk: readers may see it."""
        self._under_way, self._writing = 0, False
        self._segments += batch.new_segments
        self._bases += [segment.base for segment in batch.new_segments]
        self.appended += len(batch.entries)
        self.durable = self._writer.records_end = batch.end
        self._spares.put(batch.spares)
        self._recent.add(batch.entries)
        self.history.settled(batch)

    def fail(self, batch: Batch, error: Exception) -> None:
        """The batch is lost, and its files with it."""
        self._under_way, self._writing = 0, False
        self._spares.put(batch.spares)
        self.history.settled(batch, error)
        if not batch.tried:
            return
        self._writer.fail(batch)
        if self._segments:
            newest = self._segments[-1]
            newest.trusted = False
            if self._writer.records_end == self.durable:
                with contextlib.suppress(OSError):
                    self.files.truncate(newest.fd, self.durable - newest.base)

    # ---- reading -------------------------------------------------------------------

    def read(self, position: int, messages_max: int = 1000, bytes_max: int = READ_BYTES) -> list[Entry]:
        """The next entries at or behind `position`: at least one, unless that is `durable`.

        About `bytes_max` bytes at most. Damage is stepped over, kept aside and
        counted; a position before `head` reads from `head`. Go on from the last
        entry's `end`.
        """
        if messages_max < 1:
            return []
        position = max(position, self.head)
        while position < self.durable:
            if entries := self._recent.read(position, messages_max, bytes_max):
                return entries
            entries, position = self._read_disk(position, messages_max, bytes_max)
            if entries:
                return entries
        return []

    def _read_disk(self, position: int, messages_max: int, bytes_max: int) -> tuple[list[Entry], int]:
        """Entries from the files, and where to go on; no entries where there was only damage."""
        index = max(bisect_right(self._bases, position) - 1, 0)
        segment = self._segments[index]
        limit, beyond = self._writer.records_end, self.durable
        if index + 1 < len(self._segments):
            limit, beyond = self._segments[index + 1].header.follows, self._bases[index + 1]
        position = max(position, segment.first)
        if position >= limit:
            return [], beyond
        entries, end, damage = read_entries(segment, position, limit, messages_max, bytes_max)
        self._limit_open_files(segment)
        if damage is not None:
            self._keep_damage(segment, damage)
        return entries, end

    def _limit_open_files(self, keep: Segment) -> None:
        others = [one for one in self._segments if one.is_open and one not in (keep, self._writer.segment)]
        for segment in others[: max(0, len(others) - _OPEN_SEGMENTS_MAX)]:
            segment.close()

    # ---- cursors and letting go ----------------------------------------------------

    def cursor(self, name: str, low: int | None = None) -> Cursor:
        """The cursor of that name, as `find_cursor` finds it; a new one begins at `durable`."""
        low = self.head if low is None else min(low, self.head)
        if name not in self.cursors:
            self.cursors[name] = find_cursor(self.files, self.folder, name, low, self.durable)
        return self.cursors[name]

    def trim(self, mark: int | None = None) -> bool:
        """Free what lies before `mark` (default: the lowest cursor); return whether that made room.

        Segments go whole, if the history does not keep them. Of a small quota the
        newest one may be a large part: when everyone has passed it, the next commit begins
        another, and its room counts as free from now on.
        """
        if mark is None:
            mark = min((cursor.pin for cursor in self.cursors.values()), default=self.durable)
        made_room = self.history.passed(self._bases, mark)
        while len(self._bases) > 1 and self._bases[1] <= mark and not self.history.keeps(self._bases[1]):
            made_room = self.drop_oldest()
        large = (self.durable - max(self.head, self._passed, self.history.end)) * 4 > self.max_bytes
        if large and mark >= self.durable and self._writer.segment is not None and not self._writing:
            self._writer.segment, self._passed = None, self.durable
            return True
        return made_room

    def drop_oldest(self, *, reuse: bool = True) -> bool:
        """Let go of the oldest segment, unless it is the only one; return whether it went.

        With `reuse` its file is kept for another one, if there is room for that; else it is unlinked.
        """
        if len(self._bases) < 2:
            return False
        sync_past(self._bases[1], self.cursors.values())
        segment, _ = self._segments.pop(0), self._bases.pop(0)
        segment.close()
        end = self._segments[0].header.follows
        earlier = Earlier(segment.salt, segment.base)
        reuse = reuse and segment.trusted
        if not (reuse and self._spares.keep(segment.path, earlier, end, self._room_for_spares())):
            self.files.unlink(segment.path)
        self._damage.forget_before(self.head)
        return True

    def _room_for_spares(self) -> int:
        # Beside what is kept there has to be room for the next segment, and for one of moved records.
        return self.max_bytes - self.size - 2 * self.segment_bytes

    def give_up_spare(self) -> bool:
        """Free one file that nobody wants, for a disk that is full; return whether there was one."""
        return self._spares.give_up()

    def close(self) -> None:
        """Sync the cursors and let go of every file. What was not committed is gone."""
        with contextlib.ExitStack() as closing:
            for segment in self._segments:
                closing.callback(segment.close)
            for reader in self.readers.values():
                closing.callback(reader.close)
            for cursor in self.cursors.values():
                closing.callback(cursor.close)
                closing.callback(cursor.sync)
            self.cursors.clear()
