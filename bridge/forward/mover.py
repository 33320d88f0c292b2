"""Keeps one dead route from pinning the disk: moves the few records that it still wants.

When the uplink is half full, its oldest segments are looked at, a stretch at a time
beside the real work: how much of each is still wanted, and by whom. Where that is at
most half of it, counted from the oldest on, what is wanted of the oldest is written
aside (`bridge.store.aside`) and the segment is freed. Where more is wanted, as when the
one route of a gateway is away, moving would only write everything twice: then the store
fills up, and `bridge.forward.room` has the word.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Final

from bridge.forward.forwarder import Forwarder
from bridge.store import Committer, Entry, Log

__all__ = ["Mover"]

log = logging.getLogger(__name__)

_STRETCH: Final = 500  # entries read without giving others their turn
_REST_S: Final = 0.25  # after there was nothing to be gained
_RETRY_S: Final = 5.0  # after the disk refused


class Mover:
    """Watches one log; `run` is its one task. `moved` counts the records moved since the start."""

    def __init__(self, uplink: Log, forwarders: Sequence[Forwarder], committer: Committer) -> None:
        self.moved = 0
        self._log = uplink
        self._forwarders = forwarders
        self._news = asyncio.Event()
        self._live: dict[int, dict[str, int]] = {}  # segment → route → bytes that it wants there
        self._refused = False
        committer.after_commit(self._news.set)

    async def run(self) -> None:
        """Move what has to be moved, until cancelled."""
        while True:
            self._news.clear()
            while self._crowded and await self.step():
                pass
            if self._crowded:
                await asyncio.sleep(_RETRY_S if self._refused else _REST_S)
            await self._news.wait()

    @property
    def _crowded(self) -> bool:
        return (self._log.size - self._log.history.bytes) * 2 > self._log.max_bytes

    async def step(self) -> bool:
        """Free the oldest segment if that pays; return whether it is worth while to go on."""
        sealed = [(begin, end) for begin, end in self._log.sealed() if end > self._log.history.end]
        self._live = {base: live for base, live in self._live.items() if base >= self._log.head}
        size = live = 0
        for begin, end in sealed:
            pinning = [one for one in self._forwarders if one.disk.pin < end]
            size += end - begin
            live += await self._wanted_bytes(begin, end, pinning)
            if live * 2 <= size:
                return await self._free(sealed[0][1])
        return False

    async def _wanted_bytes(self, begin: int, end: int, pinning: Sequence[Forwarder]) -> int:
        """How much of a segment these routes want, counted once for each."""
        known = self._live.get(begin, {})
        if any(one.route.name not in known for one in pinning):
            known = {one.route.name: 0 for one in pinning}
            async for entries in self._entries(begin, end):
                for one in pinning:
                    wants = one.route.wants
                    known[one.route.name] += sum(
                        entry.end - entry.position for entry in entries if wants(entry.message.topic)
                    )
            self._live[begin] = known
        return sum(known[one.route.name] for one in pinning)

    async def _entries(self, begin: int, end: int) -> AsyncIterator[list[Entry]]:
        while begin < end and (entries := self._log.read(begin, _STRETCH)):
            begin = entries[-1].end
            yield entries if begin <= end else [entry for entry in entries if entry.position < end]
            await asyncio.sleep(0)

    async def _free(self, end: int) -> bool:
        """Write aside what is wanted before `end`, route by route; return whether that went well."""
        pinning = [one for one in self._forwarders if one.disk.pin < end]
        for one in pinning:
            one.disk.moving = True
        try:
            return await self._move(pinning, end)
        finally:
            for one in pinning:
                one.disk.moving = False

    async def _move(self, pinning: Sequence[Forwarder], end: int) -> bool:
        wanted: dict[str, list[Entry]] = {one.route.name: [] for one in pinning}
        begins = {one.route.name: one.disk.pin for one in pinning}
        async for entries in self._entries(min(begins.values(), default=end), end):
            for one in pinning:
                name, wants = one.route.name, one.route.wants
                begin = begins[name]
                wanted[name] += [
                    entry for entry in entries if entry.position >= begin and wants(entry.message.topic)
                ]
        for one in pinning:
            part = None
            plan = one.disk.prepare(end, wanted[one.route.name])
            if plan is not None:
                try:
                    part = await asyncio.to_thread(one.disk.write, *plan)
                except OSError as error:
                    if not self._refused:
                        log.warning("records not moved route=%s reason=%s", one.route.name, error.strerror)
                    self._refused = True
                    return False
                self.moved += len(wanted[one.route.name])
            one.disk.settle(end, part)
        self._refused = False
        return self._log.trim()
