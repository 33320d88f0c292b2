"""The one writer of a log: what the next commit goes to, and how it gets there.

The newest segment is written until it is full; then it is cut where its records end, and
another begins right there, in a file that was used before (`bridge.store.spares`) or in a
new one whose room is taken in advance. One write and one fdatasync a commit for each
segment touched, one sync of the folder when a segment has begun.

`write` may run in any thread. It reads what `Log.take` has put into the batch, and of the
writer only what nobody else changes while a batch is under way.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final

from bridge.message import Message
from bridge.store.batch import Batch
from bridge.store.files import Files
from bridge.store.history import FULL
from bridge.store.record import encode_all
from bridge.store.segment import HEADER_BYTES, Header, Segment, file_name, new_salt
from bridge.store.spares import Spare

__all__ = ["Writer"]

_ANY: Final = 1 << 40


class Writer:
    """What is known of the end of the log; `segment` is None when the next commit begins a new one."""

    def __init__(self, files: Files, folder: str) -> None:
        self.epoch = 0
        self.next_sequence = 1
        self.segment: Segment | None = None
        self.room_end = 0  # where its preallocated room stops
        self.records_end = 0  # where the newest segment's records stop; before `durable` after damage
        self._files = files
        self._folder = folder

    def write(self, batch: Batch, position: int) -> None:
        """Write and sync a batch from `position` on, where the log ends.

        Raises OSError; then nothing of the batch counts, whatever reached the disk.
        """
        batch.tried = True
        began_at, sequence = position, self.next_sequence
        segment, room_end = self.segment, self.room_end
        follows = self.records_end
        messages = batch.messages
        while messages:
            if segment is None:
                header = Header(0, position, follows, sequence, self.epoch)
                left = batch.room - (position - began_at)
                segment, room_end = self._begin(batch, header, left, messages[0])
                position = segment.first
            began_s = time.perf_counter()
            data, entries = encode_all(
                messages, batch.notes, position, sequence, segment.salt, room_end - position
            )
            batch.encode_s += time.perf_counter() - began_s
            if entries:
                segment.write_records(position, data, room_end)
                self._files.sync(segment.fd)
                self._give_name(segment)
                batch.entries += entries
                position = follows = entries[-1].end
                sequence = entries[-1].sequence + 1
                messages = messages[len(entries) :]
                if batch.notes:
                    done = len(entries)
                    batch.notes = {at - done: note for at, note in batch.notes.items() if at >= done}
            if messages:
                self._files.truncate(segment.fd, position - segment.base)
                segment = None
        if batch.new_segments:
            self._files.sync_folder(self._folder)
            batch.names_are_safe()
        batch.end = position
        self.segment, self.room_end, self.next_sequence = segment, room_end, sequence

    def _begin(self, batch: Batch, header: Header, left: int, message: Message) -> tuple[Segment, int]:
        """A new segment with room for at least the first message; return also where its room ends."""
        note = {0: batch.notes[0]} if 0 in batch.notes else {}
        one = HEADER_BYTES + len(encode_all([message], note, 0, header.sequence, 0, _ANY)[0])
        # The last segment before the quota takes no more room than is left.
        size = max(min(batch.segment_bytes, left), one)
        luck = int.from_bytes(os.urandom(4), "little")
        while batch.spares:
            if not batch.spares[0].named:
                self._files.sync_folder(self._folder)
                batch.names_are_safe()
            spare = batch.spares.pop(0)
            header = header._replace(salt=new_salt(luck, spare.earlier), earlier=spare.earlier)
            if (begun := self._use_again(batch, spare, header, size)) is not None:
                return begun
        header = header._replace(salt=luck, earlier=None)
        path = os.path.join(self._folder, file_name(header.base))
        # A file of this name can only be one that a failed commit left: every byte
        # in it lies beyond `durable`.
        self._files.unlink(path)
        while True:
            try:
                segment = Segment(self._files, path, header, self._files.create(path, size))
                break
            except OSError as error:
                if error.errno in FULL and batch.history:
                    batch.gone.append(batch.history.pop(0))
                    self._files.unlink(os.path.join(self._folder, file_name(batch.gone[-1])))
                    continue
                if error.errno not in FULL or size == one:
                    raise
                size = max(size // 2, one)  # a disk nearly full takes smaller steps
        batch.new_segments.append(segment)
        segment.write(header.base, header.encode())
        return segment, header.base + size

    def _use_again(self, batch: Batch, spare: Spare, header: Header, size: int) -> tuple[Segment, int] | None:
        """Begin the segment in a spare, step 3 of `bridge.store.spares`; None for want of room.

        The file keeps the spare's name until its first records are synced.
        """
        segment = Segment(self._files, spare.path, header)
        batch.new_segments.append(segment)
        try:
            # Its records end there, but a power cut may have taken that back.
            self._files.truncate(segment.fd, min(size, spare.size))
            self._files.allocate(segment.fd, size)
        except OSError as error:
            if error.errno not in FULL:
                raise
            # What it held is room for a smaller one.
            batch.new_segments.remove(segment)
            segment.close()
            self._files.unlink(spare.path)
            return None
        segment.write(header.base, header.encode())
        return segment, header.base + size

    def _give_name(self, segment: Segment) -> None:
        """What was a spare is a segment from now on, in the place of what a failed commit may have left."""
        path = os.path.join(self._folder, file_name(segment.base))
        if segment.path != path:
            self._files.rename(segment.path, path)
            segment.path = path

    def fail(self, batch: Batch) -> None:
        """The batch is lost: the next commit begins a new segment, and gives out no number again."""
        self.segment = None
        self.next_sequence += len(batch.messages)
        # Best effort, for the room: recovery does not rest on it.
        for segment in batch.new_segments:
            with contextlib.suppress(OSError):
                segment.close()
                self._files.unlink(segment.path)
