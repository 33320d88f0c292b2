"""One message as one JSON document: what travels where a far end takes text and no metadata.

    {"id": "plant-7/5f0c12ab/42", "topic": "plant/a/7/telemetry", "address": "a.7.telemetry", "qos": 1,
     "retain": false, "received_at": "2026-03-01T06:00:00.012345678Z", "publisher": "press-7",
     "properties": {"content_type": "text/plain"}, "payload": "21.5"}

A payload that is not UTF-8 is `payload_b64`, in base64, and exactly one of the two is there.
`properties` are those of MQTT 5 that the message has, by their names (`correlation_data` in
base64, `user_properties` as pairs). Only where there is something to say follow `headers` (what
the route adds), `clock: "unset"` (the message came before the gateway knew the time) and
`replayed: true`. The lines of `edgespool spool export` and `tail --json` have the same fields.

Whoever reads it skips what a later version may add.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import msgspec

from bridge.message import CLOCK_PLAUSIBLE_NS, Message, Properties

__all__ = ["CLOCK_UNSET", "CONTENT_TYPE", "Envelope", "decode", "document", "envelope", "rfc3339", "to_ns"]

CONTENT_TYPE: Final = "application/json"
CLOCK_UNSET: Final = "unset"
_NONE: Final = Properties()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Envelope(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The document; the order of the fields is that in the text. Made by `envelope`, or `decode`."""

    id: str
    topic: str
    address: str
    qos: int
    retain: bool
    received_at: str
    publisher: str
    properties: Properties
    payload: str | None = None
    payload_b64: bytes | None = None
    headers: dict[str, str] = {}
    clock: str = ""
    replayed: bool = False

    @property
    def body(self) -> bytes:
        """The payload as it was."""
        if self.payload_b64 is not None:
            return self.payload_b64
        return (self.payload or "").encode()

    @property
    def message(self) -> Message:
        """The message. Raises ValueError for a `received_at` that is no time."""
        properties = None if self.properties == _NONE else self.properties
        received_ns = to_ns(self.received_at)
        return Message(self.topic, self.body, self.qos, self.retain, self.publisher, received_ns, properties)

    def meta(self) -> dict[str, Any]:
        """Everything but the payload, flat, as the receivers of the ZeroMQ protocol know it."""
        told: dict[str, Any] = msgspec.json.decode(_encode(self))
        told.pop("payload", None)
        told.pop("payload_b64", None)
        if not told["publisher"]:
            del told["publisher"]
        told |= told.pop("properties")
        return told


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Envelope).decode


def envelope(
    id: str,
    address: str,
    message: Message,
    *,
    replayed: bool = False,
    headers: tuple[tuple[str, str], ...] = (),
    body: bytes | None = None,
    content_type: str = "",
    with_payload: bool = True,
) -> Envelope:
    """Put a message into its envelope; without its payload where that travels beside it.

    A `body` goes instead of the payload. What the device said of its payload
    (`content_type`, `payload_format_indicator`) then gives way to what the route says.
    """
    properties = message.properties or _NONE
    payload = message.payload
    if body is not None:
        payload = body
        properties = msgspec.structs.replace(
            properties, content_type=content_type or None, payload_format_indicator=None
        )
    text: str | None = None
    raw: bytes | None = None
    if with_payload:
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            raw = payload
    return Envelope(
        id,
        message.topic,
        address,
        message.qos,
        message.retain,
        rfc3339(message.received_ns),
        message.publisher,
        properties,
        text,
        raw,
        dict(headers) if headers else {},
        "" if message.received_ns >= CLOCK_PLAUSIBLE_NS else CLOCK_UNSET,
        replayed,
    )


def document(told: Envelope) -> bytes:
    """The envelope as UTF-8 text on one line."""
    return _encode(told)


def decode(text: bytes | memoryview) -> Envelope:
    """The envelope that a document spells. Raises ValueError for anything else."""
    try:
        return _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"no envelope: {error}") from None


def rfc3339(at_ns: int) -> str:
    """Spell nanoseconds since 1970 in UTC with all nine digits, so that nothing is rounded away."""
    second, ns = divmod(at_ns, 1_000_000_000)
    return f"{_second(second)}.{ns:09d}Z"


@lru_cache(maxsize=64)  # messages of one batch share their second, and spelling it costs more than the rest
def _second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).isoformat()[:19]


def to_ns(moment: str) -> int:
    """The nanoseconds since 1970 that `rfc3339` spelled. Raises ValueError for any other text."""
    seconds, dot, ns = moment.removesuffix("Z").partition(".")
    if not (len(moment) == 30 and dot and moment[-1] == "Z" and ns.isascii() and ns.isdigit()):
        raise ValueError(f"{moment[:40]!r} is no time such as 2026-03-01T06:00:00.012345678Z")
    passed = datetime.fromisoformat(seconds + "+00:00") - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000_000 + int(ns)
