"""What devices may cost, as the configuration says it: `limits`, for all and for each listener.

A key that is left out has the default of `bridge.broker.limits`, where the reasons
stand; a listener's own `limits` go before those of the whole.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from bridge.broker.limits import Limits
from bridge.config.words import Section
from bridge.policy.units import Duration, Size

__all__ = ["DeviceLimits", "HouseLimits", "resolve_limits"]


class DeviceLimits(Section):
    """What one device may cost, and what it is granted; also for one listener."""

    packet_bytes: Annotated[Size, Field(ge=20, le=268_435_460)] | None = None
    connect_bytes: Annotated[Size, Field(ge=64, le=268_435_460)] | None = None
    connect_wait: Annotated[Duration, Field(ge=0.1, le=3600)] | None = None
    connections: Annotated[int, Field(ge=1)] | None = None
    connections_per_address: Annotated[int, Field(ge=1)] | None = None
    keep_alive: Annotated[Duration, Field(ge=1, le=65_535)] | None = None
    receive_maximum: Annotated[int, Field(ge=1, le=65_535)] | None = None
    topic_alias_maximum: Annotated[int, Field(ge=0, le=65_535)] | None = None
    topic_levels: Annotated[int, Field(ge=20, le=65_535)] | None = None
    in_flight: Annotated[int, Field(ge=1, le=65_535)] | None = None
    maximum_qos: Literal[0, 1, 2] | None = None
    retain: bool | None = None
    empty_client_ids: bool | None = None
    reason_strings: bool | None = None
    like_mosquitto: bool | None = None
    session_messages: Annotated[int, Field(ge=1)] | None = None
    session_bytes: Annotated[Size, Field(ge=1024)] | None = None
    session_expiry: Annotated[Duration, Field(ge=1)] | None = None
    subscriptions: Annotated[int, Field(ge=1)] | None = None


class HouseLimits(DeviceLimits):
    """The same for all listeners, and what all devices together may cost."""

    sessions: Annotated[int, Field(ge=1)] | None = None
    retained_messages: Annotated[int, Field(ge=0)] | None = None
    retained_bytes: Annotated[Size, Field(ge=0)] | None = None
    failed_logins: Annotated[int, Field(ge=1)] | None = None


# A key of the configuration → the bound of the broker, where the two are not spelled alike but for `_max`.
_FIELDS: Final = {
    "connect_wait": "connect_wait_s",
    "keep_alive": "keep_alive_max_s",
    "session_expiry": "session_expiry_max_s",
    "in_flight": "window_max",
    "retain": "retain_available",
}
_WHOLE: Final = ("keep_alive_max_s", "session_expiry_max_s")  # whole seconds, as MQTT says them


def resolve_limits(*entries: DeviceLimits) -> Limits:
    """The limits in force: defaults, then each entry's keys over those before it."""
    values: dict[str, Any] = {}
    for entry in entries:
        for key in entry.model_fields_set:
            value = getattr(entry, key)
            field = _FIELDS.get(key) or (key if key in Limits.__struct_fields__ else key + "_max")
            values[field] = int(value) if field in _WHOLE else value
    return Limits(**values)
