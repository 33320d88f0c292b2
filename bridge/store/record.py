"""One record ⇄ bytes. The page with the whole format is `bridge.store`.

    record := crc32 u32 | magic u16 | kind u8 | zero u8 | length u32 | sequence u64 | body
              (little-endian; 20 bytes, then `length` bytes of body)

The CRC covers everything behind itself and starts from the segment's salt and the
record's own position, so a record that lies anywhere but where it was written does
not count: left over in a recycled file, put in the wrong place by the disk, or
sent to us as the payload of a message.

The magic is not a proof of anything: it only lets a scan find the next record
behind damage at the speed of `bytes.find`. It comes from the salt because a scan
runs through what devices sent us. If they knew it, a payload of forged headers
would cost a checksum over the rest of the file at every twelfth byte: hours.

The body is MessagePack, made and read in one call into C:

    MESSAGE  [topic, payload, qos, retain, publisher, received_ns, properties, user]
    NOTED    [note, [topic, …]]      a message, and what the house has to say of it
    MOVED    [position, end, note, [topic, …]]    one that was moved aside, and where it lay
    PUT      [key, value]            of a table
    DELETE   [key, nil]
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from bridge.message import Message

__all__ = [
    "DELETE",
    "HEADER_BYTES",
    "MESSAGE",
    "MOVED",
    "NOTED",
    "PUT",
    "Entry",
    "RawRecord",
    "decode_all",
    "decode_record",
    "encode_all",
    "encode_moved",
    "encode_one",
    "find_next",
    "magic_of",
    "read_record",
]

MESSAGE: Final = 1
NOTED: Final = 2
PUT: Final = 3
DELETE: Final = 4
MOVED: Final = 5

_CRC: Final = Struct("<I")
_REST: Final = Struct("<HBBIQ")
_WHOLE: Final = Struct("<IHBBIQ")
HEADER_BYTES: Final = _WHOLE.size

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_message: Final = msgspec.msgpack.Decoder(Message).decode
_decode_noted: Final = msgspec.msgpack.Decoder(tuple[bytes, Message]).decode
_decode_moved: Final = msgspec.msgpack.Decoder(tuple[int, int, bytes, Message]).decode


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A message in a log: its record lies at `position` and stops before `end`.

    `sequence` names it for ever; `note` is what the house wrote beside it, empty
    for a plain message.
    """

    position: int
    end: int
    sequence: int
    message: Message
    note: bytes = b""


class RawRecord(NamedTuple):
    """A whole record whose checksum holds; `end` is the offset behind it."""

    kind: int
    sequence: int
    body: bytes
    end: int


def magic_of(salt: int) -> int:
    """The magic of a segment's records: two bytes that are neither zero nor ASCII."""
    return salt & 0x7F7F | 0x8080


def encode_one(kind: int, body: bytes, position: int, sequence: int, salt: int) -> bytes:
    """The bytes of one record that will lie at `position`."""
    rest = _REST.pack(magic_of(salt), kind, 0, len(body), sequence) + body
    return _CRC.pack(crc32(rest, salt ^ position)) + rest


def encode_moved(entries: Sequence[Entry], position: int, salt: int) -> bytes:
    """The bytes of entries that move to another file, each with the place and the sequence that it had."""
    parts = []
    for entry in entries:
        body = _encode((entry.position, entry.end, entry.note, entry.message))
        parts.append(encode_one(MOVED, body, position, entry.sequence, salt))
        position += len(parts[-1])
    return b"".join(parts)


def encode_all(
    messages: Sequence[Message], notes: dict[int, bytes], position: int, sequence: int, salt: int, room: int
) -> tuple[bytes, list[Entry]]:
    """The bytes of as many messages as fit into `room`, and their entries.

    The first goes to `position` under `sequence`; `notes` has the note of message
    `i` under `i`, where there is one. This loop runs once for every message that
    the gateway ever takes in: about 1 µs each.
    """
    parts: list[bytes] = []
    entries: list[Entry] = []
    add_part, add_entry = parts.append, entries.append
    encode, pack_crc, pack_rest = _encode, _CRC.pack, _REST.pack
    limit = position + room
    kind, note = MESSAGE, b""
    magic = magic_of(salt)
    for message in messages:
        if notes:
            note = notes.get(len(entries), b"")
            kind = NOTED if note else MESSAGE
        body = encode((note, message)) if note else encode(message)
        end = position + HEADER_BYTES + len(body)
        if end > limit:
            break
        rest = pack_rest(magic, kind, 0, len(body), sequence) + body
        add_part(pack_crc(crc32(rest, salt ^ position)))
        add_part(rest)
        add_entry(Entry(position, end, sequence, message, note))
        position = end
        sequence += 1
    return b"".join(parts), entries


def decode_all(
    data: bytes, at: int, base: int, salt: int, count_max: int
) -> tuple[list[Entry], int, int | None]:
    """The messages from offset `at` on: `(entries, stopped_at, needs)`.

    `base` is the position of `data[0]`. `needs` is 0 when `count_max` was
    reached, the length in bytes of a record that `data` holds only the beginning
    of, and None for damage at `stopped_at`.
    """
    entries: list[Entry] = []
    expected = magic_of(salt)
    unpack, decode = _WHOLE.unpack_from, _decode_message
    view = memoryview(data)
    size = len(data)
    try:
        while len(entries) < count_max:
            body_at = at + HEADER_BYTES
            if body_at > size:
                return entries, at, HEADER_BYTES
            crc, magic, kind, zero, length, sequence = unpack(data, at)
            if magic != expected or zero:
                return entries, at, None
            end = body_at + length
            if end > size:
                return entries, at, HEADER_BYTES + length
            if crc32(view[at + 4 : end], salt ^ (base + at)) != crc:
                return entries, at, None
            if kind == MESSAGE:
                entries.append(Entry(base + at, base + end, sequence, decode(view[body_at:end])))
            elif kind == NOTED:
                note, message = _decode_noted(view[body_at:end])
                entries.append(Entry(base + at, base + end, sequence, message, note))
            elif kind == MOVED:
                lay_at, lay_end, note, message = _decode_moved(view[body_at:end])
                entries.append(Entry(lay_at, lay_end, sequence, message, note))
            else:
                return entries, at, None
            at = end
    except msgspec.DecodeError:  # the checksum holds but the body is not ours: damage all the same
        return entries, at, None
    return entries, at, 0


def read_record(data: bytes, at: int, base: int, salt: int) -> RawRecord | None:
    """The record at `at`, or None where no whole and sound one lies.

    `base` is the position of `data[0]`.

    For recovery, where all the bytes there will ever be are at hand; a reader
    that may have to ask for more uses `decode_all`.
    """
    if len(data) - at < HEADER_BYTES:
        return None
    crc, magic, kind, zero, length, sequence = _WHOLE.unpack_from(data, at)
    end = at + HEADER_BYTES + int(length)
    if magic != magic_of(salt) or zero or end > len(data):
        return None
    if crc32(memoryview(data)[at + 4 : end], salt ^ (base + at)) != crc:
        return None
    return RawRecord(kind, sequence, data[at + HEADER_BYTES : end], end)


def decode_record(record: RawRecord) -> Entry | None:
    """The message that a record of a log holds, or None where its body is none of ours.

    The record's `end` must be a position, as `bridge.store.segment.scan` gives it. One that
    was moved lies where it lay.
    """
    position = record.end - HEADER_BYTES - len(record.body)
    try:
        if record.kind == MESSAGE:
            return Entry(position, record.end, record.sequence, _decode_message(record.body))
        if record.kind == NOTED:
            note, message = _decode_noted(record.body)
            return Entry(position, record.end, record.sequence, message, note)
        if record.kind == MOVED:
            position, end, note, message = _decode_moved(record.body)
            return Entry(position, end, record.sequence, message, note)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    return None


def find_next(data: bytes, at: int, base: int, salt: int) -> int | None:
    """The offset of the next whole record *behind* `at`, or None.

    Behind, never at: whoever asks could not read the record at `at`, and would
    come back to it for ever.
    """
    magic = magic_of(salt).to_bytes(2, "little")
    found = data.find(magic, at + 5)
    while found >= 0:
        if read_record(data, found - 4, base, salt) is not None:
            return found - 4
        found = data.find(magic, found + 1)
    return None
