"""Makes way when the uplink is full, by the routes' own rules.

    refuse        nothing is let go: the device is told to come again
    drop_oldest   what the route wants of the oldest segment goes
    drop_newest   nothing is let go: the new message is, by the broker

A segment is freed only as a whole. Of the routes that have not passed the oldest one
and drop the oldest, the lowest priority gives way first; what the others want of that
segment is moved aside (`bridge.store.aside`) where it is at most half of it. Where it is
more, all of them have to give way, and one in the way that does not drop the oldest is
enough to keep it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from bridge.forward.forwarder import Forwarder
from bridge.store import Entry, Log

__all__ = ["Room"]

log = logging.getLogger(__name__)

_STRETCH: Final = 1000


class Room:
    """Answers one question of the broker: can this much still be taken?"""

    def __init__(self, uplink: Log, forwarders: Sequence[Forwarder]) -> None:
        self._log = uplink
        self._forwarders = forwarders
        self._too_much: tuple[int, list[str]] | None = None  # what was looked at and found too much to move

    def make(self, amount: int) -> bool:
        """Reserve `amount` bytes in the uplink, letting go of the oldest where that is allowed."""
        while not self._log.reserve(amount):
            if not self._free(self._log.oldest_segment_end()):
                return False
        return True

    def _free(self, end: int) -> bool:
        pinning = [one for one in self._forwarders if one.disk.pin < end]
        giving = [one for one in pinning if one.route.when_full == "drop_oldest"]
        if not giving and pinning:
            return False
        lowest = min((one.route.priority for one in giving), default=0)
        kept = [one for one in pinning if one not in giving or one.route.priority > lowest]
        if any(one.disk.moving for one in kept):
            return False  # the mover is about to make room
        if kept and self._move(kept, end):
            giving = [one for one in giving if one not in kept]
        elif len(giving) < len(pinning):
            return False
        for one in giving:
            one.let_go(end)
        return bool(giving) or self._log.trim()

    def _move(self, kept: Sequence[Forwarder], end: int) -> bool:
        """Move what these routes want before `end` aside, if it is little; return whether it was moved.

        In one stretch, with the disk: whoever asks for room waits for the answer. It happens
        once a segment, and what was found too much is not looked at again.
        """
        names = [one.route.name for one in kept]
        if self._too_much == (end, names):
            return False
        wanted: list[list[Entry]] = [[] for _ in kept]
        size, begin = 0, min(one.disk.pin for one in kept)
        while begin < end and (entries := self._log.read(begin, _STRETCH)):
            begin = entries[-1].end
            for one, found in zip(kept, wanted, strict=True):
                pin, wants = one.disk.pin, one.route.wants
                for entry in entries:
                    if pin <= entry.position < end and wants(entry.message.topic):
                        found.append(entry)
                        size += entry.end - entry.position
            if size * 2 > end - self._log.head:
                self._too_much = end, names
                return False
        try:
            for one, found in zip(kept, wanted, strict=True):
                plan = one.disk.prepare(end, found)
                one.disk.settle(end, None if plan is None else one.disk.write(*plan))
        except OSError as error:
            log.warning("records not moved reason=%s", error.strerror)
            self._too_much = end, names
            return False
        return True
