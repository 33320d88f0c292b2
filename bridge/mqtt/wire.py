"""Integers and strings as they lie on the wire.

    two bytes, four bytes      big-endian
    variable byte integer      7 bits a byte, least significant first, at most four bytes
    string, binary             two bytes of length, then the bytes

A reader takes `(data, at, end)` and returns `(value, next)`. `end` is where the
packet ends: by then the framer has seen that it is whole, so a value that
reaches past it is malformed. Only the variable byte integer of the fixed header
can ask for more.
"""

from __future__ import annotations

from typing import Final

from bridge.errors import MalformedPacket

__all__ = [
    "VARIABLE_BYTE_INTEGER_MAX",
    "read_binary",
    "read_length",
    "read_string",
    "read_u16",
    "read_u32",
    "read_variable_byte_integer",
    "variable_byte_integer",
    "write_binary",
    "write_string",
]

VARIABLE_BYTE_INTEGER_MAX: Final = 268_435_455


def read_variable_byte_integer(data: bytes, at: int, end: int) -> tuple[int, int] | None:
    """Return `(value, next)`, or None while more bytes are needed.

    Raises MalformedPacket for a fifth byte, as soon as the fourth one announces
    it, and for a longer spelling than needed [v5 MQTT-1.5.5-1].
    """
    value = 0
    for nth in range(4):
        if at + nth >= end:
            return None
        byte = data[at + nth]
        value |= (byte & 0x7F) << 7 * nth
        if byte < 0x80:
            if byte == 0 and nth:
                raise MalformedPacket("a variable byte integer is spelled longer than needed")
            return value, at + nth + 1
    raise MalformedPacket("a variable byte integer has a fifth byte")


def read_length(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A variable byte integer inside a packet, where there is no more to come."""
    found = read_variable_byte_integer(data, at, end)
    if found is None:
        raise MalformedPacket("a variable byte integer reaches past its packet")
    return found


def read_u16(data: bytes, at: int, end: int) -> tuple[int, int]:
    if at + 2 > end:
        raise MalformedPacket("a two byte integer reaches past its packet")
    return data[at] << 8 | data[at + 1], at + 2


def read_u32(data: bytes, at: int, end: int) -> tuple[int, int]:
    if at + 4 > end:
        raise MalformedPacket("a four byte integer reaches past its packet")
    return int.from_bytes(data[at : at + 4], "big"), at + 4


def read_binary(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    length, begin = read_u16(data, at, end)
    stop = begin + length
    if stop > end:
        raise MalformedPacket("a string or binary value reaches past its packet")
    return data[begin:stop], stop


def read_string(data: bytes, at: int, end: int) -> tuple[str, int]:
    """A UTF-8 string: no surrogates [MQTT-1.5.4-1], no U+0000 [MQTT-1.5.4-2], a BOM stays [MQTT-1.5.4-3].

    (In 3.1.1 the same clauses are v3 [MQTT-1.5.3-1] to -3.)
    """
    raw, after = read_binary(data, at, end)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise MalformedPacket("a string is not UTF-8") from None
    if "\0" in text:
        raise MalformedPacket("a string contains U+0000")
    return text, after


def variable_byte_integer(value: int) -> bytes:
    """The shortest spelling. Raises ValueError for what four bytes cannot hold."""
    if 0 <= value < 0x80:
        return value.to_bytes()
    if 0x80 <= value < 0x4000:  # what most packets have
        return bytes((value & 0x7F | 0x80, value >> 7))
    if not 0 <= value <= VARIABLE_BYTE_INTEGER_MAX:
        raise ValueError(f"{value} does not fit into a variable byte integer")
    spelled = bytearray()
    while value >= 0x80:
        spelled.append(value & 0x7F | 0x80)
        value >>= 7
    spelled.append(value)
    return bytes(spelled)


def write_binary(value: bytes) -> bytes:
    """Raises ValueError for more than 65,535 bytes."""
    if len(value) > 65_535:
        raise ValueError(f"{len(value)} bytes do not fit into a string or binary value of MQTT")
    return len(value).to_bytes(2) + value


def write_string(text: str) -> bytes:
    """Raises ValueError for U+0000, for surrogates and for more than 65,535 bytes."""
    if "\0" in text:
        raise ValueError("a string of MQTT must not contain U+0000")
    return write_binary(text.encode())
