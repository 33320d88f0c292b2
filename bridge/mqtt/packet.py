"""The fifteen control packets, as values.

Field names are the specification's. A packet of MQTT 3 is the same value with
`properties` None and `reason` 0, so nothing above the codec asks for the version
to read one. The order of fields puts first what the hot path fills, because
building by position is what makes a struct cheap.

Packets hold no other containers than tuples and are never changed, which is why
they may do without the garbage collector.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Final, TypeAlias

import msgspec

from bridge.message import Properties

__all__ = [
    "LEVELS",
    "PINGREQ",
    "PINGRESP",
    "Auth",
    "Connack",
    "Connect",
    "Disconnect",
    "Packet",
    "PacketType",
    "Pingreq",
    "Pingresp",
    "Puback",
    "Pubcomp",
    "Publish",
    "Pubrec",
    "Pubrel",
    "Suback",
    "Subscribe",
    "Subscription",
    "Unsuback",
    "Unsubscribe",
    "Will",
]

LEVELS: Final = {3: "MQIsdp", 4: "MQTT", 5: "MQTT"}  # protocol level → protocol name


class PacketType(IntEnum):
    """The upper four bits of the first byte (table 2-1). 0 is forbidden; here it stands for the Will."""

    WILL = 0
    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class Will(msgspec.Struct, frozen=True, gc=False):
    """What is to be published when the client is gone without a word."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties | None = None


class Connect(msgspec.Struct, frozen=True, gc=False):
    """`version` is the protocol level: 3, 4 or 5. An empty `client_id` asks for one to be assigned."""

    TYPE: ClassVar[PacketType] = PacketType.CONNECT
    client_id: str
    version: int = 4
    clean_start: bool = True
    keep_alive_s: int = 0
    user_name: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties | None = None


class Connack(msgspec.Struct, frozen=True, gc=False):
    """`reason` is an MQTT 5 reason code in every version; for 3.1.1 the codec translates."""

    TYPE: ClassVar[PacketType] = PacketType.CONNACK
    session_present: bool = False
    reason: int = 0
    properties: Properties | None = None


class Publish(msgspec.Struct, frozen=True, gc=False):
    """`packet_id` is 0 exactly when `qos` is. `topic` is empty where an alias stands for it."""

    TYPE: ClassVar[PacketType] = PacketType.PUBLISH
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: Properties | None = None


class Puback(msgspec.Struct, frozen=True, gc=False):
    TYPE: ClassVar[PacketType] = PacketType.PUBACK
    packet_id: int
    reason: int = 0
    properties: Properties | None = None


class Pubrec(msgspec.Struct, frozen=True, gc=False):
    TYPE: ClassVar[PacketType] = PacketType.PUBREC
    packet_id: int
    reason: int = 0
    properties: Properties | None = None


class Pubrel(msgspec.Struct, frozen=True, gc=False):
    TYPE: ClassVar[PacketType] = PacketType.PUBREL
    packet_id: int
    reason: int = 0
    properties: Properties | None = None


class Pubcomp(msgspec.Struct, frozen=True, gc=False):
    TYPE: ClassVar[PacketType] = PacketType.PUBCOMP
    packet_id: int
    reason: int = 0
    properties: Properties | None = None


class Subscription(msgspec.Struct, frozen=True, gc=False):
    """One Topic Filter and its options, as SUBSCRIBE carries it and as a session keeps it.

    `retain_handling`: 0 send retained messages, 1 only if the subscription is new,
    2 never. `identifier` is a copy of the Subscription Identifier in the properties
    of its SUBSCRIBE; only those properties are written to the wire.
    """

    topic_filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0
    identifier: int | None = None


class Subscribe(msgspec.Struct, frozen=True, gc=False):
    TYPE: ClassVar[PacketType] = PacketType.SUBSCRIBE
    packet_id: int
    subscriptions: tuple[Subscription, ...]
    properties: Properties | None = None


class Suback(msgspec.Struct, frozen=True, gc=False):
    """One reason for each filter, in its order: granted QoS, or 0x80 and up (always 0x80 in 3.1.1)."""

    TYPE: ClassVar[PacketType] = PacketType.SUBACK
    packet_id: int
    reasons: tuple[int, ...]
    properties: Properties | None = None


class Unsubscribe(msgspec.Struct, frozen=True, gc=False):
    TYPE: ClassVar[PacketType] = PacketType.UNSUBSCRIBE
    packet_id: int
    topic_filters: tuple[str, ...]
    properties: Properties | None = None


class Unsuback(msgspec.Struct, frozen=True, gc=False):
    """One reason for each filter, in its order; 3.1.1 writes none and reads back as `()`."""

    TYPE: ClassVar[PacketType] = PacketType.UNSUBACK
    packet_id: int
    reasons: tuple[int, ...] = ()
    properties: Properties | None = None


class Pingreq(msgspec.Struct, frozen=True, gc=False):
    TYPE: ClassVar[PacketType] = PacketType.PINGREQ


class Pingresp(msgspec.Struct, frozen=True, gc=False):
    TYPE: ClassVar[PacketType] = PacketType.PINGRESP


class Disconnect(msgspec.Struct, frozen=True, gc=False):
    """From a client, 0x04 asks for the will; in 3.1.1 only a client says it and the reason is always 0."""

    TYPE: ClassVar[PacketType] = PacketType.DISCONNECT
    reason: int = 0
    properties: Properties | None = None


class Auth(msgspec.Struct, frozen=True, gc=False):
    TYPE: ClassVar[PacketType] = PacketType.AUTH
    reason: int = 0
    properties: Properties | None = None


Packet: TypeAlias = (
    Connect
    | Connack
    | Publish
    | Puback
    | Pubrec
    | Pubrel
    | Pubcomp
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)

PINGREQ: Final = Pingreq()
PINGRESP: Final = Pingresp()
