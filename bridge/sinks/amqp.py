"""Persistent messages to RabbitMQ, each one kept until the broker has confirmed it.

What the broker says, and what we make of it:

    return   for good: the message has no destination. It goes to the dead letters
             and its neighbours travel on.
    nack     not the message's fault (a queue is full, a node is in trouble), so it
             is no refusal: it would put good messages among the dead. Everything
             waits for the back-off and comes again, and the outage is seen.
    closed   with 406 or a frame error: perhaps one message is to blame. The next link
             goes one message at a time until it is found; that one is refused.
             With 404 or 403 somebody has to set something up: wait.

A link is one connection; the sink outlives them, and knows whose turn it is and what
the last ones have taught: `amqp_link`, `amqp_memory`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bridge.errors import SinkUnavailable
from bridge.sinks.amqp_connection import Hosts
from bridge.sinks.amqp_link import Link
from bridge.sinks.amqp_memory import Memory
from bridge.sinks.amqp_options import Address, AmqpOptions
from bridge.sinks.base import Outgoing, Refusal
from bridge.sinks.options import describe

__all__ = ["AmqpSink"]


class AmqpSink:
    """One exchange of one broker."""

    def __init__(self, name: str, options: AmqpOptions, gateway: str) -> None:
        self.name = name
        self.gateway = gateway
        self._options = options
        self._memory = Memory()
        self._hosts = Hosts(options)
        self._link: Link | None = None
        self._stalled = False

    @property
    def waiting(self) -> str:
        """Why nothing goes out although nothing is broken; for the status."""
        return "" if self._link is None else self._link.blocked

    @property
    def blocked(self) -> bool:
        """Whether the broker has asked publishers to wait (connection.blocked)."""
        return bool(self.waiting)

    @property
    def stalled(self) -> bool:
        """Whether the present or last link was given up because nothing was confirmed."""
        return self._stalled if self._link is None else self._link.stalled

    async def open(self) -> None:
        """See Sink. Raises ConfigError for a certificate that cannot be read."""
        await self.close()
        try:
            await self._hosts.open(self._connect)
        except SinkUnavailable as error:
            raise SinkUnavailable(f"{describe(self._options)}: {error}") from None

    async def _connect(self, address: Address) -> None:
        link = self._link = Link(self.name, self._options, self.gateway, self._memory, address)
        opened = False
        try:
            async with asyncio.timeout(self._options.open_timeout):
                await link.open()
            opened = True
        except TimeoutError:
            raise SinkUnavailable(f"no answer within {self._options.open_timeout:g} s") from None
        finally:
            if not opened:
                await self.close()

    async def send_batch(self, batch: Sequence[Outgoing]) -> list[Refusal]:
        """See Sink."""
        if self._link is None:
            raise SinkUnavailable(f"{self.name} is not open")
        return await self._link.send_batch(batch)

    async def lost(self) -> str:
        """See Sink."""
        if self._link is None:
            return f"{self.name} is not open"
        return await asyncio.shield(self._link.lost)

    async def close(self) -> None:
        """See Sink."""
        link, self._link = self._link, None
        if link is not None:
            self._stalled = link.stalled
            await link.close()
