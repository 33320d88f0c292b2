"""Sessions begin, sleep and end; their wills are spoken; and what of them is on the disk.

A will is kept with its session and outlives the house: a stop publishes what is due,
and a start whatever became due meanwhile.

What changes with every message (`bridge.broker.stored.StoredMark`) is written when a
commit begins, once for everything that happened since the last one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from bridge.broker.limits import Limits
from bridge.broker.stored import (
    CHECKPOINT,
    IN_DOWNLINK,
    IN_UPLINK,
    JUMPS,
    Checkpoint,
    StoredSession,
    decode_checkpoint,
    decode_jumps,
    decode_mark,
    decode_session,
    encode,
    mark_of,
    put_back,
)
from bridge.broker.subscriber import Subscriber
from bridge.message import CLOCK_PLAUSIBLE_NS, Message
from bridge.mqtt.property import application_properties
from bridge.mqtt.session import Session
from bridge.policy.access import Identity
from bridge.store import Log
from bridge.store.note import decode_note

if TYPE_CHECKING:
    from bridge.broker.broker import Broker

__all__ = ["Sessions"]

log = logging.getLogger(__name__)

# A start reads the uplink from the checkpoint on: this much takes some 50 ms.
CHECKPOINT_EVERY_BYTES: Final = 4 * 1024 * 1024
_LOOK_AGAIN_S: Final = 86_400.0  # a timer far away is looked at once a day: loops do not take months


class Sessions:
    """All sessions, by Client Identifier. `expired` counts those whose time was over."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._spool = broker.spool
        self._loop = asyncio.get_running_loop()
        self._unsaved: list[Subscriber] = []
        self._checkpoint = Checkpoint(0, 0)
        self._inbound = False  # whether the checkpoint has to move with the next commit
        self.by_client_id: dict[str, Subscriber] = {}
        self.expired = 0
        if (row := self._spool.marks.get(JUMPS)) is not None:
            broker.clock.recall(decode_jumps(row))
        self._jumps_saved = list(broker.clock.jumps)
        self._spool.committer.before_commit(self._save_marks)

    # ---- begin, sleep, end ---------------------------------------------------------

    def begin(self, client_id: str, identity: Identity, expiry_s: int, limits: Limits) -> Subscriber:
        """A new session. It is on the disk only when it is to outlive its connection."""
        session = Session(
            client_id,
            expiry_interval_s=expiry_s,
            window_max=limits.window_max,
            queue_max=limits.session_messages_max,
            bytes_max=limits.session_bytes_max,
            inbound_max=limits.receive_maximum,
        )
        session.jumps = self._broker.clock.jumps
        rights = self._broker.access.rights(identity, client_id)
        subscriber = Subscriber(session, identity, rights, self._spool.downlink.durable)
        self.by_client_id[client_id] = subscriber
        return subscriber

    def awake(self, subscriber: Subscriber, outlives: bool) -> None:
        """The session has a connection, and will or will not outlive it.

        One that was stored before goes on through the log either way: what was published
        for it a moment ago is on its way there, and would find nobody.
        """
        if subscriber.timer is not None:
            subscriber.timer.cancel()
            subscriber.timer = None
        subscriber.disconnected_at_ns = 0
        subscriber.outlives = subscriber.outlives or outlives
        if subscriber.outlives:
            self.save(subscriber)

    def sleep(self, subscriber: Subscriber) -> None:
        """Its connection is gone: the clocks of the session and of its will start."""
        subscriber.link = None
        subscriber.disconnected_at_ns = self._broker.clock.now_ns()
        session = subscriber.session
        session.disconnect(self._broker.now())
        if session.expiry_interval_s and subscriber.outlives:
            self.save(subscriber)
        self.pass_time(subscriber)

    def pass_time(self, subscriber: Subscriber) -> None:
        """Publish the will and end the session when their time has come; else look again then."""
        session, now = subscriber.session, self._broker.now()
        subscriber.timer = None
        if subscriber.link is not None:
            return
        will_due = session.will_due_at()
        if will_due is not None and will_due <= now:
            self._publish_will(subscriber)
            will_due = None
        ends_at = session.ends_at()
        if ends_at is not None and ends_at <= now:
            self.expired += session.expiry_interval_s > 0
            self.end(subscriber)
            return
        next_at = min((at for at in (will_due, ends_at) if at is not None), default=None)
        if next_at is not None:
            wait_s = min(max(next_at - now, 0.001), _LOOK_AGAIN_S)
            subscriber.timer = self._loop.call_later(wait_s, self.pass_time, subscriber)

    def _publish_will(self, subscriber: Subscriber) -> None:
        session = subscriber.session
        will, session.will = session.will, None
        if will is None:
            return
        if not self._broker.may_publish(subscriber.identity, session.client_id, will.topic):
            self._broker.inlet.denied += 1
            if self._broker.may_log():
                log.warning("will not allowed client=%s topic=%s", session.client_id, will.topic)
        else:
            properties = application_properties(will.properties) if will.properties is not None else None
            now_ns = self._broker.clock.now_ns()
            self._broker.inlet.publish(
                Message(
                    will.topic,
                    will.payload,
                    will.qos,
                    will.retain,
                    session.client_id,
                    now_ns,
                    properties,
                    subscriber.identity.user,
                ),
                subscriber.identity,
            )
        if subscriber.outlives:
            self.save(subscriber)  # with the same commit, or a restart would publish it again

    def end(self, subscriber: Subscriber) -> None:
        """The session is over; a will that was still to come is published first."""
        if subscriber.link is None:
            self._publish_will(subscriber)
        if subscriber.timer is not None:
            subscriber.timer.cancel()
            subscriber.timer = None
        if self._broker.subscriptions.remove_owner(subscriber):
            self._broker.inlet.forget_decisions()
            self._broker.delivery.pass_on(subscriber)
        self._broker.commands.session_ended(subscriber)
        self._unsave(subscriber)
        client_id = subscriber.session.client_id
        if self.by_client_id.get(client_id) is subscriber:
            del self.by_client_id[client_id]

    # ---- on the disk ---------------------------------------------------------------

    def save(self, subscriber: Subscriber) -> None:
        """The session is in the table, as it is now; safe after the next commit."""
        session = subscriber.session
        stored = StoredSession(
            session.expiry_interval_s,
            list(session.subscriptions.values()),
            subscriber.since,
            subscriber.disconnected_at_ns,
            session.will,
            subscriber.identity.user,
            subscriber.identity.verified,
        )
        self._spool.sessions.put(session.client_id, encode(stored))
        self.touch(subscriber)

    def touch(self, subscriber: Subscriber, *, commit: bool = True, inbound: bool = False) -> None:
        """What is under way has changed: it is written with the next commit, which is asked for or not.

        `inbound`: it is a QoS 2 exchange from the device that began or ended.
        """
        self._inbound = self._inbound or inbound
        if not subscriber.unsaved:
            subscriber.unsaved = True
            self._unsaved.append(subscriber)
        if commit:
            self._spool.committer.schedule()

    def _save_jumps(self) -> None:
        jumps = self._broker.clock.jumps
        if jumps != self._jumps_saved:
            self._jumps_saved = list(jumps)
            self._spool.marks.put(JUMPS, encode(jumps))

    def _save_marks(self) -> None:
        self._save_jumps()
        unsaved, self._unsaved = self._unsaved, []
        position = self._spool.downlink.durable
        for subscriber in unsaved:
            subscriber.unsaved = False
            session = subscriber.session
            if not subscriber.outlives or self.by_client_id.get(session.client_id) is not subscriber:
                continue
            self._spool.marks.put(session.client_id, mark_of(session, subscriber.measure(position)))
        uplink = self._spool.uplink.durable
        if self._inbound or uplink - self._checkpoint.uplink > CHECKPOINT_EVERY_BYTES:
            self._inbound = False
            self._set_checkpoint(Checkpoint(uplink, position))

    def save_soon(self) -> None:
        """Once a second: write down what devices have answered, though nothing else asks for a commit."""
        if self._unsaved:
            self._spool.committer.schedule()

    def _set_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._spool.marks.put(CHECKPOINT, encode(checkpoint))

    def _unsave(self, subscriber: Subscriber) -> None:
        client_id = subscriber.session.client_id
        if self._spool.sessions.get(client_id) is None:
            return
        self._spool.sessions.delete(client_id)
        self._spool.marks.delete(client_id)
        self._spool.committer.schedule()

    def restore(self) -> int:
        """Bring back the sessions of before; return from where on the downlink has something for them.

        The caller then has it read, and after that lets `pass_time` look at each.
        """
        now_ns, now = self._broker.clock.now_ns(), self._broker.now()
        oldest = self._spool.downlink.durable
        for client_id in list(self._spool.sessions):
            try:
                subscriber = self._restore_one(client_id, now_ns)
            except msgspec.MsgspecError:
                # Whatever wrote it: one session is not worth a house that cannot start.
                log.exception("session unreadable client=%s; it begins anew", client_id)
                self.by_client_id.pop(client_id, None)
                self._spool.sessions.delete(client_id)
                self._spool.marks.delete(client_id)
                continue
            away_s = self._broker.clock.age_s(subscriber.disconnected_at_ns)
            subscriber.session.disconnect(now - away_s)
            oldest = min(oldest, subscriber.mark)
            for topic_filter, subscription in subscriber.session.subscriptions.items():
                self._broker.subscriptions.add(topic_filter, subscriber, subscription)
        self._find_half_stored()
        return oldest

    def _restore_one(self, client_id: str, now_ns: int) -> Subscriber:
        downlink = self._spool.downlink
        value = self._spool.sessions.get(client_id)
        assert value is not None
        stored = decode_session(value)
        identity = Identity(stored.user, stored.verified)
        subscriber = self.begin(client_id, identity, stored.expiry_interval_s, self._broker.limits)
        session = subscriber.session
        session.subscriptions.update((each.topic_filter, each) for each in stored.subscriptions)
        session.will = stored.will
        subscriber.outlives = True
        subscriber.since = stored.since
        subscriber.mark = downlink.head
        if (row := self._spool.marks.get(client_id)) is not None:
            mark = decode_mark(row)
            put_back(session, mark)
            subscriber.mark = min(max(mark.mark, downlink.head), downlink.durable)
        # It was connected when the house fell, or else nobody knew then what time it was.
        known = CLOCK_PLAUSIBLE_NS < stored.disconnected_at_ns <= now_ns
        subscriber.disconnected_at_ns = stored.disconnected_at_ns if known else now_ns
        if not known:
            self.save(subscriber)  # or its clock would begin again with every start
        return subscriber

    def _find_half_stored(self) -> None:
        """Where the last commit was cut short: what of QoS 2 is in the logs and not in `marks`."""
        row = self._spool.marks.get(CHECKPOINT)
        if row is None:
            # There was no message with a note yet. It has to be there before the first one.
            self._set_checkpoint(Checkpoint(self._spool.uplink.durable, self._spool.downlink.durable))
            self._spool.committer.schedule()
            return
        self._checkpoint = decode_checkpoint(row)
        for bit, part, position in (
            (IN_UPLINK, self._spool.uplink, self._checkpoint.uplink),
            (IN_DOWNLINK, self._spool.downlink, self._checkpoint.downlink),
        ):
            for client_id, packet_id in _arrivals(part, position):
                subscriber = self.by_client_id.get(client_id)
                if subscriber is not None and packet_id not in subscriber.session.inbound:
                    half_stored = subscriber.session.half_stored
                    half_stored[packet_id] = half_stored.get(packet_id, 0) | bit
                    self.touch(subscriber, commit=False)


def _arrivals(part: Log, position: int) -> Iterator[tuple[str, int]]:
    """Client Identifier and packet identifier of the QoS 2 messages from a position on."""
    while entries := part.read(position):
        position = entries[-1].end
        for entry in entries:
            if entry.note and (packet_id := decode_note(entry.note).packet_id):
                yield entry.message.publisher, packet_id
