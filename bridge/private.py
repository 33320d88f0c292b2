"""Files that hold a secret: read only where not everyone else can read them too.

What is looked at is the file that was opened, not its name a moment before. A pipe or a
device has no mode that means anything; whoever handed it to us chose who may read it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["check_private", "read_private"]


def check_private(path: Path | str) -> None:
    """Raise ValueError, which says what to write, for a file that everyone here can read or change.

    For files that somebody else will open, such as OpenSSL; one that is not there is their business.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return
    _check(path, found)


def read_private(path: Path | str, bytes_max: int) -> bytes:
    """Return the content of a file. Raises ValueError that says which file, why, and what to do."""
    try:
        # A pipe without a writer would hold up the start for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _check(path, os.fstat(fd))
            os.set_blocking(fd, True)
            with open(fd, "rb", closefd=False) as file:
                content = file.read(bytes_max + 1)
        finally:
            os.close(fd)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(content) > bytes_max:
        raise ValueError(f"{path} is longer than {bytes_max} bytes")
    return content


def _check(path: Path | str, found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode) and found.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        what = "read" if found.st_mode & stat.S_IROTH else "changed"
        raise ValueError(f"{path} can be {what} by everyone on this machine; write: chmod 600 {path}")
