"""How a message from the cloud becomes a PUBLISH to devices, or is found unfit for that.

    content_type → Content Type            correlation_id → Correlation Data
    reply_to     → Response Topic          other headers  → User Properties, in their order
    expiration, header message_expiry_interval_s, `expiry`, `max_age`
                 → Message Expiry Interval: the shortest of them that there are

What a sink wrote on the way up (`user_properties`, `correlation_data`, …) is read back, so
that one gateway can talk to the devices of another. Headers whose name begins with `x-`
are a broker's own and stay behind.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal, TypeAlias

from bridge.message import Message, Properties
from bridge.policy.command_topic import CommandTopic
from bridge.policy.incoming import Incoming, Unfit
from bridge.topic import LEVELS_MAX, check_topic_name

__all__ = ["CommandRoute", "Receipt"]

Receipt: TypeAlias = Literal["stored", "device"]

STRING_BYTES_MAX: Final = 65_535  # [MQTT-1.5.4]
PACKET_BYTES: Final = 16  # at most: header, packet identifier and lengths of a PUBLISH beside what it carries
_RESERVED: Final = ("$SYS", "$share/")
_EXPIRY_MAX_S: Final = 0xFFFF_FFFF
# What the sinks write of a message itself: they are no properties of the application.
_NOT_HEADERS: Final = frozenset(
    {
        *("topic", "qos", "retain", "publisher", "received_at", "clock", "replayed"),
        *("user_properties", "correlation_data", "content_type", "response_topic"),
        *("message_expiry_interval_s", "payload_format_indicator", "CC", "BCC"),
    }
)


class CommandRoute:
    """One route of commands. Pure, and never changed after it was made."""

    __slots__ = (
        "answer_timeout_s",
        "expiry_s",
        "levels_max",
        "max_age_s",
        "name",
        "packet_bytes_max",
        "qos",
        "receipt",
        "retain",
        "topic",
    )

    def __init__(
        self,
        name: str,
        to: str,
        *,
        gateway: str = "",
        qos: int = 1,
        retain: bool = False,
        receipt: Receipt = "stored",
        max_age_s: float | None = None,
        expiry_s: float | None = None,
        answer_timeout_s: float | None = None,
        levels_max: int = LEVELS_MAX,
        packet_bytes_max: int = 1 << 20,
    ) -> None:
        """Raises TemplateError for `to`."""
        assert not (receipt == "device" and not qos), "a device acknowledges nothing with QoS 0"
        self.name = name
        self.topic = CommandTopic.compile(to, gateway)
        self.qos = qos
        self.retain = retain
        self.receipt: Receipt = receipt
        self.max_age_s = max_age_s
        self.expiry_s = expiry_s
        self.answer_timeout_s = answer_timeout_s
        self.levels_max = levels_max
        self.packet_bytes_max = packet_bytes_max

    def message(self, incoming: Incoming, now_ns: int, response_topic: str = "") -> Message:
        """The message for the devices. Raises Unfit.

        `response_topic` is where the device is to answer, instead of where the sender said.
        """
        if incoming.unfit:
            raise Unfit(incoming.unfit)
        topic = self.topic.render(incoming)
        if wrong := check_topic_name(topic, self.levels_max):
            raise Unfit(f"{topic[:100]!r} is no topic: {wrong}")
        if topic.startswith(_RESERVED):
            raise Unfit(f"{topic[:100]!r} is a topic of the gateway itself")
        try:
            properties, size = self._properties(incoming, response_topic)
            size += len(topic.encode()) + len(incoming.body) + PACKET_BYTES
        except UnicodeEncodeError:
            raise Unfit("a topic or a property is not UTF-8") from None
        if size > self.packet_bytes_max:
            raise Unfit(f"as a packet it has {size} bytes; limits.packet_bytes is {self.packet_bytes_max}")
        return Message(topic, incoming.body, self.qos, self.retain, "", now_ns, properties)

    def _properties(self, incoming: Incoming, response_topic: str) -> tuple[Properties | None, int]:
        """What MQTT 5 says of it, and about how many bytes that takes; None where there is nothing to say."""
        headers = incoming.headers
        expiry_s = self._expiry_s(incoming)
        content_type = incoming.content_type
        response: str | None = response_topic or incoming.reply_to or None
        correlation = incoming.correlation_id
        payload_format: int | None = None
        pairs: list[tuple[str, str]] = []
        if headers:
            if content_type is None:
                content_type = _text(headers.get("content_type"))
            if response is None:
                response = _text(headers.get("response_topic"))
            if correlation is None and isinstance(data := headers.get("correlation_data"), bytes):
                correlation = data
            payload_format = 1 if headers.get("payload_format_indicator") == 1 else None
            pairs = _pairs(headers.get("user_properties"))
            pairs += [
                (name, spelled)
                for name, value in headers.items()
                if isinstance(name, str)
                and name not in _NOT_HEADERS
                and not name.startswith("x-")
                and (spelled := _text(value)) is not None
            ]
        if response is not None and check_topic_name(response, self.levels_max):
            response = None  # a queue may have a name that is no topic: then only we answer there
        nothing = expiry_s is None and correlation is None and payload_format is None
        if nothing and not (content_type or response or pairs):
            return None, 0
        texts = [content_type or "", response or "", *(text for pair in pairs for text in pair)]
        size = 5 + 5 * len(texts)
        for text in texts:
            if "\0" in text:
                raise Unfit("a property has U+0000 in it, which MQTT forbids")
            length = len(text.encode())
            if length > STRING_BYTES_MAX:
                raise Unfit(f"a property of {length} bytes; MQTT has room for {STRING_BYTES_MAX}")
            size += length
        if correlation is not None:
            size += len(correlation)
            if len(correlation) > STRING_BYTES_MAX:
                raise Unfit(f"correlation data of {len(correlation)} bytes")
        return (
            Properties(payload_format, expiry_s, content_type, response, correlation, tuple(pairs)),
            size,
        )

    def _expiry_s(self, incoming: Incoming) -> int | None:
        told = incoming.headers.get("message_expiry_interval_s")
        # Whole seconds, as MQTT counts: up for what its sender spelled in milliseconds, or half a second
        # would be none at all; down for what is ours, since nothing is delivered after `max_age`.
        known = [math.floor(one) for one in (self.expiry_s, self.max_age_s) if one is not None]
        if incoming.expiration_s is not None:
            known.append(math.ceil(incoming.expiration_s))
        if isinstance(told, int) and not isinstance(told, bool) and told >= 0:
            known.append(told)
        return min(*known, _EXPIRY_MAX_S) if known else None

    def __repr__(self) -> str:
        return f"CommandRoute({self.name!r} → {self.topic.text!r}, {self.receipt})"


def _text(value: Any) -> str | None:
    """What may stand in a string of MQTT; None for bytes, tables and nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return None


def _pairs(value: Any) -> list[tuple[str, str]]:
    """The user properties as a sink spells them: an array of pairs."""
    if not isinstance(value, list | tuple):
        return []
    return [
        (pair[0], pair[1])
        for pair in value
        if isinstance(pair, list | tuple)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and isinstance(pair[1], str)
    ]
