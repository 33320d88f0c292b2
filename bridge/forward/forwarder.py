"""One route in motion: from its cursor in the uplink to its sink.

It reads entries, keeps those the route wants, and hands them to the sink in
batches, several of them under way at once so that the link is never idle for a
round trip. What the sink has confirmed is settled; the cursor moves over the
longest settled prefix. When the link breaks, everything not settled is read
again from the cursor and goes out again under the same ids.

What the far end refuses for good is written to the dead letters, with its
reason, and only then settled: a message is always in the log, in the dead
letters or in the cloud.

Nothing here differs between live traffic and a backlog: a caught-up reader
waits at the end of the log, and that is all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from bridge.clock import Clock
from bridge.errors import SinkUnavailable
from bridge.forward.fallback import Fallback
from bridge.forward.keeper import Keeper
from bridge.forward.letters import DeadLetter, Letters
from bridge.forward.parcel import pack_up, send_fit
from bridge.policy.batch import Batch
from bridge.policy.route import Route
from bridge.sinks.base import Refusal
from bridge.store import Committer, Entry, Log, Reader, Window

__all__ = ["Forwarder"]

log = logging.getLogger(__name__)

BATCHES_IN_FLIGHT: Final = 4
_SCAN_MESSAGES: Final = 1000
_SCAN_BUDGET: Final = 2000  # entries read in one stretch; then others get their turn
_STALE_MAX: Final = 10_000  # expired entries remembered behind a batch under way


class _Sent:
    """One batch on its way."""

    def __init__(self, entries: list[Entry], stale: list[int], task: asyncio.Task[list[Refusal]]) -> None:
        self.key = entries[0].position
        self.entries = entries
        self.stale = stale  # where expired entries lie in the stretch that this batch covers
        self.task = task


class Forwarder:
    """One route, its cursor and its counters; `run` is its one task.

    Since the start: `delivered` (owned by the far end), `refused` (in the dead
    letters), `expired` (older than the route allows), `lost` (let go because the
    log was full). Each counts when the cursor passes, or what is read again after
    an outage would count twice. `waiting_at_start` is the backlog found at the start, None until
    it has been counted.
    """

    def __init__(
        self,
        route: Route,
        keeper: Keeper | Fallback,
        uplink: Log,
        letters: Letters,
        committer: Committer,
        gateway: str,
        clock: Clock | None = None,
    ) -> None:
        self.route = route
        self.keeper = keeper
        self.reader = Reader(uplink, route.name)
        self.cursor = self.reader.cursor
        self.delivered = 0
        self.refused = 0
        self.expired = 0
        self.lost = 0
        self.waiting_at_start: int | None = None
        self._letters = letters
        self._committer = committer
        self._clock = clock or Clock()
        self._id_prefix = f"{gateway}/{uplink.epoch:08x}/"
        self._position = self.cursor.position  # where to read on
        self._start = uplink.durable  # what lies before this was there at the start
        self._window = Window(self._position)
        self._in_flight: deque[_Sent] = deque()
        self._batch: Batch[Entry] = Batch(route.batch)  # read and wanted, not yet sent
        self._stale: list[int] = []  # read and expired, and not yet passed by the cursor
        self._counted: int | None = None  # how far `count_backlog` has got, while it counts
        self._waiting = 0
        self._stopping = False
        self._news = asyncio.Event()
        committer.after_commit(self._news.set)

    # ---- facts ---------------------------------------------------------------------

    @property
    def left(self) -> int:
        """How many messages have left the backlog since the start, one way or another."""
        return self.delivered + self.refused + self.expired + self.lost

    def oldest_ns(self) -> int:
        """When the oldest message of the backlog arrived; 0 when there is none."""
        if self._in_flight:
            return self._in_flight[0].entries[0].message.received_ns
        if self._batch:
            return self._batch.entries[0].message.received_ns
        for entry in self.reader.read(max(self._position, self.cursor.position), _SCAN_MESSAGES):
            if self.route.wants(entry.message.topic):
                return entry.message.received_ns
        return 0

    async def count_backlog(self) -> None:
        """Count what was waiting at the start; a stretch at a time, beside the real work.

        Nothing is read for sending before it was counted: its segment might be gone.
        """
        self._counted, self._waiting = self.cursor.position, self.left
        try:
            while self._counted < self._start and (
                entries := self.reader.read(self._counted, _SCAN_MESSAGES)
            ):
                self._count(entry for entry in entries if entry.end <= self._start)
                self._counted = entries[-1].end
                await asyncio.sleep(0)
            self.waiting_at_start = self._waiting
        finally:
            self._counted = None

    def _count(self, entries: Iterable[Entry]) -> None:
        self._waiting += sum(self.route.wants(entry.message.topic) for entry in entries)

    # ---- motion --------------------------------------------------------------------

    def stop(self) -> None:
        """Send nothing more; `run` ends when what is under way has come back."""
        self._stopping = True
        self._news.set()

    async def run(self) -> None:
        """Forward until stopped or cancelled; ends with the cursor saved."""
        try:
            while not self._stopping:
                turn = await self.keeper.wait_up()
                try:
                    await self._forward()
                except SinkUnavailable as error:
                    self.keeper.broken(turn, str(error))
                finally:
                    await self._take_back()
        finally:
            self._save()

    async def _forward(self) -> None:
        while self._in_flight or not (self._stopping or self.keeper.leaving):
            self._news.clear()
            due_in_s = self._fill()
            if self._in_flight and self._in_flight[0].task.done():
                await self._settle_first()
                continue
            if not self._in_flight and not self._batch:
                self._window.mark = max(self._window.mark, self._position)
                self.expired += len(self._stale)
                self._stale = []
                self._save()
            await self._wait(due_in_s)

    def _fill(self) -> float | None:
        """Read and send what may be sent now; return in how many seconds a started batch is due."""
        batch, limits = self._batch, self.route.batch
        now_s = time.monotonic()
        scanned = 0
        if self.keeper.leaving:
            return None
        while len(self._in_flight) < BATCHES_IN_FLIGHT and not self._stopping:
            if not batch.full:
                if scanned >= _SCAN_BUDGET:
                    # A route that wants little reads much, and the loop is not its own.
                    if batch.ready(now_s):
                        self._send()
                    return 0.0
                position = max(self._position, self.cursor.position)
                if self._counted is not None and self._counted <= position < self._start:
                    return 0.0
                if len(self._stale) >= _STALE_MAX and self._in_flight:
                    return None
                room = limits.bytes - batch.body_bytes
                if entries := self.reader.read(position, limits.messages - len(batch), room):
                    scanned += len(entries)
                    self._take(entries, now_s)
                    continue
            if batch.due_s is None:
                return None
            if not batch.ready(now_s):
                return batch.due_s - now_s
            self._send()
        return None

    def _take(self, entries: list[Entry], now_s: float) -> None:
        """Add to the batch what the route wants of these."""
        wants = self.route.wants
        wanted = [entry for entry in entries if wants(entry.message.topic)]
        self._position = entries[-1].end
        if self.route.max_age_s is not None or any(entry.message.properties for entry in wanted):
            now_ns, jumps = self._clock.now_ns(), self._clock.jumps
            fresh = []
            for entry in wanted:
                if self.route.expired(entry.message, now_ns, jumps):
                    self._stale.append(entry.position)
                else:
                    fresh.append(entry)
            wanted = fresh
        if wanted:
            self._batch.extend(wanted, wanted[-1].end - wanted[0].position, now_s)

    def _send(self) -> None:
        entries = self._batch.take()
        fit, unfit = pack_up(self.route.dress, entries, self._id_prefix)
        send = self.keeper.sink.send_batch
        # Tasks begin in the order of their making, so batches take their place in
        # the sink's line in the order of the log.
        task = asyncio.create_task(send_fit(send, fit, unfit) if unfit else send(fit))
        task.add_done_callback(self._sent)
        sent = _Sent(entries, self._stale, task)
        self._stale = []
        self._window.hand_out(sent.key, self._position)
        self._in_flight.append(sent)

    def _sent(self, task: asyncio.Task[list[Refusal]]) -> None:
        self._news.set()

    async def _wait(self, due_in_s: float | None) -> None:
        if self._news.is_set():
            return
        if due_in_s is None:
            await self._news.wait()
            return
        if due_in_s <= 0:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), due_in_s)

    async def _settle_first(self) -> None:
        """The oldest batch has come back. Raises SinkUnavailable if its link broke."""
        sent = self._in_flight[0]
        try:
            refusals = sent.task.result()
        except SinkUnavailable as error:
            self._settle_part(sent, error.confirmed)
            raise
        if refusals:
            await self._bury(sent.entries, refusals)
        self._in_flight.popleft()
        self._window.settle(sent.key)
        self.delivered += len(sent.entries) - len(refusals)
        self.refused += len(refusals)
        self.expired += len(sent.stale)
        self.keeper.confirmed()
        self._save()

    def _settle_part(self, sent: _Sent, confirmed: int) -> None:
        """The link broke, but the far end owns the first messages of its oldest batch: not those again."""
        if confirmed:
            self._window.mark = max(self._window.mark, sent.entries[confirmed - 1].end)
            sent.entries = sent.entries[confirmed:]
            self.delivered += confirmed
            self.keeper.confirmed()
            self._save()

    async def _bury(self, entries: list[Entry], refusals: list[Refusal]) -> None:
        """Write refused messages to the dead letters; they are safe there afterwards."""
        now_ns = time.time_ns()
        while True:
            for refusal in refusals:
                entry = entries[refusal.index]
                letter = DeadLetter(
                    id=self._id_prefix + str(entry.sequence),
                    route=self.route.name,
                    sink=self.keeper.sink.name,
                    reason=refusal.reason,
                    refused_at_ns=now_ns,
                )
                self._letters.bury(entry, letter)
            error = await self._committer.flush()
            if error is None:
                break
            await asyncio.sleep(1)  # the disk is full or failing: the message stays in the log until then
        log.warning(
            "messages refused route=%s sink=%s count=%d reason=%s",
            self.route.name, self.keeper.sink.name, len(refusals), refusals[0].reason,
        )  # fmt: skip

    async def _take_back(self) -> None:
        """Nothing under way any more: what is not settled will be read again from the cursor."""
        for sent in self._in_flight:
            sent.task.cancel()
        await asyncio.gather(*(sent.task for sent in self._in_flight), return_exceptions=True)
        behind = self.cursor.position
        for sent in self._in_flight:
            self.lost += sum(entry.position < behind for entry in sent.entries)
            self.expired += sum(position < behind for position in sent.stale)
        self._in_flight.clear()
        self._batch.take()
        self._stale = []
        self._window = Window(max(self._window.mark, behind))
        self._position = self._window.mark
        self._save()

    def _save(self) -> None:
        if self._window.mark > self.cursor.position:
            self.reader.save(self._window.mark)

    def let_go(self, end: int) -> None:
        """Give up what lies before `end` and is not under way; counted as lost."""
        started = self._batch.take()
        kept = [entry for entry in started if entry.position >= end]
        self.lost += len(started) - len(kept)
        if kept:
            self._batch.extend(kept, kept[-1].end - kept[0].position, time.monotonic())
        self.expired += sum(position < end for position in self._stale)
        self._stale = [position for position in self._stale if position >= end]
        position = max(self._position, self.cursor.position)
        while position < end and (entries := self.reader.read(position, _SCAN_MESSAGES)):
            position = entries[-1].end
            gone = [entry for entry in entries if entry.position < end]
            self.lost += sum(self.route.wants(entry.message.topic) for entry in gone)
            if self._counted is not None:
                counted = self._counted
                self._count(entry for entry in gone if counted <= entry.position < self._start)
        if self._counted is not None:
            self._counted = max(self._counted, end)
        self._position = max(self._position, end)
        self.cursor.save(max(self.cursor.position, end))
