"""How far one reader has got, in a file of its own.

Two slots of equal size; a save writes the one that does not hold the latest
value. A torn save therefore spoils only the slot that was stale anyway.

    cursor := slot | slot
    slot   := magic u32 | position u64 | turn u64 | crc32 u32     (little-endian, 24 bytes)

The magic ends in the format's version. A new cursor's value goes to both slots, so
that no single rotten bit can leave the file without one.
"""

from __future__ import annotations

import logging
import os
from struct import Struct
from typing import Final
from zlib import crc32

from bridge.errors import StoreFailed
from bridge.store.files import Files

__all__ = ["CURSOR_BYTES", "Cursor", "damaged_slots", "find_cursor", "read_slots"]

log = logging.getLogger(__name__)

_VERSION: Final = 1
_MAGIC: Final = 0xC0550100
_FIELDS: Final = Struct("<IQQ")
_CRC: Final = Struct("<I")
_SLOT: Final = _FIELDS.size + _CRC.size
CURSOR_BYTES: Final = 2 * _SLOT


def read_slots(data: bytes, path: str) -> tuple[int, int] | None:
    """The latest `(position, turn)` that a cursor file holds; None when it holds none.

    Raises StoreFailed for a format that this program does not know. A newer one may
    check its slots in another way, so for it the magic is enough.
    """
    latest: tuple[int, int] | None = None
    newer = False
    for at in (0, _SLOT):
        fields = data[at : at + _FIELDS.size]
        if len(fields) < _FIELDS.size:
            continue
        magic, position, turn = _FIELDS.unpack(fields)
        if magic != _MAGIC | _VERSION:
            newer = newer or (magic & 0xFFFFFF00 == _MAGIC and magic & 0xFF > _VERSION)
        elif data[at + _FIELDS.size : at + _SLOT] == _CRC.pack(crc32(fields)):
            latest = max(latest or (0, -1), (position, turn), key=lambda slot: slot[1])
    if latest is None and newer:
        raise StoreFailed(
            f"{path}: a cursor in a format that this edgespool does not know; nothing was touched; "
            "run the newer edgespool, or give this one another folder with --state"
        )
    return latest


def damaged_slots(data: bytes) -> int:
    """How many slots of a cursor file hold something, and no position."""
    slots = (data[:_SLOT], data[_SLOT:CURSOR_BYTES])
    return sum(1 for slot in slots if slot.strip(b"\0") and not _is_whole(slot))


def _is_whole(slot: bytes) -> bool:
    fields = slot[: _FIELDS.size]
    magic = (_MAGIC | _VERSION).to_bytes(4, "little")
    return fields.startswith(magic) and slot[_FIELDS.size :] == _CRC.pack(crc32(fields))


class Cursor:
    """One position that only moves forward.

    `found` tells whether the file held a position when it was opened, `damaged` how
    many of its slots held something else.
    """

    def __init__(self, files: Files, path: str, name: str) -> None:
        """Open or make the file. Raises StoreFailed for a newer format, OSError as it comes."""
        self.name = name
        self.position = 0
        self.covered = 0  # up to here its reader needs nothing from the log
        self._files = files
        self._path = path
        self._turn = 0
        self.fd = files.open(path, create=True)
        try:
            data = files.read(self.fd, CURSOR_BYTES, 0)
            latest = read_slots(data, path)
        except BaseException:
            self.close()
            raise
        self.found = latest is not None
        self.damaged = damaged_slots(data)
        if latest is not None:
            self.position, self._turn = latest

    @property
    def pin(self) -> int:
        """Nothing before this is needed from the log."""
        return max(self.position, self.covered)

    def save(self, position: int) -> None:
        """Move to `position` and write it down.

        Not synced: a lost save only repeats messages, and syncing here would cost
        as much as the message did. Going back is allowed only to the caller who
        found the log shorter than the cursor, see `find_cursor`.
        """
        self.position = position
        self._turn += 1
        fields = _FIELDS.pack(_MAGIC | _VERSION, position, self._turn)
        self._files.write(self.fd, fields + _CRC.pack(crc32(fields)), _SLOT * (self._turn & 1))

    def begin(self, position: int) -> None:
        """Give a new file, or one that has lost its value, its first; safe afterwards.

        A cursor that a power cut takes away as a whole would come back as a new
        one, and skip everything that was stored in between.
        """
        self.save(position)
        self.save(position)
        self._files.sync(self.fd)
        self._files.sync_folder(os.path.dirname(self._path))

    def sync(self) -> None:
        """Afterwards the saved position survives a power cut."""
        self._files.sync(self.fd)

    def close(self) -> None:
        """Let go of the file."""
        if self.fd >= 0:
            self._files.close(self.fd)
            self.fd = -1


def find_cursor(files: Files, folder: str, name: str, head: int, durable: int) -> Cursor:
    """The cursor of the log in `folder` that has this name; a new one begins at `durable`.

    One that cannot be read, or that stands outside of the log, starts at `head`,
    because twice is better than never; so does the first cursor of a log that
    holds messages, because somebody must have wanted them. Each is logged.
    """
    cursors = os.path.join(folder, "cursors")
    known = [one for one in files.names(cursors) if one.endswith(".cur")]
    cursor = Cursor(files, os.path.join(cursors, name + ".cur"), name)
    if cursor.damaged:
        log.warning(
            "cursor damaged log=%s cursor=%s slots=%d at=%d",
            os.path.basename(folder), name, cursor.damaged, cursor.position,
        )  # fmt: skip
    if not cursor.found:
        lost = name + ".cur" in known or (not known and head < durable)
        cursor.begin(head if lost else durable)
        if lost:
            log.warning("cursor lost log=%s cursor=%s now=%d", os.path.basename(folder), name, head)
    elif not head <= cursor.position <= durable:
        log.warning(
            "cursor out of range log=%s cursor=%s was=%d now=%d",
            os.path.basename(folder), name, cursor.position, head,
        )  # fmt: skip
        cursor.begin(head)
    return cursor
