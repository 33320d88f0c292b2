"""From a CONNECT to a session: who it is first, then whether there may be a session, then which.

    CONNECT → what no login can mend → who are you? (may take a while) → session → CONNACK

Nothing of a session is looked at, let alone touched, before it is known who asks. A
session belongs to the identity that made it: the same Client Identifier from somebody
else is refused with 0x87, and whoever has it notices nothing. A session that nobody
in particular made goes to the first verified user who asks while it sleeps; otherwise
a gateway could not be given users without losing what waits on it.
"""

from __future__ import annotations

import logging
import uuid
from functools import partial
from typing import TYPE_CHECKING

from bridge.broker.inlet import PROPERTIES_BYTES
from bridge.broker.link import Link
from bridge.errors import StoreError
from bridge.message import Properties
from bridge.mqtt.connection import PACKET_BYTES_LIMIT, State
from bridge.mqtt.packet import Connack, Connect
from bridge.mqtt.reason import ReasonCode
from bridge.mqtt.session import EXPIRY_NEVER_S, Session
from bridge.policy.access import ANONYMOUS, Identity

if TYPE_CHECKING:
    from bridge.broker.broker import Broker
    from bridge.broker.subscriber import Subscriber

__all__ = ["Admission"]

log = logging.getLogger(__name__)


class Admission:
    """Lets devices in, or not."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def ask(self, link: Link, packet: Connect) -> None:
        """A CONNECT came in: it is answered now, or when it is known who sent it."""
        refusal = _impossible(link, packet)
        if refusal is not None:
            link.close(*refusal)
            return
        self._broker.logins.check(link, packet, partial(self._checked, link, packet))

    def _checked(
        self, link: Link, packet: Connect, identity: Identity | None, reason: int, text: str
    ) -> None:
        if link.gone or link.connection.state is not State.PENDING:
            return  # it did not wait, or waited too long
        if identity is None:
            if self._broker.may_log():
                log.info("login refused peer=%s client=%s reason=%s", link.peer, packet.client_id, text)
            link.close(reason, text)
            return
        assigned = "" if packet.client_id else f"auto-{uuid.uuid4()}".upper().replace("AUTO", "auto")
        client_id = packet.client_id or assigned
        old = self._broker.subscribers.get(client_id)
        if old is not None and not _may_have(old, identity):
            if self._broker.may_log():
                log.warning("session of another user client=%s peer=%s", client_id, link.peer)
            link.close(ReasonCode.NOT_AUTHORIZED, "this client identifier belongs to another user")
            return
        if old is None and len(self._broker.subscribers) >= self._broker.limits.sessions_max:
            link.close(ReasonCode.SERVER_BUSY, "too many sessions")
            return
        self._let_in(link, packet, identity, client_id, assigned)

    def _let_in(self, link: Link, packet: Connect, identity: Identity, client_id: str, assigned: str) -> None:
        broker, limits, properties = self._broker, link.limits, packet.properties
        old = broker.subscribers.get(client_id)
        if old is not None and old.link is not None:
            if broker.may_log():
                log.info("session taken over client=%s by=%s", client_id, link.peer)
            displaced = old.link
            displaced.close(ReasonCode.SESSION_TAKEN_OVER)  # v5 [MQTT-3.1.4-3], v3 [MQTT-3.1.4-2]
            broker.release(displaced)
            old = broker.subscribers.get(client_id)  # with no expiry it is gone now
        if packet.version == 5:
            expiry_s = properties.session_expiry_interval_s or 0 if properties is not None else 0
        else:
            expiry_s = 0 if packet.clean_start else EXPIRY_NEVER_S
        granted_s = min(expiry_s, limits.session_expiry_max_s)
        if old is not None and packet.clean_start:
            broker.sessions.end(old)  # v5 [MQTT-3.1.2-4], v3 [MQTT-3.1.2-6]
            old = None
        subscriber = old or broker.sessions.begin(client_id, identity, granted_s, limits)
        session = subscriber.session
        session.expiry_interval_s = granted_s
        session.will = packet.will
        if old is not None:
            session.window_max, session.queue_max = limits.window_max, limits.session_messages_max
            session.bytes_max, session.inbound_max = limits.session_bytes_max, limits.receive_maximum
            subscriber.identity = identity
            subscriber.allow(broker.access.rights(identity, client_id))
        subscriber.link = link
        link.enter(subscriber)
        broker.traffic.connects += 1
        link.entry_bytes = len(client_id.encode()) + len(identity.user.encode())
        link.entry_bytes += PROPERTIES_BYTES if packet.version == 5 else 0
        broker.sessions.awake(subscriber, granted_s > 0)
        welcome = partial(self._welcome, link, subscriber, packet, old is not None, assigned, expiry_s)
        if old is None and subscriber.outlives:
            # Once it was told of a session, a device relies on it: what it has under way there is
            # neither sent as new nor given up.
            broker.spool.committer.when_durable(welcome)
        else:
            welcome(None)

    def _welcome(
        self,
        link: Link,
        subscriber: Subscriber,
        packet: Connect,
        present: bool,
        assigned: str,
        expiry_s: int,
        error: StoreError | None,
    ) -> None:
        """Send CONNACK, and what waits; from here on the connection is open."""
        broker, limits, session, connection = self._broker, link.limits, subscriber.session, link.connection
        if subscriber.link is not link or connection.state is not State.PENDING:
            return  # it is gone already, or another one has taken its place
        if error is not None:
            link.close(ReasonCode.SERVER_UNAVAILABLE, str(error))
            return
        keep_alive_s = packet.keep_alive_s
        if packet.version == 5 and limits.keep_alive_max_s < 65_535:
            keep_alive_s = min(keep_alive_s or limits.keep_alive_max_s, limits.keep_alive_max_s)
        answer = None
        if packet.version == 5:
            answer = self._grant(link, packet, session, assigned, keep_alive_s, expiry_s)
        connack = Connack(present, 0, answer)
        if connection.encode(connack) is None:
            session.will = None  # it may not be sent v5 [MQTT-3.1.2-24], and nothing before it [MQTT-3.2.0-1]
            link.close()
            return
        connection.accept(
            broker.now(), keep_alive_s, limits.receive_maximum, limits.topic_alias_maximum, expiry_s > 0
        )
        link.answer(connack)
        packets = session.reconnect(broker.clock.now_ns(), connection.receive_maximum, broker.delivery.load)
        subscriber.moved = True
        broker.delivery.send(subscriber, packets)
        broker.deliver_soon(subscriber)
        link.act(*connection.resume(broker.now()))

    def _grant(
        self,
        link: Link,
        packet: Connect,
        session: Session,
        assigned: str,
        keep_alive_s: int,
        expiry_s: int,
    ) -> Properties:
        """What CONNACK says in MQTT 5: whatever differs from what its absence would mean."""
        limits = link.limits
        granted_s = session.expiry_interval_s
        offered = self._broker.response_topic
        asked = packet.properties is not None and packet.properties.request_response_information
        return Properties(
            receive_maximum=limits.receive_maximum if limits.receive_maximum < 65_535 else None,
            topic_alias_maximum=limits.topic_alias_maximum or None,
            maximum_packet_size=(
                limits.packet_bytes_max if limits.packet_bytes_max < PACKET_BYTES_LIMIT else None
            ),
            maximum_qos=limits.maximum_qos if limits.maximum_qos < 2 else None,
            retain_available=None if limits.retain_available else 0,
            assigned_client_identifier=assigned or None,
            server_keep_alive_s=keep_alive_s if keep_alive_s != packet.keep_alive_s else None,
            session_expiry_interval_s=granted_s if granted_s != expiry_s else None,
            response_information=(
                offered(link.identity.user, session.client_id) if offered and asked else None
            ),
        )


def _may_have(old: Subscriber, identity: Identity) -> bool:
    if old.identity == identity:
        return True
    return old.identity == ANONYMOUS and old.link is None and bool(identity.user) and identity.verified


def _impossible(link: Link, packet: Connect) -> tuple[int, str] | None:
    """Why this CONNECT is refused, whoever sent it: a reason and its text."""
    limits, properties, will = link.limits, packet.properties, packet.will
    if properties is not None and properties.authentication_method is not None:
        return (
            ReasonCode.BAD_AUTHENTICATION_METHOD,
            "no authentication method is spoken here",
        )  # [MQTT-4.12.0-1]
    if not packet.client_id and not limits.empty_client_ids:
        reason = ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
        if limits.like_mosquitto and packet.version == 5:
            reason = ReasonCode.UNSPECIFIED_ERROR
        return reason, "a client identifier is needed here"
    longest_s = limits.keep_alive_max_s
    if packet.version < 5 and longest_s < 65_535 and not 0 < packet.keep_alive_s <= longest_s:
        # MQTT 3 has no Server Keep Alive, and a device that was silent for as long as it asked for
        # would be sent away for reasons that it cannot know.
        return ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, f"keep alive must be 1 to {longest_s} seconds here"
    if will is not None and will.qos > limits.maximum_qos:
        return ReasonCode.QOS_NOT_SUPPORTED, f"a will with QoS {will.qos}"  # [MQTT-3.2.2-12]
    if will is not None and will.retain and not limits.retain_available:
        return ReasonCode.RETAIN_NOT_SUPPORTED, "a will to be retained"  # [MQTT-3.2.2-13]
    return None
