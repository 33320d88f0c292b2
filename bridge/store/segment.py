"""One file of records, named by the position of its first byte.

    segment := header | header | record* | zeros
    header  := "edgespl\n" | version u8 | zero × 3 | salt u32 | base u64 | follows u64
               | sequence u64 | epoch u32 | crc32 u32 | zeros up to 64 bytes   (little-endian)

The header stands twice, so that one rotten bit in it costs nothing; without its
salt no record of the segment could be checked. `base` is the position of byte 0,
`sequence` that of the first record. A record's place in the file is its position
less the base.

A segment's records end where the next one says that it `follows`: bytes beyond
that, left by a commit that failed or a write that was torn, never count. Mostly
the next one begins right there. Behind a torn tail it begins behind the torn
bytes, because a position never comes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

from bridge.errors import StoreFailed
from bridge.store.files import Files
from bridge.store.record import HEADER_BYTES as RECORD_BYTES
from bridge.store.record import Entry, RawRecord, decode_all, find_next, read_record

__all__ = [
    "FORMAT_VERSION",
    "HEADER_BYTES",
    "Damage",
    "Header",
    "Segment",
    "file_name",
    "half_damaged",
    "read_entries",
    "read_header",
    "scan",
]

FORMAT_VERSION: Final = 1
HEADER_BYTES: Final = 128
_ONE: Final = 64
_MAGIC: Final = b"edgespl\n"
_FIELDS: Final = Struct("<8sB3xIQQQI")
_CRC: Final = Struct("<I")


class Header(NamedTuple):
    """What the first bytes of a segment say."""

    salt: int
    base: int
    follows: int
    sequence: int
    epoch: int

    def encode(self) -> bytes:
        """Both copies, `HEADER_BYTES` in all."""
        fields = _FIELDS.pack(
            _MAGIC, FORMAT_VERSION, self.salt, self.base, self.follows, self.sequence, self.epoch
        )
        return (fields + _CRC.pack(crc32(fields))).ljust(_ONE, b"\0") * 2


def read_header(data: bytes, path: str) -> Header | None:
    """The header, from whichever copy is whole; None when neither is.

    Raises StoreFailed for a version that this program does not know. A newer one
    may check its header in another way, so for it the magic is enough: one rotten
    bit cannot make a newer header of ours, because the other copy is whole then.
    """
    newer = 0
    for at in (0, _ONE):
        fields = data[at : at + _FIELDS.size]
        if len(fields) < _FIELDS.size or fields[:8] != _MAGIC:
            continue
        _, version, salt, base, follows, sequence, epoch = _FIELDS.unpack(fields)
        if version != FORMAT_VERSION:
            newer = max(newer, version)
        elif data[at + _FIELDS.size :][:4] == _CRC.pack(crc32(fields)):
            return Header(salt, base, follows, sequence, epoch)
    if newer > FORMAT_VERSION:
        raise StoreFailed(
            f"{path}: written in store format {newer}, and this edgespool knows only {FORMAT_VERSION}; "
            "nothing was touched; run the newer edgespool, or give this one another folder with --state"
        )
    return None


def half_damaged(data: bytes) -> bool:
    """Whether one copy of the header in these first bytes of a segment has rotted."""
    return data[:_ONE] != data[_ONE:HEADER_BYTES]


def file_name(base: int) -> str:
    """The file's name: 20 decimal digits, so that names sort like positions."""
    return f"{base:020d}.seg"


class Damage(NamedTuple):
    """Bytes that are no record: positions `begin` to `end`, at the tail or with records behind them."""

    begin: int
    end: int
    at_tail: bool


class Segment:
    """One segment file, opened when first needed."""

    def __init__(self, files: Files, path: str, header: Header, fd: int | None = None) -> None:
        self._files = files
        self.path = path
        self.base = header.base
        self.salt = header.salt
        self.header = header
        self.first = header.base + HEADER_BYTES
        self._fd = fd

    @property
    def fd(self) -> int:
        """The open file."""
        if self._fd is None:
            self._fd = self._files.open(self.path)
        return self._fd

    @property
    def is_open(self) -> bool:
        """Whether a descriptor is held."""
        return self._fd is not None

    @property
    def size(self) -> int:
        """The length of the file: less than others ask for where a segment is missing."""
        return self._files.size(self.fd)

    def close(self) -> None:
        """Let go of the descriptor; the next use opens the file again."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            self._files.close(fd)

    def read(self, position: int, length: int) -> bytes:
        """Up to `length` bytes from `position`."""
        return self._files.read(self.fd, length, position - self.base)

    def write(self, position: int, data: bytes) -> None:
        """Write at `position`; not yet synced."""
        self._files.write(self.fd, data, position - self.base)


def read_entries(
    segment: Segment, position: int, limit: int, messages_max: int, bytes_max: int
) -> tuple[list[Entry], int, Damage | None]:
    """The next entries of a segment from `position` up to `limit`, and where to go on.

    At least one, however long it is; or none, and the damage that lay there instead.
    """
    length = min(max(bytes_max, RECORD_BYTES), limit - position)
    while True:
        data = segment.read(position, length)
        entries, stopped, needs = decode_all(data, 0, position, segment.salt, messages_max)
        if entries or not needs or position + needs > limit or len(data) < length:
            break
        length = needs
    if entries:
        return entries, position + stopped, None
    rest = segment.read(position, max(min(limit, segment.base + segment.size) - position, 0))
    found = find_next(rest, 0, position, segment.salt)
    end = limit if found is None else position + found
    return [], end, Damage(position, end, at_tail=False)


def scan(segment: Segment, end: int, begin: int | None = None) -> Iterator[RawRecord | Damage]:
    """Every record of a segment up to the position `end`, and every stretch that is none.

    From its first record on, or from `begin`, where a record should begin.

    A record's `end` is given as a position. Zeros up to `end` are no damage but
    room not yet written, when nothing follows them; they end the scan. The whole segment is read at once:
    it is at most a few MiB, and only the newest one is ever scanned at a start.
    """
    first = segment.first if begin is None else begin
    data = segment.read(first, max(end - first, 0))  # a file may be cut short within its header
    at = 0
    while at < len(data):
        record = read_record(data, at, first, segment.salt)
        if record is not None:
            at = record.end
            yield record._replace(end=first + at)
            continue
        bad = first + at
        found = find_next(data, at, first, segment.salt)
        if found is None:
            written = len(data[at:].rstrip(b"\0"))
            if written:
                yield Damage(bad, bad + written, at_tail=True)
            return
        at = found
        yield Damage(bad, first + at, at_tail=False)
