"""One command under way to devices, from the moment it is handed over until nobody has it any more.

    given ─▶ left = 1 + deliveries ─▶ each one ends ─▶ left = 0: the outcome stands

Every session that takes the command counts one delivery, and whoever still puts it into
sessions counts one as well, so that it cannot be over before it has begun. It is
`delivered` only when every delivery was: one session that had no room, or whose device
let the time pass, is a reason to tell the cloud, whoever else has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias
from zlib import crc32

import msgspec

from bridge.message import Message

__all__ = [
    "ANSWER_TOPICS",
    "COMMAND_TOPICS",
    "DELIVERED",
    "EXPIRED",
    "REJECTED",
    "UNDELIVERABLE",
    "Command",
    "Outcome",
]

Outcome: TypeAlias = Literal["stored", "delivered", "answered", "expired", "rejected", "undeliverable"]
# Under which devices answer. No wildcard in the first level matches it [MQTT-4.7.2-1].
ANSWER_TOPICS: Final = "$edgespool/answers/"
# Before the topic of a command, for routes: one that wants commands back up asks for these.
COMMAND_TOPICS: Final = "$edgespool/commands/"
DELIVERED: Final = "delivered"
EXPIRED: Final = "expired"  # the time was over before the device had it
REJECTED: Final = "rejected"  # by the device, or by a bound of ours
UNDELIVERABLE: Final = "undeliverable"  # there is nobody to give it to


class Command:
    """`route` and `message_id` say whose it is. `over` is called once, when `left` has come to zero.

    `needs_receipt`: a device has to answer for it. `key` is by what it is known when it comes
    again: the id and what it says, because ids are made by all kinds of programs. `taken` counts
    those who took it in whatever way, QoS 0 included, `answered` those who acknowledged it.
    `outcome` and `reason` stand when it is over. `answer` is what its device published to the
    Response Topic, which may be before or after that; `over` is then called once more.
    """

    __slots__ = (
        "answer",
        "answered",
        "key",
        "left",
        "message",
        "message_id",
        "needs_receipt",
        "outcome",
        "over",
        "reason",
        "route",
        "taken",
    )

    def __init__(self, route: str, message_id: str, message: Message, needs_receipt: bool) -> None:
        self.route = route
        self.message_id = message_id
        self.message = message
        self.key = (message_id, message.topic, crc32(message.payload))
        self.needs_receipt = needs_receipt
        self.left = 1
        self.taken = 0
        self.answered = 0
        self.answer: Message | None = None
        self.outcome: Outcome = DELIVERED
        self.reason = ""
        self.over: Callable[[Command], None] | None = None

    def ended(self, outcome: Outcome = DELIVERED, reason: str = "") -> None:
        """One delivery is over. The first that went wrong says how the command went."""
        if outcome != DELIVERED and self.outcome == DELIVERED:
            self.outcome, self.reason = outcome, reason
        self.left -= 1
        if self.left:
            return
        if self.needs_receipt and self.outcome == DELIVERED and not self.answered:
            self.outcome, self.reason = UNDELIVERABLE, "nobody who acknowledges is subscribed any more"
        if self.over is not None:
            self.over(self)

    @property
    def response_topic(self) -> str:
        """Where its device is to answer, if we made it a topic for that; else empty."""
        properties = self.message.properties
        topic = properties.response_topic if properties is not None else None
        return topic if topic is not None and topic.startswith(ANSWER_TOPICS) else ""

    def answer_with(self, answer: Message) -> None:
        """Its device has answered. The first answer counts."""
        if self.answer is None:
            self.answer = answer
            if not self.left and self.over is not None:
                self.over(self)

    def lighten(self) -> None:
        """The payload is where it belongs, and not needed here any more."""
        self.message = msgspec.structs.replace(self.message, payload=b"")

    def failed(self, outcome: Outcome, reason: str) -> None:
        """One that should have been is not even begun."""
        self.left += 1
        self.ended(outcome, reason)

    def __repr__(self) -> str:
        return f"Command({self.route}/{self.message_id!r}: {self.left} left, {self.outcome})"
