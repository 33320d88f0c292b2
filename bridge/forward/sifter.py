"""A route's sieve between the log and the batch: what it lets through, and when.

A route that sends only the latest of each period does not read on from its cursor until
the period is over: `read` gives nothing while it looks ahead, and then the stretch that
is decided. So nothing is ever sent out of order, and the cursor never passes what is held.

Without rules all of this passes everything on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bridge.clock import Clock
from bridge.policy.route import Route
from bridge.policy.sieve import Sieve
from bridge.store import Entry, Reader
from bridge.store.note import was_let_go
from bridge.store.passing import Passing

__all__ = ["Sifter"]

_LOOK_MESSAGES: Final = 1000
_LOOKS: Final = 2  # in one stretch; then others get their turn


class Sifter:
    """One route's sieve and the reader before it. `sieve` is None where the route has no rules."""

    def __init__(self, route: Route, reader: Reader | Passing, position: int, clock: Clock) -> None:
        self.sieve = Sieve(route.rules, route.dress.subject, position) if route.rules.any else None
        self._route = route
        self._reader = reader
        self._clock = clock
        self._more = False  # there is more to look at right now

    @property
    def holds(self) -> bool:
        """Whether there may be messages that `read` does not give yet."""
        return self._more or (self.sieve is not None and self.sieve.due_s is not None)

    @property
    def undecided(self) -> dict[str, int]:
        """Messages that were filtered because `where` could not be told, by reason, since the start."""
        sieve = self.sieve
        return {} if sieve is None else {"not_json": sieve.not_json, "unknown": sieve.unknown}

    def due_in_s(self, now_s: float) -> float | None:
        """In how many seconds `read` may have more to give without another message; None for never."""
        if self._more:
            return 0.0
        due_s = None if self.sieve is None else self.sieve.due_s
        return None if due_s is None else max(0.0, due_s - now_s)

    def read(self, position: int, messages_max: int, bytes_max: int, now_s: float) -> list[Entry]:
        """As `Reader.read`, but for what is not decided yet."""
        sieve = self.sieve
        if sieve is None or not sieve.looks_ahead:
            return self._reader.read(position, messages_max, bytes_max)
        looked = sieve.decided <= position
        if looked and not self._look(sieve, now_s):
            return []
        entries = self._decided(sieve, position, messages_max, bytes_max)
        if not entries and not looked and self._look(sieve, now_s):
            # Up to where it was decided there was nothing but a gap between two segments.
            entries = self._decided(sieve, position, messages_max, bytes_max)
        return entries

    def _decided(self, sieve: Sieve, position: int, messages_max: int, bytes_max: int) -> list[Entry]:
        entries = self._reader.read(position, messages_max, bytes_max)
        return [entry for entry in entries if entry.position < sieve.decided]

    def _look(self, sieve: Sieve, now_s: float) -> bool:
        """Look at what has not been looked at; return whether more is decided than before."""
        before = sieve.decided
        self._more = False
        for _ in range(_LOOKS):
            entries = self._reader.read(sieve.scanned, _LOOK_MESSAGES)
            if not entries:
                sieve.lapse(now_s)
                return sieve.decided > before
            sieve.look(self._fresh(entries), entries[-1].end, self._clock.now_ns(), now_s)
            if sieve.decided > before:
                return True
        self._more = True
        return False

    def _fresh(self, entries: Sequence[Entry]) -> list[Entry]:
        """What of these the route would send if it had no rules."""
        route, now_ns, jumps = self._route, self._clock.now_ns(), self._clock.jumps
        return [
            entry
            for entry in entries
            if route.wants(entry.message.topic)
            and not (entry.note and was_let_go(entry.note, route.name))
            and not route.expired(entry.message, now_ns, jumps)
        ]

    def sift(self, entries: list[Entry], mark: int) -> tuple[list[Entry], list[Entry]]:
        """What of these goes on, and what is filtered; nothing before `mark` will come again."""
        return (entries, []) if self.sieve is None else self.sieve.sift(entries, mark)

    def pass_over(self, end: int) -> None:
        """What lies before `end` is settled, and not read."""
        if self.sieve is not None:
            self.sieve.pass_over(end)

    def let_go(self, end: int) -> None:
        """What lies before `end` will not be read any more."""
        if self.sieve is not None:
            self.sieve.let_go(end)
