"""What is learnt from a link that the broker closed, for the next one.

When the broker closes the channel over one message it does not say which. The
next link goes carefully, one message at a time, until the channel closes over one
that is alone: that one is poison, and refused when it comes again.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Memory"]

POISON_MAX: Final = 1000


class Memory:
    """Bounded: the oldest poison is forgotten first, and then found again."""

    def __init__(self) -> None:
        self.poison: dict[str, str] = {}  # message id → why the broker will not have it
        self.careful = 0  # how many messages still go one at a time

    def blame(self, message_id: str, reason: str) -> None:
        self.poison[message_id] = reason
        if len(self.poison) > POISON_MAX:
            del self.poison[next(iter(self.poison))]
