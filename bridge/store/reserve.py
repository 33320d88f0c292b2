"""Room kept back on the disk, for what the house has to write down though the disk is full.

A store drains by writing: a session's marks before a message goes to its device, a
cursor, a dead letter. On a disk without a free byte nothing would ever get away, and
so nothing would ever become free. Therefore one file of zeros holds some room; when a
commit finds none, the file is given up, and messages are refused until there is room
to make it again. What is committed meanwhile is the house's own, and small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bridge.store.files import Files
from bridge.store.history import FULL

__all__ = ["RESERVE_BYTES", "Reserve"]

RESERVE_BYTES: Final = 1024 * 1024


class Reserve:
    """The file; `held` tells whether its room is ours."""

    def __init__(self, files: Files, path: str, size: int = RESERVE_BYTES) -> None:
        self._files = files
        self._path = path
        self._size = size
        self.held = False
        self.spare: Callable[[], bool] = lambda: False  # frees some of what may go first, if there is any

    def take(self) -> OSError | None:
        """Hold the room, if it is there; return why it is not. Safe to call again.

        Never synced: after a power cut it is made anew.
        """
        while not self.held and (error := self._try()) is not None:
            if error.errno not in FULL or not self.spare():
                return error
        return None

    def _try(self) -> OSError | None:
        try:
            fd = self._files.open(self._path, create=True)
            whole = self._files.size(fd) == self._size
            self._files.close(fd)
            if not whole:
                self._files.unlink(self._path)
                self._files.close(self._files.create(self._path, self._size))
        except OSError as error:
            return error
        self.held = True
        return None

    def give_up(self) -> bool:
        """Free the room; return whether there was any."""
        if not self.held:
            return False
        self.held = False
        self._files.unlink(self._path)
        return True
