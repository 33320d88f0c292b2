"""Which entries of a log are done with, in whatever order: for a log that no cursor walks through.

A log is append-only, so what is done with stays where it is until its segment goes; here
is written down that nobody has to look at it again. A bit for each entry, in a table:

    key    EPOCH/BLOCK      epoch of the log in hexadecimal, sequence // 1024
    value  128 bytes        bit `sequence % 1024`, the lowest bit of the first byte first

So the room is bounded by the log, 128 bytes for 1,024 entries, and what is settled is safe
with the next commit. The epoch is in the key because a log that had to begin anew begins
with sequence 1 too, and what is in it is not done with. A block that rots brings its
entries back: they are repeated, never lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from bridge.store.table import Table

__all__ = ["Settled", "is_settled"]

_BITS: Final = 10
_BLOCK: Final = 1 << _BITS


def _key(epoch: int, sequence: int) -> str:
    return f"{epoch:08x}/{sequence >> _BITS}"


def is_settled(get: Callable[[str], bytes | None], epoch: int, sequence: int) -> bool:
    """Whether the entry is done with, as the values that `get` gives for keys have it."""
    block = get(_key(epoch, sequence))
    bit = sequence % _BLOCK
    return block is not None and bit >> 3 < len(block) and bool(block[bit >> 3] >> (bit & 7) & 1)


class Settled:
    """The settled entries of the log with that epoch."""

    def __init__(self, table: Table, epoch: int) -> None:
        self._table = table
        self._epoch = epoch

    def __contains__(self, sequence: int) -> bool:
        return is_settled(self._table.get, self._epoch, sequence)

    def add(self, sequences: Iterable[int]) -> None:
        """These are done with; safe after the next commit."""
        blocks: dict[str, bytearray] = {}
        for sequence in sequences:
            key = _key(self._epoch, sequence)
            if (block := blocks.get(key)) is None:
                block = blocks[key] = bytearray(self._table.get(key) or bytes(_BLOCK >> 3))
            bit = sequence % _BLOCK
            block[bit >> 3] |= 1 << (bit & 7)
        for key, block in blocks.items():
            self._table.put(key, bytes(block))

    def forget_before(self, sequence: int) -> None:
        """The log holds nothing before this any more, nor anything of another epoch."""
        first = sequence >> _BITS
        for key in list(self._table):
            epoch, _, block = key.partition("/")
            if epoch != f"{self._epoch:08x}" or int(block) < first:
                self._table.delete(key)
