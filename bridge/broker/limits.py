"""Every bound of the device side, with its reason.

A device may be broken, hostile or only fast; whatever it does, it costs no more
than what stands here. All but the last two can be changed by the configuration
(`limits`), most of them for each listener too.
"""

from __future__ import annotations

import msgspec

__all__ = ["Limits"]


class Limits(msgspec.Struct, frozen=True):
    """What one device, or all of them, may cost. Sizes in bytes, times in seconds."""

    # ---- one connection ----
    packet_bytes_max: int = 1024 * 1024  # larger than any telemetry; MQTT's own limit is 256 MiB
    connect_bytes_max: int = 64 * 1024  # of CONNECT: nobody has shown who they are yet
    connect_wait_s: float = 10.0  # from the first byte to CONNACK, a login included
    keep_alive_max_s: int = 65_535  # MQTT 5 is given this as Server Keep Alive; 3.1.1 is refused
    receive_maximum: int = 1_000  # PUBLISH with QoS 1 and 2 that one device may have unanswered
    topic_alias_maximum: int = 32  # in each direction
    topic_levels_max: int = 200  # of a Topic Name or Topic Filter
    window_max: int = 20  # PUBLISH with QoS 1 and 2 unanswered towards one device
    maximum_qos: int = 2
    retain_available: bool = True
    empty_client_ids: bool = True  # whether a device without a Client Identifier is given one
    like_mosquitto: bool = False  # refuse as Mosquitto does, for devices that were only ever tried with it
    reason_strings: bool = True  # whether refusals are explained, to clients that want it (MQTT 5)
    # ---- one session ----
    # Not acknowledged by one device, asleep or slow, window included: a position each, and one
    # commit alone may bring thousands.
    session_messages_max: int = 10_000
    session_bytes_max: int = 16 * 1024 * 1024  # of these, topics and payloads
    session_expiry_max_s: int = 0xFFFF_FFFF
    subscriptions_max: int = 1_000
    # ---- all of them ----
    connections_max: int = 20_000  # in all; for one listener, where its own limits say so
    connections_per_address_max: int = 12_000  # a site behind one address may be large
    sessions_max: int = 100_000  # awake and asleep
    retained_messages_max: int = 100_000
    retained_bytes_max: int = 64 * 1024 * 1024  # topics and payloads: they are kept in memory too
    failed_logins_max: int = 30  # of one address at once; one more is allowed each second
    # ---- the house's own ----
    uncommitted_bytes_max: int = 256 * 1024  # read from one device and not yet on the disk
    unsent_bytes_max: int = 1024 * 1024  # to one device, in the socket's queue; beyond, QoS 0 is dropped
