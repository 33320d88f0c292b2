"""A dict that survives: sessions and retained messages, key → bytes.

The file is a segment (`bridge.store.segment`) of PUT and DELETE records, the
later one counts. When more than half of it is stale, or when a write to it has
failed, the whole table is written to a new file that takes the place of the old
one at one stroke, so at every moment one whole file stands under the name.

A record that is damaged costs its key the latest value: the one before counts
again, if there is one. The bytes are kept aside and the table is written anew.

It joins the commits of the logs through the same three steps: take, write,
settle or fail.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import msgspec

from bridge.store.damaged import Damaged
from bridge.store.files import OS_FILES, Files
from bridge.store.record import DELETE, PUT, RawRecord, encode_one
from bridge.store.segment import HEADER_BYTES, Damage, Header, Segment, half_damaged, read_header, scan

__all__ = ["Table", "take_in"]

SLACK_BYTES: Final = 256 * 1024  # below this, stale records are not worth a rewrite
_decode: Final = msgspec.msgpack.Decoder(tuple[str, bytes | None]).decode
_encode: Final = msgspec.msgpack.Encoder().encode


def take_in(values: dict[str, bytes], record: RawRecord) -> bool:
    """Do to `values` what a record of a table says; return False where it is none."""
    try:
        key, value = _decode(record.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    if record.kind == PUT and value is not None:
        values[key] = value
    elif record.kind == DELETE:
        values.pop(key, None)
    else:
        return False
    return True


class TableBatch:
    """What one commit writes: changes, or the whole table when it has to be written anew."""

    def __init__(self, changes: dict[str, bytes | None], whole: dict[str, bytes] | None) -> None:
        self.changes = changes
        self.whole = whole
        self.tried = False  # whether anything of it may have reached the disk


class Table:
    """Keys and values, in memory, and on the disk as of the last commit."""

    def __init__(self, path: str, files: Files = OS_FILES, damaged_folder: str | None = None) -> None:
        """Read the file, or begin without one. Raises StoreFailed for a newer format.

        What is damaged is kept as a copy in `damaged_folder` and logged, one line each.
        """
        self.path = path
        self._damage = Damaged(files, damaged_folder or path + "-damaged", os.path.basename(path))
        self._files = files
        self._values: dict[str, bytes] = {}
        self._changes: dict[str, bytes | None] = {}
        self._segment: Segment | None = None
        self._end = 0
        self._live_bytes = 0
        self._sequence = 1
        self._rewrite = True
        there = self.check(path, files)
        files.unlink(path + ".new")  # a rewrite that was not finished
        if there:
            # A killed rewrite may have put the file here and not synced its name;
            # changes appended to it would go with the name.
            files.sync_folder(os.path.dirname(path))
            self._load()

    @staticmethod
    def check(path: str, files: Files = OS_FILES) -> bool:
        """Whether the file is there. Writes nothing; raises StoreFailed for a newer format."""
        folder, name = os.path.split(path)
        if name not in files.names(folder):
            return False
        fd = files.open(path)
        try:
            read_header(files.read(fd, HEADER_BYTES, 0), path)
        finally:
            files.close(fd)
        return True

    def _load(self) -> None:
        fd = self._files.open(self.path)
        size = self._files.size(fd)
        head = self._files.read(fd, HEADER_BYTES, 0)
        header = read_header(head, self.path)
        if header is None:
            self._damage.keep(0, size, self._files.read(fd, size, 0))
            self._files.close(fd)
            return
        self._segment = segment = Segment(self._files, self.path, header, fd)
        self._end = HEADER_BYTES
        self._rewrite = half_damaged(head)
        if self._rewrite:
            self._damage.half_of_header(self.path)
        for found in scan(segment, size):
            if isinstance(found, RawRecord):
                begin, self._end, self._sequence = self._end, found.end, found.sequence + 1
                if take_in(self._values, found):
                    continue
                found = Damage(begin, found.end, at_tail=False)
            self._end = found.end
            self._rewrite = True
            self._damage.keep(found.begin, found.end, segment.read(found.begin, found.end - found.begin))
        self._live_bytes = sum(len(key) + len(value) + 32 for key, value in self._values.items())

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
    def damaged(self) -> int:
        """Stretches of bytes found damaged since the start."""
        return self._damage.count

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
        batch.tried = True
        if batch.whole is not None or self._segment is None:
            self._write_whole(batch.whole or {})
            return
        data = self._encode(batch.changes, self._end, self._segment.salt)
        self._segment.write(self._end, data)
        self._files.sync(self._segment.fd)
        self._end += len(data)

    def _write_whole(self, values: dict[str, bytes]) -> None:
        path = self.path + ".new"
        self._files.unlink(path)
        header = Header(int.from_bytes(os.urandom(4), "little"), 0, 0, self._sequence, 0)
        data = header.encode() + self._encode(values, HEADER_BYTES, header.salt)
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

    def _encode(self, changes: dict[str, bytes] | dict[str, bytes | None], position: int, salt: int) -> bytes:
        parts = []
        for key, value in changes.items():
            kind = DELETE if value is None else PUT
            parts.append(encode_one(kind, _encode((key, value)), position, self._sequence, salt))
            position += len(parts[-1])
            self._sequence += 1
        return b"".join(parts)

    def settle(self, batch: TableBatch) -> None:
        """The batch is on the disk."""
        self._rewrite = False

    def fail(self, batch: TableBatch, error: Exception) -> None:
        """The batch is not on the disk, and the file is not trusted again.

        Its changes are kept for the next commit: they are state, and nobody sends
        them again.
        """
        self._rewrite = self._rewrite or batch.tried
        self._changes = {**batch.changes, **self._changes}

    def close(self) -> None:
        """Let go of the file. What was not committed is gone."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None
