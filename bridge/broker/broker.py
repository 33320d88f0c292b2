"""The device side as a whole: links, turns of the loop, and who handles what.

    admission    CONNECT → a session, for the right people only
    inlet        PUBLISH → the logs and the subscribers
    subscribing  SUBSCRIBE, UNSUBSCRIBE
    delivery     messages → devices
    commands     what becomes of those that the cloud sent
    sessions     what of a device is left when it is away

A `Subscriber` is a session in the house: with a link while its device is connected,
without one while it sleeps.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from bridge.broker.admission import Admission
from bridge.broker.commands import Commands
from bridge.broker.crowd import Crowd
from bridge.broker.delivery import Delivery
from bridge.broker.inlet import Inlet
from bridge.broker.limits import Limits
from bridge.broker.link import Link
from bridge.broker.login import Logins
from bridge.broker.retained import Retained
from bridge.broker.sessions import Sessions
from bridge.broker.subscriber import Subscriber
from bridge.broker.subscribing import subscribe, unsubscribe
from bridge.clock import Clock
from bridge.message import Message
from bridge.mqtt.likeness import refuse_mistaken
from bridge.mqtt.packet import (
    PINGRESP,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from bridge.mqtt.reason import ReasonCode
from bridge.mqtt.session import expired
from bridge.policy.access import ANONYMOUS, Access, Identity
from bridge.policy.account import Account
from bridge.policy.command import ANSWER_TOPICS
from bridge.policy.password import Password
from bridge.policy.route import Route
from bridge.policy.subscriptions import Subscriptions
from bridge.store import Spool

__all__ = ["Broker"]

log = logging.getLogger(__name__)

EVERYONE = Access(None)  # no rules: whoever is let in may do everything
TICK_S = 1.0  # keep-alive, deadlines and marks are looked at this often
STRANGERS_PER_TICK = 10  # log lines about what anyone on the network can cause; the counters have the rest


class Traffic:
    """What went in and out since the start, for those who watch. `connects` counts accepted CONNECTs."""

    __slots__ = ("bytes_in", "bytes_out", "connects", "packets_in", "packets_out", "sockets")

    def __init__(self) -> None:
        self.bytes_in = self.bytes_out = self.packets_in = self.packets_out = 0
        self.sockets = self.connects = 0


class Broker:
    """The device side. `malformed` counts connections closed for breaking the protocol.

    `response_topic` makes the Response Information for a user and a client, None
    where none is offered.
    """

    def __init__(
        self,
        spool: Spool,
        routes: Sequence[Route],
        accounts: Mapping[str, Account],
        make_room: Callable[[int], bool],
        limits: Limits,
        *,
        users: Mapping[str, Password] | None = None,
        access: Access = EVERYONE,
        response_topic: Callable[[str, str], str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.spool = spool
        self.limits = limits
        self.crowd = Crowd()
        self.traffic = Traffic()
        self.access = access
        self.response_topic = response_topic
        self.links: set[Link] = set()
        self.subscriptions: Subscriptions[Subscriber, Subscription] = Subscriptions()
        self.malformed = 0
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.clock = clock or Clock()
        self.call_later = self._loop.call_later
        self._links_to_flush: list[Link] = []
        self._due: list[Subscriber] = []
        self._flushing = False
        self._stopping = False
        self._lines_left = STRANGERS_PER_TICK
        self.logins = Logins(users, limits.failed_logins_max, self.now)
        self.retained = Retained(spool.retained, limits)
        self.sessions = Sessions(self)
        self.subscribers = self.sessions.by_client_id
        self.admission = Admission(self)
        self.inlet = Inlet(self, routes, accounts, make_room)
        self.delivery = Delivery(self)
        self.commands = Commands(self)
        oldest = self.sessions.restore()
        self.inlet.forget_decisions()
        self.delivery.restore(oldest)
        # Last, because a will that is due finds its subscribers only when all of them are back.
        for subscriber in list(self.subscribers.values()):
            self.sessions.pass_time(subscriber)
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
        self.delivery.backfill.begin_turn()
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
        self.commands.tick()
        self.delivery.tidy()
        self.sessions.save_soon()
        self._lines_left = STRANGERS_PER_TICK

    def may_log(self) -> bool:
        """Whether one more line may be written about what strangers can cause at will."""
        self._lines_left -= 1
        return self._lines_left >= 0

    async def stop(self) -> None:
        """Send everyone away, after the last commit and its acknowledgements; sessions and wills stay."""
        self._stopping = True
        self.logins.close()
        await self.spool.committer.flush()
        self._flush()
        for link in list(self.links):
            link.close(ReasonCode.SERVER_SHUTTING_DOWN)
            self.release(link)
        await self.spool.committer.flush()
        for subscriber in self.subscribers.values():
            if subscriber.timer is not None:
                subscriber.timer.cancel()
        self.delivery.tidy()

    # ---- links ---------------------------------------------------------------------

    def arrived(self, link: Link) -> None:
        """A socket was opened."""
        self.links.add(link)
        self.traffic.sockets += 1
        if self._stopping:
            link.close()

    def left(self, link: Link) -> None:
        """A socket is gone; without a DISCONNECT before, the will is published."""
        self.links.discard(link)
        self.release(link)

    def release(self, link: Link) -> None:
        """The link no longer stands for its subscriber; what outlives it begins to wait."""
        subscriber, link.subscriber = link.subscriber, None
        if subscriber is None or subscriber.link is not link:
            return
        if not subscriber.outlives:
            subscriber.search.clear()
        self.sessions.sleep(subscriber)

    def take(self, link: Link, packets: list[Packet], read_bytes: int) -> None:
        """Act upon one read."""
        first = packets[0]
        if type(first) is Connect:
            self.admission.ask(link, first)
        elif not link.refusing:
            self.inlet.take(link, packets, read_bytes)

    def handle(self, link: Link, packet: Packet) -> bool:
        """Act upon anything but CONNECT and PUBLISH; False when the link is done with."""
        subscriber = link.subscriber
        if subscriber is None:
            return False
        session = subscriber.session
        kind = type(packet)
        like_mosquitto = link.limits.like_mosquitto
        if like_mosquitto and isinstance(packet, Puback | Pubrec | Pubcomp):
            refuse_mistaken(session, packet)
        if kind is Puback:
            session.puback(packet.packet_id, packet.reason)  # type: ignore[union-attr]
            self._answered(subscriber)
        elif isinstance(packet, Pubrec):
            pubrel = session.pubrec(packet.packet_id, packet.reason)
            self._answered(subscriber)
            if pubrel is not None and like_mosquitto:
                pubrel = Pubrel(packet.packet_id)  # 0x92 is not said there
            if pubrel is not None:
                self._answer_durable(link, subscriber, pubrel)
        elif kind is Pubcomp:
            session.pubcomp(packet.packet_id, packet.reason)  # type: ignore[union-attr]
            self._answered(subscriber)
        elif isinstance(packet, Pubrel):
            # Not on the disk yet, and PUBCOMP says so much more than PUBREC that it has to wait too.
            storing = session.inbound.get(packet.packet_id) is False
            pubcomp = session.pubrel(packet.packet_id)
            if like_mosquitto:
                pubcomp = Pubcomp(packet.packet_id)
            self._answer_durable(link, subscriber, pubcomp, storing)
        elif kind is Pingreq:
            link.answer(PINGRESP)
        elif isinstance(packet, Subscribe):
            subscribe(self, link, subscriber, packet)
        elif isinstance(packet, Unsubscribe):
            unsubscribe(self, link, subscriber, packet)
        elif isinstance(packet, Disconnect):
            self._disconnect(link, subscriber, packet)
            return False
        return True

    def _answered(self, subscriber: Subscriber) -> None:
        """The device has answered for something that was sent to it."""
        subscriber.moved = True
        if subscriber.outlives:
            # No commit for this alone: should it be lost, the device gets a repetition.
            self.sessions.touch(subscriber, commit=False)
        self.deliver_soon(subscriber)

    def _answer_durable(
        self, link: Link, subscriber: Subscriber, packet: Pubrel | Pubcomp, storing: bool = False
    ) -> None:
        """For a session that outlives its connection: answer when this step of QoS 2 is on the disk.

        A PUBREL that is forgotten would be followed by a repetition of its PUBLISH, and a
        PUBCOMP by an identifier that the device uses anew: to the other side, each is a
        second message, or none.
        """
        if subscriber.outlives:
            self.sessions.touch(subscriber, inbound=isinstance(packet, Pubcomp))
        if subscriber.outlives or storing:
            link.receipt().answers.append(packet)
        else:
            link.answer(packet)

    def _disconnect(self, link: Link, subscriber: Subscriber, packet: Disconnect) -> None:
        session = subscriber.session
        if packet.reason != ReasonCode.DISCONNECT_WITH_WILL:
            session.will = None  # [MQTT-3.14.4-3]
        if packet.properties is not None and packet.properties.session_expiry_interval_s is not None:
            wanted_s = packet.properties.session_expiry_interval_s
            session.expiry_interval_s = min(wanted_s, link.limits.session_expiry_max_s)
        link.close()

    # ---- rights --------------------------------------------------------------------

    def may_publish(self, identity: Identity, client_id: str, topic: str) -> bool:
        """Whether a device that may be gone would be allowed to publish this."""
        return self.access.rights(identity, client_id).may_publish(topic)

    def retain(self, message: Message, identity: Identity = ANONYMOUS) -> None:
        """Keep a message for those who subscribe later, if there is room."""
        if message.topic.startswith(ANSWER_TOPICS):
            return  # an answer is for who asked, now and later
        if self.retained.keep(message, identity):
            self.spool.committer.schedule()
        elif self.may_log():
            log.warning("not retained topic=%s retained=%d", message.topic, len(self.retained))

    def retained_for(self, subscriber: Subscriber, topic: str) -> Message | None:
        """The retained message of a topic, if the one may have it and the other might still publish it.

        One that has expired is none: it may not even spend a packet identifier.
        """
        found = self.retained.get(topic)
        if found is None or not subscriber.rights.may_receive(topic):
            return None
        message, identity = found
        if expired(message, self.clock.now_ns(), self.clock.jumps):
            return None
        if message.publisher and not self.may_publish(identity, message.publisher, topic):
            return None
        return message

    def reload(self, users: Mapping[str, Password] | None, access: Access) -> None:
        """From now on these users and rules are in force, for everyone who is here too.

        Whose user is gone, or has another password by now, is sent away with 0x87. What
        waits for a device that may not have it any more is let go when its turn comes.
        """
        self.access = access
        self.logins.replace(users, self.limits.failed_logins_max)
        for subscriber in self.subscribers.values():
            subscriber.allow(access.rights(subscriber.identity, subscriber.session.client_id))
            if subscriber.link is not None:
                subscriber.link.allow(subscriber.rights)
        self.inlet.forget_decisions()
        for link in [
            link for link in self.links if link.subscriber is not None and not self.logins.still_holds(link)
        ]:
            link.close(ReasonCode.NOT_AUTHORIZED, "the user or its password is not valid any more")
