"""The terms of one delivery: what all subscriptions of one device together make of a message.

A device gets each message once, however many of its filters match; of those who share a
subscription one gets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from bridge.message import Message
from bridge.mqtt.packet import Subscription

if TYPE_CHECKING:
    from bridge.broker.subscriber import Subscriber
    from bridge.policy.subscriptions import SharedGroup

__all__ = ["Terms", "choose", "merge"]

Terms: TypeAlias = tuple[int, bool, tuple[int, ...]]  # QoS, RETAIN, Subscription Identifiers


def merge(
    message: Message,
    subscriber: Subscriber,
    subscriptions: tuple[Subscription, ...],
    retained: bool = False,
) -> Terms | None:
    """QoS, RETAIN and identifiers of one delivery; None where every subscription says no-local.

    Overlapping subscriptions make one delivery with the highest QoS of them and all
    of their identifiers [MQTT-3.3.4-2], [MQTT-3.3.4-5]. A retained message for a new
    subscription keeps RETAIN whatever the subscription says v3 [MQTT-3.3.1-8].
    """
    qos, retain = -1, retained
    identifiers: tuple[int, ...] = ()
    for subscription in subscriptions:
        if subscription.no_local and not retained and message.publisher == subscriber.session.client_id:
            continue  # v5 [MQTT-3.8.3-3]
        qos = max(qos, subscription.qos)
        retain |= subscription.retain_as_published and message.retain
        if subscription.identifier:
            identifiers += (subscription.identifier,)
    if qos < 0:
        return None
    return min(qos, message.qos), retain, identifiers


def choose(
    group: SharedGroup[Subscriber, Subscription], message: Message
) -> tuple[Subscriber, Subscription] | None:
    """Who of a group gets the message: somebody who is connected, if there is one."""
    topic, members = message.topic, group.members
    picked = group.choose(lambda one: one.link is not None and one.rights.may_receive(topic))
    if picked is None and message.qos:
        # Of those who sleep, one that asked for QoS 0 would get nothing.
        picked = group.choose(
            lambda one: one.outlives and members[one].qos > 0 and one.rights.may_receive(topic)
        )
    return picked
