"""Every exception of the house, as a list of who has to act.

A new class is earned by a new reaction, not by a new cause: the cause belongs
in the message, and the message says where, what, and what to write instead.
"""

from typing import ClassVar


class BridgeError(Exception):
    """Anything this program raises on purpose."""


class MalformedPacket(BridgeError):
    """A device broke the protocol: close its connection, and nothing else.

    `reason` is the MQTT 5 reason code to say so with, such as 0x81 (Malformed
    Packet), 0x82 (Protocol Error) or 0x95 (Packet too large). `mosquitto` is what
    Mosquitto says of the same: another code, 0 for closing without a word, or None for
    the same code.
    """

    def __init__(self, text: str, reason: int = 0x81, mosquitto: int | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.mosquitto = mosquitto


class ConfigError(BridgeError):
    """The operator wrote something wrong: refuse to start, and say all of it at once."""

    EXIT_CODE: ClassVar[int] = 78  # EX_CONFIG of sysexits.h


class StoreError(BridgeError):
    """The disk let us down."""


class StoreFull(StoreError):
    """No room until the cloud takes something: send no PUBACK, close with 0x97 or plainly."""


class StoreFailed(StoreError):
    """A write or a sync failed: what waited for it is not safe and must not be acknowledged."""


class SinkUnavailable(BridgeError):
    """The cloud is not there: wait, open again and send again.

    Of the batch that was under way nothing is promised, but for its first
    `confirmed` messages: those the far end owned before the link broke.
    """

    def __init__(self, text: str, confirmed: int = 0) -> None:
        super().__init__(text)
        self.confirmed = confirmed
