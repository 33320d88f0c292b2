"""One queue of a RabbitMQ, taken from with manual acknowledgement.

    basic.deliver ─▶ _inbox ─▶ receive() ─▶ … ─▶ settle() ─┬ basic.ack
                                                           └ basic.reject, requeue off: dead letters

A settlement with a reply is published first, and acknowledged when the broker has
confirmed the reply: who asks by RPC loses no answer to a link that breaks in between.
A reply that no queue wants, or that its queue refuses, is gone: whoever asked has left.

A delivery tag counts from 1 on every link, so the link's number stands above it. What is
settled under the number of an earlier link is passed over: there it was handed out again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from struct import Struct
from typing import Any, Final

import pika
from pika.spec import Basic

from bridge.errors import SinkUnavailable
from bridge.policy.incoming import NO_HEADERS, Incoming
from bridge.sinks.amqp_channel import UNREADABLE, Channel, Forgiving
from bridge.sinks.amqp_connection import Hosts, declarations
from bridge.sinks.amqp_options import Address, AmqpOptions
from bridge.sources.base import Reply, Settlement
from bridge.sources.options import AmqpSourceOptions, describe_source

__all__ = ["AmqpSource"]

_TAG_BITS: Final = 48
_TAG_MASK: Final = (1 << _TAG_BITS) - 1
# 7.1 of AMQP 0-9-1: frame type, channel, size, class, method, delivery tag, one bit, end of frame
_SETTLE: Final = Struct(">BHIHHQBB")
_ACK, _REJECT = 80, 90
_PERSISTENT: Final = 2


class AmqpSource:
    """One queue. `prefetch` is how many messages may be out and not settled."""

    stalled = lossy = False
    dropped = 0

    def __init__(
        self, name: str, options: AmqpSourceOptions, broker: AmqpOptions, prefetch: int, gateway: str
    ) -> None:
        self.name = name
        self.waiting = ""
        self._options = options
        self._broker = broker
        self._prefetch = prefetch
        self._gateway = gateway
        self._where = describe_source(options, broker)
        self._hosts = Hosts(broker)
        self._number = 0
        self._link: _Consumer | None = None

    async def open(self) -> None:
        """See Source. Raises ConfigError for a certificate that cannot be read."""
        await self.close()
        try:
            await self._hosts.open(self._connect)
        except SinkUnavailable as error:
            raise SinkUnavailable(f"{self._where}: {error}") from None

    async def _connect(self, address: Address) -> None:
        self._number += 1
        link = self._link = _Consumer(self.name, self._options, self._broker, self._gateway, address)
        opened = False
        try:
            async with asyncio.timeout(self._broker.open_timeout):
                await link.take(self._prefetch, self._number << _TAG_BITS)
            opened = True
        except TimeoutError:
            raise SinkUnavailable(f"no answer within {self._broker.open_timeout:g} s") from None
        finally:
            if not opened:
                await self.close()

    async def receive(self) -> list[Incoming]:
        """See Source."""
        if self._link is None:
            raise SinkUnavailable(f"{self.name} is not open")
        return await self._link.receive()

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """See Source."""
        if self._link is not None:
            self._link.settle(settlements)

    async def lost(self) -> str:
        """See Source."""
        if self._link is None:
            return f"{self.name} is not open"
        return await asyncio.shield(self._link.lost)

    async def close(self) -> None:
        """See Source."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()


class _Consumer(Channel):
    """One connection that takes from the queue."""

    kind = Forgiving

    def __init__(
        self, name: str, options: AmqpSourceOptions, broker: AmqpOptions, gateway: str, address: Address
    ) -> None:
        super().__init__(name, broker, gateway, address)
        self._from = options
        self._base = 0
        self._inbox: list[Incoming] = []
        self._news = asyncio.Event()
        self._replies = 0
        self._oldest_reply = 1
        self._after_reply: dict[int, bytes] = {}  # number of a reply → what to say when it is confirmed

    async def take(self, prefetch: int, base: int) -> None:
        """Connect, declare, and begin to consume; `base` stands above the delivery tags of this link."""
        self._base = base
        await self.open()
        channel = self.channel
        await self.ask(channel.confirm_delivery, ack_nack_callback=self._on_confirm)
        for method, arguments in declarations(channel, self._from.declare):
            await self.ask(method, **arguments)
        await self.ask(channel.basic_qos, prefetch_count=prefetch)
        channel.add_on_cancel_callback(self._on_cancelled)
        await self.ask(channel.basic_consume, queue=self._from.queue, on_message_callback=self._on_message)
        self.listen()

    def _on_cancelled(self, _frame: Any) -> None:
        self.fail(f"the broker takes the queue {self._from.queue!r} away: deleted, or its node has gone")

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        correlation_id = properties.correlation_id
        self._inbox.append(
            Incoming(
                self._base | method.delivery_tag,
                body,
                _spelled(method.routing_key),
                properties.headers or NO_HEADERS,
                _spelled(properties.message_id),
                method.redelivered,
                _spelled(properties.content_type) or None,
                correlation_id.encode() if isinstance(correlation_id, str) else correlation_id,
                _spelled(properties.reply_to),
                _seconds(properties.expiration),
                "its properties cannot be read" if properties.headers is UNREADABLE else "",
            )
        )
        self._news.set()

    async def receive(self) -> list[Incoming]:
        """See Source."""
        if not self._inbox:
            news = asyncio.ensure_future(self._news.wait())
            try:
                await asyncio.wait((news, self.lost), return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
        # Not what came before the link broke: it is handed out again, and would be done twice.
        if self.lost.done():
            raise SinkUnavailable(self.lost.result())
        inbox, self._inbox = self._inbox, []
        self._news.clear()
        return inbox

    # ---- settling ------------------------------------------------------------------

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """See Source: one write for all of them."""
        if self.lost.done() or self.connection is None:
            return
        parts = []
        for settlement in settlements:
            if settlement.tag & ~_TAG_MASK != self._base:
                continue
            spelled = self._spell(settlement)
            if settlement.reply is None or not settlement.reply.reply_to:
                parts.append(spelled)
            else:
                self._publish(settlement.reply, spelled)
        if parts:
            self.connection.write_all(parts)

    def _spell(self, settlement: Settlement) -> bytes:
        method = _REJECT if settlement.reason else _ACK
        tag = settlement.tag & _TAG_MASK
        return _SETTLE.pack(1, self.channel.channel_number, 13, 60, method, tag, 0, 0xCE)

    def _publish(self, reply: Reply, then: bytes) -> None:
        self._replies += 1
        self._after_reply[self._replies] = then
        correlation_id = None
        if reply.correlation_id is not None:
            correlation_id = reply.correlation_id.decode(errors="surrogateescape")
        properties = pika.BasicProperties(
            content_type=reply.content_type,
            headers=dict(reply.headers),
            delivery_mode=_PERSISTENT,
            correlation_id=correlation_id,
        )
        self.channel.basic_publish("", reply.reply_to, reply.body, properties)

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        assert isinstance(method, Basic.Ack | Basic.Nack)
        tag: int = method.delivery_tag
        numbers = range(self._oldest_reply if method.multiple else tag, tag + 1)
        done = [said for number in numbers if (said := self._after_reply.pop(number, None)) is not None]
        while self._oldest_reply <= self._replies and self._oldest_reply not in self._after_reply:
            self._oldest_reply += 1
        if done and self.connection is not None and not self.lost.done():
            self.connection.write_all(done)


def _spelled(text: str | bytes | None) -> str:
    """Text as the broker gave it. What is no UTF-8 stays as it is, and is found unfit as a topic."""
    if text is None:
        return ""
    return text if isinstance(text, str) else text.decode(errors="surrogateescape")


def _seconds(expiration: str | None) -> float | None:
    """The property counts milliseconds, as text."""
    try:
        return None if expiration is None else int(expiration) / 1000
    except ValueError:
        return None
