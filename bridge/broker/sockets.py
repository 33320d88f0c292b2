"""Listening sockets: bound here and nowhere else, so that every failure says what to do.

A name that stands for several addresses (`localhost`) is bound at each of them. A
Unix socket gets its permissions before anyone can connect: a socket that was bound
and does not listen yet refuses everyone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from typing import Final

from bridge.errors import ConfigError

__all__ = ["listen_tcp", "listen_unix", "unlink_unix"]

_BACKLOG: Final = 4096  # a site that reconnects at once; the kernel takes its own bound if that is lower
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


async def listen_tcp(host: str, port: int) -> list[socket.socket]:
    """Listen at every address of the host. Raises ConfigError that names the port and the flag."""
    loop = asyncio.get_running_loop()
    sockets: list[socket.socket] = []
    not_here: OSError | None = None
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                sockets.append(_bound(family, kind, protocol, address))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                not_here = error  # `localhost` names ::1 on machines without IPv6, too
        if not sockets and not_here is not None:
            raise not_here
    except OSError as error:
        for sock in sockets:
            sock.close()
        why = "is already in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise ConfigError(f"MQTT port {port} on {host} {why}; choose another with --mqtt HOST:PORT") from None
    return sockets


def _bound(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def listen_unix(path: str, mode: int) -> socket.socket:
    """Listen at a path, taking the place of a socket where nobody listens any more.

    Raises ConfigError when something else is in the way, or the folder is.
    """
    _make_way(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(path)
        os.chmod(path, mode)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        why = error.strerror or str(error)  # a path that is too long has no number
        raise ConfigError(f"{path} cannot be a Unix socket: {why}; choose another path") from None
    return sock


def _make_way(path: str) -> None:
    try:
        found = os.lstat(path)
    except OSError:
        return  # the usual case; what else may be wrong, `bind` will say
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"{path} is there and is no socket; remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # its queue is full: somebody has one
        except OSError as error:
            raise ConfigError(f"{path} cannot be looked at: {error.strerror}") from None
    raise ConfigError(f"{path} is already in use by another process; stop it, or choose another path")


def unlink_unix(sock: socket.socket, path: str, inode: tuple[int, int]) -> None:
    """Close, and remove the file, unless another process has put its own there meanwhile."""
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == inode:
            os.unlink(path)
    sock.close()
