"""What a route reads next, where, and what is settled of what it has read.

In order there is one strand, and it reads on from the cursor. Under `live_first` it parts
when it meets a message that has waited (`bridge.policy.pace`): what comes from then on is
live and goes first. Beside live traffic the backlog leaves it one place in the line and
has one turn in eight, so it is never starved; and its batches become as small as the far
end takes in half a second, because whatever is new may have to wait for three of them.
When the backlog has been read, the strands are one again.

A link that breaks makes one strand of them, too: what was live then is backlog now. What
was delivered beyond the cursor is settled, and is not read again (`bridge.policy.settled`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Final, TypeVar

from bridge.clock import Clock
from bridge.forward.sifter import Sifter
from bridge.forward.strand import Strand
from bridge.forward.under_way import Skipped
from bridge.policy.account import Account, Fate
from bridge.policy.pace import BACKLOG_AGE_S, Pace
from bridge.policy.route import Route
from bridge.policy.settled import Settled
from bridge.store import Entry, Reader
from bridge.store.note import was_let_go
from bridge.store.passing import Passing

__all__ = ["PLACES", "Reading"]

PLACES: Final = 4  # batches under way at once
_LIVE_TURNS: Final = 7
_BATCH_S: Final = 0.5
_SHARE_MIN: Final = 10
_LOOK_MESSAGES: Final = 500  # looked at in one stretch for what is too old


class Reading:
    """One route's strands: `main` from the cursor on, up to `split` while there is a `live` one."""

    def __init__(
        self,
        route: Route,
        reader: Reader | Passing,
        account: Account,
        clock: Clock,
        stretches: Iterable[tuple[int, int]] = (),
    ) -> None:
        position = reader.cursor.position
        self.sifter = Sifter(route, reader, position, clock)
        self.settled = Settled(position, stretches)
        self.main = Strand(route.batch, position)
        self.live: Strand | None = None
        self.split = position
        self._route = route
        self._reader = reader
        self._account = account
        self._clock = clock
        self._share = route.batch.messages  # of the backlog in one batch, beside live traffic
        self._live_turns = 0  # since the backlog had its last
        self._paces = route.drain.backlog or route.drain.live
        self._backlog_pace, self._live_pace = Pace(route.drain.backlog), Pace(route.drain.live)

    # ---- facts ---------------------------------------------------------------------

    @property
    def strands(self) -> list[Strand]:
        """The one that goes first, first."""
        return [self.main] if self.live is None else [self.live, self.main]

    @property
    def is_empty(self) -> bool:
        """Whether nothing that was read waits to be sent."""
        return not any(strand.batch for strand in self.strands)

    @property
    def position(self) -> int:
        """Where the backlog is read on."""
        return max(self.main.position, self._reader.cursor.position)

    def is_behind(self, strand: Strand) -> bool:
        """Whether this is the backlog, and live traffic goes first."""
        return self.live not in (None, strand)

    def wants(self, entry: Entry) -> bool:
        """Whether the route wants this message and has not let it go at the door."""
        if not self._route.wants(entry.message.topic):
            return False
        return not (entry.note and was_let_go(entry.note, self._route.name))

    def is_open(self, entry: Entry) -> bool:
        """Whether this message is neither settled nor was read ahead of the others."""
        position = entry.position
        if self.live is not None and self.split <= position < self.live.position:
            return False
        return self.settled.skip(position) == position

    def overdue(self) -> int:
        """Up to here nothing is to be sent any more: all of it is too old, or not for this route.

        Looks at one stretch of the log, so there may be more; at the position where it began
        there is nothing.
        """
        now_ns, jumps = self._clock.now_ns(), self._clock.jumps
        position = self.position
        for entry in self._reader.read(position, _LOOK_MESSAGES):
            if (
                self.wants(entry)
                and self.is_open(entry)
                and not self._route.expired(entry.message, now_ns, jumps)
            ):
                break
            position = entry.end
        return position

    # ---- whose turn it is ----------------------------------------------------------

    def turns(self, places: int) -> list[tuple[Strand, int]]:
        """Each strand with how many batches may be under way when it sends, in the order of their turns.

        `places` is how many the whole route may have.
        """
        if self.live is None:
            return [(self.main, places)]
        if self._live_turns >= _LIVE_TURNS:
            return [(self.main, places), (self.live, places)]
        return [(self.live, places), (self.main, max(1, places - 1))]

    def most(self, strand: Strand) -> int:
        """How many messages a batch of this strand may have."""
        return self._share if self.is_behind(strand) else self._route.batch.messages

    def cut(self, strand: Strand, now_s: float) -> tuple[int, float]:
        """How many messages of a batch may go now; when there are none, in how many seconds."""
        waiting = strand.batch.entries
        count = len(waiting)
        if self._paces:
            pace = self._live_pace
            if self._is_backlog(waiting[0]):
                pace = self._backlog_pace
                if not self._is_backlog(waiting[-1]):  # what is new is not held up by the other's pace
                    waiting = list(takewhile(self._is_backlog, waiting))
            count = pace.take((entry.end - entry.position for entry in waiting), now_s)
            if not count:
                return 0, max(pace.wait_s(now_s), 0.001)
        self._live_turns = 0 if self.is_behind(strand) else self._live_turns + 1
        return count, 0.0

    def took(self, took_s: float) -> None:
        """A batch of the backlog was confirmed after this time, beside live traffic."""
        if took_s > _BATCH_S:
            self._share = max(self._share // 2, min(_SHARE_MIN, self._route.batch.messages))
        elif took_s < _BATCH_S / 4:
            self._share = min(self._share * 2, self._route.batch.messages)

    # ---- reading -------------------------------------------------------------------

    def read(
        self, strand: Strand, messages_max: int, bytes_max: int, now_s: float, until: int | None = None
    ) -> list[Entry]:
        """What comes next for this strand, before `until`, and nothing that is the other's or settled."""
        while True:
            begin = max(strand.position, self._reader.cursor.position)
            position = strand.position = self.settled.skip(begin)
            if position != begin:
                self.sifter.pass_over(position)
            entries = self.sifter.read(position, messages_max, bytes_max, now_s)
            stretch, split = self.settled.next_begin(position), None
            if self.live is not None and strand is self.main:
                split = self.split
            end = min((each for each in (stretch, split, until) if each is not None), default=None)
            if end is None or not entries or entries[-1].position < end:
                return entries
            entries = [entry for entry in entries if entry.position < end]
            if entries or end in (split, until):
                return entries
            strand.position = end  # there was nothing but a gap between two segments

    def take(self, strand: Strand, entries: list[Entry], now_s: float) -> None:
        """Add to the batch what the route wants of these."""
        route = self._route
        wants = route.wants
        wanted = [entry for entry in entries if wants(entry.message.topic)]
        strand.position = entries[-1].end
        if any(entry.note for entry in wanted):
            wanted = [entry for entry in wanted if not self._was_let_go(strand, entry)]
        if route.max_age_s is not None or any(entry.message.properties for entry in wanted):
            now_ns, jumps = self._clock.now_ns(), self._clock.jumps
            fresh = []
            for entry in wanted:
                if route.expired(entry.message, now_ns, jumps):
                    self._skip(strand, entry, "expired")
                else:
                    fresh.append(entry)
            wanted = fresh
        wanted, filtered = self.sifter.sift(wanted, self.settled.mark)
        for entry in filtered:
            self._skip(strand, entry, "filtered")
        strand.extend(wanted, now_s)
        if route.drain.live_first and wanted and self.live is None and self._is_backlog(wanted[0]):
            self._part(strand.position)

    def _was_let_go(self, strand: Strand, entry: Entry) -> bool:
        """Whether this message was let go at the door; if so it counts when the cursor has passed it."""
        let_go = bool(entry.note) and was_let_go(entry.note, self._route.name)
        if let_go:
            self._skip(strand, entry, None)
        return let_go

    def _skip(self, strand: Strand, entry: Entry, fate: Fate | None) -> None:
        strand.skipped.append(Skipped(entry.position, fate, self._account.size(entry.message)))

    def _is_backlog(self, entry: Entry) -> bool:
        return self._clock.age_s(entry.message.received_ns) > BACKLOG_AGE_S

    def _part(self, read: int) -> None:
        """What comes from now on goes first; what was read up to here, and what lies behind, does not."""
        if (end := self._reader.durable) > read:
            self.live, self.split = Strand(self._route.batch, end), end

    def join(self) -> None:
        """The backlog is read: what went first is all there is."""
        assert self.live is not None
        self._close(self.main, self.split)
        self.main, self.live = self.live, None
        self._share = self._route.batch.messages

    # ---- settling ------------------------------------------------------------------

    def close(self) -> None:
        """Nothing is under way, and nothing waits: whatever was read is settled."""
        for strand in self.strands:
            self._close(strand, strand.position)

    def _close(self, strand: Strand, end: int) -> None:
        fates = self.passed(one for one in strand.skipped if one.position < end)
        strand.skipped = [one for one in strand.skipped if one.position >= end]
        self.settled.add(strand.begun, end, fates)
        strand.begun = max(strand.begun, end)

    def settle(
        self,
        stretches: Sequence[tuple[int, int]],
        skipped: Sequence[Skipped],
        delivered: Sequence[Entry] = (),
        refused: Sequence[Entry] = (),
    ) -> None:
        """Count what became of these messages, and settle the stretches in which they lie.

        `delivered` and `refused` are in the order of the log.
        """
        self._account.passed("refused", len(refused), self.size(refused))
        self._account.passed("delivered", len(delivered), self.size(delivered))
        if len(stretches) == 1:
            [(begin, end)] = stretches
            fates = self.passed(skipped)
            fates.update(delivered=len(delivered), refused=len(refused))
            self.settled.add(begin, end, fates)
            return
        skipped = sorted(skipped, key=_position)
        for begin, end in stretches:
            fates = self.passed(_between(skipped, begin, end))
            fates["delivered"] = len(_between(delivered, begin, end))
            fates["refused"] = len(_between(refused, begin, end))
            self.settled.add(begin, end, fates)

    def size(self, entries: Iterable[Entry]) -> int:
        """What these count towards `max_bytes`; 0 where there is no such bound."""
        account = self._account
        return 0 if account.max_bytes is None else sum(account.size(entry.message) for entry in entries)

    def passed(self, skipped: Iterable[Skipped]) -> Counter[str]:
        """Count what is settled without being sent; return it as what became of it."""
        fates: Counter[str] = Counter()
        for one in skipped:
            if one.fate is None:
                self._account.passed_noted(1)
            else:
                self._account.passed(one.fate, 1, one.size)
            fates[one.fate or "bound_newest"] += 1
        return fates

    def take_back(self) -> None:
        """Whatever is not settled will be read again, from the cursor on."""
        self.settled.pass_over(self._reader.cursor.position)
        self.main, self.live = Strand(self._route.batch, self.settled.mark), None
        self._share = self._route.batch.messages

    def let_go(self, end: int) -> None:
        """What lies before `end` is neither read nor sent any more."""
        self.sifter.let_go(end)
        self.settled.pass_over(end)


_P = TypeVar("_P", Entry, Skipped)


def _position(one: Entry | Skipped) -> int:
    return one.position


def _between(ones: Sequence[_P], begin: int, end: int) -> Sequence[_P]:
    """Of these, which lie in the order of the log, what lies from `begin` to before `end`."""
    first = bisect_left(ones, begin, key=_position)
    return ones[first : bisect_left(ones, end, first, key=_position)]
