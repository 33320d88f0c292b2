"""How far one reader has got, and what it says about that, in a file of its own.

Three slots of equal size. A save writes one that holds neither the latest value nor the
one that was synced last: a save torn by a kill leaves the value before it, and a power
cut that tears every save since the last sync leaves that one.

    cursor := slot | slot | slot
    slot   := magic u32 | position u64 | turn u64 | length u16 | note | zeros | crc32 u32
              (little-endian, 512 bytes: a sector)

The note is the reader's own, such as how many messages became what until here. It
stands in the same slot, so the two cannot disagree: a lost save takes both back.

The magic ends in the format's version. A new cursor's value goes to two slots, so
that no single rotten bit can leave the file without one. Version 1 had no note and two
slots of 24 bytes; they lie where the first slot is now, and are written over when
another one holds a value.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

from bridge.errors import StoreFailed
from bridge.store.files import Files

__all__ = [
    "CURSOR_BYTES",
    "NOTE_BYTES_MAX",
    "Cursor",
    "Slot",
    "damaged_slots",
    "find_cursor",
    "read_slots",
    "sync_past",
]

log = logging.getLogger(__name__)

_VERSION: Final = 2
_MAGIC: Final = 0xC0550100
_FIELDS: Final = Struct("<IQQH")
_CRC: Final = Struct("<I")
_SLOT: Final = 512
_SLOTS: Final = 3
CURSOR_BYTES: Final = _SLOTS * _SLOT
NOTE_BYTES_MAX: Final = _SLOT - _FIELDS.size - _CRC.size
_FIELDS_1: Final = Struct("<IQQ")
_SLOT_1: Final = _FIELDS_1.size + _CRC.size


class Slot(NamedTuple):
    """One value of a cursor, in slot `nth`; of two the one with the higher `turn` is the later."""

    position: int
    turn: int
    note: bytes
    nth: int


def read_slots(data: bytes, path: str) -> Slot | None:
    """The latest value that a cursor file holds; None when it holds none.

    Raises StoreFailed for a format that this program does not know. A newer one may
    check its slots in another way, so for it the magic is enough.
    """
    found = [slot for nth, piece in _pieces(data) if (slot := _read(piece, nth)) is not None]
    if found:
        return max(found, key=lambda slot: slot.turn)
    for at in (0, _SLOT_1, _SLOT, 2 * _SLOT):
        magic = int.from_bytes(data[at : at + 4], "little")
        if magic & 0xFFFFFF00 == _MAGIC and magic & 0xFF > _VERSION:
            raise StoreFailed(
                f"{path}: a cursor in a format that this edgespool does not know; nothing was touched; "
                "run the newer edgespool, or give this one another folder with --state"
            )
    return None


def damaged_slots(data: bytes) -> int:
    """How many slots of a cursor file hold something, and no position."""
    return sum(1 for nth, piece in _pieces(data) if piece.strip(b"\0") and _read(piece, nth) is None)


def _pieces(data: bytes) -> list[tuple[int, bytes]]:
    """What should be slots. Where the first is one of this version, nothing of version 1 is left."""
    first, *others = [data[at : at + _SLOT] for at in range(0, CURSOR_BYTES, _SLOT)]
    pieces = [first]
    if _read(first, 0) is None and not first[2 * _SLOT_1 :].strip(b"\0"):
        pieces = [first[:_SLOT_1], first[_SLOT_1 : 2 * _SLOT_1]]
    return [*((0, piece) for piece in pieces), *enumerate(others, 1)]


def _read(piece: bytes, nth: int) -> Slot | None:
    """The value of a slot of either version; None when it is not whole."""
    if len(piece) not in (_SLOT, _SLOT_1) or piece[-_CRC.size :] != _CRC.pack(crc32(piece[: -_CRC.size])):
        return None
    if len(piece) == _SLOT_1:
        magic, position, turn = _FIELDS_1.unpack_from(piece)
        return Slot(position, turn, b"", nth) if magic == _MAGIC | 1 else None
    magic, position, turn, length = _FIELDS.unpack_from(piece)
    if magic != _MAGIC | _VERSION or length > NOTE_BYTES_MAX:
        return None
    return Slot(position, turn, piece[_FIELDS.size : _FIELDS.size + length], nth)


class Cursor:
    """One position that only moves forward, and the note saved with it.

    `found` tells whether the file held a position when it was opened, `damaged` how
    many of its slots held something else. `synced` is the position that survives a
    power cut, as far as is known.
    """

    def __init__(self, files: Files, path: str, name: str) -> None:
        """Open or make the file. Raises StoreFailed for a newer format, OSError as it comes."""
        self.name = name
        self.position = 0
        self.note = b""
        self.synced = -1
        self.covered = 0  # up to here its reader needs nothing from the log
        self._files = files
        self._path = path
        self._turn = 0
        self._latest = self._synced = -1  # which slots hold what must not be written over
        self._forgotten = False  # whether a sync has failed, and what it was to write with it
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
            self.position, self._turn, self.note, self._latest = latest

    @property
    def pin(self) -> int:
        """Nothing before this is needed from the log."""
        return max(self.position, self.covered)

    def save(self, position: int, note: bytes | None = None) -> None:
        """Move to `position` and write it down, with this note or else the one that stands there.

        Not synced: a lost save only repeats messages, and syncing here would cost
        as much as the message did. Going back is allowed only to the caller who
        found the log shorter than the cursor, see `find_cursor`.
        """
        if note is not None:
            assert len(note) <= NOTE_BYTES_MAX
            self.note = note
        self.position = position
        self._turn += 1
        fields = _FIELDS.pack(_MAGIC | _VERSION, position, self._turn, len(self.note)) + self.note
        fields = fields.ljust(_SLOT - _CRC.size, b"\0")
        nth = next(nth for nth in range(_SLOTS) if nth not in (self._latest, self._synced))
        self._files.write(self.fd, fields + _CRC.pack(crc32(fields)), _SLOT * nth)
        self._latest = nth

    def begin(self, position: int) -> None:
        """Give a new file, or one that has lost its value, its first; safe afterwards.

        A cursor that a power cut takes away as a whole would come back as a new
        one, and skip everything that was stored in between.
        """
        self.save(position)
        self.save(position)
        self._files.sync(self.fd)
        self.synced, self._synced = position, self._latest
        self._files.sync_folder(os.path.dirname(self._path))

    def sync(self) -> None:
        """Afterwards the saved position survives a power cut.

        What a sync that failed was to write the kernel has forgotten, and the next one would
        succeed without it. So then it is written once more, to another slot.
        """
        if self._forgotten:
            self.save(self.position)
        self._forgotten = True
        self._files.sync(self.fd)
        self._forgotten = False
        self.synced, self._synced = self.position, self._latest

    def close(self) -> None:
        """Let go of the file."""
        if self.fd >= 0:
            self._files.close(self.fd)
            self.fd = -1


def sync_past(end: int, cursors: Iterable[Cursor]) -> None:
    """Let no power cut take a cursor back to before `end`, where nothing will be left of the log.

    What its reader had counted on the way would be in no account then. A disk that fails
    is no reason to stop draining: then a power cut may cost just that.
    """
    for cursor in cursors:
        if cursor.synced < min(end, cursor.position):
            with contextlib.suppress(OSError):
                cursor.sync()


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
    else:
        # A kill may have left values that were never synced, and from now on one has to be safe.
        cursor.sync()
    return cursor
