"""One batch on its way, and what lies between its messages.

A batch covers a stretch of the log: the messages in it, and those that the route wants
and does not send, because they have expired or were let go at the door. The cursor may
come to stand in the middle of it: where the far end has taken only the first messages,
or where the oldest were let go. Then what lies before it is counted, and the rest not yet.

A stretch has holes where messages are held (`bridge.policy.retry`). A batch of such ones
is sent again by itself and covers no more than they do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from bridge.policy.account import Fate, LeftFor
from bridge.sinks.base import Refusal
from bridge.store import Entry

__all__ = ["Sent", "Skipped", "without"]


def without(stretch: tuple[int, int], holes: Sequence[Entry]) -> list[tuple[int, int]]:
    """What is left of a stretch of the log."""
    begin, end = stretch
    left: list[tuple[int, int]] = []
    for hole in sorted(holes, key=lambda entry: entry.position):
        if hole.position >= end:
            break
        if begin < hole.position:
            left.append((begin, hole.position))
        begin = max(begin, hole.end)
    return [*left, (begin, end)] if begin < end else left


class Skipped(NamedTuple):
    """A message that is not sent; `fate` is None where its note has said already that it was let go."""

    position: int
    fate: Fate | None
    size: int


class Sent:
    """One batch under way, which covers the log from `begin` on to before `end`.

    `gone` says of its first messages why they were let go meanwhile. `sent_s` is when it
    was sent, where that is of interest. `held` lies between its messages and was not sent with
    them; `again`: its messages are scattered, and what lies between them is not its own.
    """

    def __init__(
        self,
        entries: list[Entry],
        skipped: list[Skipped],
        begin: int,
        end: int,
        task: asyncio.Task[list[Refusal]],
        sent_s: float | None = None,
        held: Sequence[Entry] = (),
        *,
        again: bool = False,
    ) -> None:
        self.begin = begin
        self.end = end
        self.sent_s = sent_s
        self.entries = entries
        self.skipped = skipped
        self.task = task
        self.gone: list[LeftFor] = []
        self.held = held
        self.again = again

    def let_go(self, end: int, reason: LeftFor) -> Sequence[Entry]:
        """What lies before `end` is let go, if the far end does not take it; return what was not before."""
        begin = len(self.gone)
        gone = [entry for entry in self.entries[begin:] if entry.position < end]
        self.gone += [reason] * len(gone)
        return gone

    def confirm(self, count: int) -> tuple[list[Entry], int]:
        """The far end owns the first messages: take them out. Also return how many of them were let go."""
        confirmed, self.entries = self.entries[:count], self.entries[count:]
        gone = len(self.gone[:count])
        self.gone = self.gone[count:]
        return confirmed, gone

    def stretches(self, end: int, confirmed: Sequence[Entry], kept: Sequence[Entry]) -> list[tuple[int, int]]:
        """What is settled up to `end` by the far end's answer; `kept` of its messages are not."""
        if self.again:
            holes = {entry.position for entry in kept}
            return [(each.position, each.end) for each in confirmed if each.position not in holes]
        return without((self.begin, end), [*self.held, *kept])

    def cut_skipped(self, end: int) -> list[Skipped]:
        """Take out what lies before `end` and was not sent."""
        skipped = self.skipped
        self.skipped = [one for one in skipped if one.position >= end]
        return [one for one in skipped if one.position < end] if self.skipped else skipped
