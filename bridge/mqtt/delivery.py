"""One message on its way to one client: what waits for it, and how it may end.

A delivery is queued, then in flight, then over. Whoever wants to know how it ended puts
a `Watch` beside its token (`Session.watched`) and is told once; nobody asks about
ordinary messages.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from bridge.message import Jumps, Message, Properties, age_ns
from bridge.mqtt.packet import Publish

__all__ = ["NO_TOKEN", "Delivery", "Ending", "InFlight", "Stage", "Watch", "expired", "publish_of"]

NO_TOKEN: Final = -1  # of a delivery that nobody wants to hear about again; below it, of one in memory only


class Ending(Enum):
    """How a delivery ended."""

    ANSWERED = "PUBACK or PUBCOMP"
    REFUSED = "PUBACK or PUBREC with a reason of 0x80 and up"
    EXPIRED = "its time was over before it was sent"
    TOO_LARGE = "the client takes no packet of this size"
    GONE = "its record is gone, or the right to it"
    NO_ROOM = "its queue is full"
    PUSHED_OUT = "what it lay among had to make room"
    SESSION_ENDED = "the session is over"


Watch: TypeAlias = Callable[[Ending, int], None]  # how it ended, and the client's reason code


class Stage(Enum):
    """What an in-flight delivery waits for."""

    PUBACK = "PUBACK"
    PUBREC = "PUBREC"
    PUBCOMP = "PUBCOMP"


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One message for this session. Without `message`, it is loaded by `token`.

    `size` is what it counts against the queue's bytes; `share` is the shared
    subscription that it is for, `$share` included, and empty otherwise.
    """

    token: int
    qos: int
    retain: bool = False
    subscription_identifiers: tuple[int, ...] = ()
    message: Message | None = None
    size: int = 0
    share: str = ""


class InFlight(msgspec.Struct, gc=False):
    """A delivery that was sent. `sent` is False while it waits to be repeated on a new connection."""

    delivery: Delivery
    stage: Stage
    sent: bool = True


def expired(message: Message, now_ns: int, jumps: Jumps = ()) -> bool:
    """Whether nobody may get it any more [MQTT-3.3.2-5]."""
    properties = message.properties
    if properties is None or properties.message_expiry_interval_s is None:
        return False
    age = age_ns(message.received_ns, now_ns, jumps)
    return age > properties.message_expiry_interval_s * 1_000_000_000


def publish_of(
    delivery: Delivery, message: Message, packet_id: int, dup: bool, now_ns: int, jumps: Jumps
) -> Publish:
    properties = message.properties
    if properties is not None and properties.message_expiry_interval_s is not None:
        # What is left of it [MQTT-3.3.2-6]. A clock that was set back must not lengthen a life.
        waited_s = age_ns(message.received_ns, now_ns, jumps) // 1_000_000_000
        left_s = max(0, properties.message_expiry_interval_s - waited_s)
        properties = msgspec.structs.replace(properties, message_expiry_interval_s=left_s)
    if delivery.subscription_identifiers:  # [MQTT-3.3.4-3]
        properties = msgspec.structs.replace(
            properties or Properties(), subscription_identifiers=delivery.subscription_identifiers
        )
    return Publish(message.topic, message.payload, delivery.qos, delivery.retain, dup, packet_id, properties)
