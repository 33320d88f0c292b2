"""Makes way when the uplink is full, by the routes' own rules.

    refuse        nothing is let go: the device is told to come again
    drop_oldest   the oldest segment goes, if every route that still needs it says so
    drop_newest   nothing is let go: the new message is, by the broker

A segment is freed only as a whole, and only if *all* the routes that have not
passed it would let the oldest go: one `refuse` route in the way is enough to keep it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bridge.forward.forwarder import Forwarder
from bridge.store import Log

__all__ = ["Room"]

log = logging.getLogger(__name__)


class Room:
    """Answers one question of the broker: can this much still be taken?"""

    def __init__(self, uplink: Log, forwarders: Sequence[Forwarder]) -> None:
        self._log = uplink
        self._forwarders = forwarders

    def make(self, amount: int) -> bool:
        """Reserve `amount` bytes in the uplink, letting go of the oldest where that is allowed."""
        while not self._log.reserve(amount):
            end = self._log.oldest_segment_end()
            pinning = [one for one in self._forwarders if one.reader.pin < end]
            if any(one.route.when_full != "drop_oldest" for one in pinning):
                return False
            for one in pinning:
                before = one.lost
                one.let_go(end)
                log.warning("oldest dropped route=%s messages=%d", one.route.name, one.lost - before)
            if not self._log.trim():
                return False
        return True
