"""Whether a slow line still moves: what the far end has taken of our bytes, as the kernel counts it.

A large message on a line of 64 kbit is unconfirmed for longer than anybody waits for a
far end that is healthy. It is told from a far end that confirms nothing by two numbers of
TCP: how much was acknowledged (it rises) and how much still lies here (there is some).
What a few heartbeats leave here for the time of a round trip does not count.

Where the kernel does not say (another system, a Unix socket), nothing moves: then
patience ends as it was configured.
"""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
from collections.abc import Iterable
from struct import Struct
from typing import Final

__all__ = ["Movement"]

_BYTES_ACKED_AT: Final = 120  # of struct tcp_info, since Linux 4.1
_BYTES_ACKED: Final = Struct("=Q")
_INT: Final = Struct("=i")
_HEARTBEATS: Final = 1024  # bytes; one has 30 at most, and a few may be on their way at the same time


class Movement:
    """Looks at descriptors again and again; remembers what each had given away."""

    def __init__(self) -> None:
        self._acked: dict[int, int] = {}

    def look(self, descriptors: Iterable[int]) -> bool:
        """Whether one of them gave bytes away since it was last looked at, and has more to give."""
        before, self._acked = self._acked, {}
        moves = False
        for fd in descriptors:
            counts = _counts(fd)
            if counts is None:
                continue
            acked, waiting = counts
            moves = moves or (waiting > _HEARTBEATS and acked > before.get(fd, acked))
            self._acked[fd] = acked
        return moves


def _counts(fd: int) -> tuple[int, int] | None:
    """Bytes that the far end has acknowledged, and bytes that it has not."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        borrowed = socket.socket(fileno=fd)
    except (OSError, ValueError):  # gone meanwhile: nobody tells us before
        return None
    try:
        info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED_AT + _BYTES_ACKED.size)
        waiting = fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(_INT.size))
    except OSError:
        return None
    finally:
        borrowed.detach()
    if len(info) < _BYTES_ACKED_AT + _BYTES_ACKED.size:
        return None
    return _BYTES_ACKED.unpack_from(info, _BYTES_ACKED_AT)[0], _INT.unpack(waiting)[0]
