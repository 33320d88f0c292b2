"""Many messages as one: what a pack looks like, written and read.

    ndjson           document "\\n" document "\\n" …
    json             "[" document "," document … "]"
    length_prefixed  "ESP1" (head payload)*      each of the two: length u32, big-endian | bytes

A document is the envelope of one message (`bridge.policy.envelope`); a head is the envelope
without `payload`, which follows it as it is. The whole of it may be compressed: `zlib`
(RFC 1950, which HTTP calls "deflate") or `zstd` (RFC 8878).

A pack names no message that is not in it, is never empty, and has at most PACK_BYTES_MAX
bytes before compression: who unpacks stops there, so that a few bytes cannot fill a memory.
What is larger by itself does not go into a pack (`fits`). The same messages always have the
same pack id, and others never have it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any, Final, Literal, get_args

import msgspec

from bridge.errors import ConfigError
from bridge.policy.envelope import Envelope, decode, document

__all__ = [
    "CONTENT_ENCODINGS",
    "CONTENT_TYPES",
    "PACK_BYTES_MAX",
    "ZSTD_INSTALL",
    "Compression",
    "Format",
    "Pack",
    "PackError",
    "Unpacked",
    "has_zstd",
    "pack_id",
    "unpack",
]

Format = Literal["ndjson", "json", "length_prefixed"]
Compression = Literal["zlib", "zstd"]

PACK_BYTES_MAX: Final = 1 << 20
ZSTD_INSTALL: Final = "pip install 'edgespool[zstd]'"
CONTENT_TYPES: Final[dict[Format, str]] = {
    "ndjson": "application/x-ndjson",
    "json": "application/json",
    "length_prefixed": "application/x-edgespool-pack",
}
# As HTTP registers them; what it calls deflate is the format of zlib.
CONTENT_ENCODINGS: Final[dict[Compression, str]] = {"zlib": "deflate", "zstd": "zstd"}

_MAGIC: Final = b"ESP1"
_LENGTH: Final = Struct(">I")
# Three times as fast as the usual 6, and telemetry is hardly a tenth larger for it.
_ZLIB_LEVEL: Final = 1
_ZSTD_LEVEL: Final = 3
_ZSTD_WINDOW_MAX: Final = 8 << 20  # what every decoder has to support (RFC 8878, 3.1.1.1.2)
# Of one message beside its document: the separators and both lengths.
_FRAME_BYTES: Final = 2 * _LENGTH.size


class PackError(ValueError):
    """These bytes are no pack, or one that is too large."""


class Pack(msgspec.Struct, frozen=True):
    """How the messages of a route are packed. Pure; never changes."""

    format: Format
    compress: Compression | None = None

    @property
    def content_type(self) -> str:
        """Of the pack."""
        return CONTENT_TYPES[self.format]

    @property
    def content_encoding(self) -> str:
        """How it is compressed; empty when it is not."""
        return CONTENT_ENCODINGS[self.compress] if self.compress else ""

    @property
    def carries_payloads(self) -> bool:
        """Whether payloads travel as they are, beside the envelopes and not in them."""
        return self.format == "length_prefixed"

    def item(self, told: Envelope, payload: bytes) -> bytes:
        """One message as it lies in the pack, `told` as `carries_payloads` wants it."""
        text = document(told)
        if self.format != "length_prefixed":
            return text
        return b"".join((_LENGTH.pack(len(text)), text, _LENGTH.pack(len(payload)), payload))

    def size(self, item: bytes) -> int:
        """How much of PACK_BYTES_MAX the item takes, at most."""
        return len(item) + _FRAME_BYTES

    def fits(self, item: bytes) -> bool:
        """Whether a pack could hold it at all."""
        return self.size(item) <= PACK_BYTES_MAX

    def seal(self, items: Sequence[bytes]) -> bytes:
        """The pack of these items, compressed where that is asked for."""
        if self.format == "ndjson":
            body = b"\n".join(items) + b"\n"
        elif self.format == "json":
            body = b"[" + b",".join(items) + b"]"
        else:
            body = _MAGIC + b"".join(items)
        if self.compress == "zlib":
            return zlib.compress(body, _ZLIB_LEVEL)
        if self.compress == "zstd":
            packed: bytes = _zstd().ZstdCompressor(level=_ZSTD_LEVEL).compress(body)
            return packed
        return body


class Unpacked(msgspec.Struct, frozen=True):
    """One message out of a pack."""

    envelope: Envelope
    payload: bytes


def pack_id(ids: Sequence[str]) -> str:
    """`<id of the first>+<how many more>.<digest of all ids>`."""
    digest = blake2b("\n".join(ids).encode(), digest_size=8).hexdigest()
    return f"{ids[0]}+{len(ids) - 1}.{digest}"


def unpack(
    body: bytes, format: str, content_encoding: str = "", bytes_max: int = PACK_BYTES_MAX
) -> list[Unpacked]:
    """The messages of a pack, in order. Raises PackError for anything that is none.

    At most `bytes_max` bytes are ever made of `body`. Raises ConfigError for zstd without its library.
    """
    data = _decompressed(body, content_encoding, bytes_max)
    try:
        if format == "ndjson":
            if not data.endswith(b"\n"):
                raise PackError("the last line of the pack has no end")
            found = [Unpacked(one, one.body) for one in map(_whole, data[:-1].split(b"\n"))]
        elif format == "json":
            found = [Unpacked(one, one.body) for one in map(_whole, _array(data))]
        elif format == "length_prefixed":
            found = _read_lengths(data)
        else:
            raise PackError(f"there is no pack {format[:40]!r}; there are {', '.join(get_args(Format))}")
    except PackError:
        raise
    except ValueError as error:
        raise PackError(str(error)) from None
    if not found:
        raise PackError("the pack is empty")
    return found


def _array(data: bytes) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(data, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PackError(f"no array of envelopes: {error}") from None


def _whole(text: bytes | msgspec.Raw) -> Envelope:
    told = decode(memoryview(text))
    if (told.payload is None) == (told.payload_b64 is None):
        raise PackError(f"message {told.id[:80]!r} needs one of payload and payload_b64")
    return told


def _read_lengths(data: bytes) -> list[Unpacked]:
    if not data.startswith(_MAGIC):
        raise PackError(f"a pack with lengths begins with {_MAGIC.decode()}")
    found: list[Unpacked] = []
    at = len(_MAGIC)
    while at < len(data):
        head, at = _part(data, at)
        payload, at = _part(data, at)
        found.append(Unpacked(decode(head), bytes(payload)))
    return found


def _part(data: bytes, at: int) -> tuple[memoryview, int]:
    begin = at + _LENGTH.size
    if begin <= len(data):
        end = begin + int(_LENGTH.unpack_from(data, at)[0])
        if end <= len(data):
            return memoryview(data)[begin:end], end
    raise PackError(f"the pack ends in the middle of a message, at byte {at:,}")


# ---- compression -----------------------------------------------------------------------


def has_zstd() -> bool:
    """Whether the library for `zstd` is installed; ZSTD_INSTALL is how to get it."""
    try:
        _zstd()
    except ConfigError:
        return False
    return True


def _zstd() -> Any:
    try:
        import zstandard
    except ModuleNotFoundError as error:
        # Not a PackError: the pack may be as good as any, and must not be refused for it.
        raise ConfigError(f"zstd needs {error.name}, install it: {ZSTD_INSTALL}") from error
    return zstandard


def _decompressed(body: bytes, content_encoding: str, bytes_max: int) -> bytes:
    if content_encoding == "":
        data = body
    elif content_encoding == "deflate":
        data = _inflated(body, bytes_max)
    elif content_encoding == "zstd":
        data = _unzstd(body, bytes_max)
    else:
        raise PackError(f"there is no content encoding {content_encoding[:40]!r}; there are deflate and zstd")
    if len(data) > bytes_max:
        raise PackError(f"the pack is larger than {bytes_max:,} bytes")
    return data


def _inflated(body: bytes, bytes_max: int) -> bytes:
    inflating = zlib.decompressobj()
    try:
        data = inflating.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise PackError(f"not compressed with zlib: {error}") from None
    if len(data) <= bytes_max and (not inflating.eof or inflating.unused_data):
        raise PackError("not compressed with zlib: it ends too early or too late")
    return data


def _unzstd(body: bytes, bytes_max: int) -> bytes:
    zstandard = _zstd()
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX)
    try:
        # Only what says its size: room is made for that much, and it must come to exactly that.
        size = zstandard.frame_content_size(body)
        if size < 0:
            raise PackError("the zstd frame does not say how large its content is")
        if size > bytes_max:
            raise PackError(f"the pack is larger than {bytes_max:,} bytes")
        data: bytes = decompressor.decompress(body, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise PackError(f"not compressed with zstd: {error}") from None
    return data
