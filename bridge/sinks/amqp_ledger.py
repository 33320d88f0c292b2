"""What was published on one channel and is not answered yet, by delivery tag.

Tags count from 1 without a gap, so messages of one batch that went out one after the
other are one stretch, and a confirm for many (`multiple`) is a subtraction:

    answered ◀─ oldest │ tag ── count ─▶│ tag ── count ─▶│ next
                       └── a Stretch ───┴── a Stretch ───┘

What is answered by itself, ahead of older ones, is in `_early` until the oldest gets
there. A broker that nacks owns nothing of it, but it has answered: those are `refused`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Ledger"]

C = TypeVar("C")


class _Stretch(Generic[C]):
    """`count` messages of one call: tag `tag` is its message `index`, and so on."""

    __slots__ = ("call", "count", "index", "tag")

    def __init__(self, call: C, tag: int, index: int, count: int) -> None:
        self.call = call
        self.tag = tag
        self.index = index
        self.count = count


class Ledger(Generic[C]):
    """`confirmed(call, index, count)` is called for each stretch that the broker says it owns.

    `unanswered` counts what it has not spoken of; `refused` is what it nacked, as (call, index).
    """

    def __init__(self, confirmed: Callable[[C, int, int], None]) -> None:
        self._confirmed = confirmed
        self.unanswered = 0
        self.refused: list[tuple[C, int]] = []
        self._oldest = 1
        self._next = 1
        self._stretches: deque[_Stretch[C]] = deque()
        self._early: set[int] = set()

    def publish(self, call: C, index: int, count: int) -> None:
        """The next `count` tags are the messages of this call from `index` on."""
        last = self._stretches[-1] if self._stretches else None
        if last is not None and last.call is call and last.index + last.count == index:
            last.count += count
        else:
            self._stretches.append(_Stretch(call, self._next, index, count))
        self._next += count
        self.unanswered += count

    def answer(self, tag: int, *, multiple: bool, owned: bool) -> bool:
        """The broker confirms (`owned`) or nacks; return whether the oldest is another one now.

        A tag that is unknown or answered already changes nothing.
        """
        if multiple:
            tag = min(tag, self._next - 1)
        elif tag in self._early or tag >= self._next:
            return False
        if tag < self._oldest:
            return False
        if multiple or tag == self._oldest:
            while self._oldest <= tag:
                self._pass(tag, owned)
        else:
            stretch = next(each for each in self._stretches if tag < each.tag + each.count)
            self._early.add(tag)
            self._answered(stretch.call, stretch.index + tag - stretch.tag, 1, owned)
            return False
        while self._oldest in self._early:
            self._early.discard(self._oldest)
            self._shift(1)
        return True

    def _pass(self, tag: int, owned: bool) -> None:
        """Answer from the oldest on, as far as one stretch goes and nothing was answered before."""
        stretch = self._stretches[0]
        count = min(tag + 1, stretch.tag + stretch.count) - stretch.tag
        if self._early:
            if stretch.tag in self._early:
                self._early.discard(stretch.tag)
                self._shift(1)
                return
            count = min([count, *(each - stretch.tag for each in self._early if each > stretch.tag)])
        call, index = stretch.call, stretch.index
        self._shift(count)
        self._answered(call, index, count, owned)

    def _shift(self, count: int) -> None:
        stretch = self._stretches[0]
        stretch.tag += count
        stretch.index += count
        stretch.count -= count
        self._oldest += count
        if not stretch.count:
            self._stretches.popleft()

    def _answered(self, call: C, index: int, count: int, owned: bool) -> None:
        self.unanswered -= count
        if owned:
            self._confirmed(call, index, count)
        else:
            self.refused += [(call, each) for each in range(index, index + count)]

    def calls(self) -> list[C]:
        """Whose messages the broker does not own yet."""
        return [*(stretch.call for stretch in self._stretches), *(call for call, _ in self.refused)]

    def first_open(self, call: C) -> int | None:
        """The first message of this call that the broker does not own; None when there is none."""
        found = [index for other, index in self.refused if other is call]
        for stretch in self._stretches:
            if stretch.call is call:
                tags = range(stretch.tag, stretch.tag + stretch.count)
                found += [stretch.index + tag - stretch.tag for tag in tags if tag not in self._early][:1]
        return min(found, default=None)

    def only_one(self) -> tuple[C, int] | None:
        """The one message that is unanswered, when it is only one."""
        if self.unanswered != 1:
            return None
        # The oldest is never answered already.
        return self._stretches[0].call, self._stretches[0].index

    def clear(self) -> None:
        """Forget everything: the channel is gone."""
        self._stretches.clear()
        self._early.clear()
        self.refused.clear()
        self.unanswered = 0
        self._oldest = self._next
