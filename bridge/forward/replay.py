"""History sent once more, beside the routes: what was asked for and is still kept.

A replay reads the log from its own cursor, in the order of the log, and hands to the
sink what its route wants, under the ids that every message had from the beginning and
marked as `replayed`. It ends where the route itself was when it began, because the
route sends the rest; to another sink it ends where the log ended.

It never holds anything back: its cursor does not keep a segment, one batch is
under way at a time, and history that has to make way goes. What it then could not
send is told. Expiry does not count, since the past is what was asked for; a refusal is
counted and not written to the dead letters, where it would be a second letter about
one message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from bridge.errors import SinkUnavailable
from bridge.forward.clerk import Clerk
from bridge.forward.forwarder import Forwarder
from bridge.forward.keeper import Keeper
from bridge.forward.orders import Desk, Order, Outcome
from bridge.forward.packing import Packer, sender
from bridge.forward.parcel import pack_up, send_fit
from bridge.policy.route import Route
from bridge.policy.sieve import Sieve
from bridge.policy.spelling import did_you_mean
from bridge.sinks.metadata import rfc3339
from bridge.store import Cursor, Entry, Log

__all__ = ["Replays", "no_such"]

log = logging.getLogger(__name__)

_SCAN_MESSAGES: Final = 1000
_GONE_WAIT_S: Final = 0.05


class Replays:
    """Carries out the orders on a desk; `run` is its one task."""

    def __init__(
        self,
        desk: Desk[Order, Outcome],
        forwarders: Sequence[Forwarder],
        keepers: Mapping[str, Keeper],
        uplink: Log,
        gateway: str,
    ) -> None:
        self.run = Clerk("replay", desk, self._replay).run
        self._desk = desk
        self._forwarders = {forwarder.route.name: forwarder for forwarder in forwarders}
        self._keepers = keepers
        self._log = uplink
        self._id_prefix = f"{gateway}/{uplink.epoch:08x}/"

    async def _replay(self, name: str, order: Order) -> Outcome:
        if (forwarder := self._forwarders.get(order.route)) is None:
            raise ValueError(no_such("route", order.route, list(self._forwarders)))
        to = order.to or forwarder.route.sink
        if (keeper := self._keepers.get(to)) is None:
            raise ValueError(no_such("sink", to, list(self._keepers)))
        cursor = self._desk.cursor(name)
        try:
            resumed = order.end is not None
            if not cursor.found:
                cursor.save(self._log.head)
            if order.end is None:
                order.end = forwarder.cursor.position if to == forwarder.route.sink else self._log.durable
                self._desk.change(name, order)
            log.info("replay begun replay=%s route=%s sink=%s resumed=%s", name, order.route, to, resumed)
            replay = _Replay(order, forwarder.route, keeper, self._log, cursor, self._id_prefix)
            replay.outcome.resumed = resumed
            await replay.run(order.end)
            return replay.outcome
        finally:
            cursor.close()


class _Replay:
    """One replay in motion."""

    def __init__(
        self, order: Order, route: Route, keeper: Keeper, uplink: Log, cursor: Cursor, id_prefix: str
    ) -> None:
        self.outcome = Outcome()
        self._order = order
        self._route = route
        self._keeper = keeper
        self._log = uplink
        self._cursor = cursor
        self._id_prefix = id_prefix
        # Whoever asks for history wants it whole: it is not thinned out by deadband and period.
        rules = msgspec.structs.replace(route.rules, deadband=None, every_s=None)
        self._sieve = Sieve(rules, route.dress.subject)
        self._batch: list[Entry] = []
        self._packer = None if route.pack is None else Packer(route.pack)

    async def run(self, end: int) -> None:
        """Send everything before `end` that was asked for."""
        limits = self._route.batch
        position = self._cursor.position
        body_bytes = 0
        while position < end:
            self.outcome.missed_bytes += max(0, min(self._log.head, end) - position)
            entries = await self._read(position)
            if entries and not self.outcome.kept_since:
                self.outcome.kept_since = rfc3339(entries[0].message.received_ns)
            for entry in entries:
                if entry.position < end and self._wants(entry):
                    self._batch.append(entry)
                    body_bytes += entry.end - entry.position
                    if len(self._batch) >= limits.messages or body_bytes >= limits.bytes:
                        await self._send()
                        body_bytes = 0
            if not entries:
                break
            position = entries[-1].end
            await asyncio.sleep(0)
        await self._send()

    async def _read(self, position: int) -> list[Entry]:
        while True:
            try:
                return self._log.read(position, _SCAN_MESSAGES)
            except FileNotFoundError:
                # A commit has just unlinked it for its room, in its thread; the log will know in a moment.
                await asyncio.sleep(_GONE_WAIT_S)

    def _wants(self, entry: Entry) -> bool:
        message = entry.message
        return (
            self._order.since_ns <= message.received_ns < self._order.until_ns
            and self._route.wants(message.topic)
            and self._sieve.passes(entry)
        )

    async def _send(self) -> None:
        """The batch reaches the sink, however long that takes; the cursor moves behind it."""
        batch = self._batch
        while batch:
            turn = await self._keeper.wait_up()
            fit, unfit = pack_up(self._route.dress, batch, self._id_prefix, replayed=True)
            send = sender(self._packer, self._keeper.sink.send_batch)
            try:
                refusals = await (send_fit(send, fit, unfit) if unfit else send(fit))
            except SinkUnavailable as error:
                self._count(batch[: error.confirmed], 0)
                del batch[: error.confirmed]
                self._keeper.broken(turn, str(error))
                await asyncio.sleep(0)
                continue
            if refusals:
                log.warning(
                    "replayed messages refused route=%s sink=%s count=%d reason=%s",
                    self._route.name, self._keeper.sink.name, len(refusals), refusals[0].reason,
                )  # fmt: skip
            self._keeper.confirmed()
            self._count(batch, len(refusals))
            batch.clear()

    def _count(self, batch: list[Entry], refused: int) -> None:
        if not batch:
            return
        outcome = self.outcome
        outcome.sent += len(batch) - refused
        outcome.refused += refused
        outcome.first = outcome.first or rfc3339(batch[0].message.received_ns)
        outcome.last = rfc3339(batch[-1].message.received_ns)
        self._cursor.save(batch[-1].end)


def no_such(what: str, name: str, there: list[str]) -> str:
    """What to say of a name that is none."""
    return f"there is no {what} {name[:64]!r}; there are {', '.join(there[:20])}{did_you_mean(name, there)}"
