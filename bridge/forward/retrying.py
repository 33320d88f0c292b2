"""What one route's far end has refused: which of it is tried again, and which is given up.

The rule is `bridge.policy.retry`; its keys are publisher and topic. A message that is held
is a hole in what is settled of the log (`bridge.policy.settled`): the cursor stays before
it, and what lies behind is written down as settled beside the cursor. So a link that breaks, a stop
or a kill needs no care: what is held is simply read again, like anything that is not settled.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from bridge.forward.letters import DeadLetter, Letters
from bridge.forward.under_way import Sent
from bridge.policy.retry import Retries
from bridge.policy.route import Route
from bridge.sinks.base import Refusal
from bridge.store import Entry

__all__ = ["GivenUp", "Retrying"]

log = logging.getLogger(__name__)


class GivenUp(NamedTuple):
    """A message that goes to the dead letters, and how often it was tried."""

    entry: Entry
    reason: str
    tries: int


class Retrying:
    """What one route holds. It is false while that is nothing, which is nearly always."""

    def __init__(self, route: Route, letters: Letters, id_prefix: str) -> None:
        self._retries: Final[Retries[Entry]] = Retries(route.retry)
        self._several = route.retry.tries > 1
        self._route = route.name
        self._letters = letters
        self._id_prefix = id_prefix

    def __bool__(self) -> bool:
        return bool(self._retries)

    @property
    def full(self) -> bool:
        """Whether nothing new may be sent until some of what is held has gone."""
        return self._retries.full

    @property
    def oldest(self) -> list[Entry]:
        """What is held and not under way, the oldest first."""
        return sorted(self._retries.held(), key=lambda entry: entry.position)

    def hold_back(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
        """Of what is to be sent for the first time: what may go, and what waits because its key does."""
        hold_back = self._retries.hold_back
        fit: list[Entry] = []
        held: list[Entry] = []
        for entry in entries:
            key, size = _key(entry), entry.end - entry.position
            (held if hold_back(key, entry.position, entry, size) else fit).append(entry)
        return fit, held

    def given_up(self, sent: Sent, refusals: Sequence[Refusal]) -> list[GivenUp]:
        """What of the refused will not be tried again. Nothing has changed until `answered`."""
        retries, entries = self._retries, sent.entries
        return [
            GivenUp(entries[each.index], each.reason, retries.tries(entries[each.index].position) + 1)
            for each in refusals
            if retries.gives_up(entries[each.index].position, final=each.final)
        ]

    async def bury(self, given_up: Sequence[GivenUp], sink: str) -> None:
        """Write these to the dead letters; they are safe there afterwards."""
        route, now_ns = self._route, time.time_ns()
        letters = [
            (entry, DeadLetter(self._id_prefix + str(entry.sequence), route, sink, reason, now_ns, tries))
            for entry, reason, tries in given_up
        ]
        await self._letters.bury_all(letters)
        log.warning(
            "messages refused route=%s sink=%s count=%d reason=%s",
            route, sink, len(given_up), given_up[0].reason,
        )  # fmt: skip

    def answered(
        self, sent: Sent, refusals: Sequence[Refusal], given_up: Sequence[GivenUp], now_s: float
    ) -> list[Entry]:
        """The far end has answered, and what is given up is safe: return what is to be tried again.

        What was let go meanwhile is tried no more, and is among the returned all the same.
        """
        if not self._several or not (refusals or sent.again or self._retries):
            return []
        buried = {one.entry.position for one in given_up}
        kept = {each.index for each in refusals if sent.entries[each.index].position not in buried}
        for index, entry in enumerate(sent.entries):
            if index in kept and index >= len(sent.gone):
                self._retries.refuse(_key(entry), entry.position, entry, entry.end - entry.position, now_s)
            else:
                self._retries.done(entry.position)
        return [sent.entries[index] for index in sorted(kept)]

    def next(self, messages_max: int, bytes_max: int, now_s: float) -> list[Entry]:
        """What is to be sent before anything new; call until there is none."""
        return self._retries.next(messages_max, bytes_max, now_s) if self._retries else []

    def wait_s(self, now_s: float) -> float | None:
        """When `next` had nothing: in how many seconds it may have."""
        return self._retries.wait_s(now_s)

    def let_go(self, end: int) -> Sequence[Entry]:
        """Nothing before `end` is held any more; return what was."""
        return self._retries.forget_before(end) if self._retries else ()

    def take_back(self) -> None:
        """Whatever is held will be read again."""
        self._retries.clear()


def _key(entry: Entry) -> tuple[str, str]:
    return entry.message.publisher, entry.message.topic
