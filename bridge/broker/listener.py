"""A TCP socket that makes a Link of whoever comes.

What can go wrong goes wrong in `start`, before any device was told anything.
"""

from __future__ import annotations

import asyncio
import errno
import socket

from bridge.broker.broker import Broker
from bridge.broker.door import Door
from bridge.broker.link import Link
from bridge.errors import ConfigError

__all__ = ["Listener"]


class Listener:
    """One address on which devices are taken in."""

    def __init__(self, broker: Broker, door: Door, host: str, port: int) -> None:
        self._broker = broker
        self.door = door
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Afterwards devices can connect. Raises ConfigError that names the port and the flag."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Link(self._broker, self.door), self._host, self._port, backlog=1024
            )
        except OSError as error:
            why = (
                "is already in use"
                if error.errno == errno.EADDRINUSE
                else f"cannot be used: {error.strerror}"
            )
            raise ConfigError(
                f"MQTT port {self._port} on {self._host} {why}; choose another with --mqtt HOST:PORT"
            ) from None
        for sock in self._server.sockets:
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def address(self) -> str:
        """`host:port` as it is really bound."""
        if self._server is None or not self._server.sockets:
            return f"{self._host}:{self._port}"
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def stop(self) -> None:
        """Take nobody in any more; those who are here stay."""
        if self._server is not None:
            self._server.close()
            self._server = None
