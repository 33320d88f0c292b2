"""The whole store of one gateway: three logs, the tables, one commit, one lock.

The byte quota is shared out once, so neither direction takes the other's room:
eight tenths for the uplink, one for the downlink, one for dead letters. A quota that
the disk could never hold is lowered to what it can: on a partition of 16 MB a store
of the default 1 GiB is full, by the routes' rules, and not the disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Final

from bridge.errors import StoreFailed
from bridge.store.commit import Committer
from bridge.store.files import OS_FILES, Files
from bridge.store.log import Log
from bridge.store.reserve import RESERVE_BYTES, Reserve
from bridge.store.settled import Settled
from bridge.store.survey import survey
from bridge.store.table import Table

__all__ = ["Spool"]

log = logging.getLogger(__name__)

_TENTHS: Final = {"uplink": 8, "downlink": 1, "dead": 1}
_DISK_RESERVE: Final = 2 << 20  # of the disk: for the reserve, tables, cursors and the file system itself
_TABLES: Final = ("sessions", "retained", "marks", "settled")


class Spool:
    """An open store. `max_bytes` is the quota over all three logs."""

    def __init__(self, path: str, max_bytes: int, files: Files, lock: int, keep_s: float = 0.0) -> None:
        self.path = path
        max_bytes = self.max_bytes = _fitting(path, max_bytes, files)
        self._files = files
        self._lock = lock
        damaged = os.path.join(path, "damaged")
        tables = os.path.join(path, "tables")
        paths = [os.path.join(tables, name + ".tab") for name in _TABLES]
        # All of them before the first is recovered, so that a newer format
        # anywhere stops the start before a byte is written.
        for name in _TENTHS:
            survey(os.path.join(path, name), files)
        for table in paths:
            Table.check(table, files)
        self.uplink, self.downlink, self.dead = (
            Log.open(
                os.path.join(path, name),
                max_bytes=max_bytes * tenths // 10,
                files=files,
                damaged_folder=damaged,
            )
            for name, tenths in _TENTHS.items()
        )
        self._durable_before = self.uplink.durable + self.downlink.durable + self.dead.durable
        self._written_before = files.written_bytes
        self.uplink.history.keep_s = keep_s
        files.make_folder(tables)
        tabs = self.sessions, self.retained, self.marks, settled = [
            Table(table, files, damaged) for table in paths
        ]
        self.settled = Settled(settled, self.dead.epoch)
        self._parts: list[Log | Table] = [self.uplink, self.downlink, self.dead, *tabs]
        reserve = Reserve(files, os.path.join(path, "reserve"), min(RESERVE_BYTES, max_bytes // 16))
        reserve.spare = self._free_some
        self.committer = Committer(self._parts, reserve)

    def _free_some(self) -> bool:
        """Give up something that nobody needs, for its room; return whether there was any."""
        logs = (self.uplink, self.downlink, self.dead)
        return any(log.give_up_spare() for log in logs) or self.uplink.history.give_up_oldest()

    @classmethod
    def open(cls, path: str, max_bytes: int, files: Files = OS_FILES, keep_s: float = 0.0) -> Spool:
        """Open or make the store in the folder `path` and recover it; needs a running loop.

        What every route has delivered is kept for `keep_s`, see `bridge.store.history`.

        Raises StoreFailed when another process has it, when a newer edgespool wrote
        it, or when the folder cannot be used.
        """
        try:
            files.make_folder(path)
            lock = files.lock(os.path.join(path, "lock"))
            if lock is None:
                raise StoreFailed(
                    f"the store {path} is in use by another process; "
                    "stop that one, or give this one another folder with --state"
                )
            try:
                return cls(path, max_bytes, files, lock, keep_s)
            except BaseException:
                files.close(lock)
                raise
        except OSError as error:
            raise StoreFailed(
                f"the store {path} cannot be used: {error.strerror}: {error.filename or path}"
            ) from error

    @property
    def written_bytes(self) -> int:
        """Bytes that went to the disk since the start, in whole pages."""
        return self._files.written_bytes - self._written_before

    @property
    def accepted_bytes(self) -> int:
        """Bytes of records that were made durable for them."""
        return self.uplink.durable + self.downlink.durable + self.dead.durable - self._durable_before

    @property
    def size(self) -> int:
        """Bytes of messages kept, over all logs."""
        return self.uplink.size + self.downlink.size + self.dead.size

    @property
    def damaged(self) -> int:
        """Stretches of bytes found damaged since the start."""
        return sum(part.damaged for part in self._parts)

    async def close(self) -> None:
        """Commit what is queued, save and sync the cursors, let go of the lock."""
        with contextlib.ExitStack() as closing:
            closing.callback(self._files.close, self._lock)
            for part in self._parts:
                closing.callback(part.close)
            await self.committer.close()


def _fitting(path: str, max_bytes: int, files: Files) -> int:
    """The quota, or as much of it as the disk could hold if there were nothing else on it."""
    total = files.total(path)
    fits = max(total * 15 // 16 - _DISK_RESERVE, 1 << 20)
    if max_bytes <= fits:
        return max_bytes
    log.warning("quota lowered path=%s bytes=%d was=%d disk=%d", path, fits, max_bytes, total)
    return fits
