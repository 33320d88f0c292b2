"""A dict that survives: sessions and retained messages, key → bytes.

The file is a segment (`bridge.store.segment`) of PUT and DELETE records, the
later one counts. When more than half of it is stale, or when a write to it has
failed, the whole table is written to a new file that takes the place of the old
one at one stroke, so at every moment one whole file stands under the name.

It joins the commits of the logs through the same three steps: take, write,
settle or fail.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Final

import msgspec

from bridge.errors import StoreFailed
from bridge.store.files import OS_FILES, Files
from bridge.store.record import DELETE, PUT, RawRecord, encode_one
from bridge.store.segment import HEADER_BYTES, Header, Segment, read_header, scan

__all__ = ["Table"]

log = logging.getLogger(__name__)

SLACK_BYTES: Final = 256 * 1024  # below this, stale records are not worth a rewrite
_decode: Final = msgspec.msgpack.Decoder(tuple[str, bytes | None]).decode
_encode: Final = msgspec.msgpack.Encoder().encode


class TableBatch:
    """What one commit writes: changes, or the whole table when it has to be written anew."""

    def __init__(self, changes: dict[str, bytes | None], whole: dict[str, bytes] | None) -> None:
        self.changes = changes
        self.whole = whole
        self.error: OSError | None = None


class Table:
    """Keys and values, in memory, and on the disk as of the last commit."""

    def __init__(self, path: str, files: Files = OS_FILES) -> None:
        """Read the file, or begin without one. Raises StoreFailed for a newer format."""
        self.path = path
        self._files = files
        self._values: dict[str, bytes] = {}
        self._changes: dict[str, bytes | None] = {}
        self._segment: Segment | None = None
        self._end = 0
        self._live_bytes = 0
        self._sequence = 1
        self._rewrite = True
        folder, name = os.path.split(path)
        files.unlink(path + ".new")  # a rewrite that was not finished
        if name in files.names(folder):
            self._load()

    def _load(self) -> None:
        fd = self._files.open(self.path)
        header = read_header(self._files.read(fd, HEADER_BYTES, 0), self.path)
        if header is None:
            self._files.close(fd)
            log.error("table unreadable path=%s; it is kept and a new one begins", self.path)
            self._files.rename(self.path, self.path + ".damaged")
            return
        self._segment = Segment(self._files, self.path, header, fd)
        self._end = HEADER_BYTES
        whole = True
        for found in scan(self._segment, self._files.size(fd)):
            if not isinstance(found, RawRecord):
                whole = False
                log.warning("damage skipped table=%s begin=%d end=%d", self.path, found.begin, found.end)
                continue
            self._end, self._sequence = found.end, found.sequence + 1
            try:
                key, value = _decode(found.body)
            except msgspec.DecodeError as error:
                raise StoreFailed(f"{self.path}: a record that no edgespool wrote: {error}") from None
            if found.kind == PUT and value is not None:
                self._values[key] = value
            else:
                self._values.pop(key, None)
        self._live_bytes = sum(len(key) + len(value) + 32 for key, value in self._values.items())
        self._rewrite = not whole

    # ---- as a dict -----------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def get(self, key: str) -> bytes | None:
        """The value, as of now (not only as of the last commit)."""
        return self._values.get(key)

    def put(self, key: str, value: bytes) -> None:
        """Set a value; safe after the next commit."""
        old = self._values.get(key)
        if old is not None:
            self._live_bytes -= len(key) + len(old) + 32
        self._live_bytes += len(key) + len(value) + 32
        self._values[key] = self._changes[key] = value

    def delete(self, key: str) -> None:
        """Remove a key; safe after the next commit. An absent one is no error."""
        old = self._values.pop(key, None)
        if old is not None:
            self._live_bytes -= len(key) + len(old) + 32
            self._changes[key] = None

    # ---- commits -------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Whether something waits for a commit."""
        return bool(self._changes)

    def take(self) -> TableBatch:
        """What has changed, as one batch."""
        rewrite = self._rewrite or self._end > 2 * self._live_bytes + SLACK_BYTES
        batch = TableBatch(self._changes, dict(self._values) if rewrite else None)
        self._changes = {}
        return batch

    def write(self, batch: TableBatch) -> None:
        """Write and sync a batch. Raises OSError; then the next batch writes the whole table."""
        if batch.whole is not None or self._segment is None:
            self._write_whole(batch.whole or {})
            return
        data = self._encode(batch.changes, self._segment.salt)
        self._segment.write(self._end, data)
        self._files.sync(self._segment.fd)
        self._end += len(data)

    def _write_whole(self, values: dict[str, bytes]) -> None:
        path = self.path + ".new"
        self._files.unlink(path)
        header = Header(int.from_bytes(os.urandom(4), "little"), 0, self._sequence, 0)
        data = header.encode() + self._encode(values, header.salt)
        segment = Segment(self._files, path, header, self._files.create(path))
        try:
            segment.write(0, data)
            self._files.sync(segment.fd)
            self._files.rename(path, self.path)
            self._files.sync_folder(os.path.dirname(self.path))
        except OSError:
            segment.close()
            raise
        segment.path = self.path
        if self._segment is not None:
            self._segment.close()
        self._segment, self._end = segment, len(data)

    def _encode(self, changes: dict[str, bytes] | dict[str, bytes | None], salt: int) -> bytes:
        parts = []
        for key, value in changes.items():
            kind = DELETE if value is None else PUT
            parts.append(encode_one(kind, _encode((key, value)), self._sequence, salt))
            self._sequence += 1
        return b"".join(parts)

    def settle(self, batch: TableBatch) -> None:
        """The batch is on the disk."""
        self._rewrite = False

    def fail(self, batch: TableBatch, error: OSError) -> None:
        """The batch is not on the disk, and the file is not trusted again."""
        self._rewrite = True
        self._changes = {**batch.changes, **self._changes}

    def close(self) -> None:
        """Let go of the file. What was not committed is gone."""
        if self._segment is not None:
            self._segment.close()
