"""What must outlive a link: what the broker owns already, and what it will never take.

A batch fails as a whole, but the broker may have confirmed some of it. Those ids
are remembered and skipped when the batch returns; otherwise a batch larger than
the room in a queue would deliver its first half for ever.

When the broker closes the channel over one message it does not say which. The
next link goes carefully, one message at a time, until the channel closes over one
that is alone: that one is poison, and refused when it comes again.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Memory"]

POISON_MAX: Final = 1000


class Memory:
    """Bounded: the oldest id is forgotten first, which repeats a message at worst."""

    def __init__(self, owned_max: int) -> None:
        self.poison: dict[str, str] = {}
        self.careful = 0  # how many messages still go one at a time
        self._owned: dict[str, None] = {}
        self._owned_max = owned_max

    def own(self, message_id: str) -> None:
        self._owned[message_id] = None
        if len(self._owned) > self._owned_max:
            del self._owned[next(iter(self._owned))]

    def disown(self, message_id: str) -> bool:
        """True when the broker owns it already; it is asked once for each time it is sent."""
        if not self._owned or message_id not in self._owned:
            return False
        del self._owned[message_id]
        return True

    def blame(self, message_id: str, reason: str) -> None:
        self.poison[message_id] = reason
        if len(self.poison) > POISON_MAX:
            del self.poison[next(iter(self.poison))]
