"""MQTT over WebSocket: what stands between the transport and a Link, and looks to each like the other.

    transport ⇄ WebSocket ⇄ Link        bytes of frames ⇄ bytes of MQTT

RFC 6455 itself is the library's (`websockets`, without its I/O); here is only what
MQTT and our bounds add to it:

- the request has to offer `mqtt` [MQTT-6.0.0-3], which is what it gets
  [MQTT-6.0.0-4]; a page of a foreign origin, or another path, gets none;
- only binary messages [MQTT-6.0.0-1]. Where a frame ends means nothing: all of one
  read goes to the Link at once, and all that a Link writes at once is one frame;
- before CONNECT was accepted a message may be as long as a CONNECT, afterwards as a
  packet. No compression: a bomb of a few bytes would be let off before anyone has
  said who he is;
- the request is bounded too. For its slowness there is no clock here: the Link is
  there from the first byte on, and its deadline for CONNECT covers the upgrade.
"""

from __future__ import annotations

import asyncio
import http
import logging
import socket
from collections.abc import Collection
from typing import Any, Final, cast

from websockets.datastructures import MultipleValuesError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from bridge.broker.link import Link
from bridge.policy.hosts import names_of, origin_is_welcome

__all__ = ["WebSocket"]

log = logging.getLogger(__name__)

_REQUEST_BYTES_MAX: Final = 16 * 1024  # a browser's cookies have some kilobytes
_UNREAD_BYTES_MAX: Final = 64 * 1024  # answers to PING that nobody takes
# The second is what clients of MQTT 3.1 offer; Mosquitto takes it too.
_SUBPROTOCOLS: Final = (Subprotocol("mqtt"), Subprotocol("mqttv3.1"))
_NAMES: Final = names_of(socket.gethostname())
# The library would tell of each connection, and of each stranger's mistake.
_SILENT: Final = logging.getLogger("websockets.server")
_SILENT.setLevel(logging.CRITICAL)


class WebSocket(asyncio.Protocol):
    """One connection; to its Link a transport."""

    __slots__ = (
        "_closing",
        "_link",
        "_origins",
        "_path",
        "_protocol",
        "_request_bytes",
        "_tail",
        "_transport",
    )

    def __init__(self, link: Link, path: str | None, origins: Collection[str]) -> None:
        self._link = link
        self._path = path
        self._origins = origins
        self._protocol = ServerProtocol(
            subprotocols=_SUBPROTOCOLS, max_size=link.limits.connect_bytes_max, logger=_SILENT
        )
        self._request_bytes = 0
        self._tail = b""
        self._closing = False

    # ---- towards the network -------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes, though they do all the same things.
        self._transport = cast(asyncio.Transport, transport)
        self._link.connection_made(cast(asyncio.BaseTransport, self))

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        protocol = self._protocol
        if protocol.state is State.CONNECTING:
            self._upgrade(data)
            return
        if self._link.subscriber is not None:
            protocol.max_message_size = self._link.limits.packet_bytes_max
        protocol.receive_data(data)
        self._take()

    def _upgrade(self, data: bytes) -> None:
        protocol = self._protocol
        # The library would read frames behind the request at once, and answer a ping
        # before the upgrade: it gets them when it has said yes.
        tail, self._tail = self._tail, (self._tail + data)[-3:]
        at = (tail + data).find(b"\r\n\r\n")
        size = at + 4 - len(tail) if at >= 0 else len(data)
        data, early = data[:size], data[size:]
        self._request_bytes += len(data)
        protocol.receive_data(data)
        events = protocol.events_received()
        if not events and protocol.handshake_exc is None:
            if self._request_bytes > _REQUEST_BYTES_MAX:
                self._refuse(protocol.reject(431, "the request is too long\n"), "a request too long")
            return
        if protocol.handshake_exc is not None:
            self._refuse(protocol.reject(400, "this is no request for a WebSocket\n"), "no HTTP request")
            return
        request = cast(Request, events[0])
        refusal = self._objection(request)
        response = protocol.reject(*refusal) if refusal else protocol.accept(request)
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            why = refusal[1].strip() if refusal else str(protocol.handshake_exc)
            self._refuse(response, why)
            return
        protocol.send_response(response)
        self._tail = b""
        self._flush()
        if early:
            self.data_received(early)

    def _objection(self, request: Request) -> tuple[int, str] | None:
        """Why this request gets no WebSocket here, besides what the library finds wrong with it."""
        try:
            origin, host = request.headers.get("Origin"), request.headers.get("Host", "")
        except MultipleValuesError:
            return 400, "Origin or Host stands twice\n"
        if self._path is not None and request.path.partition("?")[0] != self._path:
            return 404, "nothing is served under this path\n"
        # No browser leaves Origin out, so without it this is no page, and nobody's visitor.
        if origin is not None and not origin_is_welcome(origin, host, _NAMES, self._origins):
            return (
                403,
                "this page may not connect; 'origins' of the listener names those that may\n",
            )
        return None

    def _refuse(self, response: Response, why: str) -> None:
        link = self._link
        link.broker.malformed += 1
        if link.broker.may_log():
            log.info("no upgrade peer=%s reason=%r", link.peer, why[:200])
        # For some mistakes the library has its answer ready.
        self._transport.write(b"".join(self._protocol.data_to_send()) or response.serialize())
        self._closing = True
        self._transport.close()

    def _take(self) -> None:
        """Hand on what has come, answer what the library answers by itself."""
        protocol, link = self._protocol, self._link
        chunks: list[bytes | bytearray | memoryview] = []
        stray = False
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode is Opcode.TEXT:
                stray = True
                break
            if frame.opcode is Opcode.BINARY or frame.opcode is Opcode.CONT:
                chunks.append(frame.data)
        if data := chunks[0] if len(chunks) == 1 else b"".join(chunks):
            link.data_received(bytes(data))
        if (protocol.parser_exc is not None or stray) and not self._closing:
            if stray:
                protocol.fail(CloseCode.UNSUPPORTED_DATA, "MQTT is binary")
            link.broker.malformed += 1
            if link.broker.may_log():
                why = "a text frame" if stray else str(protocol.parser_exc)
                log.info("protocol error peer=%s client=%s reason=%r", link.peer, link.publisher, why)
        self._flush()

    def _flush(self) -> None:
        """Send what the library wants sent; an empty piece says that this was all."""
        pieces = self._protocol.data_to_send()
        transport = self._transport
        if not pieces or transport.is_closing():
            return
        transport.write(b"".join(pieces))
        if transport.get_write_buffer_size() > _UNREAD_BYTES_MAX + self._link.limits.unsent_bytes_max:
            self.abort()
        elif not pieces[-1]:
            self._closing = True
            transport.close()

    def eof_received(self) -> None:
        """A half-closed device is gone: the event loop closes the rest."""

    def pause_writing(self) -> None:
        self._link.pause_writing()

    def resume_writing(self) -> None:
        self._link.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        # The parser is a generator of the library's own object: a circle, opened here.
        self._protocol.parser.close()
        self._link.connection_lost(exc)

    # ---- towards the Link, which takes this for its transport ----------------------

    def write(self, data: bytes) -> None:
        """Send it as one message."""
        if not self._closing and self._protocol.state is State.OPEN:
            self._protocol.send_binary(data)
            self._flush()

    def close(self) -> None:
        """Say so in WebSocket's words too, and close once all is sent."""
        if self._closing:
            return
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
        self._flush()
        self._closing = True
        self._transport.close()

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
