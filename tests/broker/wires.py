"""One device for every kind of listener: `WireDevice` speaks through TCP, TLS, WebSocket or a Unix socket.

The WebSocket here is written by hand, because half of what tests want to send no
library would.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any

from bridge.message import Properties
from bridge.mqtt.packet import Connack, Connect
from tests.broker.device import Device

__all__ = ["BINARY", "CLOSE", "CONT", "PING", "PONG", "TEXT", "Wire", "WireDevice", "frame", "request"]

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def request(path: str = "/mqtt", **changes: str | None) -> bytes:
    """An upgrade request; `changes` replace headers (`sec_websocket_key`), None takes one away."""
    headers: dict[str, str | None] = {
        "host": "127.0.0.1",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
        "sec-websocket-protocol": "mqtt",
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


def frame(
    data: bytes, opcode: int = BINARY, *, fin: bool = True, mask: bool = True, reserved: int = 0
) -> bytes:
    """One frame of a client."""
    head = bytes([fin << 7 | reserved << 4 | opcode])
    size = len(data)
    if size < 126:
        head += bytes([mask << 7 | size])
    elif size < 65_536:
        head += bytes([mask << 7 | 126]) + size.to_bytes(2)
    else:
        head += bytes([mask << 7 | 127]) + size.to_bytes(8)
    if not mask:
        return head + data
    key = os.urandom(4)
    stream = (key * (size // 4 + 1))[:size]
    masked = (int.from_bytes(data) ^ int.from_bytes(stream)).to_bytes(size)
    return head + key + masked


class Wire:
    """The client's end of a WebSocket, as a reader and a writer of MQTT. `frames` is what came, whole."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.transport = writer.transport
        self.frames: list[tuple[int, bytes]] = []
        self.status = 0
        self.head = b""

    async def upgrade(self, asked: bytes) -> int:
        """Send a request; return the status of the answer."""
        self._writer.write(asked)
        self.head = await self._reader.readuntil(b"\r\n\r\n")
        self.status = int(self.head.split()[1])
        return self.status

    def write(self, data: bytes) -> None:
        self._writer.write(frame(data))

    def write_raw(self, data: bytes) -> None:
        self._writer.write(data)

    async def next_frame(self) -> tuple[int, bytes]:
        """The next frame. Raises EOFError when there is none."""
        first, second = await self._reader.readexactly(2)
        assert first & 0x80, "the gateway fragments nothing"
        assert not second & 0x80, "a server does not mask"
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8))
        one = (first & 0x7F, await self._reader.readexactly(size))
        self.frames.append(one)
        return one

    async def read(self, count: int = -1) -> bytes:
        """The payload of the next binary frame; nothing when it is over."""
        while True:
            try:
                opcode, data = await self.next_frame()
            except (EOFError, ConnectionError):
                return b""
            if opcode == CLOSE:
                return b""
            if opcode == BINARY:
                return data


class WireDevice(Device):
    """A device at a listener of any kind; `context` is how it does TLS."""

    def __init__(
        self,
        kind: str,
        where: int | str,
        version: int = 5,
        context: ssl.SSLContext | None = None,
        asked: bytes | None = None,
    ) -> None:
        super().__init__(where if isinstance(where, int) else 0, version)
        self.kind, self.where, self.context = kind, where, context
        self.asked = request() if asked is None else asked

    async def open(self) -> None:
        """Raises OSError or EOFError when no connection comes of it."""
        if self.kind == "unix":
            self._reader, self._writer = await asyncio.open_unix_connection(str(self.where))
            return
        name = "localhost" if self.context is not None else None
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.where, ssl=self.context, server_hostname=name
        )
        self._reader, self._writer = reader, writer
        if self.kind in ("ws", "wss"):
            wire = Wire(reader, writer)
            self._reader, self._writer = wire, wire  # type: ignore[assignment]
            status = await wire.upgrade(self.asked)
            if status != 101:
                raise ConnectionRefusedError(f"answered {status}")

    @property
    def wire(self) -> Wire:
        assert isinstance(self._writer, Wire)
        return self._writer

    async def hello(self, client_id: str = "device", **properties: Any) -> Connack | None:
        """CONNECT; the answer, or None when the gateway has closed instead."""
        about = Properties(**properties) if self.version == 5 else None
        self.send(Connect(client_id, self.version, True, 0, None, None, None, about))
        packet = await self.next()
        assert packet is None or isinstance(packet, Connack)
        return packet
