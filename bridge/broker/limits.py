"""Every bound of the device side, with its reason.

A device may be broken, hostile or only fast; whatever it does, it costs no more
than what stands here. Some of these the configuration can change.
"""

from __future__ import annotations

import msgspec

__all__ = ["Limits"]


class Limits(msgspec.Struct, frozen=True):
    """What one device, or all of them, may cost. Sizes in bytes, times in seconds."""

    packet_bytes_max: int = 1024 * 1024  # larger than any telemetry; MQTT's own limit is 256 MiB
    connections_max: int = 10_000
    connect_wait_s: float = 10.0  # from the first byte to a whole CONNECT
    keep_alive_max_s: int = 65_535  # longer ones get this as Server Keep Alive (MQTT 5)
    receive_maximum: int = 1_000  # PUBLISH with QoS 1 and 2 that one device may have unanswered
    topic_alias_maximum: int = 32
    window_max: int = 100  # PUBLISH with QoS 1 and 2 unanswered towards one device
    # Not acknowledged by one device, asleep or slow, window included: a position each, and one
    # commit alone may bring thousands.
    session_messages_max: int = 10_000
    session_bytes_max: int = 8 * 1024 * 1024  # of these, kept in memory behind the window
    session_expiry_max_s: int = 0xFFFF_FFFF
    subscriptions_max: int = 1_000  # of one session
    uncommitted_bytes_max: int = 256 * 1024  # read from one device and not yet on the disk
    unsent_bytes_max: int = 1024 * 1024  # to one device, in the socket's queue; beyond, QoS 0 is dropped
