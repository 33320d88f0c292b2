"""A message that the far end refuses: tried again a few times, and only its own key waits.

    sent ─refused─▶ held ─wait─▶ tried again ─refused `tries` times─▶ given up
                     │                └─taken─▶ the key goes on
                     └─ what comes behind it with the same key is held back, in order

A key is whatever has an order to keep, such as publisher and topic. All other keys go
on meanwhile. A refusal may be final, as of a message that no protocol can carry; any
other one may be a queue that somebody is about to make again.

What was held back goes as one when its key is free. So whoever has an order keeps it, but
for a message that is refused and taken later: what was sent with it has gone before.

Every wait has an end: `tries` and `wait_s` make at most 15 s, so a message behind a
refused one, which may have to go through the same, is done with after 30 s. What is held
is bounded, too: when there is no more room, everything held has its last try at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

import msgspec

__all__ = ["HELD_BYTES_MAX", "HELD_MAX", "PATIENCE_S_MAX", "Held", "Retries", "RetryLimits"]

T = TypeVar("T")

PATIENCE_S_MAX: Final = 15.0
HELD_MAX: Final = 2000  # messages of one route
HELD_BYTES_MAX: Final = 4 << 20


class RetryLimits(msgspec.Struct, frozen=True):
    """How often a message is tried in all, and how long to wait in between."""

    tries: int = 5
    wait_s: float = 1.0

    @property
    def patience_s(self) -> float:
        """From the first try to the last."""
        return (self.tries - 1) * self.wait_s


class Held(Generic[T]):
    """One message that was refused `tries` times, last for this reason."""

    __slots__ = ("due_s", "item", "key", "place", "reason", "size", "tries")

    def __init__(self, place: int, key: Hashable, item: T, size: int) -> None:
        self.place = place  # in the log
        self.key = key
        self.item = item
        self.size = size
        self.tries = 0
        self.reason = ""
        self.due_s = 0.0


class _Key(Generic[T]):
    """What is known of a key that waits: refused ones, those tried again now, those behind."""

    __slots__ = ("behind", "refused", "under_way")

    def __init__(self) -> None:
        self.refused: list[Held[T]] = []
        self.under_way: dict[int, Held[T]] = {}
        self.behind: deque[Held[T]] = deque()


class Retries(Generic[T]):
    """What one route holds. `now_s` is any clock that only moves forward; `place` rises along the log."""

    __slots__ = ("_keys", "_ready", "_tries", "bytes", "count", "limits")

    def __init__(self, limits: RetryLimits) -> None:
        self.limits = limits
        self.count = 0
        self.bytes = 0
        self._keys: dict[Hashable, _Key[T]] = {}
        self._ready: list[Held[T]] = []  # behind a key that is free again: to be sent before anything new
        self._tries: dict[int, int] = {}  # of what was let go of by `clear`: it will come again

    def __bool__(self) -> bool:
        """Whether anything waits or is tried again: else no message needs to be asked about."""
        return bool(self._keys) or bool(self._ready)

    @property
    def full(self) -> bool:
        """Whether no more may be held back."""
        return self.count >= HELD_MAX or self.bytes >= HELD_BYTES_MAX

    def hold_back(self, key: Hashable, place: int, item: T, size: int) -> bool:
        """Keep a new message if its key waits; return whether it was kept."""
        waiting = self._keys.get(key)
        if waiting is None:
            return False
        waiting.behind.append(self._count(Held(place, key, item, size)))
        return True

    def refuse(
        self, key: Hashable, place: int, item: T, size: int, reason: str, now_s: float
    ) -> Held[T] | None:
        """The far end did not take it the first time, and may yet.

        Returns it when that was its last try: it is given up. Otherwise its key waits.
        """
        held = Held(place, key, item, size)
        held.tries = self._tries.pop(place, 0)
        return self._again(held, reason, now_s, held_already=False)

    def refuse_again(
        self, held: Held[T], reason: str, now_s: float, *, final: bool = False
    ) -> Held[T] | None:
        """One of `due` was refused once more; as `refuse`. The key is free when it was the last."""
        del self._keys[held.key].under_way[held.place]
        given_up = self._again(held, reason, now_s, held_already=True, final=final)
        if given_up is not None:
            self._free(held.key)
        return given_up

    def take(self, held: Held[T]) -> None:
        """One of `due` was taken: the far end owns it."""
        del self._keys[held.key].under_way[held.place]
        self._uncount(held)
        self._free(held.key)

    def due(self, now_s: float) -> list[Held[T]]:
        """What is to be tried again now, in the order of the log; each is under way afterwards."""
        hurry = self.full
        found: list[Held[T]] = []
        for waiting in self._keys.values():
            ready = [one for one in waiting.refused if hurry or one.due_s <= now_s]
            if ready:
                waiting.refused = [one for one in waiting.refused if not (hurry or one.due_s <= now_s)]
                waiting.under_way.update((one.place, one) for one in ready)
                found += ready
        if hurry:
            for one in found:
                one.tries = max(one.tries, self.limits.tries - 1)
        return sorted(found, key=lambda one: one.place)

    def ready(self) -> list[Held[T]]:
        """What was held back and is free to go, in the order of the log; it is held no longer."""
        found, self._ready = sorted(self._ready, key=lambda one: one.place), []
        for one in found:
            self._uncount(one)
        return found

    def wait_s(self, now_s: float) -> float | None:
        """In how many seconds there is something to do; None for nothing to wait for."""
        if self._ready or (self.full and any(waiting.refused for waiting in self._keys.values())):
            return 0.0
        dues = [one.due_s for waiting in self._keys.values() for one in waiting.refused]
        return max(0.0, min(dues) - now_s) if dues else None

    def clear(self) -> None:
        """Everything held will be read again; how often it was tried is remembered."""
        if len(self._tries) > HELD_MAX:  # of messages that never came again: expired, or let go
            self._tries.clear()
        for waiting in self._keys.values():
            for one in (*waiting.refused, *waiting.under_way.values()):
                self._tries[one.place] = one.tries
        self._keys.clear()
        self._ready.clear()
        self.count = self.bytes = 0

    def _again(
        self, held: Held[T], reason: str, now_s: float, *, held_already: bool, final: bool = False
    ) -> Held[T] | None:
        held.tries += 1
        held.reason = reason
        if final or held.tries >= self.limits.tries:
            if held_already:
                self._uncount(held)
            return held
        held.due_s = now_s + self.limits.wait_s
        self._keys.setdefault(held.key, _Key()).refused.append(held)
        if not held_already:
            self._count(held)
        return None

    def _free(self, key: Hashable) -> None:
        waiting = self._keys[key]
        if not waiting.refused and not waiting.under_way:
            self._ready += waiting.behind
            del self._keys[key]

    def _count(self, held: Held[T]) -> Held[T]:
        self.count += 1
        self.bytes += held.size
        return held

    def _uncount(self, held: Held[T]) -> None:
        self.count -= 1
        self.bytes -= held.size
