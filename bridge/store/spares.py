"""Files of segments that everyone has passed, kept to be written again.

Their blocks are there and were written before. On ext4 a commit into such a file needs
no journal to say so, which halves what goes to the flash and how long the sync takes (a
loop device, bytes it was sent for each byte, and the median of fdatasync):

    commit of     a file that grows   room taken in advance   used again
     1.1 kB       18.9   670 µs        7.7   140 µs            4.7   210 µs
       8 kB        4.4   420 µs        3.0   440 µs            1.5   200 µs
     100 kB        1.25  770 µs        1.16  350 µs            1.04  180 µs

So both stay: room in advance for the first files, and using them again for all later
ones. XFS gains in time alone. Left: writing zeros into new files in advance, which
writes all of them twice. Would change our mind: a file system that copies on write.

    BEGIN-END.spare     records of the log lie in it between these two positions

A file goes from one segment to the next in steps, and between any two of them the power
may go:

1. It is renamed to a spare. Nobody wants its records any more; both names may come back.
2. The folder is synced, at the latest before step 3: under its old name it would be
   found with what belongs to another segment, and pass for damaged.
3. The header and the first records of the new segment go over the old ones.
4. They are synced. A spare whose header is not that of its name was left here, by a
   commit that nobody was told of, and is removed.
5. It gets the name of the new segment, which therefore never has another header.
6. The folder is synced, and the commit is done.

What the old records are for the new segment, says `bridge.store.segment`: nothing, as
long as the end of the file holds no others than theirs. So it is cut where they end
before the room behind them is taken again.

A few files are enough: a log whose readers keep up is one or two segments long. They count
to the quota of the log, go as soon as that or the disk has no room for them, and a disk
on which a segment is much has none.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Final

from bridge.store.files import Files
from bridge.store.segment import HEADER_BYTES, Earlier, half_damaged, read_header

__all__ = ["Spare", "Spares", "spare_places"]

SPARES_MAX: Final = 2  # one for the next segment, one more for readers a little behind
SMALL_DISK_SEGMENTS: Final = 64  # a disk of fewer has no room to keep what nobody wants
FREE_BYTES: Final = 1 << 20  # and so many more than two segments have to be free beside a spare
_NAME: Final = re.compile(r"(\d{20})-(\d{20})\.spare")


def spare_places(name: str) -> tuple[int, int] | None:
    """Where the old records of a spare of this name begin and end; None for another file."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


class Spare:
    """One file. `earlier` says how its records verify, `end` is the position where they stop."""

    def __init__(self, path: str, earlier: Earlier, end: int) -> None:
        self.path = path
        self.earlier = earlier
        self.size = end - earlier.base
        self.named = False  # whether its name is safe


class Spares:
    """The spare files of one log, oldest first; of segments of `segment_bytes`."""

    def __init__(self, files: Files, folder: str, segment_bytes: int) -> None:
        self._files = files
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._kept: list[Spare] = []
        self._worth_it = True

    def open(self, room: int) -> None:
        """Find what an earlier life has left, and let go of what is none or does not fit into `room`.

        The names are safe when the caller has synced the folder.
        """
        self._worth_it = self._files.total(self._folder) >= SMALL_DISK_SEGMENTS * self._segment_bytes
        for name in self._files.names(self._folder):
            if name.endswith(".spare"):
                path = os.path.join(self._folder, name)
                spare = self._find(path, name)
                if spare is not None and self._fits(spare, room):
                    spare.named = True
                    self._kept.append(spare)
                else:
                    self._files.unlink(path)

    def _find(self, path: str, name: str) -> Spare | None:
        places = spare_places(name)
        fd = self._files.open(path)
        try:
            data, size = self._files.read(fd, HEADER_BYTES, 0), self._files.size(fd)
        finally:
            self._files.close(fd)
        header = read_header(data, path)
        if places is None or header is None or header.base != places[0] or half_damaged(data):
            return None
        whole = header.base + HEADER_BYTES <= places[1] <= header.base + size
        return Spare(path, Earlier(header.salt, header.base), places[1]) if whole else None

    @property
    def bytes(self) -> int:
        """What they take on the disk."""
        return sum(spare.size for spare in self._kept)

    def keep(self, path: str, earlier: Earlier, end: int, room: int) -> bool:
        """Make a spare of a segment that nobody wants, if there is `room` for it in the quota.

        Return whether it is one now, and `path` is no more.
        """
        spare_path = os.path.join(self._folder, f"{earlier.base:020d}-{end:020d}.spare")
        spare = Spare(spare_path, earlier, end)
        if not self._fits(spare, room):
            return False
        try:
            if self._files.free(self._folder) < 2 * self._segment_bytes + FREE_BYTES:
                return False
            self._files.rename(path, spare_path)
        except OSError:
            return False
        self._kept.append(spare)
        return True

    def _fits(self, spare: Spare, room: int) -> bool:
        """Whether it is worth keeping: not much smaller than a segment, and not too many of them."""
        alike = self._segment_bytes // 2 <= spare.size <= self._segment_bytes
        return alike and self._worth_it and len(self._kept) < SPARES_MAX and self.bytes + spare.size <= room

    def take(self) -> list[Spare]:
        """All of them, for a commit; it gives back with `put` what it does not use."""
        spares, self._kept = self._kept, []
        return spares

    def put(self, spares: list[Spare]) -> None:
        """Keep these again; they are older than what has been kept since."""
        self._kept[:0] = spares

    def give_up(self) -> bool:
        """Let go of one, for its room on a full disk; return whether there was one."""
        if not self._kept:
            return False
        with contextlib.suppress(OSError):  # one that cannot be removed is no reason to stop either
            self._files.unlink(self._kept.pop().path)
        return True
