"""A message that the far end refuses: tried again a few times, and only its own key waits.

    sent ─refused─▶ waits ─due─▶ sent again ─refused `tries` times─▶ given up
                      │              └─taken─▶ the key goes on
                      └─ what comes behind it with the same key is held back, in order

A key is whatever has an order to keep, such as publisher and topic. All other keys go
on meanwhile. A refusal may be final, as of a message that no protocol can carry; any
other one may be of a queue that somebody is about to make again.

All of a key that was refused is tried again together, in the order of the log, and what was
held back goes when none of it is left. So a key keeps its order, but for what was under way
together with the refused one: that may have been taken before it.

Every wait has an end: from the first try to the last it is at most 15 s, so a message behind
a refused one, which may have to go through the same, is done with after 30 s. What is held
is bounded, too: when there is no more room, all that was refused has its last try at once,
and nothing new is sent until there is room again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Any, Final, Generic, TypeVar

import msgspec

__all__ = ["HELD_BYTES_MAX", "HELD_MAX", "ONE_TRY", "PATIENCE_S_MAX", "Retries", "RetryLimits"]

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


ONE_TRY: Final = RetryLimits(1)


class _Held(Generic[T]):
    """One message: refused `tries` times, or never tried and held back."""

    __slots__ = ("is_last_try", "item", "key", "place", "size", "tries")

    def __init__(self, place: int, key: Hashable, item: T, size: int, tries: int = 0) -> None:
        self.place = place  # in the log
        self.key = key
        self.item = item
        self.size = size
        self.tries = tries
        self.is_last_try = False


def _place(held: _Held[Any]) -> int:
    return held.place


class _Key(Generic[T]):
    """A key that waits: what was refused, what of it is on its way again, what is held back behind."""

    __slots__ = ("again", "behind", "due_s", "refused")

    def __init__(self, due_s: float) -> None:
        self.due_s = due_s
        self.refused: list[_Held[T]] = []
        self.again: set[int] = set()
        self.behind: list[_Held[T]] = []


class Retries(Generic[T]):
    """What one route holds. `now_s` is any clock that only moves forward; `place` rises along the log."""

    __slots__ = ("_keys", "_leaving", "_sent", "_tries", "bytes", "count", "limits")

    def __init__(self, limits: RetryLimits) -> None:
        self.limits = limits
        self.count = 0  # of what is held, and of what was sent again and is not answered
        self.bytes = 0
        self._keys: dict[Hashable, _Key[T]] = {}
        self._leaving: deque[_Held[T]] = deque()  # to be sent before anything new
        self._sent: dict[int, _Held[T]] = {}  # again, and not answered
        self._tries: dict[int, int] = {}  # of what was let go of by `clear`: it will come again

    def __bool__(self) -> bool:
        """Whether anything is held or tried again: else no message needs to be asked about."""
        return self.count > 0

    @property
    def full(self) -> bool:
        """Whether no more may be held."""
        return self.count >= HELD_MAX or self.bytes >= HELD_BYTES_MAX

    def hold_back(self, key: Hashable, place: int, item: T, size: int) -> bool:
        """Hold a new message if its key waits; return whether it does."""
        waiting = self._keys.get(key)
        if waiting is None:
            return False
        waiting.behind.append(self._count(_Held(place, key, item, size)))
        return True

    # ---- the far end has answered --------------------------------------------------

    def tries(self, place: int) -> int:
        """How often this one was refused before."""
        held = self._sent.get(place)
        return self._tries.get(place, 0) if held is None else held.tries

    def gives_up(self, place: int, *, final: bool) -> bool:
        """Whether one more refusal is the last."""
        held = self._sent.get(place)
        last = held is not None and held.is_last_try
        return final or last or self.tries(place) + 1 >= self.limits.tries

    def refuse(self, key: Hashable, place: int, item: T, size: int, now_s: float) -> None:
        """The far end did not take it, and is asked again: its key waits."""
        held = self._sent.pop(place, None)
        if held is None:
            held = self._count(_Held(place, key, item, size, self._tries.pop(place, 0)))
        held.tries += 1
        waiting = self._keys.get(key)
        if waiting is None:
            waiting = self._keys[key] = _Key(now_s)
        if not waiting.refused:
            waiting.due_s = now_s + self.limits.wait_s
        waiting.again.discard(place)
        waiting.refused.append(held)

    def done(self, place: int) -> None:
        """The far end has taken this one, or it was given up; no matter whether it was sent again."""
        self._tries.pop(place, None)
        held = self._sent.pop(place, None)
        if held is not None:
            self._uncount(held)
            self._keys[held.key].again.discard(place)
            self._free(held.key)

    # ---- what is sent next ---------------------------------------------------------

    def next(self, messages_max: int, bytes_max: int, now_s: float) -> list[T]:
        """What is to be sent now, in the order of the log, before anything new; call until there is none."""
        self._find_due(now_s)
        found: list[_Held[T]] = []
        size = 0
        while self._leaving and len(found) < messages_max and size < bytes_max:
            held = self._leaving.popleft()
            if held.tries:
                self._sent[held.place] = held
            elif (waiting := self._keys.get(held.key)) is not None:  # another was refused meanwhile
                waiting.behind.append(held)
                continue
            else:
                self._uncount(held)
            found.append(held)
            size += held.size
        return [one.item for one in sorted(found, key=_place)]

    def wait_s(self, now_s: float) -> float | None:
        """When `next` had nothing: in how many seconds it may have; None when an answer comes first."""
        dues = [one.due_s for one in self._keys.values() if one.refused and not one.again]
        return max(0.0, min(dues) - now_s) if dues else None

    def _find_due(self, now_s: float) -> None:
        hurry = self.full
        for waiting in self._keys.values():
            # While some of a key are on their way, the others wait for them, so that they stay in order.
            if not waiting.refused or waiting.again or not (hurry or waiting.due_s <= now_s):
                continue
            due, waiting.refused = sorted(waiting.refused, key=_place), []
            for one in due:
                one.is_last_try = hurry
            waiting.again.update(map(_place, due))
            self._leaving += due

    # ---- what is held --------------------------------------------------------------

    def held(self) -> Iterator[T]:
        """All that is held and not under way, in no order."""
        for waiting in self._keys.values():
            yield from (one.item for one in (*waiting.refused, *waiting.behind))
        yield from (one.item for one in self._leaving)

    def forget_before(self, place: int) -> list[T]:
        """Nothing before `place` is sent any more; return what of it was held and not under way."""
        gone: list[_Held[T]] = []

        def keep(held: _Held[T]) -> bool:
            if held.place < place:
                gone.append(held)
            return held.place >= place

        self._leaving = deque(filter(keep, self._leaving))
        for waiting in self._keys.values():
            waiting.again.difference_update(map(_place, gone))
            waiting.refused = list(filter(keep, waiting.refused))
            waiting.behind = list(filter(keep, waiting.behind))
        for held in gone:
            self._uncount(held)
        for key in list(self._keys):
            self._free(key)
        return [one.item for one in gone]

    def clear(self) -> None:
        """Everything held will be read again; how often it was refused is remembered."""
        if len(self._tries) > HELD_MAX:  # of messages that never came again: expired, or let go
            self._tries.clear()
        refused = [one for waiting in self._keys.values() for one in waiting.refused]
        for held in (*refused, *self._leaving, *self._sent.values()):
            if held.tries:
                self._tries[held.place] = held.tries
        self._keys.clear()
        self._leaving.clear()
        self._sent.clear()
        self.count = self.bytes = 0

    def _free(self, key: Hashable) -> None:
        waiting = self._keys[key]
        if not waiting.refused and not waiting.again:
            self._leaving += sorted(waiting.behind, key=_place)
            del self._keys[key]

    def _count(self, held: _Held[T]) -> _Held[T]:
        self.count += 1
        self.bytes += held.size
        return held

    def _uncount(self, held: _Held[T]) -> None:
        self.count -= 1
        self.bytes -= held.size
