"""One session in the house, awake or asleep, and what of it is kept on the disk.

What waits for it is counted twice, because either may run away: in messages, sent
and unanswered ones included, so that a restart finds room for all of them; and in
bytes, for those that are kept in memory until they are sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from bridge.broker.limits import Limits
from bridge.message import Message
from bridge.mqtt.packet import Subscription, Will
from bridge.mqtt.session import Session
from bridge.policy.route import CLOCK_PLAUSIBLE_NS
from bridge.store import Spool, Window

if TYPE_CHECKING:
    from bridge.broker.link import Link

__all__ = ["StoredSession", "Subscriber", "restore", "save", "unsave"]


class StoredSession(msgspec.Struct, frozen=True, array_like=True):
    """A session in the table; new fields go to the end, with a default.

    `since` has, for each filter, the downlink position from which it counts.
    `disconnected_at_ns` is 0 while there is a connection: after a crash the clocks
    of the session and of its will start when the house is back.
    """

    expiry_interval_s: int
    subscriptions: list[Subscription]
    since: dict[str, int]
    disconnected_at_ns: int
    will: Will | None = None


class Subscriber:
    """One session in the house.

    `outlives`: the session outlives its connection, so its QoS 1 and 2 messages
    go through the downlink log; `window` has those under way and waiting. `backfill`
    is what is left of the retained messages for new subscriptions.
    """

    def __init__(self, session: Session, position: int, limits: Limits) -> None:
        self.session = session
        self.outlives = False
        self.link: Link | None = None
        self.window = Window(position)
        self.mark_moved = False
        self.since: dict[str, int] = {}
        self.backfill: deque[tuple[str, Subscription]] = deque()
        self.due = False  # listed for the next delivery
        self.timer: asyncio.TimerHandle | None = None
        self.disconnected_at_ns = 0
        self._messages_max = limits.session_messages_max
        self._bytes_max = limits.session_bytes_max
        self._held: deque[tuple[int, int]] = deque()  # token and bytes of everything queued
        self._held_bytes = 0
        self._newest = -1
        self._copies: dict[int, int] = {}

    # ---- what waits ----------------------------------------------------------------

    def offer(
        self, token: int, qos: int, retain: bool, identifiers: tuple[int, ...], message: Message | None
    ) -> bool:
        """Queue one delivery; False when there is no room: nothing was taken."""
        session = self.session
        size = len(message.payload) if message is not None else 0
        if len(session.in_flight) + session.queued >= self._messages_max:
            return False
        if self._held_bytes and self._held_bytes + size > self._bytes_max:
            return False
        if not session.offer(token, qos, retain, identifiers, message):
            return False
        self._held.append((token, size))
        self._held_bytes += size
        return True

    def taken(self) -> None:
        """The session has given out some of what was queued."""
        held, queued = self._held, self.session.queued
        while len(held) > queued:
            self._held_bytes -= held.popleft()[1]

    def hand_out(self, position: int, end: int) -> None:
        """One more delivery of the record at `position`, in the order of the log."""
        if position == self._newest:
            # Once for itself and once for a share it has in a group: settled when both are.
            self._copies[position] = self._copies.get(position, 0) + 1
        else:
            self._newest = position
            self.window.hand_out(position, end)

    def settle(self, tokens: Iterable[int]) -> None:
        """The device has these, or will never have them."""
        for token in tokens:
            if token in self._copies:
                self._copies[token] -= 1
                if not self._copies[token]:
                    del self._copies[token]
            else:
                self.mark_moved |= self.window.settle(token)

    def give_up_before(self, end: int) -> int:
        """Let go of waiting messages whose record lies before `end`; return how many."""
        self._copies = {token: count for token, count in self._copies.items() if token >= end}
        self.session.drop_before(end)
        self._held = deque(each for each in self._held if each[0] >= end or each[0] < 0)
        self._held_bytes = sum(size for _, size in self._held)
        count = self.window.settle_before(end)
        self.mark_moved |= count > 0
        return count


# ---- on the disk -------------------------------------------------------------------

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(StoredSession).decode


def save(spool: Spool, subscriber: Subscriber) -> None:
    """The session is in the table, as it is now; safe after the next commit."""
    session = subscriber.session
    stored = StoredSession(
        session.expiry_interval_s,
        list(session.subscriptions.values()),
        subscriber.since,
        subscriber.disconnected_at_ns,
        session.will,
    )
    spool.sessions.put(session.client_id, _encode(stored))
    if spool.marks.get(session.client_id) is None:
        subscriber.mark_moved = True


def unsave(spool: Spool, client_id: str) -> bool:
    """The session is gone from the table; return whether it was there."""
    if spool.sessions.get(client_id) is None:
        return False
    spool.sessions.delete(client_id)
    spool.marks.delete(client_id)
    return True


def restore(spool: Spool, subscriber: Subscriber, now_ns: int) -> float:
    """Make a new subscriber what it was before; return for how many seconds it has slept."""
    downlink, session = spool.downlink, subscriber.session
    value = spool.sessions.get(session.client_id)
    assert value is not None
    stored = _decode(value)
    session.expiry_interval_s = stored.expiry_interval_s
    session.subscriptions.update((each.topic_filter, each) for each in stored.subscriptions)
    session.will = stored.will
    subscriber.outlives = True
    subscriber.since = stored.since
    mark = spool.marks.get(session.client_id)
    position = int.from_bytes(mark, "little") if mark is not None else downlink.head
    subscriber.window = Window(min(max(position, downlink.head), downlink.durable))
    # It was connected when the house fell, or else nobody knew then what time it was.
    known = CLOCK_PLAUSIBLE_NS < stored.disconnected_at_ns <= now_ns
    subscriber.disconnected_at_ns = stored.disconnected_at_ns if known else now_ns
    return (now_ns - subscriber.disconnected_at_ns) / 1e9
