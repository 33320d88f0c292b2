"""One reading of a route's log: how far it has got, and the batch that it fills.

A route that goes through its log in order has one. Under `live_first` it has two while
there is a backlog: one that follows the end of the log and goes first, and one from the
cursor on to where the other began. Then they are one again.

    cursor ──main──▶ ···backlog··· split ■■live, sent■■ ──live──▶ end of the log
"""

from __future__ import annotations

from collections.abc import Sequence

from bridge.forward.under_way import Skipped
from bridge.policy.batch import Batch, BatchLimits
from bridge.store import Entry

__all__ = ["Strand"]


class Strand:
    """Where to read on, and what was read and is neither sent nor settled.

    `begun` is where the stretch begins that the next batch covers: everything from there
    on to `position` is in `batch` or in `skipped`, or nobody wants it.
    """

    __slots__ = ("batch", "begun", "position", "skipped")

    def __init__(self, limits: BatchLimits, position: int) -> None:
        self.batch: Batch[Entry] = Batch(limits)
        self.skipped: list[Skipped] = []
        self.position = self.begun = position

    def extend(self, entries: Sequence[Entry], now_s: float) -> None:
        """Take into the batch what is wanted of what was read."""
        if entries:
            self.batch.extend(entries, entries[-1].end - entries[0].position, now_s)

    def cut(self, count: int) -> tuple[list[Entry], list[Skipped], int, int]:
        """Take out the first messages: return them, what is skipped before the next, begin and end."""
        waiting = self.batch.entries
        size = waiting[count - 1].end - waiting[0].position
        entries = self.batch.take_some(count, size)
        begin, end = self.begun, self.position
        if self.batch:
            end = self.batch.entries[0].position
        skipped = self.skipped
        self.skipped = [one for one in skipped if one.position >= end]
        self.begun = end
        return (
            entries,
            [one for one in skipped if one.position < end] if self.skipped else skipped,
            begin,
            end,
        )

    def forget_before(self, end: int, now_s: float) -> tuple[list[Entry], list[Skipped]]:
        """Nothing before `end` is sent any more; return what of the batch and the skipped that was."""
        started = self.batch.take()
        kept = [entry for entry in started if entry.position >= end]
        self.extend(kept, now_s)
        skipped = [one for one in self.skipped if one.position < end]
        self.skipped = [one for one in self.skipped if one.position >= end]
        self.position, self.begun = max(self.position, end), max(self.begun, end)
        return started[: len(started) - len(kept)], skipped
