"""What one commit of a log writes, and what became of it.

Made by `Log.take`, filled by `Log.write` in whichever thread that runs, and handed back
to `Log.settle` or `Log.fail`: whatever changes while the disk works lies in here.
"""

from __future__ import annotations

from bridge.message import Message
from bridge.store.record import Entry
from bridge.store.segment import Segment
from bridge.store.spares import Spare

__all__ = ["Batch"]


class Batch:
    """The messages of one commit; `notes` has what stands beside message `i` under `i`."""

    def __init__(self, messages: list[Message], notes: dict[int, bytes]) -> None:
        self.messages = messages
        self.notes = notes
        self.entries: list[Entry] = []
        self.new_segments: list[Segment] = []
        self.end = 0
        self.tried = False  # whether anything of it may have reached the disk
        self.encode_s = 0.0  # seconds of `write` that are not the disk's doing
        self.room = self.segment_bytes = 0  # what the quota leaves for it, and how large a new segment is
        self.spares: list[Spare] = []  # files that a new segment may be written to
        self.history: list[int] = []  # bases of segments of history that may go when the disk is full
        self.gone: list[int] = []  # and of those that went

    def names_are_safe(self) -> None:
        """The folder has been synced: its spares have lost their old names for good."""
        for spare in self.spares:
            spare.named = True
