"""The newest entries of a log, still decoded: what a reader that has caught up reads.

One chunk a commit, oldest let go first; a commit that is larger than all the room
is not kept at all, and read from the files. Chunks follow each other in the log with
at most a segment's header between them, so whoever stands at the end of one is
at the beginning of the next.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from bridge.store.record import Entry

__all__ = ["Recent"]

BYTES_MAX: Final = 4 * 1024 * 1024
_ENTRY_BYTES: Final = 250  # what Python adds to one message kept decoded, about


class Recent:
    """A bounded run of entries up to the log's end."""

    def __init__(self) -> None:
        self._chunks: list[list[Entry]] = []
        self._starts: list[int] = []
        self._bytes = 0

    def add(self, entries: list[Entry]) -> None:
        """What a commit has just made durable; behind everything added before."""
        if not entries:
            return
        self._chunks.append(entries)
        self._starts.append(entries[0].position)
        self._bytes += _cost(entries)
        drop = 0
        while self._bytes > BYTES_MAX and drop < len(self._chunks):
            self._bytes -= _cost(self._chunks[drop])
            drop += 1
        if drop:
            del self._chunks[:drop], self._starts[:drop]

    def read(self, position: int, messages_max: int, bytes_max: int) -> list[Entry]:
        """Entries from `position` on, at least one; or none, when the files have to be read.

        At most `messages_max`, and about `bytes_max` bytes of records.
        """
        at = bisect_right(self._starts, position) - 1
        if at < 0:
            return []
        chunk = self._chunks[at]
        if position >= chunk[-1].end:
            if at + 1 == len(self._chunks):
                return []
            chunk = self._chunks[at + 1]
        elif chunk[0].position < position:
            chunk = chunk[bisect_right(chunk, position - 1, key=_position) :]
        if len(chunk) > messages_max:
            chunk = chunk[:messages_max]
        if chunk and chunk[-1].end - position > bytes_max:
            chunk = chunk[: max(1, bisect_right(chunk, position + bytes_max, key=_end))]
        return chunk


def _cost(entries: list[Entry]) -> int:
    return entries[-1].end - entries[0].position + _ENTRY_BYTES * len(entries)


def _position(entry: Entry) -> int:
    return entry.position


def _end(entry: Entry) -> int:
    return entry.end
