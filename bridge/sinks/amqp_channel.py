"""One AMQP connection with one channel, from its first byte to its last.

What it is used for stands elsewhere, in `amqp_link` and in `bridge.sources.amqp`: here is
how it is opened, how the broker is asked something, how it is noticed that nothing comes
any more, and how it is closed. `lost` says why it ended, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from struct import Struct
from typing import Any, Final

import pika
from pika import exceptions

from bridge.errors import SinkUnavailable
from bridge.sinks.amqp_connection import Connection, explain, parameters
from bridge.sinks.amqp_options import Address, AmqpOptions

__all__ = ["UNREADABLE", "Channel", "Forgiving"]

UNREADABLE: Final[dict[str, Any]] = {"unreadable": True}  # the headers of a message whose own are not known
_FRAME: Final = Struct(">BHI")
_HEADER: Final = Struct(">HHQ")

CLOSE_S: Final = 1.0
# A broker that is alive has spoken three times by then.
SILENT_HEARTBEATS: Final = 1.5


class Forgiving(Connection):
    """Reads on behind properties that pika cannot read, such as a time in the year 300,000.

    Else one message would break the link, be handed out again, and break the next one.
    """

    def _read_frame(self) -> Any:
        try:
            return super()._read_frame()
        except Exception:
            kind, channel, size = _FRAME.unpack_from(self._frame_buffer)
            if kind != pika.spec.FRAME_HEADER:
                raise
            _, _, body_size = _HEADER.unpack_from(self._frame_buffer, _FRAME.size)
            properties = pika.BasicProperties(headers=UNREADABLE)
            return _FRAME.size + size + 1, pika.frame.Header(channel, body_size, properties)


class Channel:
    """`channel` is open after `open`; whoever derives from it does the rest."""

    kind: type[Connection] = Connection

    def __init__(self, name: str, options: AmqpOptions, gateway: str, address: Address) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self.name = name
        self.options = options
        self._gateway = gateway
        self._address = address
        self.connection: Connection | None = None
        self.channel: Any = None
        self._closed = asyncio.Event()
        self._pulse: asyncio.TimerHandle | None = None
        self._heard_bytes = 0
        self._heard_at = 0.0

    async def open(self) -> None:
        """Afterwards there is a channel. Raises SinkUnavailable."""
        opened: asyncio.Future[Any] = self._loop.create_future()
        self.connection = self.kind(
            parameters(self.name, self.options, self._gateway, self._address),
            on_open_callback=_result_of(opened),
            on_open_error_callback=self._on_closed,
            on_close_callback=self._on_closed,
            custom_ioloop=self._loop,
        )
        await self._unless_lost(opened)
        self.connected(self.connection)
        self.channel = await self.ask(self.connection.channel, "on_open_callback")
        self.channel.add_on_close_callback(lambda _channel, error: self.ended(error))

    def connected(self, connection: Connection) -> None:
        """The connection is open, and the channel not yet."""

    async def ask(self, method: Callable[..., Any], callback: str = "callback", **arguments: Any) -> Any:
        """Call one of pika's methods and wait for the broker's answer."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        try:
            method(**{callback: _result_of(answer)}, **arguments)
        except exceptions.AMQPError as error:
            raise SinkUnavailable(explain(error)) from error
        return await self._unless_lost(answer)

    async def _unless_lost(self, answer: asyncio.Future[Any]) -> Any:
        await asyncio.wait((answer, self.lost), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            raise SinkUnavailable(self.lost.result())
        return answer.result()

    def listen(self) -> None:
        """From now on notice a line on which nothing comes any more.

        The broker says something every half heartbeat. Pika looks only every heartbeat
        and five seconds, and then twice.
        """
        self._heard_at = self._loop.time()
        self._listen()

    def _listen(self) -> None:
        connection, heartbeat_s, now = self.connection, self.options.heartbeat, self._loop.time()
        assert connection is not None
        if connection.bytes_received != self._heard_bytes:
            self._heard_bytes, self._heard_at = connection.bytes_received, now
        elif now - self._heard_at >= SILENT_HEARTBEATS * heartbeat_s:
            self.fail("the broker's heartbeats stopped")
            return
        self._pulse = self._loop.call_later(heartbeat_s / 8, self._listen)

    def _on_closed(self, _connection: Any, error: Exception) -> None:
        self._closed.set()
        self.ended(error)

    def ended(self, error: Exception) -> None:
        """The broker, or the network, has closed the channel or the connection."""
        self.fail(explain(error))

    def fail(self, reason: str) -> None:
        """The link is lost, if it was not before."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        if self._pulse is not None:
            self._pulse.cancel()
            self._pulse = None

    async def close(self) -> None:
        """Say goodbye if anybody listens; afterwards the socket is gone."""
        self.fail(f"{self.name} was closed")
        connection = self.connection
        if connection is None or self._closed.is_set():
            return
        try:
            if not connection.is_closing and not connection.is_closed:
                connection.close()
            async with asyncio.timeout(CLOSE_S):
                await self._closed.wait()
        except (TimeoutError, exceptions.AMQPError):
            pass
        finally:
            if not self._closed.is_set():
                connection.abort(exceptions.ConnectionClosed(0, "closed"))


def _result_of(future: asyncio.Future[Any]) -> Callable[..., None]:
    def done(*answer: Any) -> None:
        if not future.done():
            future.set_result(answer[0] if answer else None)

    return done
