"""Which stretches of a log are settled: all before a mark, and some beyond it.

    settled ─────────▶ mark ··open·· ■■ stretch ■■ ··open·· ■■ stretch ■■ ··open··

Beyond the mark lies what was sent before its turn: live messages while the backlog
drains, and what was delivered while one refused message is tried again. A stretch has
what became of its messages with it, because both are written down together or not at
all: of more stretches than a cursor has room for, the largest are, and what the others
say is then taken off. A kill repeats those, and counts nothing twice.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from typing import Final

__all__ = ["STRETCHES_SAVED", "Settled"]

STRETCHES_SAVED: Final = 16  # of the cursor's 486 bytes they take 200 at most


class _Stretch:
    __slots__ = ("begin", "end", "fates")

    def __init__(self, begin: int, end: int, fates: Counter[str]) -> None:
        self.begin = begin
        self.end = end
        self.fates = fates


class Settled:
    """Everything before `mark`, and the stretches beyond; they neither touch nor overlap."""

    __slots__ = ("_stretches", "mark")

    def __init__(self, mark: int, stretches: Iterable[tuple[int, int]] = ()) -> None:
        self.mark = mark
        self._stretches: list[_Stretch] = []
        for begin, end in stretches:
            self.add(begin, end)

    @property
    def stretches(self) -> list[tuple[int, int]]:
        """What is settled beyond the mark, in order."""
        return [(one.begin, one.end) for one in self._stretches]

    def add(self, begin: int, end: int, fates: Counter[str] | None = None) -> None:
        """What lies from `begin` to before `end` is settled, and `fates` is what became of it."""
        if end <= max(begin, self.mark):
            return
        stretches = self._stretches
        first = bisect_right(stretches, begin, key=lambda one: one.begin)
        if first and stretches[first - 1].end >= begin:
            first -= 1
        last = first
        fates = Counter(fates or ())
        while last < len(stretches) and stretches[last].begin <= end:
            one = stretches[last]
            begin, end = min(begin, one.begin), max(end, one.end)
            fates.update(one.fates)
            last += 1
        if begin <= self.mark:
            self.mark = end
            del stretches[:last]
        else:
            stretches[first:last] = [_Stretch(begin, end, fates)]

    def pass_over(self, end: int) -> None:
        """Whatever lies before `end` is of no interest any more."""
        self.add(self.mark, end)

    def skip(self, position: int) -> int:
        """Where to read on at `position`: there, or behind what is settled there."""
        if position < self.mark:
            position = self.mark
        at = bisect_right(self._stretches, position, key=lambda one: one.begin)
        if at and self._stretches[at - 1].end > position:
            return self._stretches[at - 1].end
        return position

    def next_begin(self, position: int) -> int | None:
        """Where the next stretch behind `position` begins; None when there is none."""
        at = bisect_right(self._stretches, position, key=lambda one: one.begin)
        return self._stretches[at].begin if at < len(self._stretches) else None

    def saved(self) -> tuple[list[tuple[int, int]], Counter[str]]:
        """The stretches to write down, and what became of the messages in the others."""
        left_out: Counter[str] = Counter()
        kept = self._stretches
        if len(kept) > STRETCHES_SAVED:
            by_size = sorted(kept, key=lambda one: one.end - one.begin)
            for one in by_size[: len(kept) - STRETCHES_SAVED]:
                left_out.update(one.fates)
            kept = sorted(by_size[-STRETCHES_SAVED:], key=lambda one: one.begin)
        return [(one.begin, one.end) for one in kept], left_out
