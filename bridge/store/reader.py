"""One reader of a log: a cursor, and behind it one row of entries.

What the reader gets may lie in the log or aside (`bridge.store.aside`); it cannot
tell, and need not: positions rise, and everything before the cursor is settled.

    cursor ≤ pin,  head ≤ pin ≤ durable

The log keeps what lies behind the lowest `pin`: where a reader's cursor stands, or up
to where all that it wants was moved aside.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from bridge.store.aside import ASIDE, Aside, Part
from bridge.store.cursor import sync_past
from bridge.store.damaged import Damaged
from bridge.store.log import READ_BYTES, Log
from bridge.store.record import Entry

__all__ = ["Reader", "cursor_names"]


def cursor_names(log: Log) -> set[str]:
    """The names of all cursors that lie in a log's folder, whether somebody reads by them or not."""
    found = log.files.names(os.path.join(log.folder, "cursors"))
    return {name.removesuffix(".cur") for name in found if name.endswith(".cur")}


class Reader:
    """The reader of that name; made anew at every start, which is when its files are found."""

    def __init__(self, log: Log, name: str) -> None:
        """Raises StoreFailed for a newer format, OSError as it comes."""
        folder = os.path.join(log.folder, ASIDE, name)
        damage = Damaged(log.files, log.damaged_folder, f"{log.name}-{ASIDE}-{name}")
        self.name = name
        self.moving = False  # whether somebody is at it; two at a time would take each other's files away
        self._log = log
        self._aside = Aside(log.files, folder, damage)
        self.cursor = log.cursor(name, self._aside.begin)
        self.cursor.covered = self._aside.covered
        log.readers[name] = self
        self._trim()

    @property
    def pin(self) -> int:
        """Nothing before this is needed from the log."""
        return self.cursor.pin

    @property
    def durable(self) -> int:
        """Where the log ends."""
        return self._log.durable

    @property
    def epoch(self) -> int:
        """That of the log: part of the identity of its messages."""
        return self._log.epoch

    @property
    def aside_bytes(self) -> int:
        """What was moved, in bytes on the disk."""
        return self._aside.size

    def read(self, position: int, messages_max: int = 1000, bytes_max: int = READ_BYTES) -> list[Entry]:
        """As `Log.read`, and what was moved before it comes in its place."""
        covered = self.cursor.covered
        if position >= covered or messages_max < 1:
            return self._log.read(position, messages_max, bytes_max)
        return self._aside.read(position, messages_max, bytes_max) or self._log.read(
            covered, messages_max, bytes_max
        )

    def save(self, position: int, note: bytes | None = None) -> None:
        """Move the cursor, as `Cursor.save`; what lies before it is let go, here and in the log."""
        self.cursor.save(position, note)
        self._trim()
        self._log.trim()

    def _trim(self) -> None:
        if self._aside.ends_before(self.cursor.position):
            sync_past(self.cursor.position, (self.cursor,))
        self._aside.trim(self.cursor.position)
        self._log.aside_bytes = sum(reader.aside_bytes for reader in self._log.readers.values())

    # ---- moving --------------------------------------------------------------------

    def prepare(self, end: int, wanted: Sequence[Entry]) -> tuple[int, int, list[Entry]] | None:
        """What `write` is to be given so that nothing before `end` is needed from the log any more.

        `wanted` is all that the reader wants from its `pin` on to `end`. None when there is
        nothing to be written.
        """
        position = self.cursor.position
        wanted = [entry for entry in wanted if entry.position >= position]
        if not wanted:
            return None
        begin, small = self._aside.prepare(position)
        return begin, end, [*small, *wanted]

    def write(self, begin: int, end: int, entries: Sequence[Entry]) -> Part:
        """Write moved records, as `Aside.write`; any thread."""
        return self._aside.write(begin, end, entries)

    def settle(self, end: int, part: Part | None) -> None:
        """All that is wanted before `end` is in `part` now, or there was nothing."""
        if part is not None:
            self._aside.settle(part)
            self._trim()
        elif self._aside.begin is None:
            self.cursor.save(max(self.cursor.position, end))
        self.cursor.covered = max(self.cursor.covered, end)

    @property
    def damaged(self) -> int:
        """Stretches of bytes found damaged aside since the start."""
        return self._aside.damaged

    def close(self) -> None:
        """Let go of the files."""
        self._aside.close()
