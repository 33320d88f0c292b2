"""One file of records, named by the position of its first byte.

    segment := header | header | record* | rest
    header  := "edgespl\n" | version u8 | zero × 3 | salt u32 | base u64 | follows u64
               | sequence u64 | epoch u32 | earlier | crc32 u32 | zeros up to 64 bytes   (little-endian)

    version 1: a new file       earlier := nothing              rest := zeros
    version 2: a file used again   earlier := salt u32 | base u64  rest := zero × 20 | what lay there

The header stands twice, so that one rotten bit in it costs nothing; without its
salt no record of the segment could be checked. `base` is the position of byte 0,
`sequence` that of the first record. A record's place in the file is its position
less the base.

Where a file is used again (`bridge.store.spares`), what lay there was a segment too,
and lies on behind the records: `earlier` has its salt and its base. Every write brings
along as many zeros as a record's header has bytes, or as there is room: where they
stand, the records end. Only where something else stands was a write torn, or has the
end rotted, and then the old records tell how far that goes, because they verify by
`earlier` and by nothing else. They never verify as new ones: the two magics differ.

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
from bridge.store.record import Entry, RawRecord, decode_all, find_next, magic_of, read_record

__all__ = [
    "FORMAT_VERSION",
    "HEADER_BYTES",
    "Damage",
    "Earlier",
    "Header",
    "Segment",
    "file_name",
    "half_damaged",
    "new_salt",
    "read_entries",
    "read_header",
    "scan",
]

FORMAT_VERSION: Final = 2
HEADER_BYTES: Final = 128
_ONE: Final = 64
_MAGIC: Final = b"edgespl\n"
_START: Final = Struct("<8sB3x")
_FIELDS: Final = Struct("<IQQQI")
_EARLIER: Final = Struct("<IQ")
_CRC: Final = Struct("<I")
# A segment is written in the oldest version that can say what it is, so that an older
# program can still be put in our place where no file was used again.
_LENGTHS: Final = {1: _START.size + _FIELDS.size, 2: _START.size + _FIELDS.size + _EARLIER.size}


class Earlier(NamedTuple):
    """Whose records lie behind those of a segment: their salt, and the position of the file's byte 0 then."""

    salt: int
    base: int


class Header(NamedTuple):
    """What the first bytes of a segment say. `earlier` is there where the file was used again."""

    salt: int
    base: int
    follows: int
    sequence: int
    epoch: int
    earlier: Earlier | None = None

    def encode(self) -> bytes:
        """Both copies, `HEADER_BYTES` in all."""
        version = 1 if self.earlier is None else 2
        fields = _START.pack(_MAGIC, version) + _FIELDS.pack(*self[:5])
        if self.earlier is not None:
            fields += _EARLIER.pack(*self.earlier)
        return (fields + _CRC.pack(crc32(fields))).ljust(_ONE, b"\0") * 2


def new_salt(luck: int, earlier: Earlier | None) -> int:
    """The salt of a new segment, from 32 bits of luck; its magic is not that of `earlier`."""
    same = earlier is not None and magic_of(luck) == magic_of(earlier.salt)
    return luck ^ 1 if same else luck


def read_header(data: bytes, path: str) -> Header | None:
    """The header, from whichever copy is whole; None when neither is.

    Raises StoreFailed for a version that this program does not know. A newer one
    may check its header in another way, so for it the magic is enough: one rotten
    bit cannot make a newer header of ours, because the other copy is whole then.
    """
    newer = 0
    for at in (0, _ONE):
        if len(data) - at < _START.size:
            continue
        magic, version = _START.unpack_from(data, at)
        length = _LENGTHS.get(version, 0)
        if magic != _MAGIC:
            continue
        if not length:
            newer = max(newer, version)
            continue
        fields = data[at : at + length]
        if data[at + length :][:4] == _CRC.pack(crc32(fields)):
            salt, base, follows, sequence, epoch = _FIELDS.unpack_from(fields, _START.size)
            earlier = Earlier(*_EARLIER.unpack_from(fields, _LENGTHS[1])) if version == 2 else None
            return Header(salt, base, follows, sequence, epoch, earlier)
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
        self.trusted = True  # whether no commit to it has failed
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

    def write_records(self, position: int, data: bytes, room_end: int) -> None:
        """Write whole records at `position`, the last ones of the segment; not yet synced.

        `room_end` is the position where the file ends. Afterwards these are the last, also
        where something else lies behind them.
        """
        if self.header.earlier is not None:
            data += bytes(min(RECORD_BYTES, room_end - position - len(data)))
        self.write(position, data)


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
    room not yet written, when nothing follows them, and what lies behind the records of a
    file that was used again is none either; they end the scan. The whole segment is read
    at once: it is at most a few MiB, and only the newest one is ever scanned at a start.
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
            written = _written(data, at, first, segment)
            if written > at:
                yield Damage(bad, first + written, at_tail=True)
            return
        at = found
        yield Damage(bad, first + at, at_tail=False)


def _written(data: bytes, at: int, first: int, segment: Segment) -> int:
    """Up to which offset something was written behind the last record, which ends at offset `at`.

    `first` is the position of `data[0]`.
    """
    written = at + len(data[at:].rstrip(b"\0"))  # of the tail alone: a copy of the whole would show in RSS
    earlier = segment.header.earlier
    if earlier is None or written == at:
        return written
    if not any(data[at : at + RECORD_BYTES]):
        return at
    # Torn or rotten. What lies behind that is old, and is so from where on one old record
    # follows the other up to the end.
    base = earlier.base + first - segment.base
    old = at
    begins: int | None = None
    while old < written:
        record = read_record(data, old, base, earlier.salt)
        if record is not None:
            begins = old if begins is None else begins
            old = record.end
            continue
        begins = None
        found = find_next(data, old, base, earlier.salt)
        if found is None:
            break
        old = found
    return written if begins is None else begins
