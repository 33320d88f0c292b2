"""One route in motion: from its cursor in the uplink to its sink.

It reads entries, keeps those the route wants, and hands them to the sink in
batches, several of them under way at once so that the link is never idle for a
round trip. What the sink has confirmed is settled; the cursor moves over the
longest settled prefix. When the link breaks, everything not settled is read
again from the cursor and goes out again under the same ids.

What the far end refuses is tried again, if the route says so (`bridge.forward.retrying`),
or written to the dead letters, with its reason, and only then settled: a message is
always in the log, in the dead letters or in the cloud.

What has become of each message is in the route's Account, and is saved in one slot with
the position (`bridge.policy.account`). A message counts when the cursor passes it, or
what is read again after an outage would count twice.

In order, nothing here differs between live traffic and a backlog: a caught-up reader
waits at the end of the log, and that is all. Under `live_first` what is new overtakes what
has waited (`bridge.forward.strand`), and stretches beyond the cursor are settled before
what lies in front of them (`bridge.policy.settled`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from bridge.clock import Clock
from bridge.errors import SinkUnavailable
from bridge.forward.fallback import Fallback
from bridge.forward.keeper import Keeper
from bridge.forward.letters import Letters
from bridge.forward.packing import Packer, sender
from bridge.forward.parcel import pack_up, send_fit
from bridge.forward.reading import PLACES, Reading
from bridge.forward.retrying import Retrying
from bridge.forward.strand import Strand
from bridge.forward.under_way import Sent, without
from bridge.policy.account import Account, LeftFor, decode_note
from bridge.policy.route import Route
from bridge.sinks.base import Refusal
from bridge.store import Committer, Entry, Log, Reader
from bridge.store.log import READ_BYTES
from bridge.store.passing import Passing

__all__ = ["Forwarder"]

log = logging.getLogger(__name__)

BATCHES_IN_FLIGHT: Final = PLACES
_SCAN_MESSAGES: Final = 1000
_SCAN_BUDGET: Final = 2000  # entries read in one stretch; then others get their turn
_SKIPPED_MAX: Final = 10_000  # entries not to be sent that are remembered behind a batch
_GIVE_BYTES: Final = 32 * 1024  # read at once when the oldest have to go
_OVERDUE_EVERY_S: Final = 5.0  # looked for what is too old, while the sink is away


class Forwarder:
    """One route, its cursor and its account; `run` is its one task.

    It reads the uplink, or what passes through memory for a route that may lose messages.

    Nothing of what lay there at the start is read before `count_backlog` has counted it.
    """

    def __init__(
        self,
        route: Route,
        keeper: Keeper | Fallback,
        uplink: Log | Passing,
        letters: Letters,
        committer: Committer,
        gateway: str,
        clock: Clock | None = None,
    ) -> None:
        self.route = route
        self.keeper = keeper
        self.reader = uplink if isinstance(uplink, Passing) else Reader(uplink, route.name)
        self.cursor = self.reader.cursor
        note = decode_note(self.cursor.note)
        self.account = Account(route, note.tally)
        self.account.give_way = self.give_way
        self._packer = None if route.pack is None else Packer(route.pack)
        self._clock = clock or Clock()
        self._id_prefix = f"{gateway}/{uplink.epoch:08x}/"
        position = self.cursor.position
        self._start = uplink.durable  # what lies before this was there at the start
        self.reading = Reading(route, self.reader, self.account, self._clock, note.stretches(position))
        self.sifter = self.reading.sifter
        self._retrying = Retrying(route, letters, self._id_prefix)
        self._in_flight: deque[Sent] = deque()
        self._caught_up = False  # whether the last look found nothing more
        # How far `count_backlog` has got; None when it is done.
        self._counted = position if position < self._start else None
        self.account.counting = self._counted is not None
        self._stopping = False
        self._news = asyncio.Event()
        committer.after_commit(self._news.set)
        if isinstance(uplink, Passing):
            self.account.pass_on = uplink.extend
            uplink.arrived = self._news.set

    @property
    def disk(self) -> Reader:
        """The reader of a route whose messages are on the disk."""
        assert isinstance(self.reader, Reader)
        return self.reader

    # ---- facts ---------------------------------------------------------------------

    def oldest_ns(self) -> int:
        """When the oldest message of the backlog arrived; 0 when there is none."""
        reading = self.reading
        first = [sent.entries[0] for sent in self._in_flight if sent.entries]
        first += [*self._retrying.oldest[:1], *reading.main.batch.entries[:1]]
        oldest = min(first, key=lambda entry: entry.position, default=None)
        if oldest is None or oldest.position > reading.position:
            for entry in self.reader.read(reading.position, _SCAN_MESSAGES):
                if reading.wants(entry) and reading.is_open(entry):
                    return entry.message.received_ns
        return 0 if oldest is None else oldest.message.received_ns

    async def count_backlog(self) -> None:
        """Count what was waiting at the start; a stretch at a time, beside the real work.

        Nothing is read for sending before it was counted: its segment might be gone. Called
        again after an error it goes on where it was.
        """
        while self._counted is not None and self._counted < self._start:
            entries = self.reader.read(self._counted, _SCAN_MESSAGES)
            if not entries:
                break
            self._count(entry for entry in entries if entry.end <= self._start)
            self._counted = entries[-1].end
            await asyncio.sleep(0)
        self._counted = None
        self.account.counted()
        self._news.set()

    def _count(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if self.route.wants(entry.message.topic) and self.reading.is_open(entry):
                self.account.found(entry.message, let_go=not self.reading.wants(entry))

    # ---- motion --------------------------------------------------------------------

    def stop(self) -> None:
        """Send nothing more; `run` ends when what is under way has come back."""
        self._stopping = True
        self._news.set()

    async def run(self) -> None:
        """Forward until stopped or cancelled; ends with the cursor saved."""
        try:
            while not self._stopping:
                turn = await self._wait_up()
                try:
                    await self._forward()
                except SinkUnavailable as error:
                    self.keeper.broken(turn, str(error))
                finally:
                    await self._take_back()
        finally:
            self._save()

    async def _wait_up(self) -> int:
        """Wait for the sink. What becomes too old meanwhile goes, or it would take the room of the rest."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_OVERDUE_EVERY_S):
                    return await self.keeper.wait_up()
            while self._counted is None and (end := self.reading.overdue()) > self.reading.position:
                self.let_go(end, "expired")
                await asyncio.sleep(0)

    async def _forward(self) -> None:
        while self._in_flight or not (self._stopping or self.keeper.leaving):
            self._news.clear()
            due_in_s = self._fill()
            if self._in_flight and self._in_flight[0].task.done():
                await self._settle_first()
                continue
            if not self._in_flight and self.reading.is_empty:
                self.reading.close()
                whole = self._caught_up and self._counted is None and not self._retrying
                if whole and (missing := self.account.caught_up()):
                    log.warning("messages missing route=%s count=%d", self.route.name, missing)
                self._save()
            await self._wait(due_in_s)

    def _fill(self) -> float | None:
        """Read and send what may be sent now; return in how many seconds there is more to do."""
        self._caught_up = False
        if self.keeper.leaving:
            return None
        now_s = time.monotonic()
        places = self.keeper.line.places(self.route.priority, PLACES)
        due_in_s = [self._fill_again(places, now_s)]
        if not self._retrying.full:
            turns = self.reading.turns(places)
            due_in_s += [self._fill_from(strand, places, now_s) for strand, places in turns]
        self._tell_line()
        return min((each for each in due_in_s if each is not None), default=None)

    def _tell_line(self) -> None:
        full = len(self._in_flight) >= PLACES
        self.keeper.line.tell(self.route.name, self.route.priority, full=full)

    def _fill_again(self, places: int, now_s: float) -> float | None:
        """Send what is to be tried again, and what was held back behind it, before anything new."""
        limits = self.route.batch
        while self._retrying and len(self._in_flight) < places and not self._stopping:
            entries = self._retrying.next(limits.messages, limits.bytes, now_s)
            if not entries:
                return self._retrying.wait_s(now_s)
            # Newer ones have gone before these; under `live_first` the far end wants to know.
            task = self._launch(entries, replayed=self.route.drain.live_first)
            self._in_flight.append(Sent(entries, [], entries[0].position, entries[-1].end, task, again=True))
        return None

    def _fill_from(self, strand: Strand, places: int, now_s: float) -> float | None:
        reading, batch = self.reading, strand.batch
        most, bytes_max = reading.most(strand), self.route.batch.bytes
        scanned = 0
        while len(self._in_flight) < places and not self._stopping:
            if self._retrying.full:
                return 0.0  # what was refused has its last try now
            if not batch.full and len(batch) < most:
                if scanned >= _SCAN_BUDGET:
                    # A route that wants little reads much, and the loop is not its own.
                    if batch.ready(now_s):
                        self._send(strand, now_s)
                    return 0.0
                position = reading.settled.skip(max(strand.position, self.cursor.position))
                counted = self._counted if position < self._start else None
                if counted is not None and counted <= position:
                    return 0.0
                if len(strand.skipped) >= _SKIPPED_MAX and (batch or self._in_flight):
                    if self._in_flight:
                        return None
                    if wait_s := self._send(strand, now_s):
                        return wait_s
                    continue
                room = bytes_max - batch.body_bytes
                if entries := reading.read(strand, most - len(batch), room, now_s, counted):
                    scanned += len(entries)
                    reading.take(strand, entries, now_s)
                    continue
                if reading.is_behind(strand) and not batch:
                    reading.join()
                    return 0.0
                self._caught_up = reading.live is None and not reading.sifter.holds
            if not (batch.ready(now_s) or len(batch) >= most):
                due_s = None if batch.due_s is None else batch.due_s - now_s
                due_in_s = reading.sifter.due_in_s(now_s), due_s
                return min((each for each in due_in_s if each is not None), default=None)
            if wait_s := self._send(strand, now_s):
                return wait_s
            if reading.is_behind(strand):
                return 0.0  # what is new has the next turn
        return None

    def _send(self, strand: Strand, now_s: float) -> float:
        """Send what the pace allows of a batch; when that is nothing, return in how many seconds."""
        count, wait_s = self.reading.cut(strand, now_s)
        if not count:
            return wait_s
        is_behind = self.reading.is_behind(strand)
        entries, skipped, begin, end = strand.cut(count)
        held: list[Entry] = []
        if self._retrying:
            entries, held = self._retrying.hold_back(entries)
        if not entries:
            self.reading.settle(without((begin, end), held), skipped)
            return 0.0
        task = self._launch(entries, replayed=is_behind)
        self._in_flight.append(Sent(entries, skipped, begin, end, task, now_s if is_behind else None, held))
        return 0.0

    def _launch(self, entries: list[Entry], *, replayed: bool) -> asyncio.Task[list[Refusal]]:
        fit, unfit = pack_up(self.route.dress, entries, self._id_prefix, replayed=replayed)
        send = sender(self._packer, self.keeper.sink.send_batch)
        # Tasks begin in the order of their making, so batches take their place in
        # the sink's line in the order of the log.
        task = asyncio.create_task(send_fit(send, fit, unfit) if unfit else send(fit))
        task.add_done_callback(self._sent)
        return task

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
        # Not wait_for: before Python 3.12 it forgets that it was cancelled, if the news comes in that moment.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(due_in_s):
                await self._news.wait()

    async def _settle_first(self) -> None:
        """The oldest batch has come back. Raises SinkUnavailable if its link broke."""
        sent = self._in_flight[0]
        try:
            refusals = sent.task.result()
        except SinkUnavailable as error:
            self._settle_part(sent, error.confirmed)
            raise
        given_up = self._retrying.given_up(sent, refusals) if refusals else []
        if given_up:
            await self._retrying.bury(given_up, self.keeper.sink.name)
        self._in_flight.popleft()
        kept = self._retrying.answered(sent, refusals, given_up, time.monotonic())
        self._confirm(sent, len(sent.entries), sent.end, [one.entry for one in given_up], kept)
        if sent.sent_s is not None:
            self.reading.took(time.monotonic() - sent.sent_s)
        self.keeper.confirmed()
        self._save()

    def _confirm(
        self, sent: Sent, count: int, end: int, refused: Sequence[Entry] = (), kept: Sequence[Entry] = ()
    ) -> None:
        """Settle a batch up to `end`: its first messages are the far end's, but for those that it refused.

        What is `kept` of these is to be tried again, unless it was let go meanwhile.
        """
        reasons = sent.gone
        entries, gone = sent.confirm(count)
        stretches = sent.stretches(end, entries, kept)
        if gone:
            self.account.leave(-gone, -self.reading.size(entries[:gone]))
        if refused or kept:
            waiting = {entry.position for entry in kept}
            for entry, reason in zip(entries, reasons, strict=False):
                if entry.position in waiting:
                    self.account.passed(reason, 1, self.reading.size((entry,)))
            others = waiting | {entry.position for entry in refused}
            entries = [entry for entry in entries if entry.position not in others]
        self.reading.settle(stretches, sent.cut_skipped(end), entries, refused)
        sent.begin = end

    def _settle_part(self, sent: Sent, confirmed: int) -> None:
        """The link broke, but the far end owns the first messages of its oldest batch: not those again."""
        if confirmed:
            self._confirm(sent, confirmed, sent.entries[confirmed - 1].end)
            self.keeper.confirmed()
            self._save()

    async def _take_back(self) -> None:
        """Nothing under way any more: what is not settled will be read again from the cursor."""
        for sent in self._in_flight:
            sent.task.cancel()
        await asyncio.gather(*(sent.task for sent in self._in_flight), return_exceptions=True)
        for sent in self._in_flight:  # what was let go meanwhile will not be read again
            for reason, entry in zip(sent.gone, sent.entries, strict=False):
                size = self.reading.size((entry,))
                self.account.leave(-1, -size)
                self.account.passed(reason, 1, size)
        self._in_flight.clear()
        self._tell_line()
        self._retrying.take_back()
        self.reading.take_back()
        self._save()

    def _save(self) -> None:
        """Write down how far the cursor may move, and what became of all that it passes, at one stroke."""
        leaving: Mapping[LeftFor, int] = {}
        if self.account.leaving:
            leaving = Counter(reason for sent in self._in_flight for reason in sent.gone)
        stretches, not_saved = self.reading.settled.saved()
        position = max(self.reading.settled.mark, self.cursor.position)
        note = self.account.note(leaving, stretches, not_saved, position)
        if position > self.cursor.position or note != self.cursor.note:
            self.reader.save(position, note)

    # ---- giving up -----------------------------------------------------------------

    def let_go(self, end: int, reason: LeftFor = "full_oldest") -> None:
        """Give up what lies before `end`; what of it is under way is delivered all the same, if it can be.

        Afterwards the cursor stands there, and nothing before it is needed from the log.
        """
        account = self.account
        for sent in self._in_flight:
            if gone := sent.let_go(end, reason):
                account.leave(len(gone), self.reading.size(gone))
            self.reading.passed(sent.cut_skipped(end))
        if held := self._retrying.let_go(end):
            account.passed(reason, len(held), self.reading.size(held))
            self._news.set()  # others may be free to go now
        position = self.reading.position
        # No more bytes than there are: at a bound that is all the time, and for a few messages.
        while position < end and (
            entries := self.reader.read(position, _SCAN_MESSAGES, min(end - position, READ_BYTES))
        ):
            position = entries[-1].end
            gone = [entry for entry in entries if entry.position < end and self.reading.is_open(entry)]
            if self._counted is not None:
                counted = self._counted
                self._count(entry for entry in gone if counted <= entry.position < self._start)
            wanted = [entry for entry in gone if self.reading.wants(entry)]
            account.passed(reason, len(wanted), self.reading.size(wanted))
            noted = sum(self.route.wants(entry.message.topic) for entry in gone) - len(wanted)
            account.passed_noted(noted)
        for strand in self.reading.strands:
            gone, skipped = strand.forget_before(end, time.monotonic())
            account.passed(reason, len(gone), self.reading.size(gone))
            self.reading.passed(skipped)
        if self._counted is not None:
            self._counted = max(self._counted, end)
        self.reading.let_go(end)
        self._save()

    def give_way(self, messages: int, size: int) -> None:
        """Let the oldest go, so many messages and so many bytes of them at least, if there are so many."""
        end = 0
        for entry in self._oldest(messages):
            if messages <= 0 and size <= 0:
                break
            messages, size, end = messages - 1, size - self.account.size(entry.message), entry.end
        else:
            end = max(end, self.reading.main.position)  # what is left was read, and is not to be sent anyway
        if end:
            self.let_go(end, "bound_oldest")

    def _oldest(self, messages: int) -> Iterator[Entry]:
        """What could still be let go, the oldest first; about so many are asked for."""
        split = None if self.reading.live is None else self.reading.split
        read: Iterable[Entry] = (each for sent in self._in_flight for each in sent.entries[len(sent.gone) :])
        if self._retrying:
            read = sorted([*read, *self._retrying.oldest], key=lambda entry: entry.position)
        yield from (entry for entry in read if split is None or entry.position < split)
        yield from self.reading.main.batch.entries
        position, count = self.reading.position, min(max(messages, 1), _SCAN_MESSAGES)
        while entries := self.reader.read(position, count, _GIVE_BYTES):
            position, count = entries[-1].end, min(2 * count, _SCAN_MESSAGES)
            yield from (
                entry for entry in entries if self.reading.wants(entry) and self.reading.is_open(entry)
            )
