"""Who is here: connections, sessions, subscriptions, wills.

A `Subscriber` is a session in the house: with a link while its device is
connected, without one while it sleeps. The broker owns all of them and is the
only one to change who is who; the hot path (`inlet`) and the deliveries read it.

A will is kept with its session and outlives the house: a stop publishes what is
due, and a start whatever became due meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Callable, Sequence

import msgspec

from bridge.broker.crowd import Crowd
from bridge.broker.delivery import Delivery
from bridge.broker.inlet import PROPERTIES_BYTES, Inlet
from bridge.broker.limits import Limits
from bridge.broker.link import Link
from bridge.broker.retained import Retained
from bridge.broker.subscriber import Subscriber, restore, save, unsave
from bridge.message import Message, Properties
from bridge.mqtt.packet import (
    PINGRESP,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
)
from bridge.mqtt.property import application_properties
from bridge.mqtt.reason import ReasonCode
from bridge.mqtt.session import EXPIRY_NEVER_S, Session
from bridge.policy.route import Route
from bridge.policy.subscriptions import Subscriptions
from bridge.store import Spool

__all__ = ["Broker"]

log = logging.getLogger(__name__)

TICK_S = 1.0  # keep-alive, deadlines and marks are looked at this often
STRANGERS_PER_TICK = 10  # log lines about what anyone on the network can cause; the counters have the rest


class Broker:
    """The device side as a whole. `malformed` counts connections closed for breaking the protocol."""

    def __init__(
        self, spool: Spool, routes: Sequence[Route], make_room: Callable[[int], bool], limits: Limits
    ) -> None:
        self.spool = spool
        self.limits = limits
        self.crowd = Crowd()
        self.links: set[Link] = set()
        self.subscribers: dict[str, Subscriber] = {}
        self.subscriptions: Subscriptions[Subscriber, Subscription] = Subscriptions()
        self.malformed = 0
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.call_later = self._loop.call_later
        self._links_to_flush: list[Link] = []
        self._due: list[Subscriber] = []
        self._flushing = False
        self._stopping = False
        self._lines_left = STRANGERS_PER_TICK
        self.retained = Retained(spool.retained)
        self.inlet = Inlet(self, routes, make_room)
        self.delivery = Delivery(self)
        self._restore()
        spool.committer.after_commit(self.delivery.read_log)

    # ---- turns of the loop ---------------------------------------------------------

    def flush_soon(self, link: Link) -> None:
        """The link has something to send: at the end of this turn."""
        self._links_to_flush.append(link)
        self._schedule_flush()

    def deliver_soon(self, subscriber: Subscriber) -> None:
        """The subscriber may have something to get: at the end of this turn."""
        if not subscriber.due:
            subscriber.due = True
            self._due.append(subscriber)
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        due, self._due = self._due, []
        for subscriber in due:
            subscriber.due = False
            try:
                self.delivery.flush(subscriber)
            except Exception:
                # A record that the disk does not give back, say. It may cost this device its
                # connection, but not the others theirs: they all wait for this one loop.
                log.exception("delivery failed client=%s", subscriber.session.client_id)
                if subscriber.link is not None:
                    subscriber.link.close(ReasonCode.UNSPECIFIED_ERROR)
        links, self._links_to_flush = self._links_to_flush, []
        for link in links:
            link.flush()
        self._flushing = False
        if self._due or self._links_to_flush:
            self._schedule_flush()

    async def run(self) -> None:
        """Look at deadlines and save marks once a second, until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """What has to be done once a second."""
        now = self.now()
        for link in [link for link in self.links if link.expired(now)]:
            link.close(ReasonCode.KEEP_ALIVE_TIMEOUT, "nothing was heard for too long")
        self.delivery.tidy()
        self._lines_left = STRANGERS_PER_TICK

    def may_log(self) -> bool:
        """Whether one more line may be written about what strangers can cause at will."""
        self._lines_left -= 1
        return self._lines_left >= 0

    async def stop(self) -> None:
        """Send everyone away, after the last commit and its acknowledgements; sessions and wills stay."""
        self._stopping = True
        await self.spool.committer.flush()
        self._flush()
        for link in list(self.links):
            link.close(ReasonCode.SERVER_SHUTTING_DOWN)
            self._release(link)
        await self.spool.committer.flush()
        for subscriber in self.subscribers.values():
            if subscriber.timer is not None:
                subscriber.timer.cancel()
        self.delivery.tidy()

    # ---- links ---------------------------------------------------------------------

    def arrived(self, link: Link) -> None:
        """A socket was opened."""
        self.links.add(link)
        if self._stopping:
            link.close()

    def left(self, link: Link) -> None:
        """A socket is gone; without a DISCONNECT before, the will is published."""
        self.links.discard(link)
        self._release(link)

    def take(self, link: Link, packets: list[Packet], read_bytes: int) -> None:
        """Act upon one read."""
        first = packets[0]
        if type(first) is Connect:
            self._connect(link, first)
        elif not link.refusing:
            self.inlet.take(link, packets, read_bytes)

    def handle(self, link: Link, packet: Packet) -> bool:
        """Act upon anything but CONNECT and PUBLISH; False when the link is done with."""
        subscriber = link.subscriber
        if subscriber is None:
            return False
        session = subscriber.session
        kind = type(packet)
        if kind is Puback:
            self._settled(subscriber, session.puback(packet.packet_id, packet.reason))  # type: ignore[union-attr]
        elif kind is Pubrec:
            pubrel, token = session.pubrec(packet.packet_id, packet.reason)  # type: ignore[union-attr]
            if pubrel is not None:
                link.answer(pubrel)
            self._settled(subscriber, token)
        elif kind is Pubcomp:
            self._settled(subscriber, session.pubcomp(packet.packet_id, packet.reason))  # type: ignore[union-attr]
        elif isinstance(packet, Pubrel):
            if session.inbound.get(packet.packet_id) is False:
                # Not on the disk yet, and PUBCOMP says so much more than PUBREC that it has to wait too.
                link.receipt().answers.append(session.pubrel(packet.packet_id))
            else:
                link.answer(session.pubrel(packet.packet_id))
        elif kind is Pingreq:
            link.answer(PINGRESP)
        elif isinstance(packet, Subscribe):
            self._subscribe(link, subscriber, packet)
        elif isinstance(packet, Unsubscribe):
            self._unsubscribe(link, subscriber, packet)
        elif isinstance(packet, Disconnect):
            self._disconnect(link, subscriber, packet)
            return False
        return True

    def _settled(self, subscriber: Subscriber, token: int | None) -> None:
        if token is not None:
            subscriber.settle((token,))
        self.deliver_soon(subscriber)

    # ---- CONNECT and DISCONNECT ----------------------------------------------------

    def _connect(self, link: Link, packet: Connect) -> None:
        limits, properties = link.limits, packet.properties
        if properties is not None and properties.authentication_method is not None:
            link.close(ReasonCode.BAD_AUTHENTICATION_METHOD)  # none is spoken here [MQTT-4.12.0-1]
            return
        assigned = "" if packet.client_id else uuid.uuid4().hex
        client_id = packet.client_id or assigned
        old = self.subscribers.get(client_id)
        if old is not None and old.link is not None:
            if self.may_log():
                log.info("session taken over client=%s by=%s", client_id, link.peer)
            displaced = old.link
            displaced.close(ReasonCode.SESSION_TAKEN_OVER)  # v5 [MQTT-3.1.4-3], v3 [MQTT-3.1.4-2]
            self._release(displaced)
        old = self.subscribers.get(client_id)  # with a will due at once, or no expiry, it is gone now
        if packet.version == 5:
            expiry_s = properties.session_expiry_interval_s or 0 if properties is not None else 0
        else:
            expiry_s = 0 if packet.clean_start else EXPIRY_NEVER_S
        granted_s = min(expiry_s, limits.session_expiry_max_s)
        if old is not None and packet.clean_start:
            self._end_session(old)  # v5 [MQTT-3.1.2-4], v3 [MQTT-3.1.2-6]
            old = None
        subscriber = old or self._new_subscriber(client_id, granted_s, limits)
        session = subscriber.session
        session.expiry_interval_s = granted_s
        session.will = packet.will
        if subscriber.timer is not None:
            subscriber.timer.cancel()
            subscriber.timer = None
        subscriber.link, link.subscriber, link.publisher = link, subscriber, client_id
        subscriber.disconnected_at_ns = 0
        self._outlive(subscriber, granted_s > 0)
        link.entry_bytes = len(client_id.encode()) + (PROPERTIES_BYTES if packet.version == 5 else 0)
        keep_alive_s = packet.keep_alive_s
        if packet.version == 5 and limits.keep_alive_max_s < 65_535:
            keep_alive_s = min(keep_alive_s or limits.keep_alive_max_s, limits.keep_alive_max_s)
        answer = Properties(
            receive_maximum=limits.receive_maximum,
            topic_alias_maximum=limits.topic_alias_maximum,
            maximum_packet_size=limits.packet_bytes_max,
            assigned_client_identifier=assigned or None,
            server_keep_alive_s=keep_alive_s if keep_alive_s != packet.keep_alive_s else None,
            session_expiry_interval_s=granted_s if granted_s != expiry_s else None,
        )
        connection = link.connection
        connack = Connack(old is not None, 0, answer if packet.version == 5 else None)
        if connection.encode(connack) is None:
            session.will = None  # it may not be sent v5 [MQTT-3.1.2-24], and nothing before it [MQTT-3.2.0-1]
            link.close()
            return
        connection.accept(
            self.now(), keep_alive_s, limits.receive_maximum, limits.topic_alias_maximum, expiry_s > 0
        )
        link.answer(connack)
        packets, settled = session.reconnect(time.time_ns(), connection.receive_maximum, self.delivery.load)
        subscriber.settle(settled)
        self.delivery.send(subscriber, packets)
        self.deliver_soon(subscriber)
        link.act(*connection.resume(self.now()))

    def _new_subscriber(self, client_id: str, expiry_s: int, limits: Limits) -> Subscriber:
        session = Session(
            client_id,
            expiry_interval_s=expiry_s,
            window_max=limits.window_max,
            queue_max=limits.session_messages_max,
            inbound_max=limits.receive_maximum,
            next_packet_id=random.randint(1, 65_535),  # noqa: S311 - no secret, only unlike the last one
        )
        subscriber = Subscriber(session, self.spool.downlink.durable, limits)
        self.subscribers[client_id] = subscriber
        return subscriber

    def _outlive(self, subscriber: Subscriber, outlives: bool) -> None:
        """The session will, or will not, outlive this connection."""
        subscriber.outlives = outlives
        if outlives:
            self._save(subscriber)
        else:
            self._unsave(subscriber)

    def _disconnect(self, link: Link, subscriber: Subscriber, packet: Disconnect) -> None:
        session = subscriber.session
        if packet.reason != ReasonCode.DISCONNECT_WITH_WILL:
            session.will = None  # [MQTT-3.14.4-3]
        if packet.properties is not None and packet.properties.session_expiry_interval_s is not None:
            wanted_s = packet.properties.session_expiry_interval_s
            session.expiry_interval_s = min(wanted_s, link.limits.session_expiry_max_s)
        link.close()

    def _release(self, link: Link) -> None:
        """The link no longer stands for its subscriber; what outlives it begins to wait."""
        subscriber, link.subscriber = link.subscriber, None
        if subscriber is None or subscriber.link is not link:
            return
        subscriber.link = None
        subscriber.disconnected_at_ns = time.time_ns()
        session = subscriber.session
        session.disconnect(self.now())
        subscriber.backfill.clear()
        if session.expiry_interval_s and subscriber.outlives:
            self._save(subscriber)
        self._pass_time(subscriber)

    def _pass_time(self, subscriber: Subscriber) -> None:
        """Publish the will and end the session when their time has come; else look again then."""
        session, now = subscriber.session, self.now()
        subscriber.timer = None
        if subscriber.link is not None:
            return
        will_due = session.will_due_at()
        if will_due is not None and will_due <= now:
            self._publish_will(subscriber)
            will_due = None
        ends_at = session.ends_at()
        if ends_at is not None and ends_at <= now:
            self._end_session(subscriber)
            return
        next_at = min((at for at in (will_due, ends_at) if at is not None), default=None)
        if next_at is not None:
            # A timer far away is looked at once a day: loops do not take months.
            wait_s = min(max(next_at - now, 0.001), 86_400.0)
            subscriber.timer = self._loop.call_later(wait_s, self._pass_time, subscriber)

    def _publish_will(self, subscriber: Subscriber) -> None:
        session = subscriber.session
        will, session.will = session.will, None
        if will is None:
            return
        properties = application_properties(will.properties) if will.properties is not None else None
        now_ns = time.time_ns()
        self.inlet.publish(
            Message(will.topic, will.payload, will.qos, will.retain, session.client_id, now_ns, properties)
        )
        if subscriber.outlives:
            self._save(subscriber)  # with the same commit, or a restart would publish it again

    def _end_session(self, subscriber: Subscriber) -> None:
        if subscriber.link is None:
            self._publish_will(subscriber)
        if subscriber.timer is not None:
            subscriber.timer.cancel()
            subscriber.timer = None
        if self.subscriptions.remove_owner(subscriber):
            self.inlet.forget_decisions()
        self._unsave(subscriber)
        if self.subscribers.get(subscriber.session.client_id) is subscriber:
            del self.subscribers[subscriber.session.client_id]

    # ---- SUBSCRIBE and UNSUBSCRIBE -------------------------------------------------

    def _subscribe(self, link: Link, subscriber: Subscriber, packet: Subscribe) -> None:
        session = subscriber.session
        reasons: list[int] = []
        for subscription in packet.subscriptions:
            topic_filter = subscription.topic_filter
            known = topic_filter in session.subscriptions
            if not known and len(session.subscriptions) >= link.limits.subscriptions_max:
                reasons.append(ReasonCode.QUOTA_EXCEEDED)
                continue
            try:
                self.subscriptions.add(topic_filter, subscriber, subscription)
            except ValueError:
                reasons.append(ReasonCode.TOPIC_FILTER_INVALID)
                continue
            session.subscriptions[topic_filter] = subscription
            if not known:
                subscriber.since[topic_filter] = self.spool.downlink.durable
            reasons.append(subscription.qos)
            shared = topic_filter.startswith("$share/")
            if shared or subscription.retain_handling == 2 or (subscription.retain_handling == 1 and known):
                continue
            subscriber.backfill.extend((topic, subscription) for topic in self.retained.topics(topic_filter))
        self.inlet.forget_decisions()
        self._answer_saved(link, subscriber, Suback(packet.packet_id, tuple(reasons)))

    def _unsubscribe(self, link: Link, subscriber: Subscriber, packet: Unsubscribe) -> None:
        reasons: list[int] = []
        for topic_filter in packet.topic_filters:
            removed = self.subscriptions.remove(topic_filter, subscriber)
            subscriber.session.subscriptions.pop(topic_filter, None)
            subscriber.since.pop(topic_filter, None)
            reasons.append(0 if removed else ReasonCode.NO_SUBSCRIPTION_EXISTED)
        self.inlet.forget_decisions()
        self._answer_saved(link, subscriber, Unsuback(packet.packet_id, tuple(reasons)))

    def _answer_saved(self, link: Link, subscriber: Subscriber, packet: Suback | Unsuback) -> None:
        """Answer now, or for a session that outlives the connection when the change is on the disk."""
        if subscriber.outlives:
            self._save(subscriber)
            link.receipt().answers.append(packet)
            self.spool.committer.when_durable(lambda error: self.deliver_soon(subscriber))
        else:
            link.answer(packet)
            self.deliver_soon(subscriber)

    # ---- sessions on the disk ------------------------------------------------------

    def _save(self, subscriber: Subscriber) -> None:
        save(self.spool, subscriber)
        self.spool.committer.schedule()

    def _unsave(self, subscriber: Subscriber) -> None:
        if unsave(self.spool, subscriber.session.client_id):
            self.spool.committer.schedule()

    def _restore(self) -> None:
        """Bring back the sessions of before, and what waits for them."""
        spool, now_ns = self.spool, time.time_ns()
        oldest = spool.downlink.durable
        for client_id in list(spool.sessions):
            subscriber = self._new_subscriber(client_id, 0, self.limits)
            try:
                asleep_s = restore(spool, subscriber, now_ns)
            except msgspec.MsgspecError:
                # Whatever wrote it: one session is not worth a house that cannot start.
                log.exception("session unreadable client=%s; it begins anew", client_id)
                del self.subscribers[client_id]
                self._unsave(subscriber)
                continue
            subscriber.session.disconnect(self.now() - asleep_s)
            oldest = min(oldest, subscriber.window.mark)
            for topic_filter, subscription in subscriber.session.subscriptions.items():
                self.subscriptions.add(topic_filter, subscriber, subscription)
        self.inlet.forget_decisions()
        self.delivery.restore(oldest)
        # Last, because a will that is due finds its subscribers only when all of them are back.
        for subscriber in list(self.subscribers.values()):
            self._pass_time(subscriber)
