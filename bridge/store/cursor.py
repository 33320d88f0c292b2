"""How far one reader has got, in a file of its own.

Two slots of equal size; a save writes the one that does not hold the latest
value. A torn save therefore spoils only the slot that was stale anyway.

    cursor := slot | slot
    slot   := magic u32 | position u64 | turn u64 | crc32 u32     (little-endian, 24 bytes)

The magic ends in the format's version.
"""

from __future__ import annotations

from struct import Struct
from typing import Final
from zlib import crc32

from bridge.errors import StoreFailed
from bridge.store.files import Files

__all__ = ["Cursor"]

_VERSION: Final = 1
_MAGIC: Final = 0xC0550100
_FIELDS: Final = Struct("<IQQ")
_CRC: Final = Struct("<I")
_SLOT: Final = _FIELDS.size + _CRC.size


class Cursor:
    """One position that only moves forward.

    `found` tells whether the file held a position when it was opened.
    """

    def __init__(self, files: Files, path: str, name: str) -> None:
        """Open or make the file. Raises StoreFailed for a newer format, OSError as it comes."""
        self.name = name
        self.position = 0
        self._files = files
        self._turn = 0
        self.fd = files.open(path, create=True)
        data = files.read(self.fd, 2 * _SLOT, 0)
        self.found = False
        for at in (0, _SLOT):
            fields = data[at : at + _FIELDS.size]
            if len(fields) < _FIELDS.size or data[at + _FIELDS.size : at + _SLOT] != _CRC.pack(crc32(fields)):
                continue
            magic, position, turn = _FIELDS.unpack(fields)
            if magic & 0xFFFFFF00 != _MAGIC or magic & 0xFF != _VERSION:
                files.close(self.fd)
                raise StoreFailed(f"{path}: a cursor of a format that this edgespool does not know")
            if turn >= self._turn:
                self.position, self._turn, self.found = position, turn, True

    def save(self, position: int) -> None:
        """Move to `position` and write it down.

        Not synced: a lost save only repeats messages, and syncing here would cost
        as much as the message did. Going back is allowed only to the caller who
        found the log shorter than the cursor, see `Log.cursor`.
        """
        self.position = position
        self._turn += 1
        fields = _FIELDS.pack(_MAGIC | _VERSION, position, self._turn)
        self._files.write(self.fd, fields + _CRC.pack(crc32(fields)), _SLOT * (self._turn & 1))

    def sync(self) -> None:
        """Afterwards the saved position survives a power cut."""
        self._files.sync(self.fd)

    def close(self) -> None:
        """Let go of the file."""
        if self.fd >= 0:
            self._files.close(self.fd)
            self.fd = -1
