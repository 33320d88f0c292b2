"""Who in the cloud wants a message, and who of them lets it go at the door.

An Audience is one distinct set of routes. Where a route lets a message go because it is
at its bound, or because the store is full, the rest of the set is another Audience,
derived once and kept: so what a commit has to count is one number for each run of
messages with the same audience.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bridge.message import Message
from bridge.policy.account import Account, Reason
from bridge.store.note import Note

__all__ = ["Audience", "Run", "runs_of"]


class Audience:
    """The accounts of those for whom a message is stored, and of those who let it go, with the reason.

    With nobody to store it for (`stores` is false) what was let go is on no record, and is
    counted in the row of a table. What routes in memory get, and let go, has nothing to do
    with any commit: `memory` are their accounts, `pass_on` does it at once. `closing` are
    the accounts whose bound keeps messages out.
    """

    __slots__ = (
        "_disk",
        "_noted",
        "_plain",
        "_without",
        "accounts",
        "closing",
        "gone",
        "memory",
        "names",
        "sized",
        "stores",
    )

    def __init__(self, accounts: Sequence[Account], gone: Mapping[Account, Reason] | None = None) -> None:
        self.accounts = tuple(accounts)
        self.memory = tuple(account for account in accounts if account.pass_on is not None)
        self.gone = dict(gone or {})
        self._disk = tuple(account for account in accounts if account.pass_on is None)
        self._noted = {account: reason for account, reason in self.gone.items() if account.pass_on is None}
        self.names = [account.name for account in self._noted]
        self.stores = bool(self._disk)
        self.closing = tuple(account for account in accounts if account.closes)
        self.sized = any(account.max_bytes is not None for account in accounts)
        # With neither bounds nor anyone who lets go there is but one number to be kept.
        self._plain = not self._noted and not any(account.bounded for account in self._disk)
        self._without: dict[tuple[tuple[str, Reason], ...], Audience] = {}

    def without(self, gone: Mapping[Account, Reason]) -> Audience:
        """The same audience when these let the message go."""
        key = tuple((account.name, reason) for account, reason in gone.items())
        found = self._without.get(key)
        if found is None:
            left = [account for account in self.accounts if account not in gone]
            found = self._without[key] = Audience(left, gone)
        return found

    def pass_on(self, message: Message) -> None:
        """Give a message to the routes in memory, and count it for those of them that let it go."""
        for account in self.memory:
            assert account.pass_on is not None
            account.pass_on((message,))
            account.store(1, size_of(message))
        for account, reason in self.gone.items():
            if account.pass_on is not None:
                account.tally.add(reason)

    def note(self, packet_id: int) -> Note:
        """What stands beside a message that is stored for this audience."""
        return Note(packet_id, let_go=self.names)

    def queue(self, messages: int, size: int) -> Run:
        """So many messages wait for the commit; tell `settle` of the run when it is over."""
        if not self._plain:
            for account in self._disk:
                account.queue(messages, size)
            if not self.stores:
                for account, reason in self._noted.items():
                    account.queue_door(reason, messages)
        return self, messages, size

    def settle(self, messages: int, size: int, *, stored: bool) -> None:
        """The commit is over: so many are on the disk, or nothing of them is."""
        if self._plain:
            if stored:
                for account in self._disk:
                    account.stored += messages
            return
        for account in self._disk:
            account.unqueue(messages, size, stored=stored)
        for account, reason in self._noted.items():
            if not self.stores:
                account.unqueue_door(reason, messages, stored=stored)
            elif stored:
                account.noted += messages


# So many messages, and so many bytes of them, for one audience: what one commit stores or lets go.
Run = tuple[Audience, int, int]


def runs_of(takers: Sequence[Audience], messages: Sequence[Message]) -> list[Run]:
    """Queue the messages of one read, each with its audience: as runs, mostly as one."""
    count = len(takers)
    first = takers[0]
    if not first.sized and takers.count(first) == count:
        return [first.queue(count, 0)]
    runs = []
    for audience in dict.fromkeys(takers):
        size = 0
        if audience.sized:
            found = zip(takers, messages, strict=True)
            size = sum(size_of(message) for taker, message in found if taker is audience)
        runs.append(audience.queue(takers.count(audience), size))
    return runs


def size_of(message: Message) -> int:
    """What a message counts towards the bounds of its routes."""
    return len(message.topic.encode()) + len(message.payload)
