"""The worlds around our sinks, as `bridge.sinks.kit` moves them."""

from __future__ import annotations

import asyncio
import base64
import threading
from pathlib import Path
from typing import Any

import msgspec

from bridge.message import Properties
from bridge.sinks.base import Outgoing, Sink
from bridge.sinks.curve import Curve
from bridge.sinks.kit import Owned
from bridge.sinks.memory import MemorySink
from bridge.sinks.metadata import metadata
from bridge.sinks.options import ZeromqOptions
from bridge.sinks.receiver import Batch, Received, Receiver
from bridge.sinks.zeromq import ZeromqSink
from tests.sinks.keyring import Keyring

REFUSED = "refused"


class MemoryRig:
    address = "a"
    refused_address = REFUSED
    confirm_timeout_s = 1.0
    kind: type[MemorySink] = MemorySink

    def __init__(self) -> None:
        self.made = self.kind("memory")
        self.made.judge = self._judge
        self.made.confirm_timeout_s = self.confirm_timeout_s

    @staticmethod
    def _judge(outgoing: Outgoing) -> str | None:
        return "not for me" if outgoing.address == REFUSED else None

    def sink(self) -> Sink:
        return self.made

    async def cut(self) -> None:
        self.made.go_away()

    async def mend(self) -> None:
        self.made.come_back()

    async def pause(self) -> None:
        self.made.pause()

    async def resume(self) -> None:
        self.made.resume()

    async def owned(self) -> list[Owned]:
        return [
            Owned(o.id, o.message.topic, o.payload, properties_of(told(o)), o.headers)
            for o in self.made.received
        ]


class FarReceiver:
    """A receiver in a thread of its own, as in a process of its own; `owned` is what it answered for."""

    def __init__(
        self,
        endpoint: str,
        *,
        bind: bool = False,
        name: str = "",
        window: int = 10_000,
        curve: Curve | None = None,
    ) -> None:
        self.owned: list[Received] = []
        self.batches = 0
        self.receiver = Receiver(endpoint, bind=bind, name=name, window=window, curve=curve)
        self.taking = threading.Event()
        self.taking.set()
        self._play_dead = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.receiver.open()  # here, so that a bound endpoint is there when this returns
        self._thread.start()

    def end(self, *, bye: bool = True) -> None:
        self._play_dead = not bye
        self._ending.set()
        self._thread.join(10)

    def _run(self) -> None:
        held: list[Batch] = []
        while not self._ending.is_set():
            batch = self.receiver.receive(0.02)
            if batch is not None:
                held.append(batch)
            while held and self.taking.is_set():
                self._take(held.pop(0))
        self.receiver.close(bye=not self._play_dead)

    def _take(self, batch: Batch) -> None:
        for index, message in enumerate(batch):
            if message.address == REFUSED:
                batch.refuse(index, "not for me")
            else:
                self.owned.append(message)
        self.batches += 1
        batch.acknowledge()


def told(outgoing: Outgoing) -> dict[str, Any]:
    """The metadata as a receiver reads it."""
    meta: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(metadata(outgoing)))
    return meta


def properties_of(meta: dict[str, Any]) -> Properties:
    correlation_data = meta.get("correlation_data")
    return Properties(
        payload_format_indicator=meta.get("payload_format_indicator"),
        message_expiry_interval_s=meta.get("message_expiry_interval_s"),
        content_type=meta.get("content_type"),
        response_topic=meta.get("response_topic"),
        correlation_data=None if correlation_data is None else base64.b64decode(correlation_data),
        user_properties=tuple((name, value) for name, value in meta.get("user_properties", ())),
    )


class ZeromqRig:
    address = "a"
    refused_address = REFUSED
    confirm_timeout_s = 1.5

    def __init__(self, endpoint: str, *, bind: bool, keyring: Keyring | None = None) -> None:
        self.endpoint = endpoint
        self.bind = bind
        self._keyring = keyring
        self._far: list[FarReceiver] = []
        self._sinks: list[Sink] = []
        self._arrive()

    def _arrive(self) -> None:
        curve = self._keyring.receiver(bind=not self.bind) if self._keyring else None
        self._far.append(FarReceiver(self.endpoint, bind=not self.bind, curve=curve))

    def sink(self) -> Sink:
        where: dict[str, Any] = {"bind": self.endpoint} if self.bind else {"connect": self.endpoint}
        if self._keyring:
            where["curve"] = self._keyring.options(bind=self.bind)
        options = ZeromqOptions.model_validate({**where, "confirm_timeout": f"{self.confirm_timeout_s}s"})
        return ZeromqSink("lab", options, "plant-7")

    async def cut(self) -> None:
        await asyncio.to_thread(self._far[-1].end, bye=False)

    async def mend(self) -> None:
        if self._far[-1]._ending.is_set():
            await asyncio.to_thread(self._arrive)

    async def pause(self) -> None:
        self._far[-1].taking.clear()

    async def resume(self) -> None:
        self._far[-1].taking.set()

    async def owned(self) -> list[Owned]:
        return [
            Owned(
                message.id,
                message.topic,
                message.payload,
                properties_of(message.meta),
                tuple(message.meta.get("headers", {}).items()),
            )
            for far in self._far
            for message in far.owned
        ]

    async def end(self) -> None:
        for far in self._far:
            await asyncio.to_thread(far.end)


def ipc(folder: Path, name: str = "s") -> str:
    # The path of a socket has room for about a hundred bytes.
    return f"ipc://{folder / name}"
