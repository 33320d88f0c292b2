"""Messages on their way through memory: the uplink of one route that may lose them.

It reads like a `Reader` and keeps no byte on the disk: a kill or a stop takes what
waits. Bounded by the bounds of its route, which has some whether it says so or not.

A position counts bytes since the process began, as in a log; the epoch is new each time,
so no message id of one life comes back in another.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final

from bridge.message import Message
from bridge.store.record import Entry

__all__ = ["Passing", "PassingCursor"]

_ENTRY_BYTES: Final = 64  # what a message costs besides topic and payload, about


class PassingCursor:
    """How far the route has got, for as long as the process lives."""

    def __init__(self) -> None:
        self.position = 0
        self.note = b""


class Passing:
    """One route's messages in memory, oldest first; `arrived` is called when there are more."""

    def __init__(self) -> None:
        self.cursor = PassingCursor()
        self.epoch = int.from_bytes(os.urandom(4), "little")
        self.durable = 0  # where it ends
        self.arrived: Callable[[], None] = lambda: None
        self._entries: list[Entry] = []
        self._sequence = 0

    def extend(self, messages: Sequence[Message]) -> None:
        """Take messages in, in order; they can be read at once."""
        for message in messages:
            self._sequence += 1
            end = self.durable + len(message.topic) + len(message.payload) + _ENTRY_BYTES
            self._entries.append(Entry(self.durable, end, self._sequence, message))
            self.durable = end
        self.arrived()

    def read(self, position: int, messages_max: int = 1000, bytes_max: int = 1 << 18) -> list[Entry]:
        """As `Reader.read`."""
        begin = bisect_right(self._entries, position - 1, key=_position)
        found = self._entries[begin : begin + max(messages_max, 0)]
        while len(found) > 1 and found[-1].end - found[0].position > bytes_max:
            found = found[: len(found) // 2]
        return found

    def save(self, position: int, note: bytes | None = None) -> None:
        """As `Reader.save`: what lies before `position` is let go."""
        self.cursor.position = position
        if note is not None:
            self.cursor.note = note
        del self._entries[: bisect_right(self._entries, position - 1, key=_position)]


def _position(entry: Entry) -> int:
    return entry.position
