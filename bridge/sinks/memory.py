"""A far end inside this process: the model that the other sinks are measured against.

A test can take it away, pause it or make it refuse; with none of that it takes
everything at once. What it owns is `received`, in the order of arrival.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bridge.errors import SinkUnavailable
from bridge.sinks.base import CONFIRM_TIMEOUT_S, Outgoing, Refusal
from bridge.sinks.options import MemoryOptions

__all__ = ["MemorySink"]


def _takes_everything(_: Outgoing) -> str | None:
    return None


class MemorySink:
    """Keeps what it is given; `judge` returns why a message is refused, or None."""

    def __init__(self, name: str, options: MemoryOptions | None = None, gateway: str = "") -> None:
        self.name = name
        self.gateway = gateway
        self.waiting = ""
        self.stalled = False
        self.received: list[Outgoing] = []
        self.judge: Callable[[Outgoing], str | None] = _takes_everything
        self._options = options or MemoryOptions()
        self._away = ""
        self._is_open = False
        self._turn = asyncio.Lock()
        self._taking = asyncio.Event()
        self._taking.set()
        self._lost: asyncio.Future[str] | None = None
        self.confirm_timeout_s = CONFIRM_TIMEOUT_S

    # ---- the far end, as a test moves it -------------------------------------------

    def go_away(self, reason: str = "the far end went away") -> None:
        """Break the link and refuse the next ones."""
        self._away = reason
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(reason)

    def come_back(self) -> None:
        """Answer again."""
        self._away = ""

    def pause(self) -> None:
        """Accept, and confirm nothing."""
        self._taking.clear()

    def resume(self) -> None:
        """Confirm again."""
        self._taking.set()

    # ---- the sink ------------------------------------------------------------------

    async def open(self) -> None:
        """See Sink."""
        if self._away:
            raise SinkUnavailable(self._away)
        self._lost = asyncio.get_running_loop().create_future()
        self._is_open, self.stalled = True, False

    async def send_batch(self, batch: Sequence[Outgoing]) -> list[Refusal]:
        """See Sink. The lock is fair, so batches are taken in the order of the calls."""
        async with self._turn:
            lost = self._lost
            if lost is None or not self._is_open:
                raise SinkUnavailable(f"{self.name} is not open")
            if not self._taking.is_set():
                await self._until_taking(lost)
            if lost.done() or not self._is_open:
                raise SinkUnavailable(lost.result() if lost.done() else f"{self.name} was closed")
            if len(self.received) + len(batch) > self._options.messages_max:
                raise SinkUnavailable(f"{self.name} is full: {self._options.messages_max} messages")
            refusals = []
            for index, outgoing in enumerate(batch):
                reason = self.judge(outgoing)
                if reason is None:
                    self.received.append(outgoing)
                else:
                    refusals.append(Refusal(index, reason))
            return refusals

    def stall(self) -> None:
        """Lose patience with the far end, as after `confirm_timeout_s`."""
        if self._lost is not None and not self._lost.done():
            self.stalled = True
            self._lost.set_result(f"no confirmation within {self.confirm_timeout_s:g} s")

    async def _until_taking(self, lost: asyncio.Future[str]) -> None:
        taking = asyncio.ensure_future(self._taking.wait())
        try:
            await asyncio.wait(
                (taking, lost), timeout=self.confirm_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not taking.done():
                self.stall()
        finally:
            taking.cancel()

    async def lost(self) -> str:
        """See Sink."""
        if self._lost is None:
            return f"{self.name} is not open"
        return await asyncio.shield(self._lost)

    async def close(self) -> None:
        """See Sink."""
        self._is_open = False
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(f"{self.name} was closed")
