"""The whole store of one gateway: three logs, the tables, one commit, one lock.

The byte quota is shared out once, so neither direction takes the other's room:
eight tenths for the uplink, one for the downlink, one for dead letters.
"""

from __future__ import annotations

import os
from typing import Final

from bridge.errors import StoreFailed
from bridge.store.commit import Committer
from bridge.store.files import OS_FILES, Files
from bridge.store.log import Log
from bridge.store.table import Table

__all__ = ["Spool"]

_TENTHS: Final = {"uplink": 8, "downlink": 1, "dead": 1}


class Spool:
    """An open store. `max_bytes` is the quota over all three logs."""

    def __init__(self, path: str, max_bytes: int, files: Files, lock: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self._files = files
        self._lock = lock
        damaged = os.path.join(path, "damaged")
        self.uplink, self.downlink, self.dead = (
            Log.open(
                os.path.join(path, name),
                max_bytes=max_bytes * tenths // 10,
                files=files,
                damaged_folder=damaged,
            )
            for name, tenths in _TENTHS.items()
        )
        tables = os.path.join(path, "tables")
        files.make_folder(tables)
        self.sessions = Table(os.path.join(tables, "sessions.tab"), files)
        self.retained = Table(os.path.join(tables, "retained.tab"), files)
        self.marks = Table(os.path.join(tables, "marks.tab"), files)
        self.committer = Committer(
            [self.uplink, self.downlink, self.dead, self.sessions, self.retained, self.marks]
        )

    @classmethod
    def open(cls, path: str, max_bytes: int, files: Files = OS_FILES) -> Spool:
        """Open or make the store in the folder `path` and recover it; needs a running loop.

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
                return cls(path, max_bytes, files, lock)
            except BaseException:
                files.close(lock)
                raise
        except OSError as error:
            raise StoreFailed(
                f"the store {path} cannot be used: {error.strerror}: {error.filename or path}"
            ) from error

    @property
    def size(self) -> int:
        """Bytes of messages kept, over all logs."""
        return self.uplink.size + self.downlink.size + self.dead.size

    @property
    def damaged(self) -> int:
        """Stretches of bytes found damaged since the start."""
        return self.uplink.damaged + self.downlink.damaged + self.dead.damaged

    async def close(self) -> None:
        """Commit what is queued, save and sync the cursors, let go of the lock."""
        await self.committer.close()
        for part in (self.uplink, self.downlink, self.dead, self.sessions, self.retained, self.marks):
            part.close()
        self._files.close(self._lock)
