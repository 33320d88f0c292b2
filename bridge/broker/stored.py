"""What of a session is on the disk, in two tables of the store.

    sessions   Client Identifier → StoredSession: written when a device comes, goes or subscribes
    marks      Client Identifier → StoredMark: written while messages are under way
               "" → Checkpoint: where both logs stood before the last commit that touched QoS 2
               "\\0door/ROUTE" → a Tally: what the route let go of that nobody stored
               "\\0clock" → the jumps of the wall clock (`bridge.clock`): stamps from before are still about

A message with QoS 1 or 2 leaves for a device only when its packet identifier is in
`marks`, a PUBREL only when PUBREC is, and a PUBCOMP only when the identifier is not
there any more: so whatever a device may have seen, the next start knows of it.

The other way round a PUBLISH with QoS 2 is recorded twice, and the two files are
synced one after the other: with its message, as a note in the log (`bridge.store.note`), and in `marks`.
Should a crash come between the two, the start finds the notes behind the checkpoint
and knows what is stored already and where.
"""

from __future__ import annotations

from typing import Final

import msgspec

from bridge.message import Message
from bridge.mqtt.packet import Subscription, Will
from bridge.mqtt.session import Delivery, InFlight, Session, Stage

__all__ = [
    "CHECKPOINT",
    "DOOR",
    "IN_DOWNLINK",
    "IN_UPLINK",
    "JUMPS",
    "Checkpoint",
    "StoredMark",
    "StoredRetained",
    "StoredSession",
    "decode_checkpoint",
    "decode_jumps",
    "decode_mark",
    "decode_retained",
    "decode_session",
    "encode",
    "mark_of",
    "put_back",
]

CHECKPOINT: Final = ""  # no Client Identifier is empty
JUMPS: Final = "\0clock"  # and none has a zero in it
DOOR: Final = "\0door/"  # and a route's name
IN_UPLINK: Final = 1  # bits of `Session.half_stored`
IN_DOWNLINK: Final = 2


class StoredSession(msgspec.Struct, frozen=True, array_like=True):
    """A session in the table; new fields go to the end, with a default.

    `since` has, for each filter, the downlink position from which it counts.
    `disconnected_at_ns` is 0 while there is a connection: after a crash the clocks
    of the session and of its will start when the house is back. `user` and `verified`
    are who it belongs to.
    """

    expiry_interval_s: int
    subscriptions: list[Subscription]
    since: dict[str, int]
    disconnected_at_ns: int
    will: Will | None = None
    user: str = ""
    verified: bool = True


class StoredDelivery(msgspec.Struct, frozen=True, array_like=True):
    """One message under way to a device."""

    token: int
    packet_id: int
    stage: Stage
    qos: int
    retain: bool
    identifiers: tuple[int, ...]


class StoredMark(msgspec.Struct, frozen=True, array_like=True):
    """How far a session has got: everything before the position `mark` is settled, and what is not in
    flight up to the token `taken`. `inbound` are the QoS 2 identifiers of the device that it has not
    released, `half_stored` those that a crash left between the two (`Session.half_stored`)."""

    mark: int
    taken: int = -1
    next_packet_id: int = 1
    in_flight: list[StoredDelivery] = []
    inbound: list[int] = []
    half_stored: dict[int, int] = {}


class Checkpoint(msgspec.Struct, frozen=True, array_like=True):
    """Positions of the logs: what is stored behind them may not be in `marks` yet."""

    uplink: int
    downlink: int


class StoredRetained(msgspec.Struct, frozen=True, array_like=True):
    """A retained message, and whose it is: it goes out only as long as they may publish it."""

    message: Message
    user: str = ""
    verified: bool = True


encode: Final = msgspec.msgpack.Encoder().encode
decode_session: Final = msgspec.msgpack.Decoder(StoredSession).decode
decode_checkpoint: Final = msgspec.msgpack.Decoder(Checkpoint).decode
decode_jumps: Final = msgspec.msgpack.Decoder(list[tuple[int, int]]).decode
_decode_mark: Final = msgspec.msgpack.Decoder(StoredMark).decode
_decode_retained: Final = msgspec.msgpack.Decoder(StoredRetained).decode
_decode_message: Final = msgspec.msgpack.Decoder(Message).decode


def decode_mark(data: bytes) -> StoredMark:
    """0.1.0 wrote only the mark, in eight bytes of which the last is zero."""
    if len(data) == 8 and not data[7]:
        return StoredMark(int.from_bytes(data, "little"))
    return _decode_mark(data)


def decode_retained(data: bytes) -> StoredRetained:
    """0.1.0 wrote only the message, which begins with its topic."""
    try:
        return _decode_retained(data)
    except msgspec.ValidationError:
        return StoredRetained(_decode_message(data))


def mark_of(session: Session, mark: int) -> bytes:
    """The row of a session, as it is now."""
    return encode(
        StoredMark(
            mark,
            session.taken,
            session.next_packet_id,
            [
                StoredDelivery(
                    found.delivery.token,
                    packet_id,
                    found.stage,
                    found.delivery.qos,
                    found.delivery.retain,
                    found.delivery.subscription_identifiers,
                )
                for packet_id, found in session.in_flight.items()
                if found.delivery.token >= 0
            ],
            list(session.inbound),
            session.half_stored,
        )
    )


def put_back(session: Session, stored: StoredMark) -> None:
    """Make a new session what it was when `stored` was written."""
    session.taken = stored.taken
    session.next_packet_id = stored.next_packet_id
    session.inbound = dict.fromkeys(stored.inbound, True)
    session.half_stored = dict(stored.half_stored)
    session.in_flight = {
        each.packet_id: InFlight(
            Delivery(each.token, each.qos, each.retain, each.identifiers), each.stage, sent=False
        )
        for each in stored.in_flight
    }
