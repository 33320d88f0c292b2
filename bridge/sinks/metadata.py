"""What goes with a payload: the names by which a far end reads them, and time as text.

The names are those of the MQTT 5 specification and of `bridge.message`; what a
message does not have is left out. What came before the clock was set has `clock: unset`:
its `received_at` still tells how far apart such messages came, and nothing else.
"""

from __future__ import annotations

from typing import Final

import msgspec

from bridge.message import CLOCK_PLAUSIBLE_NS, Properties
from bridge.policy.envelope import CLOCK_UNSET, rfc3339
from bridge.sinks.base import Outgoing

__all__ = [
    "CLOCK_UNSET",
    "PACK",
    "PACK_COUNT",
    "PACK_FIRST",
    "PACK_LAST",
    "RESERVED",
    "Metadata",
    "metadata",
    "rfc3339",
]

_NONE = Properties()

# By these headers a far end knows a pack, and which messages are in it.
PACK: Final = "pack"
PACK_COUNT: Final = "pack_count"
PACK_FIRST: Final = "pack_first"
PACK_LAST: Final = "pack_last"

# Names that a header of a route must not have: our own, and those that mean something to RabbitMQ.
RESERVED: Final = frozenset(
    {
        "topic",
        "qos",
        "retain",
        "publisher",
        "received_at",
        "clock",
        "replayed",
        "payload_format_indicator",
        "message_expiry_interval_s",
        "content_type",
        "response_topic",
        "correlation_data",
        "user_properties",
        "content_encoding",
        PACK,
        PACK_COUNT,
        PACK_FIRST,
        PACK_LAST,
        "CC",
        "BCC",
        "x-death",
    }
)


class Metadata(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One message without its payload. `correlation_data` is base64 in JSON."""

    id: str
    topic: str
    address: str
    qos: int
    retain: bool
    received_at: str
    publisher: str = ""
    payload_format_indicator: int | None = None
    message_expiry_interval_s: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    clock: str = ""  # "unset" where `received_at` is that of a clock nobody had set yet
    replayed: bool = False
    headers: dict[str, str] = {}
    content_encoding: str = ""


def metadata(outgoing: Outgoing) -> Metadata:
    """Return everything about one message but its payload."""
    message = outgoing.message
    p = message.properties or _NONE
    instead = outgoing.body is not None  # then the device's words about its payload would be wrong
    return Metadata(
        outgoing.id,
        message.topic,
        outgoing.address,
        message.qos,
        message.retain,
        rfc3339(message.received_ns),
        message.publisher,
        None if instead else p.payload_format_indicator,
        p.message_expiry_interval_s,
        (outgoing.content_type or None) if instead else p.content_type,
        p.response_topic,
        p.correlation_data,
        p.user_properties,
        "" if message.received_ns >= CLOCK_PLAUSIBLE_NS else CLOCK_UNSET,
        outgoing.replayed,
        dict(outgoing.headers),
        outgoing.content_encoding,
    )
