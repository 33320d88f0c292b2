"""One session in the house, awake or asleep.

What waits for a session that outlives its connection lies in the downlink log, and
the session knows it by tokens:

    token := position of the record × 32 + copy

One message may have several copies for one session: one for its own subscriptions,
and one for each shared subscription that chose it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from bridge.broker.search import Search
from bridge.message import Message
from bridge.mqtt.session import Session
from bridge.policy.access import Identity, Rights

if TYPE_CHECKING:
    from bridge.broker.link import Link

__all__ = ["Subscriber", "position_of", "size_of", "token_at"]

_COPY_BITS: Final = 5  # a record has 20 bytes and more, so tokens of two records never meet


def position_of(token: int) -> int:
    """Where the record of a delivery lies."""
    return token >> _COPY_BITS


def token_at(position: int) -> int:
    """The first token of the record there."""
    return position << _COPY_BITS


def size_of(message: Message) -> int:
    """What a message counts against the bytes of a queue."""
    return len(message.topic) + len(message.payload)


class Subscriber:
    """One session in the house.

    `identity` is who made the session, and `rights` what they may do. `outlives`: the
    session outlives its connection, so its QoS 1 and 2 messages go through the
    downlink log. `mark` is the position before which everything is settled, as of when
    `moved` was last False. `unsaved`: its row in `marks` is older than the session.
    `search` finds the retained messages for new subscriptions, of which `filling` are on
    their way through the log.
    """

    __slots__ = (
        "_newest",
        "disconnected_at_ns",
        "due",
        "filling",
        "identity",
        "link",
        "mark",
        "moved",
        "outlives",
        "rights",
        "search",
        "session",
        "since",
        "timer",
        "unsaved",
    )

    def __init__(self, session: Session, identity: Identity, rights: Rights, position: int) -> None:
        self.session = session
        self.identity = identity
        self.outlives = False
        self.link: Link | None = None
        self.mark = position
        self.moved = True
        self.unsaved = False
        self.since: dict[str, int] = {}
        self.search = Search()
        self.filling = 0
        self.due = False  # listed for the next delivery
        self.timer: asyncio.TimerHandle | None = None
        self.disconnected_at_ns = 0
        self._newest = -1
        self.allow(rights)

    def allow(self, rights: Rights) -> None:
        """From now on the device may do this."""
        self.rights = rights
        self.session.admit = rights.may_receive if rights.limited else None

    def next_token(self, position: int) -> int | None:
        """The token of one more delivery of the record at `position`; None for one copy too many."""
        token = token_at(position)
        if self._newest >= token:
            token = self._newest + 1
            if position_of(token) != position:
                return None
        self._newest = token
        return token

    def measure(self, position: int) -> int:
        """Bring `mark` up to date, where `position` is the end of what was handed out; return it."""
        if self.moved:
            oldest = self.session.oldest()
            self.mark = position if oldest is None else position_of(oldest)
            # Nobody tells when something comes to an empty queue, so that one is looked at again.
            self.moved = oldest is None
        return self.mark
