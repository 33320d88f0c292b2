"""The same log without a disk: the model that the tests hold the real one against.

It is what `Log` promises, in the fewest words: a list. It is also a log for
tests of other rooms that need one and no files.
"""

from __future__ import annotations

from collections.abc import Sequence

from bridge.message import Message

__all__ = ["MemoryLog"]


class MemoryLog:
    """Messages by sequence; a crash forgets what was not committed, and nothing else."""

    def __init__(self) -> None:
        self.committed: list[tuple[Message, bytes]] = []
        self.pending: list[tuple[Message, bytes]] = []
        self.let_go = 0  # how many of `committed` may be gone

    def extend(self, messages: Sequence[Message]) -> None:
        """As `Log.extend`."""
        self.pending += [(message, b"") for message in messages]

    def append(self, message: Message, note: bytes = b"") -> None:
        """As `Log.append`."""
        self.pending.append((message, note))

    def commit(self) -> None:
        """As a commit that succeeds."""
        self.committed += self.pending
        self.pending = []

    def crash(self) -> None:
        """As a power cut and a recovery."""
        self.pending = []
