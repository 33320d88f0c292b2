"""How many are here: in the house, through each door, from each address.

Counted from the moment a socket is accepted until it is closed, so that those who
never finish a TLS handshake or a CONNECT count like all others. Whoever is one too
many is closed without a word: before CONNECT there is no language to say it in.

The house as a whole is bounded by file descriptors too. When those run out the
store could not open its next segment, so some are kept back for it.
"""

from __future__ import annotations

import resource
from collections import Counter
from typing import Final

from bridge.broker.door import Door

__all__ = ["SPARE_DESCRIPTORS", "Crowd", "allow_descriptors"]

SPARE_DESCRIPTORS: Final = 32  # for segments, cursors, sinks, the web and files of a reload


class Crowd:
    """The counts. `turned_away` is how many were one too many since the start."""

    def __init__(self) -> None:
        self.inside = 0
        self.turned_away = 0
        self._addresses: Counter[str] = Counter()

    def full(self, door: Door, house_max: int) -> bool:
        """Whether one more would be one too many, whoever it is."""
        return self.inside >= house_max or door.links >= door.limits.connections_max

    def admit(self, door: Door, address: str, house_max: int) -> str:
        """Count someone in and return an empty text, or return which bound does not allow it.

        An empty address, that of a Unix socket, is bounded by the other two counts alone.
        """
        limits = door.limits
        refusal = ""
        if self.inside >= house_max:
            refusal = f"connections={self.inside}"
        elif door.links >= limits.connections_max:
            refusal = f"listener={door.url} connections={door.links}"
        elif address and self._addresses[address] >= limits.connections_per_address_max:
            refusal = f"address={address} connections={self._addresses[address]}"
        if refusal:
            self.turned_away += 1
            return refusal
        self.inside += 1
        door.links += 1
        if address:
            self._addresses[address] += 1
        return ""

    def leave(self, door: Door, address: str) -> None:
        """Take back what `admit` has counted."""
        self.inside -= 1
        door.links -= 1
        if address:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]


def allow_descriptors(connections: int) -> int:
    """Raise this process's bound of open files so far that so many fit; return the bound in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 1024
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
