"""A kit that cannot fail proves nothing: each of these sinks breaks one promise, and is caught."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from bridge.errors import SinkUnavailable
from bridge.message import Message
from bridge.sinks import kit
from bridge.sinks.base import Outgoing, Refusal
from bridge.sinks.kit import CHECKS, PromiseBroken
from bridge.sinks.memory import MemorySink
from tests.sinks.rigs import MemoryRig


class LosesTheLast(MemorySink):
    async def send_batch(self, batch: Sequence[Outgoing]) -> list[Refusal]:
        return await super().send_batch(batch[:-1])


class OvertakesItself(MemorySink):
    async def send_batch(self, batch: Sequence[Outgoing]) -> list[Refusal]:
        if batch and batch[0].id.startswith("kit/b3/"):
            await asyncio.sleep(0.01)
        return await super().send_batch(batch)


class ReadsPayloadsAsText(MemorySink):
    async def send_batch(self, batch: Sequence[Outgoing]) -> list[Refusal]:
        return await super().send_batch([_with(o, payload=_as_text(o.message.payload)) for o in batch])


class ForgetsProperties(MemorySink):
    async def send_batch(self, batch: Sequence[Outgoing]) -> list[Refusal]:
        return await super().send_batch([_with(o, properties=None) for o in batch])


class SendsThePayloadAllTheSame(MemorySink):
    async def send_batch(self, batch: Sequence[Outgoing]) -> list[Refusal]:
        return await super().send_batch([msgspec.structs.replace(o, body=None) for o in batch])


class ForgetsHeaders(MemorySink):
    async def send_batch(self, batch: Sequence[Outgoing]) -> list[Refusal]:
        return await super().send_batch([msgspec.structs.replace(o, headers=o.headers[:2]) for o in batch])


class SwallowsTheBreak(MemorySink):
    async def send_batch(self, batch: Sequence[Outgoing]) -> list[Refusal]:
        try:
            return await super().send_batch(batch)
        except SinkUnavailable:
            return []


class NeverNoticesTheBreak(MemorySink):
    async def lost(self) -> str:
        await asyncio.Event().wait()
        return ""


class OpensOnce(MemorySink):
    opened = False

    async def open(self) -> None:
        if self.opened:
            await asyncio.Event().wait()
        self.opened = True
        await super().open()


class RefusesTheWholeBatch(MemorySink):
    async def send_batch(self, batch: Sequence[Outgoing]) -> list[Refusal]:
        if any(self.judge(o) for o in batch):
            return [Refusal(index, "bad company") for index in range(len(batch))]
        return await super().send_batch(batch)


class TakesAcceptedForConfirmed(MemorySink):
    async def send_batch(self, batch: Sequence[Outgoing]) -> list[Refusal]:
        if not self._taking.is_set():
            self.received += batch
            return []
        return await super().send_batch(batch)


class Hoards(MemorySink):
    async def send_batch(self, batch: Sequence[Outgoing]) -> list[Refusal]:
        return await super().send_batch(
            [_with(o, payload=bytes(bytearray(o.message.payload))) for o in batch]
        )


class LeavesTheCallerWaiting(MemorySink):
    async def close(self) -> None:
        self._is_open = False


class NumbersAfresh(MemorySink):
    sent = 0

    async def send_batch(self, batch: Sequence[Outgoing]) -> list[Refusal]:
        self.sent += 1
        return await super().send_batch([msgspec.structs.replace(o, id=f"{o.id}/{self.sent}") for o in batch])


class FailsToCloseTwice(MemorySink):
    async def close(self) -> None:
        if not self._is_open:
            raise RuntimeError("not open")
        await super().close()


def _with(outgoing: Outgoing, **changes: object) -> Outgoing:
    message: Message = msgspec.structs.replace(outgoing.message, **changes)
    return msgspec.structs.replace(outgoing, message=message)


def _as_text(payload: bytes) -> bytes:
    return payload.decode(errors="replace").encode()


BROKEN = [
    (1, LosesTheLast),
    (1, OvertakesItself),
    (2, ReadsPayloadsAsText),
    (2, ForgetsProperties),
    (2, SendsThePayloadAllTheSame),
    (2, ForgetsHeaders),
    (3, SwallowsTheBreak),
    (3, NeverNoticesTheBreak),
    (4, OpensOnce),
    (5, RefusesTheWholeBatch),
    (6, TakesAcceptedForConfirmed),
    (7, Hoards),
    (7, TakesAcceptedForConfirmed),
    (8, OpensOnce),
    (9, NumbersAfresh),
    (10, FailsToCloseTwice),
    (10, LeavesTheCallerWaiting),
]


@pytest.mark.parametrize(("number", "kind"), BROKEN, ids=lambda value: getattr(value, "__name__", str(value)))
async def test_a_broken_promise_is_seen(
    number: int, kind: type[MemorySink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit, "PATIENCE_S", 1.5)
    monkeypatch.setattr(kit, "MOMENT_S", 0.1)
    rig = type("Rig", (MemoryRig,), {"kind": kind, "confirm_timeout_s": 5.0 if number == 10 else 0.5})()
    with pytest.raises((PromiseBroken, RuntimeError)):
        await CHECKS[number](rig)


async def test_a_hoard_does_not_hide_in_memory_that_others_have_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind five thousand other tests the process had room enough, and grew by nothing."""
    litter = [bytes(64 << 10) for _ in range(4_000)]
    keep = litter[::400]
    del litter
    await test_a_broken_promise_is_seen(7, Hoards, monkeypatch)
    assert len(keep) == 10
