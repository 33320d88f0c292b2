"""Which of the entries handed out are settled, and how far that carries the cursor.

Entries are settled in any order: a far end confirms the second batch before the
first, a device acknowledges what it likes. The cursor may move only over the
longest settled prefix; `mark` is where that ends. The same few lines serve
routes (one item a batch) and sessions (one item a message).
"""

from __future__ import annotations

__all__ = ["Window"]


class Window:
    """Items handed out, in order, and not yet settled."""

    def __init__(self, mark: int) -> None:
        self.mark = mark  # everything before this position is settled
        self._ends: dict[int, int] = {}  # key → the position that settling it reaches
        self._settled: set[int] = set()

    def __len__(self) -> int:
        return len(self._ends)

    def hand_out(self, key: int, end: int) -> None:
        """The item `key` is on its way; its last position stops before `end`."""
        assert key not in self._ends
        self._ends[key] = end

    def settle(self, key: int) -> bool:
        """The item is done with. Return whether the mark moved; unknown keys change nothing."""
        if key not in self._ends:
            return False
        self._settled.add(key)
        before = self.mark
        while self._ends:
            first = next(iter(self._ends))
            if first not in self._settled:
                break
            self._settled.remove(first)
            self.mark = self._ends.pop(first)
        return self.mark != before

    def settle_before(self, end: int) -> int:
        """Settle every item whose key lies before `end`; return how many were not settled yet."""
        keys = [key for key in self._ends if key < end and key not in self._settled]
        for key in keys:
            self.settle(key)
        return len(keys)

    def clear(self) -> None:
        """Forget what is handed out and not settled; the mark stays."""
        self._ends.clear()
        self._settled.clear()
