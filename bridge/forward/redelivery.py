"""What becomes of dead letters: they are dropped, or go back on their way.

A letter that is sent again goes through its route, to the route's sink or to the one that
was named, under its old id and marked as `replayed`. It is settled only when that sink has
confirmed it, and an order is done only when all that was settled is safe. So after a kill
the order goes on with the letters that still wait: those under way are sent once more, with
the same ids, and none is settled that was not sent. What is refused again stays where it is.

One batch of each route at a time, in the order of the letters; an order ends where their
log ended when it was taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

from bridge.errors import SinkUnavailable
from bridge.forward.clerk import Clerk
from bridge.forward.fallback import Fallback
from bridge.forward.forwarder import Forwarder
from bridge.forward.keeper import Keeper
from bridge.forward.letters import DeadLetter, Letters, letter_of
from bridge.forward.orders import Desk, LetterOrder, LetterOutcome
from bridge.forward.packing import Packer, sender
from bridge.forward.parcel import dressed
from bridge.forward.replay import no_such
from bridge.policy.batch import BatchLimits
from bridge.policy.route import Route
from bridge.sinks.base import Outgoing
from bridge.store import Entry

__all__ = ["Redelivery", "drop"]


class Redelivery:
    """Carries out the orders on a desk; `run` is its one task."""

    def __init__(
        self,
        desk: Desk[LetterOrder, LetterOutcome],
        letters: Letters,
        forwarders: Sequence[Forwarder],
        keepers: Mapping[str, Keeper],
    ) -> None:
        self.run = Clerk("letters", desk, self._carry_out).run
        self._desk = desk
        self._letters = letters
        self._forwarders = {forwarder.route.name: forwarder for forwarder in forwarders}
        self._keepers = keepers

    async def _carry_out(self, name: str, order: LetterOrder) -> LetterOutcome:
        outcome = LetterOutcome(resumed=order.end is not None)
        if order.to and order.to not in self._keepers:
            raise ValueError(no_such("sink", order.to, list(self._keepers)))
        if order.end is None:
            order.end = self._letters.end
            self._desk.change(name, order)
        if order.what == "drop":
            await drop(self._letters, order, outcome)
        else:
            await self._replay(order, outcome)
        self._letters.let_go()
        return outcome

    async def _replay(self, order: LetterOrder, outcome: LetterOutcome) -> None:
        """Each route by itself: one whose sink is away keeps no other waiting."""
        lanes: dict[str, _Batch] = {}
        async for _, letter in self._meant(order):
            if letter.route not in lanes and (way := self._way(letter, order.to)) is not None:
                lanes[letter.route] = _Batch(*way, self._letters, outcome)
            outcome.stranded += letter.route not in lanes
        async with asyncio.TaskGroup() as group:
            for route, batch in lanes.items():
                group.create_task(self._send_all(order, route, batch), name=f"letters of {route}")

    async def _send_all(self, order: LetterOrder, route: str, batch: _Batch) -> None:
        async for entry, letter in self._meant(order):
            if letter.route == route and batch.add(entry, letter.id):
                await batch.send()
        await batch.send()

    async def _meant(self, order: LetterOrder) -> AsyncIterator[tuple[Entry, DeadLetter]]:
        """The letters that wait and are meant, oldest first, up to the end of the order."""
        position, end = self._letters.head, order.end or 0
        while position < end and (entries := self._letters.read(position)):
            position = entries[-1].end
            for entry in entries:
                if entry.position < end and self._letters.waits(entry):
                    letter = letter_of(entry)
                    if order.selection.has(letter):
                        yield entry, letter
            await asyncio.sleep(0)

    def _way(self, letter: DeadLetter, to: str) -> tuple[Route | None, Keeper | Fallback] | None:
        """By which route a letter goes, and where to; None when nobody knows."""
        forwarder = self._forwarders.get(letter.route)
        if to:
            return None if forwarder is None else forwarder.route, self._keepers[to]
        return None if forwarder is None else (forwarder.route, forwarder.keeper)


class _Batch:
    """Letters of one route on their way."""

    def __init__(
        self, route: Route | None, keeper: Keeper | Fallback, letters: Letters, outcome: LetterOutcome
    ) -> None:
        self._route = route
        self._keeper = keeper
        self._letters = letters
        self._outcome = outcome
        self._entries: list[Entry] = []
        self._outgoing: list[Outgoing] = []
        self._bytes = 0
        self._packer = None if route is None or route.pack is None else Packer(route.pack)

    def add(self, entry: Entry, id: str) -> bool:
        """Take a letter in; return whether it is time to send."""
        route, message = self._route, entry.message
        if route is None:
            # A route that is gone has left no template behind; the topic is what its default would make.
            made: Outgoing | str = Outgoing(id, message.topic, message, replayed=True)
        else:
            made = dressed(route.dress, message, id, replayed=True)
        if isinstance(made, str):
            self._outcome.refuse(made)
            return False
        self._entries.append(entry)
        self._outgoing.append(made)
        self._bytes += entry.end - entry.position
        limits = BatchLimits() if route is None else route.batch
        return len(self._entries) >= limits.messages or self._bytes >= limits.bytes

    async def send(self) -> None:
        """All of it reaches the sink, however long that takes, and what was confirmed is settled."""
        while self._entries:
            turn = await self._keeper.wait_up()
            try:
                refusals = await sender(self._packer, self._keeper.sink.send_batch)(self._outgoing)
            except SinkUnavailable as error:
                await self._settle(error.confirmed, {})
                self._keeper.broken(turn, str(error))
                await asyncio.sleep(0)
                continue
            self._keeper.confirmed()
            await self._settle(len(self._entries), {each.index: each.reason for each in refusals})

    async def _settle(self, count: int, refused: dict[int, str]) -> None:
        """The first `count` have come back: what was not refused is done with, and safely so."""
        if not count:
            return
        done = [entry for nth, entry in enumerate(self._entries[:count]) if nth not in refused]
        del self._entries[:count], self._outgoing[:count]
        self._bytes = sum(entry.end - entry.position for entry in self._entries)
        self._letters.settle(done)
        await self._letters.flush()
        self._outcome.settled += len(done)
        for reason in refused.values():
            self._outcome.refuse(reason)


async def drop(letters: Letters, order: LetterOrder, outcome: LetterOutcome) -> None:
    """Settle every letter that is meant; safe afterwards."""
    position, end = letters.head, letters.end if order.end is None else order.end
    while position < end and (entries := letters.read(position)):
        position = entries[-1].end
        meant = [
            entry
            for entry in entries
            if entry.position < end and letters.waits(entry) and order.selection.has(letter_of(entry))
        ]
        if meant:
            letters.settle(meant)
            await letters.flush()
            outcome.settled += len(meant)
        await asyncio.sleep(0)
