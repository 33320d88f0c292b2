"""When a batch is full: by count, by bytes, or because its oldest entry has waited enough.

    add ──► full (count or bytes) ─┐
      └───► due  (wait_s is over) ─┴─► take

A batch never waits for company by default: it is whatever lay there when the sink
was ready, which is much when the link is slow and little when it is fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

__all__ = ["Batch", "BatchLimits"]

T = TypeVar("T")


class BatchLimits(msgspec.Struct, frozen=True):
    """At most this many messages and bytes, and how long a batch that is not full may wait for more."""

    messages: int = 500
    bytes: int = 262_144
    wait_s: float = 0.0


class Batch(Generic[T]):
    """Collects entries until `ready`; `take` hands them over and starts anew."""

    __slots__ = ("_due_s", "_entries", "body_bytes", "limits")

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        self.body_bytes = 0
        self._entries: list[T] = []
        self._due_s: float | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> Sequence[T]:
        """What is in it, oldest first."""
        return self._entries

    def extend(self, entries: Sequence[T], size: int, now_s: float) -> None:
        """Take entries in, `size` bytes in all. The first one starts the clock.

        The caller asks for no more than there is room for; a single entry larger than
        `limits.bytes` is a batch of its own.
        """
        if self._due_s is None:
            self._due_s = now_s + self.limits.wait_s
        self._entries += entries
        self.body_bytes += size

    @property
    def full(self) -> bool:
        """Whether waiting any longer would add nothing."""
        return len(self._entries) >= self.limits.messages or self.body_bytes >= self.limits.bytes

    @property
    def due_s(self) -> float | None:
        """When it must go even if it is not full, on the clock of `add`; None while it is empty."""
        return self._due_s

    def ready(self, now_s: float) -> bool:
        """Whether it is time to `take`."""
        return self._due_s is not None and (self.full or now_s >= self._due_s)

    def take(self) -> list[T]:
        """Return the entries in the order they came; the batch is empty afterwards."""
        entries, self._entries = self._entries, []
        self.body_bytes = 0
        self._due_s = None
        return entries

    def take_some(self, count: int, size: int) -> list[T]:
        """Return the first `count` entries, `size` bytes in all; what stays is due as it was."""
        if count >= len(self._entries):
            return self.take()
        entries, self._entries = self._entries[:count], self._entries[count:]
        self.body_bytes -= size
        return entries
