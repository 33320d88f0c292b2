"""What the house writes beside a message in a log.

The log keeps a note as bytes and asks nothing of it; this is what those who write and
read one agree on. Most messages have none.
"""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["Note", "decode_note", "was_let_go"]


class Note(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """New fields go to the end, with a default.

    `packet_id` is that of the QoS 2 PUBLISH it came in, from a session that outlives
    its connection. `chosen` are Client Identifier and filter, `$share` included, of
    those who get it for a shared subscription. With `retained` it is a retained message
    for a new subscription, and with `again` one that another member of a shared
    subscription has left behind: for the chosen, and nobody else. `command` is the route, the
    message id and the serial number of a command from the cloud (`bridge.broker.commands`).
    `let_go` are the routes that want the topic and let this message go at the door.
    """

    packet_id: int = 0
    chosen: list[tuple[str, str]] = []
    retained: bool = False
    again: bool = False
    command: tuple[str, str, int] | None = None
    let_go: list[str] = []


_decode: Final = msgspec.msgpack.Decoder(Note).decode
_decode_chosen: Final = msgspec.json.Decoder(list[tuple[str, str]]).decode


def decode_note(data: bytes) -> Note:
    """0.1.0 wrote only who was chosen, as a JSON list; MessagePack never begins with a bracket here."""
    if data[:1] == b"[":
        return Note(chosen=_decode_chosen(data))
    return _decode(data)


def was_let_go(note: bytes, route: str) -> bool:
    """Whether the note says that this route let the message go at the door."""
    return route.encode() in note and route in decode_note(note).let_go
