"""Message: the one value that travels through the whole house.

A message is made once, by the codec or by a source, and never changed after.
Its names are those of the MQTT 5 specification; a 3.1.1 device simply has no
properties.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

__all__ = ["CLOCK_PLAUSIBLE_NS", "Jumps", "Message", "Properties", "age_ns"]

# A gateway without a battery starts in 1970 or thereabouts and jumps decades ahead when it hears of the
# time. What was received before 2020 was stamped by such a clock: its age is unknown, and unknown is not old.
CLOCK_PLAUSIBLE_NS: Final = 1_577_836_800 * 1_000_000_000

Jumps = Sequence[tuple[int, int]]  # where the wall clock stood, and where it was put


class Properties(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """MQTT 5 properties; None (or an empty tuple) means that the property is absent.

    One class for all packets: `bridge.mqtt.property` says which packet may carry
    which. A `Message` carries only the first six, the ones that belong to the
    application; the rest belong to one hop between a client and a server.
    """

    payload_format_indicator: int | None = None
    message_expiry_interval_s: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    # ---- of one hop ----
    subscription_identifiers: tuple[int, ...] = ()
    topic_alias: int | None = None
    session_expiry_interval_s: int | None = None
    assigned_client_identifier: str | None = None
    server_keep_alive_s: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    request_problem_information: int | None = None
    will_delay_interval_s: int | None = None
    request_response_information: int | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason_string: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    maximum_qos: int | None = None
    retain_available: int | None = None
    maximum_packet_size: int | None = None
    wildcard_subscription_available: int | None = None
    subscription_identifier_available: int | None = None
    shared_subscription_available: int | None = None


class Message(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One application message, as a device published it.

    The order of the fields is the order on the disk (`bridge.store.record`): new
    ones go to the end, with a default.

    `topic` is always a valid Topic Name; `publisher` is the Client Identifier of
    the device (empty for messages of the house itself) and `user` the name that it
    showed (empty where it showed none); `received_ns` is the wall clock at arrival, in
    nanoseconds since 1970.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    publisher: str = ""
    received_ns: int = 0
    properties: Properties | None = None
    user: str = ""


def age_ns(received_ns: int, now_ns: int, jumps: Jumps = ()) -> int:
    """How long ago the wall clock stamped something; zero where nobody can know.

    `jumps` are those of `bridge.clock`: what lies between a stamp from before and a now
    from behind one of them has not passed.
    """
    if received_ns < CLOCK_PLAUSIBLE_NS or now_ns < received_ns:
        return 0
    passed_ns = now_ns - received_ns
    for stood_ns, put_ns in jumps:
        if received_ns <= stood_ns and now_ns >= put_ns:
            passed_ns -= put_ns - stood_ns
    return max(0, passed_ns)
