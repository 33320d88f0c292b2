"""What became of every message of one route, to the message.

    accepted = delivered + refused + expired + filtered + dropped + damaged + stored

Every message that a route has accepted is in exactly one of these, at every moment. What
lies before the route's cursor is in its Tally, and that is saved in the same slot as the
position: should the save be lost, both go back. What lies from the cursor on is stored,
and is counted again at a start. So the two need not agree on anything, and cannot differ.

A message may be let go at the door, because a bound is reached or the store is full.
Where another route still wants it, it is in the log all the same, with a note that names
who let it go: their readers step over it and count it then. Where nobody stores it, it is
in a row of a table, written in the commit that its PUBACK waits for.

What was let go while it was under way counts as stored until the far end has answered or
the link is broken; on the disk it counts as dropped already, because nothing will be
found of it at a start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from types import MappingProxyType
from typing import Final, Literal, cast

import msgspec

from bridge.message import Message
from bridge.policy.route import Route

__all__ = [
    "REASONS",
    "Account",
    "Fate",
    "LeftFor",
    "Reason",
    "Tally",
    "decode_note",
    "decode_tally",
    "encode",
]

Reason = Literal["full_oldest", "full_newest", "bound_oldest", "bound_newest"]
LeftFor = Reason | Literal["expired"]  # why the oldest go: for room, or because it is too late for them
Fate = Literal["delivered", "refused", "expired", "filtered", "damaged"] | Reason
REASONS: Final[tuple[Reason, ...]] = ("full_oldest", "full_newest", "bound_oldest", "bound_newest")
_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})
_MORE: Final = 128  # one part of a bound in this many is let go at once, for each time costs a save
_MORE_MAX: Final = 1000  # messages


class Tally(msgspec.Struct, array_like=True):
    """What became of messages; new fields go to the end, with a default."""

    delivered: int = 0  # owned by the far end
    refused: int = 0  # by the far end, for good: in the dead letters
    expired: int = 0  # older than the route or the publisher allows
    filtered: int = 0  # not what the route's conditions want
    damaged: int = 0  # stored, and not found again
    full_oldest: int = 0  # let go because the store was full
    full_newest: int = 0
    bound_oldest: int = 0  # let go because the route was at its bound
    bound_newest: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(msgspec.structs.astuple(self))

    def add(self, fate: Fate, count: int = 1) -> None:
        """So many more met this fate."""
        setattr(self, fate, getattr(self, fate) + count)


class CursorNote(msgspec.Struct, omit_defaults=True):
    """What stands beside a route's position in its cursor; names that are not known are passed over."""

    tally: Tally = msgspec.field(default_factory=Tally)
    ahead: list[int] = []  # settled beyond the position: from there to a begin, from it to its end, and so on

    def stretches(self, position: int) -> list[tuple[int, int]]:
        """Where the settled stretches beyond `position` begin and end."""
        places = list(accumulate(self.ahead, initial=position))[1:]
        return list(zip(places[::2], places[1::2], strict=False))


encode: Final = msgspec.msgpack.Encoder().encode
_decode_note: Final = msgspec.msgpack.Decoder(CursorNote).decode
decode_tally: Final = msgspec.msgpack.Decoder(Tally).decode


def decode_note(note: bytes) -> CursorNote:
    """What a cursor says beside its position; a cursor that is new, or older than notes, says nothing."""
    return _decode_note(note) if note else CursorNote()


class Account:
    """One route's messages. Who does something with them says so here, in the same stretch of code.

    `stored` counts what is on the disk from the cursor on, `stored_bytes` its topics and
    payloads, where there is a bound for these. `leaving` of it was let go while under way.
    `noted` was let go at the door and is on record, still before the reader. `door` was
    let go at the door and nobody stored it. `queued` waits for a commit and is in none
    of the sums. `counting`: the backlog of the start is not counted yet, so `stored` is
    too low.
    """

    __slots__ = (
        "_before",
        "_queued_door",
        "counting",
        "door",
        "door_changed",
        "give_way",
        "leaving",
        "leaving_bytes",
        "max_bytes",
        "max_messages",
        "name",
        "noted",
        "pass_on",
        "queued",
        "queued_bytes",
        "stored",
        "stored_bytes",
        "tally",
        "when_full",
    )

    def __init__(self, route: Route, tally: Tally | None = None) -> None:
        self.name = route.name
        self.when_full = route.when_full
        self.max_messages = route.max_messages
        self.max_bytes = route.max_bytes
        self.tally = tally or Tally()
        self.door = Tally()
        self.noted = 0
        self.stored = self.stored_bytes = 0
        self.leaving = self.leaving_bytes = 0
        self.queued = self.queued_bytes = 0
        self.counting = False
        self.door_changed = False  # whether its row is older than it
        self._queued_door: dict[Reason, int] = {}
        self._before = self.dropped()
        # Hands a message on through memory; None for a route whose messages are on the disk.
        self.pass_on: Callable[[Sequence[Message]], None] | None = None
        # Let the oldest go, so many messages and bytes; set by whoever reads the log.
        self.give_way: Callable[[int, int], None] = lambda messages, size: None

    # ---- facts ---------------------------------------------------------------------

    @property
    def accepted(self) -> int:
        """Every message this route ever took responsibility for."""
        return self.tally.total + self.door.total + self.noted + self.stored

    def dropped(self) -> dict[str, int]:
        """What was let go, by reason."""
        dropped: dict[str, int] = {
            reason: getattr(self.tally, reason) + getattr(self.door, reason) for reason in REASONS
        }
        dropped["bound_newest"] += self.noted
        return dropped

    @property
    def lost(self) -> int:
        """All of what was let go."""
        return sum(self.dropped().values())

    def dropped_since(self) -> dict[str, int]:
        """What was let go since this account was opened."""
        return {reason: count - self._before[reason] for reason, count in self.dropped().items()}

    # ---- at a start ----------------------------------------------------------------

    def open_door(self, door: Tally) -> None:
        """What the row of the table says."""
        self.door = door
        self._before = self.dropped()

    def found(self, message: Message, *, let_go: bool) -> None:
        """This lies behind the cursor, for the route, or let go at the door by it."""
        if let_go:
            self.noted += 1
            self._before["bound_newest"] += 1
        else:
            self.stored += 1
            self.stored_bytes += self.size(message)

    def counted(self) -> None:
        """All that lay there is found; what is beyond the bound, which may have been another, goes."""
        self.counting = False
        self._make_way()

    # ---- bounds --------------------------------------------------------------------

    @property
    def bounded(self) -> bool:
        """Whether the route has a bound of its own."""
        return not (self.max_messages is None and self.max_bytes is None)

    @property
    def closes(self) -> bool:
        """Whether it is a bound at which new messages stay out, and not old ones go."""
        return self.bounded and self.when_full != "drop_oldest"

    @property
    def bound(self) -> str:
        """The bound in words."""
        bounds = (("max_messages", self.max_messages), ("max_bytes", self.max_bytes))
        return " and ".join(f"{name} {value}" for name, value in bounds if value is not None)

    def size(self, message: Message) -> int:
        """What a message counts towards `max_bytes`: topic and payload; 0 where there is no such bound."""
        return 0 if self.max_bytes is None else len(message.topic.encode()) + len(message.payload)

    def has_room(self, messages: int, size: int) -> bool:
        """Whether so many more are within the bound."""
        held = self.stored - self.leaving + self.queued
        if self.max_messages is not None and held + messages > self.max_messages:
            return False
        held_bytes = self.stored_bytes - self.leaving_bytes + self.queued_bytes
        return self.max_bytes is None or held_bytes + size <= self.max_bytes

    def admits(self, size: int) -> bool:
        """Whether one more message is let in. Alone it is, however large, or it never would be."""
        return self.has_room(1, size) or self.stored - self.leaving + self.queued == 0

    def _make_way(self) -> None:
        """What is beyond the bound goes, the oldest first, and a little more: each time costs a save."""
        if self.when_full != "drop_oldest" or self.counting:
            return
        over = over_bytes = 0
        held = self.stored - self.leaving
        if self.max_messages is not None and held > self.max_messages:
            over = max(held - self.max_messages, min(self.max_messages // _MORE, _MORE_MAX))
        held_bytes = self.stored_bytes - self.leaving_bytes
        if self.max_bytes is not None and held_bytes > self.max_bytes and held > 1:
            over_bytes = max(held_bytes - self.max_bytes, self.max_bytes // _MORE)
        if over or over_bytes:
            self.give_way(over, over_bytes)

    # ---- on the way in -------------------------------------------------------------

    def queue(self, messages: int, size: int) -> None:
        """So many wait for the commit now."""
        self.queued += messages
        if self.max_bytes is not None:
            self.queued_bytes += size

    def unqueue(self, messages: int, size: int, *, stored: bool) -> None:
        """The commit is over: they are stored, or there is nothing of them."""
        self.queued -= messages
        if self.max_bytes is not None:
            self.queued_bytes -= size
        if stored:
            self.store(messages, size)

    def store(self, messages: int, size: int) -> None:
        """So many more are in the log; where the oldest go for the newest, they do so now."""
        self.stored += messages
        if self.max_bytes is not None:
            self.stored_bytes += size
        self._make_way()

    def queue_door(self, reason: Reason, count: int) -> None:
        """So many are let go that nobody stores; it counts when that is on the disk."""
        self._queued_door[reason] = self._queued_door.get(reason, 0) + count
        self.door_changed = True

    def unqueue_door(self, reason: Reason, count: int, *, stored: bool) -> None:
        """The commit is over: they are let go and counted, or there is nothing of them."""
        self._queued_door[reason] -= count
        if stored:
            self.door.add(reason, count)
        else:
            self.door_changed = True  # what the failed commit wrote may be found at a start

    def door_row(self) -> bytes:
        """What the commit that begins now has to write down about the door."""
        self.door_changed = False
        door = msgspec.structs.replace(self.door)
        for reason, count in self._queued_door.items():
            door.add(reason, count)
        return encode(door)

    # ---- on the way out ------------------------------------------------------------

    def passed(self, fate: Fate, messages: int, size: int) -> None:
        """The cursor has passed so many stored messages, or is about to in this stretch of code."""
        self.tally.add(fate, messages)
        self.stored -= messages
        self.stored_bytes -= size

    def passed_noted(self, messages: int) -> None:
        """The cursor has passed so many that were let go at the door."""
        self.tally.bound_newest += messages
        self.noted -= messages

    def leave(self, messages: int, size: int) -> None:
        """So many that are under way are let go; with a minus, they are not under way any more."""
        self.leaving += messages
        self.leaving_bytes += size

    def caught_up(self) -> int:
        """Nothing is left to be read: return how many are missing, which are damaged from now on."""
        missing = self.stored
        self.tally.bound_newest += self.noted
        self.tally.damaged += max(0, missing)
        self.stored = self.stored_bytes = self.noted = 0
        return max(0, missing)

    def note(
        self,
        leaving: Mapping[LeftFor, int],
        stretches: Iterable[tuple[int, int]] = (),
        not_saved: Mapping[str, int] = _NOTHING,
        position: int = 0,
    ) -> bytes:
        """What to save beside the position; `leaving` is what is under way and let go, by reason.

        `stretches` beyond `position` are settled. `not_saved` is what became of messages in
        others, for which there is no room: they will be found again at a start.
        """
        tally = self.tally
        if leaving or not_saved:
            tally = msgspec.structs.replace(tally)
            for reason, count in leaving.items():
                tally.add(reason, count)
            for fate, count in not_saved.items():
                tally.add(cast(Fate, fate), -count)
        places = [position, *chain.from_iterable(stretches)]
        return encode(CursorNote(tally, [end - begin for begin, end in pairwise(places)]))
