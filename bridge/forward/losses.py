"""What was dropped is said: for each route, with the reason, and at most once a minute.

Whoever drops only counts. A full store drops thousands of messages a second, and a line
for each would fill the disk that is full already; no line at all would be a lie.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["Losses"]

log = logging.getLogger(__name__)

EVERY_S: Final = 60.0
_LOOK_S: Final = 1.0

Counts = Mapping[str, Mapping[str, int]]


class Losses:
    """Watches counters that only rise, route → reason → messages; `run` is its one task.

    `event` is what the log calls it.
    """

    def __init__(self, counts: Callable[[], Counts], event: str = "messages dropped") -> None:
        self._counts = counts
        self._event = event
        self._said: dict[str, dict[str, int]] = {}
        self._said_at: dict[str, float] = {}

    def look(self, now_s: float) -> None:
        """Say what has not been said yet of routes whose last line is a minute old."""
        for route, counts in self._counts().items():
            said = self._said.get(route, {})
            new = {reason: count - said.get(reason, 0) for reason, count in counts.items()}
            if not any(new.values()) or now_s - self._said_at.get(route, -EVERY_S) < EVERY_S:
                continue
            self._said[route], self._said_at[route] = dict(counts), now_s
            gone = {reason: count for reason, count in new.items() if count}
            facts = " ".join(f"{reason}=%d" for reason in gone)
            total = sum(counts.values())
            log.warning(f"{self._event} route=%s {facts} total=%d", route, *gone.values(), total)

    async def run(self) -> None:
        """Look every second until cancelled; then say what is left."""
        try:
            while True:
                self.look(time.monotonic())
                await asyncio.sleep(_LOOK_S)
        finally:
            self.look(float("inf"))
