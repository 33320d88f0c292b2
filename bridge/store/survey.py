"""What lies in the folder of a log, before anything there is touched.

Recovery begins by looking: a file of a newer format must stop the start before a
byte is written, and how far the log once reached is told by more than its newest
segment. A cursor may stand behind the end that is left, when an old copy was put
back or the last record has rotted.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from bridge.store.aside import ASIDE, part_places
from bridge.store.cursor import CURSOR_BYTES, read_slots
from bridge.store.files import Files
from bridge.store.segment import HEADER_BYTES, Header, file_name, half_damaged, read_header
from bridge.store.spares import spare_places

__all__ = ["Found", "peek", "survey"]

_NAME_LENGTH: Final = len(file_name(0))


class Found(NamedTuple):
    """A segment file; `header` is None when it has none that can be read.

    `half_damaged`: one of the two copies of the header cannot be.
    """

    name: str
    header: Header | None
    size: int
    half_damaged: bool

    @property
    def base(self) -> int:
        """The position of its first byte, from its name."""
        return int(self.name[:-4])


def survey(folder: str, files: Files) -> tuple[list[Found], int]:
    """The segment files, in order, and where the furthest cursor stands.

    Writes nothing. Raises StoreFailed when any file is of a newer format.
    """
    found = []
    for name in files.names(folder):
        if name.endswith(".seg") and name[:-4].isdecimal() and len(name) == _NAME_LENGTH:
            path = os.path.join(folder, name)
            data, size = peek(files, path, HEADER_BYTES)
            header = read_header(data, path)
            if header is not None and name != file_name(header.base):
                header = None  # a copy somebody made: what it says is not about this place
            found.append(Found(name, header, size, header is not None and half_damaged(data)))
        elif spare_places(name):
            path = os.path.join(folder, name)
            read_header(peek(files, path, HEADER_BYTES)[0], path)
    furthest = 0
    cursors = os.path.join(folder, "cursors")
    for name in files.names(cursors):
        if name.endswith(".cur"):
            path = os.path.join(cursors, name)
            slot = read_slots(peek(files, path, CURSOR_BYTES)[0], path)
            furthest = max(furthest, slot[0] if slot else 0)
    asides = os.path.join(folder, ASIDE)
    for name in files.names(asides):
        for part in files.names(os.path.join(asides, name)):
            if part_places(part):
                path = os.path.join(asides, name, part)
                read_header(peek(files, path, HEADER_BYTES)[0], path)
    return found, furthest


def peek(files: Files, path: str, length: int) -> tuple[bytes, int]:
    """The first bytes of a file, and its size."""
    fd = files.open(path)
    try:
        return files.read(fd, length, 0), files.size(fd)
    finally:
        files.close(fd)
