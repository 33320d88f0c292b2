"""How fast messages may go, in messages and bytes in a second: two token buckets.

    level ──rises by `per_s`, up to the burst──▶  one message goes: level - cost

A burst is what a tenth of a second brings, and at least one message: a far end that
is to get 500 in a second never gets more than 50 at once, also not after an hour in
which nothing came. A message goes when there are tokens for it; of bytes there need
only be some, because a message larger than the burst would never go otherwise, and what
it takes too much the next ones wait for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

__all__ = ["BACKLOG_AGE_S", "BURST_S", "Drain", "Pace", "PaceLimits"]

BURST_S: Final = 0.1
# What waited for longer when its turn came is backlog; what went at once is live.
BACKLOG_AGE_S: Final = 5.0
# A timer for each message would cost more than the message: half a burst goes together.
_WORTH_WAKING: Final = 0.5


class PaceLimits(msgspec.Struct, frozen=True):
    """At most this many messages and bytes in a second; None for as many as there are."""

    messages_per_s: float | None = None
    bytes_per_s: float | None = None

    def __bool__(self) -> bool:
        return self.messages_per_s is not None or self.bytes_per_s is not None


class Drain(msgspec.Struct, frozen=True):
    """How a route goes through what waits, and how fast; `live_first`: the newest before the backlog."""

    live_first: bool = False
    backlog: PaceLimits = PaceLimits()
    live: PaceLimits = PaceLimits()


class _Bucket:
    """Tokens that come by themselves; below zero it owes some."""

    __slots__ = ("_at_s", "_level", "burst", "per_s")

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s
        self.burst = max(1.0, per_s * BURST_S)
        self._level = self.burst
        self._at_s: float | None = None

    def level(self, now_s: float) -> float:
        if self._at_s is None or now_s > self._at_s:
            if self._at_s is not None:
                self._level = min(self.burst, self._level + (now_s - self._at_s) * self.per_s)
            self._at_s = now_s
        return self._level

    def take(self, amount: float, now_s: float) -> None:
        self._level = self.level(now_s) - amount

    def until_s(self, level: float, now_s: float) -> float:
        return max(0.0, (level - self.level(now_s)) / self.per_s)


class Pace:
    """One stream of messages. `now_s` is any clock that only moves forward."""

    __slots__ = ("_bytes", "_messages", "limits")

    def __init__(self, limits: PaceLimits) -> None:
        self.limits = limits
        self._messages = None if limits.messages_per_s is None else _Bucket(limits.messages_per_s)
        self._bytes = None if limits.bytes_per_s is None else _Bucket(limits.bytes_per_s)

    def take(self, sizes: Iterable[int], now_s: float) -> int:
        """How many of the messages of these sizes may go now, from the first on; they are taken as gone."""
        # A hair's breadth for what floating point loses: else a wait that is over would be one more.
        messages = float("inf") if self._messages is None else self._messages.level(now_s) + 1e-6
        size = float("inf") if self._bytes is None else self._bytes.level(now_s)
        count, total = 0, 0
        for one in sizes:
            if messages < count + 1 or size <= total:
                break
            count, total = count + 1, total + one
        if self._messages is not None:
            self._messages.take(count, now_s)
        if self._bytes is not None:
            self._bytes.take(total, now_s)
        return count

    def wait_s(self, now_s: float) -> float:
        """In how many seconds it is worth while to take again; 0 for now."""
        waits = [0.0]
        if self._messages is not None:
            waits.append(self._messages.until_s(max(1.0, self._messages.burst * _WORTH_WAKING), now_s))
        if self._bytes is not None:
            waits.append(self._bytes.until_s(self._bytes.burst * _WORTH_WAKING, now_s))
        return max(waits)
