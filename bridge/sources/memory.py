"""A far end inside this process: the model that the other sources are measured against.

A test puts messages into it, takes it away and lets it come back; what was out and not
settled then goes to the front again, as a queue does it. What was rejected is in `dead`
with its reason, what whoever sent it was told in `replies`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import msgspec

from bridge.errors import SinkUnavailable
from bridge.policy.incoming import Incoming
from bridge.sources.base import Reply, Settlement
from bridge.sources.options import MemorySourceOptions

__all__ = ["MemorySource"]


class MemorySource:
    """Hands out what it was given; `queue` is what waits, `out` what is not settled, by tag."""

    stalled = lossy = False
    dropped = 0

    def __init__(
        self,
        name: str,
        options: MemorySourceOptions | None = None,
        prefetch: int = 1_000,
        gateway: str = "",
    ) -> None:
        self.name = name
        self.waiting = ""
        self.queue: deque[Incoming] = deque()
        self.out: dict[int, Incoming] = {}
        self.accepted: list[Incoming] = []
        self.dead: list[tuple[Incoming, str]] = []
        self.replies: list[Reply] = []
        self.prefetch = prefetch
        self._away = ""
        self._tag = 0
        self._news = asyncio.Event()
        self._lost: asyncio.Future[str] | None = None

    # ---- the far end, as a test moves it -------------------------------------------

    def put(self, *messages: Incoming) -> None:
        """These wait from now on, under tags of the source's own."""
        self.queue += messages
        self._look()

    def go_away(self, reason: str = "the far end went away") -> None:
        """Break the link and refuse the next ones."""
        self._away = reason
        self._break(reason)

    def come_back(self) -> None:
        """Answer again."""
        self._away = ""

    def _break(self, reason: str) -> None:
        self.queue.extendleft(msgspec.structs.replace(one, again=True) for one in reversed(self.out.values()))
        self.out.clear()
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(reason)

    def _look(self) -> None:
        if self.queue and len(self.out) < self.prefetch:
            self._news.set()
        else:
            self._news.clear()

    # ---- the source ----------------------------------------------------------------

    async def open(self) -> None:
        """See Source."""
        await self.close()
        if self._away:
            raise SinkUnavailable(self._away)
        self._lost = asyncio.get_running_loop().create_future()
        self._look()

    async def receive(self) -> list[Incoming]:
        """See Source."""
        lost = self._lost
        if lost is None:
            raise SinkUnavailable(f"{self.name} is not open")
        if not lost.done() and not self._news.is_set():
            news = asyncio.ensure_future(self._news.wait())
            try:
                await asyncio.wait((news, lost), return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
        if lost.done():
            raise SinkUnavailable(lost.result())
        batch = []
        while self.queue and len(self.out) < self.prefetch:
            self._tag += 1
            message = msgspec.structs.replace(self.queue.popleft(), tag=self._tag)
            self.out[self._tag] = message
            batch.append(message)
        self._look()
        return batch

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """See Source."""
        for settlement in settlements:
            message = self.out.pop(settlement.tag, None)
            if message is None:
                continue
            if settlement.reason:
                self.dead.append((message, settlement.reason))
            else:
                self.accepted.append(message)
            if settlement.reply is not None and settlement.reply.reply_to:
                self.replies.append(settlement.reply)
        self._look()

    async def lost(self) -> str:
        """See Source."""
        if self._lost is None:
            return f"{self.name} is not open"
        return await asyncio.shield(self._lost)

    async def close(self) -> None:
        """See Source."""
        self._break(f"{self.name} was closed")
