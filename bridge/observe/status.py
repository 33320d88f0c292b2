"""The status document: one snapshot of the whole house, made when someone asks.

`/api/v1/status` is this as JSON, `/metrics` the same as Prometheus text, and
`edgespool status` the same for a person. Ages and times are those of the moment
of asking; counters start at zero when the process starts, except backlogs, which
are what lies on the disk.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["MqttStatus", "RouteStatus", "SinkStatus", "Status", "StoreStatus"]


class MqttStatus(msgspec.Struct, frozen=True):
    """The device side."""

    listeners: list[str]  # "mqtt://127.0.0.1:1883"
    connections: int
    sessions: int
    subscriptions: int
    received: int  # PUBLISH packets taken in
    acknowledged: int  # PUBACK and PUBREC sent for them
    unrouted: int  # PUBLISH packets that nobody wanted
    refused: int  # PUBLISH packets left unacknowledged because the store could not take them
    delivered: int  # PUBLISH packets sent to devices
    dropped: int  # messages for a device or QoS 0 messages let go: queue full, store full
    denied: (
        int  # PUBLISH packets and wills that their sender was not allowed, or that had no room to be retained
    )
    retained: int
    logins_failed: int  # CONNECT packets with a wrong password, or after too many of them
    turned_away: int  # sockets closed before CONNECT: too many connections, or no descriptors


class StoreStatus(msgspec.Struct, frozen=True):
    """The disk."""

    path: str
    state: Literal["ok", "full", "failed"]
    reason: str  # empty when ok
    bytes: int
    max_bytes: int
    appended: int  # messages
    commits: int
    commit_ms: float  # moving average of one commit
    damaged: int  # records found damaged and kept aside
    history_bytes: int = 0  # of `bytes`: delivered, and kept only while there is room
    durability: Literal["fsync", "write"] = "fsync"  # what an acknowledged message survives
    accepted_bytes: int = 0  # records made durable, in bytes
    written_bytes: int = 0  # what that took on the disk, in whole pages


class SinkStatus(msgspec.Struct, frozen=True):
    """One far end."""

    kind: str  # "amqp", "zeromq"
    address: str  # without secrets
    # stalled: it lets us in, and confirms nothing; blocked: it asks us to wait
    state: Literal["up", "down", "stalled", "blocked"]
    since: str  # RFC 3339, when it last became up, or ceased to be
    reason: str  # why it is not up; empty when it is
    stalls: int = 0  # links given up since the start because nothing was confirmed


class RouteStatus(msgspec.Struct, frozen=True):
    """One route and its cursor. To the message, at every moment:

        accepted = delivered + refused + expired + filtered + damaged + lost + stored

    All of these count since the route began, across restarts. A power cut may take back what was
    counted as delivered in its last moments: then it is stored again, and is sent again.
    While `counting`, just after a start, `stored` and with it `accepted` are too low.
    """

    sink: str  # the one that has its turn, where there is a fallback
    backlog_messages: int  # the same as `stored`
    backlog_bytes: int
    oldest_age_s: float  # age of the oldest message of the backlog; 0 when there is none
    delivered: int  # owned by the far end
    refused: int  # taken to the dead letters
    expired: int  # older than max_age, or than the publisher set
    lost: int  # let go, as when_full says: the sum of `dropped`
    dropped: dict[str, int] = {}  # by reason: full_oldest, full_newest, bound_oldest, bound_newest
    accepted: int = 0  # messages this route took responsibility for
    stored: int = 0  # of these on the disk and not settled
    filtered: int = 0  # not what the conditions of the route want
    damaged: int = 0  # stored, and not found again
    undecided: dict[str, int] = {}  # of these since the start, by reason: not_json, unknown
    durability: Literal["disk", "memory"] = "disk"  # memory: it may lose messages, and counts since the start
    counting: bool = False  # the backlog of the start is still being counted


class CommandStatus(msgspec.Struct, frozen=True):
    """One route of commands and its source."""

    kind: str  # "amqp", …
    address: str  # without secrets
    state: Literal["up", "down", "stalled", "blocked"]
    since: str  # RFC 3339, when this state began
    reason: str  # why it is down, or why commands are left in the queue; empty when they are not
    receipt: str  # "stored" or "device"
    received: int  # handed out by the source
    waiting: int  # with devices, and not answered for
    stored: int  # done, with receipt: stored
    delivered: int  # acknowledged by their device
    expired: int  # not delivered, because it was too late
    rejected: int  # no valid PUBLISH, no room in a session, or refused by the device
    undeliverable: int  # nobody to give it to
    repeated: int  # handed out again, and known
    lossy: bool = False  # confirm: none, it may lose commands
    lost: int = 0  # of those: they came here and no further; what was lost on the way nobody knows


class Status(msgspec.Struct, frozen=True):
    """Everything. `ready` is false, and `reasons` says why, while messages cannot be taken safely."""

    gateway: str
    version: str
    started_at: str  # RFC 3339
    uptime_s: float
    ready: bool
    reasons: list[str]
    mqtt: MqttStatus
    store: StoreStatus
    sinks: dict[str, SinkStatus]
    routes: dict[str, RouteStatus]
    dead_letters: int  # those that wait for somebody to decide about them
    dead_letters_by_route: dict[str, dict[str, int]] = {}  # the same: route, kind of reason
    dead_letters_dropped: dict[str, int] = {}  # those that had to make way for newer ones, by route
    commands: dict[str, CommandStatus] = {}
