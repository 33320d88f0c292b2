"""SUBSCRIBE and UNSUBSCRIBE: each filter is judged by itself, and answered by itself.

For a session that outlives its connection the answer waits for the disk: a device
that was told of its subscription has it after a power cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.message import Properties
from bridge.mqtt.packet import Suback, Subscribe, Subscription, Unsuback, Unsubscribe
from bridge.mqtt.reason import ReasonCode
from bridge.policy.subscriptions import split_share

if TYPE_CHECKING:
    from bridge.broker.broker import Broker
    from bridge.broker.link import Link
    from bridge.broker.subscriber import Subscriber

__all__ = ["subscribe", "unsubscribe"]


def subscribe(broker: Broker, link: Link, subscriber: Subscriber, packet: Subscribe) -> None:
    """Every filter that is allowed is subscribed to; SUBACK says what became of each.

    v5 [MQTT-3.8.4-6], v3 [MQTT-3.8.4-5]
    """
    reasons: list[int] = []
    texts: list[str] = []
    for subscription in packet.subscriptions:
        reason, text = _add(broker, link, subscriber, subscription)
        reasons.append(reason)
        if text and text not in texts:
            texts.append(text)
    broker.inlet.forget_decisions()
    properties = Properties(reason_string="; ".join(texts)) if texts else None
    _answer(broker, link, subscriber, Suback(packet.packet_id, tuple(reasons), properties))


def _add(broker: Broker, link: Link, subscriber: Subscriber, wanted: Subscription) -> tuple[int, str]:
    """Subscribe to one filter, or not: the granted QoS, or why not."""
    session, limits = subscriber.session, link.limits
    topic_filter = wanted.topic_filter
    known = topic_filter in session.subscriptions
    if not known and len(session.subscriptions) >= limits.subscriptions_max:
        return ReasonCode.QUOTA_EXCEEDED, f"at most {limits.subscriptions_max} subscriptions"
    granted = wanted
    if wanted.qos > limits.maximum_qos:
        granted = Subscription(
            topic_filter,
            limits.maximum_qos,
            wanted.no_local,
            wanted.retain_as_published,
            wanted.retain_handling,
            wanted.identifier,
        )
    try:
        group, plain = split_share(topic_filter)
        if not subscriber.rights.may_subscribe(plain):
            return ReasonCode.NOT_AUTHORIZED, "not allowed to subscribe to this"
        broker.subscriptions.add(topic_filter, subscriber, granted)
    except ValueError as error:
        return ReasonCode.TOPIC_FILTER_INVALID, str(error)
    session.subscriptions[topic_filter] = granted
    if not known:
        subscriber.since[topic_filter] = broker.spool.downlink.durable
    if group is None and not (granted.retain_handling == 2 or (granted.retain_handling == 1 and known)):
        subscriber.search.want(broker.retained, granted)
    return granted.qos, ""


def unsubscribe(broker: Broker, link: Link, subscriber: Subscriber, packet: Unsubscribe) -> None:
    """The filters are gone; UNSUBACK says which of them were there."""
    reasons: list[int] = []
    for topic_filter in packet.topic_filters:
        removed = broker.subscriptions.remove(topic_filter, subscriber)
        subscriber.session.subscriptions.pop(topic_filter, None)
        subscriber.since.pop(topic_filter, None)
        reasons.append(0 if removed else ReasonCode.NO_SUBSCRIPTION_EXISTED)
    broker.inlet.forget_decisions()
    _answer(broker, link, subscriber, Unsuback(packet.packet_id, tuple(reasons)))


def _answer(broker: Broker, link: Link, subscriber: Subscriber, packet: Suback | Unsuback) -> None:
    """Answer now, or for a session that outlives the connection when the change is on the disk."""
    if subscriber.outlives:
        broker.sessions.save(subscriber)
        link.receipt().answers.append(packet)
        broker.spool.committer.when_durable(lambda error: broker.deliver_soon(subscriber))
    else:
        link.answer(packet)
        broker.deliver_soon(subscriber)
