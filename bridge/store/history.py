"""What every reader has passed and is kept all the same: the history of a log.

    head ── history ──▶ end ── still wanted by somebody ──▶ durable

Whole segments, each for `keep_s` from the arrival of the first message behind it, and
only where nobody else wants the room: to the quota of the log history counts as
free, so no new message is ever refused for it, and the oldest segment goes first; room
for one more segment is always left, since that is taken as a whole. The
disk may be smaller than the quota: when a segment was begun and little is left free,
the oldest history goes as well, and a commit that meets a full disk makes its room
there. It does so in its thread, by the names alone; `settled` brings the log to know.

How old a message is says a wall clock. One that was stamped before the clock was set
has no known age, and unknown is not old (`bridge.message.age_ns`).
"""

from __future__ import annotations

import errno
import time
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bridge.message import age_ns
from bridge.store.files import Files

if TYPE_CHECKING:
    from bridge.store.batch import Batch
    from bridge.store.log import Log

__all__ = ["FULL", "History"]

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
FREE_SEGMENTS: Final = 2  # how many more must find room on the disk beside a history
FREE_BYTES: Final = 1 << 20  # and the tables


def _age_s(received_ns: int) -> float:
    return age_ns(received_ns, time.time_ns()) / 1e9


class History:
    """The history of one log; it keeps nothing until `keep_s` is set."""

    def __init__(self, log: Log, files: Files) -> None:
        self.keep_s = 0.0
        self.end = 0  # everything in segments before this has been passed by everyone
        self.age_s: Callable[[int], float] = _age_s  # the house has a clock that knows of jumps
        self._log = log
        self._files = files
        self._looked_at = -1  # behind which segment the message of `_received_ns` lies
        self._received_ns = 0

    @property
    def bytes(self) -> int:
        """How much is kept that nobody has still to read."""
        return max(0, self.end - self._log.head) if self.keep_s else 0

    def passed(self, bases: list[int], mark: int) -> bool:
        """Everyone has passed `mark`. Return whether that let a segment become history."""
        if not self.keep_s or not bases:
            return False
        before, self.end = self.end, bases[max(bisect_right(bases, mark) - 1, 0)]
        return self.end > before

    def keeps(self, next_base: int) -> bool:
        """Whether the oldest segment, passed by everyone, is to stay; the next begins at `next_base`."""
        if not self.keep_s:
            return False
        if self._looked_at != next_base:
            self._looked_at = next_base
            found = self._log.read(next_base, 1)
            self._received_ns = found[0].message.received_ns if found else 0
        return self.age_s(self._received_ns) < self.keep_s

    def make_way(self, bytes_max: int) -> None:
        """Let go of the oldest, until the log takes `bytes_max` bytes or no history is left."""
        log = self._log
        while self.keep_s and log.head < self.end and log.durable - log.head > bytes_max:
            if not log.drop_oldest(reuse=False):
                return

    def give_up_oldest(self) -> bool:
        """Let go of one segment for the reserve of a full disk; return whether there was one."""
        return self.bytes > 0 and self._log.drop_oldest(reuse=False)

    def spare(self) -> list[int]:
        """The bases of the segments that a commit may unlink when it finds no room, oldest first."""
        return [base for base, end in self._log.sealed() if end <= self.end] if self.bytes else []

    def settled(self, batch: Batch, error: Exception | None = None) -> None:
        """A commit is over, and what it unlinked is gone. See that there is room for the next."""
        log = self._log
        while batch.gone and log.head <= batch.gone[-1] and log.drop_oldest(reuse=False):
            pass
        if isinstance(error, OSError) and error.errno in FULL:
            self.make_way(0)
        elif batch.new_segments and self.bytes:
            wanted = FREE_SEGMENTS * log.segment_bytes + FREE_BYTES
            if self._files.free(log.folder) < wanted:
                # Two for one: what an unlink frees may show only seconds later.
                self.make_way(max(0, log.durable - log.head - 2 * log.segment_bytes))
