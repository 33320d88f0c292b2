"""Two sinks for one route, of which one is used at a time: the second while the first is away.

    first ──away for `after_s`, and the second is up──▶ second ──the first is up──▶ first

To its route it is one keeper, and the route has one cursor. Going over to the second
sink is an outage like any other: what was under way to the first is not known to have
arrived and goes out again. Going back is none: what is under way to the second is
waited for, and then the next message goes to the first, so nothing comes twice.

A first sink that lets us in and confirms nothing (`stalled`) is away too. Only a message
can show whether it still is, so it is tried again after each `after_s`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from bridge.forward.keeper import Keeper
from bridge.policy.line import Line
from bridge.sinks.base import Sink

__all__ = ["Fallback"]

log = logging.getLogger(__name__)


class Fallback:
    """What a forwarder needs of a keeper, from whichever of two has its turn."""

    def __init__(
        self,
        route: str,
        first: Keeper,
        second: Keeper,
        after_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._route = route
        self._first = first
        self._second = second
        self._after_s = after_s
        self._monotonic = monotonic
        self._chosen = first
        self._tried_s = monotonic()  # when the first was last chosen

    @property
    def sink(self) -> Sink:
        """The sink that has its turn."""
        return self._chosen.sink

    @property
    def line(self) -> Line:
        """The line to that sink."""
        return self._chosen.line

    @property
    def up(self) -> bool:
        """Whether that sink is up."""
        return self._chosen.up

    @property
    def leaving(self) -> bool:
        """Whether the turn is over as soon as nothing is under way any more."""
        return self._chosen is self._second and self._first_is_good()

    async def wait_up(self) -> int:
        """Wait until one of the two may be used, and return its turn; the first is preferred."""
        while not self._first_is_good():
            left_s = self._left_s()
            if left_s <= 0 and self._second.up:
                self._choose(self._second)
                return self._second.turn
            await self._until_news(left_s)
        self._tried_s = self._monotonic()
        self._choose(self._first)
        return self._first.turn

    def broken(self, turn: int, reason: str) -> None:
        """See Keeper."""
        self._chosen.broken(turn, reason)

    def confirmed(self) -> None:
        """See Keeper."""
        self._chosen.confirmed()

    def _left_s(self) -> float:
        """How long the first may still be away before the second has its turn."""
        return self._first.since_s + self._after_s - self._monotonic()

    def _first_is_good(self) -> bool:
        first = self._first
        if not (first.up and first.stalled):
            return first.up
        return self._left_s() > 0 or self._monotonic() - self._tried_s >= self._after_s

    async def _until_news(self, left_s: float) -> None:
        """Wait until one of them opens, or a time is over that makes a difference."""
        waited = [self._first] if left_s > 0 else [self._first, self._second]
        if self._first.up:  # and stalled: no news from there
            waited.remove(self._first)
            left_s = max(left_s, self._tried_s + self._after_s - self._monotonic())
        opened = [asyncio.ensure_future(keeper.wait_up()) for keeper in waited]
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s if left_s > 0 else None):
                    await asyncio.wait(opened, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in opened:
                task.cancel()
            await asyncio.gather(*opened, return_exceptions=True)

    def _choose(self, keeper: Keeper) -> None:
        if keeper is self._chosen:
            return
        self._chosen = keeper
        if keeper is self._second:
            log.warning(
                "fallback route=%s sink=%s away_s=%.1f instead=%s",
                self._route, self._first.sink.name, self._monotonic() - self._first.since_s, keeper.sink.name,
            )  # fmt: skip
        else:
            log.info("fallback over route=%s sink=%s", self._route, keeper.sink.name)
