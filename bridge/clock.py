"""The wall clock of the machine, watched for jumps.

A gateway without a battery starts in 1970 and jumps to today when NTP answers; an
operator sets the wrong year and sets it back. The wall clock stamps messages, because
the far end wants to know when they came; how *old* they are it cannot tell by
itself. A clock that only ever counts (and goes on while the machine sleeps) runs beside
it: where the two part by more than a moment, the wall clock was set, and what it was set
forward by is no age of anything that was stamped before.

`jumps` is what `bridge.message.age_ns` takes off: each as where the wall clock stood and
where it was put. Only those forward count: set back, it makes nothing look older.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

from bridge.message import age_ns

__all__ = ["Clock"]

log = logging.getLogger(__name__)

JUMP_NS: Final = 10_000_000_000  # below, it is an NTP client that corrects, or we that were held up
JUMPS_MAX: Final = 64


def _wall_ns() -> int:
    return time.time_ns()


def _steady_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Clock:
    """Both clocks; one object for a house. `jumps` is always the same list."""

    def __init__(
        self, wall_ns: Callable[[], int] = _wall_ns, steady_ns: Callable[[], int] = _steady_ns
    ) -> None:
        self.jumps: list[tuple[int, int]] = []
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._apart_ns = wall_ns() - steady_ns()

    def now_ns(self) -> int:
        """The wall clock, in nanoseconds since 1970; a jump since the last look is remembered first."""
        now_ns = self._wall_ns()
        apart_ns = now_ns - self._steady_ns()
        by_ns, self._apart_ns = apart_ns - self._apart_ns, apart_ns
        if abs(by_ns) > JUMP_NS:
            log.warning("clock set by_s=%.0f", by_ns / 1e9)
            if by_ns > 0:
                self.recall([(now_ns - by_ns, now_ns)])
        return now_ns

    def recall(self, jumps: Iterable[tuple[int, int]]) -> None:
        """Jumps that happened: just now, or in an earlier life of this gateway."""
        self.jumps.extend(jumps)
        del self.jumps[:-JUMPS_MAX]

    def age_s(self, received_ns: int) -> float:
        """How long ago something was stamped, in seconds; zero where nobody can know."""
        return age_ns(received_ns, self.now_ns(), self.jumps) / 1e9
