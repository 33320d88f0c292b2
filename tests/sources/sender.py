"""A program in the cloud that sends commands over ZeroMQ, as the sink of a gateway does it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

from bridge.errors import SinkUnavailable
from bridge.message import Message, Properties
from bridge.sinks.base import Outgoing
from bridge.sinks.options import ZeromqOptions
from bridge.sinks.zeromq import ZeromqSink
from bridge.sources.kit import Sent

__all__ = ["Sender"]


class Sender:
    """Keeps what it was given until it is answered for, one message a batch; `refused` are bodies."""

    def __init__(self, **options: Any) -> None:
        self._options = ZeromqOptions.model_validate(options)
        self._line: deque[tuple[int, Outgoing]] = deque()
        self._number = 0
        self.refused: list[bytes] = []
        self.left: dict[int, Outgoing] = {}
        self._news = asyncio.Event()
        self._sink: ZeromqSink | None = None
        self._task: asyncio.Task[None] | None = None

    def send(self, *messages: Sent) -> None:
        for one in messages:
            self._number += 1
            headers = dict(one.headers)
            about = Properties(
                content_type=one.content_type,
                correlation_data=one.correlation_id,
                user_properties=tuple(tuple(pair) for pair in headers.pop("user_properties", ())),
            )
            message = Message(f"kit/{self._number}", one.body, 1, False, "kit", 2 * 10**18, about)
            name = one.message_id or f"kit/{self._number}"
            self.left[self._number] = Outgoing(name, one.routing_key, message, headers=tuple(headers.items()))
            self._line.append((self._number, self.left[self._number]))
        self._news.set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self, *, bye: bool = True) -> None:
        """Leave, with a word or as one that died."""
        sink, task, self._sink, self._task = self._sink, self._task, None, None
        if not bye and sink is not None and sink._socket is not None:
            sink._socket.close()
            sink._socket = None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if sink is not None:
            await sink.close()

    async def _run(self) -> None:
        self._sink = sink = ZeromqSink("cloud", self._options, "cloud")
        while True:
            with contextlib.suppress(SinkUnavailable):
                await sink.open()
                await self._pour(sink)
            await sink.close()
            await asyncio.sleep(0.02)

    async def _pour(self, sink: ZeromqSink) -> None:
        self._line = deque(self.left.items())
        lost = asyncio.ensure_future(sink.lost())
        sending: list[asyncio.Future[None]] = []
        try:
            while not lost.done():
                while self._line:
                    sending.append(asyncio.ensure_future(self._one(sink, *self._line.popleft())))
                self._news.clear()
                news = asyncio.ensure_future(self._news.wait())
                await asyncio.wait((news, lost), return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
        finally:
            for task in (lost, *sending):
                task.cancel()
            await asyncio.gather(lost, *sending, return_exceptions=True)

    async def _one(self, sink: ZeromqSink, number: int, outgoing: Outgoing) -> None:
        if await sink.send_batch([outgoing]):
            self.refused.append(outgoing.message.payload)
        self.left.pop(number, None)
