"""Dead letters: what a far end refused for good, whole, until somebody decides about it.

They lie in a log of their own, each with a note that says why. A letter waits until it
is settled (`bridge.store.settled`): it was dropped, or sent again and confirmed. The log
has a quota of its own. When it is full the oldest segment goes, with the letters in it
that still wait, and these are counted by route and said in the log.

How many wait, by route and kind of reason, is found by reading the log behind its writer:
all of it at a start, a stretch at a time beside the real work, and then what each commit
adds. A reason comes from the far end, in words that may be others for every message; its
kind leaves out what stands in quotes, and beyond KINDS_MAX kinds of a route all are `other`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from bridge.store import Committer, Entry, Log, Settled, Spool

__all__ = ["DeadLetter", "Letters", "Selection", "kind_of", "letter_of"]

log = logging.getLogger(__name__)

REASON_CHARS_MAX: Final = 1000  # of a refusal; the note has 16 KiB, and JSON may spell a character with six
KINDS_MAX: Final = 20
KIND_CHARS_MAX: Final = 120
OTHER: Final = "other"
_FRAME_BYTES: Final = 64  # what a note costs beside its own length
_STRETCH: Final = 1000
_QUOTED: Final = re.compile(r"'[^']*'|\"[^\"]*\"")


class DeadLetter(msgspec.Struct, frozen=True):
    """The note beside a message in the dead-letter log; `tries` is how often it was sent."""

    id: str  # of the message, as the far end knows it
    route: str
    sink: str
    reason: str
    refused_at_ns: int
    tries: int = 1


_decode: Final = msgspec.json.Decoder(DeadLetter).decode


def letter_of(entry: Entry) -> DeadLetter:
    """Why this message is there; a note that cannot be read hides no message."""
    try:
        return _decode(entry.note)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return DeadLetter(f"?/{entry.sequence}", "", "", "its note cannot be read", 0, 0)


def kind_of(reason: str) -> str:
    """What of a reason is the same for many messages: without what stands in quotes."""
    return _QUOTED.sub("'…'", reason)[:KIND_CHARS_MAX]


class Selection(msgspec.Struct, forbid_unknown_fields=True):
    """Which letters are meant; what is empty asks for nothing in particular.

    A route to several sinks (`bridge.policy.lanes`) means all its lanes. `reason` is a part of
    it, in any case. An id is that of the message, or its last part.
    """

    route: str = ""
    reason: str = ""
    ids: list[str] = []

    def has(self, letter: DeadLetter) -> bool:
        """Whether this letter is meant."""
        return (
            (not self.route or letter.route == self.route or letter.route.startswith(f"{self.route}."))
            and (not self.reason or self.reason.casefold() in letter.reason.casefold())
            and (not self.ids or letter.id in self.ids or letter.id.rpartition("/")[2] in self.ids)
        )


class Letters:
    """The dead letters of one house. `run` is its one task, and counts.

    `counts` is route → kind of reason → how many wait, as far as it has been counted. `lost`
    is route → how many had to make way since the start.
    """

    def __init__(self, spool: Spool) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        self.lost: dict[str, int] = {}
        self._log: Log = spool.dead
        self._settled: Settled = spool.settled
        self._committer: Committer = spool.committer
        self._counted = self._log.head  # up to here `counts` is right
        self._news = asyncio.Event()
        self._committer.after_commit(self._committed)

    # ---- facts ---------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many letters wait, as far as they have been counted."""
        return sum(sum(kinds.values()) for kinds in self.counts.values())

    def dropped(self) -> dict[str, dict[str, int]]:
        """What each route has lost here, as `bridge.forward.losses` wants to know it."""
        return {route: {"oldest": count} for route, count in self.lost.items()}

    @property
    def end(self) -> int:
        """What was buried and is safe by now lies before this position."""
        return self._log.durable

    @property
    def head(self) -> int:
        """The oldest letter lies here, or behind."""
        return self._log.head

    def read(self, position: int) -> list[Entry]:
        """The next entries at or behind `position`, those that are settled included; none at the end."""
        return self._log.read(position, _STRETCH)

    def waits(self, entry: Entry) -> bool:
        """Whether nobody has decided about it yet."""
        return entry.position >= self._log.head and entry.sequence not in self._settled

    # ---- they come -----------------------------------------------------------------

    def bury(self, entry: Entry, letter: DeadLetter) -> None:
        """Queue an entry of another log as a letter; where there is no room, the oldest make way.

        It is safe after the next commit, and not there at all when that fails.
        """
        reason = letter.reason[:REASON_CHARS_MAX].encode("utf-8", "replace").decode()
        note = msgspec.json.encode(msgspec.structs.replace(letter, reason=reason))
        size = entry.end - entry.position + len(note) + _FRAME_BYTES
        while not self._log.reserve(size) and self._make_way():
            pass
        self._log.append(entry.message, note)

    async def bury_all(self, letters: Sequence[tuple[Entry, DeadLetter]]) -> None:
        """Afterwards these are safe. Waits while the disk takes nothing: they are in their log until then."""
        while True:
            for entry, letter in letters:
                self.bury(entry, letter)
            if await self._committer.flush() is None:
                return
            await asyncio.sleep(1)

    def _make_way(self) -> bool:
        """Let go of the oldest segment, counting what still waits in it; return whether there was one."""
        end = self._log.oldest_segment_end()
        position = self._log.head
        gone: list[Entry] = []
        while position < end and (entries := self._log.read(position, _STRETCH)):
            position = entries[-1].end
            gone += [entry for entry in entries if entry.position < end and self.waits(entry)]
        if not self._log.trim(end):
            return False
        for entry in gone:
            route = letter_of(entry).route
            self.lost[route] = self.lost.get(route, 0) + 1
            self._uncount(entry)
        if self._log.head < end:  # the newest segment stays until another one begins
            self._settled.add(entry.sequence for entry in gone)
        self._counted = max(self._counted, end)
        self._forget()
        return True

    def _forget(self) -> None:
        first = self._log.read(self._log.head, 1)
        if first:
            self._settled.forget_before(first[0].sequence)

    # ---- they are counted ----------------------------------------------------------

    def _committed(self) -> None:
        if self._log.durable > self._counted:
            self._news.set()

    async def run(self) -> None:
        """Count what waits, until cancelled."""
        while True:
            self._news.clear()
            while entries := self.read(self._counted):
                self._counted = entries[-1].end
                for entry in entries:
                    if self.waits(entry):
                        self._count(entry)
                await asyncio.sleep(0)
            await self._news.wait()

    def _count(self, entry: Entry) -> None:
        letter = letter_of(entry)
        kinds = self.counts.setdefault(letter.route, {})
        kind = kind_of(letter.reason)
        # While there are others, a kind that is new is one of them: so what is taken off is what was added.
        if kind not in kinds and (OTHER in kinds or len(kinds) >= KINDS_MAX):
            kind = OTHER
        kinds[kind] = kinds.get(kind, 0) + 1

    def _uncount(self, entry: Entry) -> None:
        if entry.position >= self._counted:
            return  # not counted yet, and never will be
        letter = letter_of(entry)
        kinds = self.counts[letter.route]
        kind = kind_of(letter.reason)
        if kind not in kinds:
            kind = OTHER
        kinds[kind] -= 1
        if not kinds[kind]:
            del kinds[kind]
            if not kinds:
                del self.counts[letter.route]

    # ---- they go -------------------------------------------------------------------

    def settle(self, entries: Sequence[Entry]) -> None:
        """These are done with; safe after the next commit, and not counted from now on."""
        waiting = [entry for entry in entries if self.waits(entry)]
        self._settled.add(entry.sequence for entry in waiting)
        for entry in waiting:
            self._uncount(entry)

    async def flush(self) -> None:
        """Afterwards what was settled is safe. Waits as long as the disk needs."""
        while (error := await self._committer.flush()) is not None:
            log.warning("letters not settled yet reason=%s", error)
            await asyncio.sleep(1)

    def let_go(self) -> None:
        """Free the segments in which nothing waits any more."""
        for begin, end in self._log.sealed():
            position = begin
            while position < end and (entries := self._log.read(position, _STRETCH)):
                position = entries[-1].end
                if any(entry.position < end and self.waits(entry) for entry in entries):
                    return
            if not self._log.trim(end):
                return
            self._forget()
